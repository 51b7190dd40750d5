"""ddim import, export and info from the command line: files in, folders out, exit codes that tell the truth."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import ddim
from ddim.checkpoints import load_folder
from ddim.cli import main
from ddim.cli.commands.import_ import merged
from ddim.files import read_json
from ddim.refused import Refused

GOLDEN = Path(__file__).parents[1] / "data/golden"
ADM = str(GOLDEN / "guided-diffusion/adm-legacy-attention/ema_0.9999_000100.pt")
ERMON = GOLDEN / "ermongroup/ckpt"


def run(*args: object) -> int:
    with pytest.raises(SystemExit) as stop:
        main([str(a) for a in args])
    return int(stop.value.code or 0)


def test_import_with_single_settings_then_export_then_info(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = ("--set", "image_size=16", "num_head_channels=16")
    assert run("import", ADM, tmp_path / "a", *settings) == 0
    out = capsys.readouterr().out
    assert "openai" in out and "3 x 16 x 16" in out and "assumed linear" in out and "written to" in out
    assert load_folder(tmp_path / "a").learned_variance
    assert run("export", tmp_path / "a", tmp_path / "b", "--dtype", "fp16") == 0
    assert "variance was left out" in capsys.readouterr().out
    b = load_folder(tmp_path / "b")
    assert not b.learned_variance and b.network.unet.conv_out.weight.shape[0] == 3
    assert run("info", tmp_path / "b") == 0
    out = capsys.readouterr().out
    assert "from openai" in out and "10, no null label" in out and b.sha256[:16] in out


def test_import_with_the_peers_own_yaml(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("import", ERMON / "ckpt.pth", tmp_path / "e", "--config", ERMON / "config.yml") == 0
    assert "EMA weights" in capsys.readouterr().out
    assert load_folder(tmp_path / "e").shape == (3, 16, 16)


def test_a_small_number_from_the_command_line(tmp_path: Path) -> None:
    """YAML 1.1 reads 1e-4 as text."""
    assert run("import", GOLDEN / "diffusers/mnist-like/pipeline", tmp_path / "e", "--set", "beta_start=1e-5") == 0
    assert load_folder(tmp_path / "e").schedule == ddim.Schedule.linear(1000, beta_start=1e-5, beta_end=0.02)


def test_import_checks_itself_against_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.set_num_threads(1)
    (tmp_path / "data").mkdir()
    for i in range(5):
        pixels = np.full((16, 16, 3), 40 * i, dtype=np.uint8)
        pixels[4:9, 2 + i : 9 + i] = (200, 30 * i, 90)
        Image.fromarray(pixels).save(tmp_path / f"data/{i}.png")
    given = ("--config", ERMON / "config.yml", "--data", tmp_path / "data")
    assert run("import", ERMON / "ckpt.pth", tmp_path / "e", *given) == 0
    out = capsys.readouterr().out
    assert "denoising error of 5 real images" in out and "time offset" in out and "best" in out
    assert "written to" in out  # the import is done either way; a warning is a warning


@pytest.mark.parametrize(
    ("args", "word"),
    [
        (("import", ADM, "{}/x"), "image size"),
        (("import", ADM, str(GOLDEN)), "exists and is not empty"),
        (("import", ADM, "{}/x", "--set", "image_size"), "NAME=VALUE"),
        (("import", ADM, "{}/x", "--set", "image_size=[16"), "--set image_size=[16"),
        (("import", str(ERMON / "ckpt.pth"), "{}/x", "--set", "data.rescale=false"), "data.rescaled"),
        (("import", str(ERMON / "ckpt.pth"), "{}/x", "--set", "data=5"), "data is a section"),
        (("import", ADM, "{}/x", "--family", "theirs"), "theirs"),
        (("import", "{}/nothing.pt", "{}/x"), "nothing.pt"),
        (("import", __file__, "{}/x"), "text file"),
        (("info", __file__), "text file"),
        (("info", str(GOLDEN / "diffusers/mnist-like/pipeline"), "--check"), "--data"),
        (("export", str(GOLDEN / "diffusers/mnist-like/pipeline"), str(GOLDEN)), "exists and is not empty"),
    ],
)
def test_mistakes_are_one_line_and_code_2(
    args: tuple[str, ...], word: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*(a.format(tmp_path) for a in args)) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1 and word in captured.err and "Traceback" not in captured.err
    assert list(tmp_path.iterdir()) == []  # nothing half-written


def test_settings_on_the_command_line() -> None:
    settings = {"diffusion": {"timesteps": 10}}
    assert merged(settings, ("diffusion.image_size=64", "ema=false", "x=[0, 1]", "name=cosine")) == {
        "diffusion": {"timesteps": 10, "image_size": 64}, "ema": False, "x": [0, 1], "name": "cosine",
    }  # fmt: skip
    assert settings == {"diffusion": {"timesteps": 10}}
    with pytest.raises(Refused, match="not a section"):
        merged({"a": 1}, ("a.b=2",))


def test_a_learned_variance_is_told_used_and_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = ("--set", "image_size=16", "num_head_channels=16")
    assert run("import", ADM, tmp_path / "a", *settings) == 0
    assert run("info", tmp_path / "a") == 0
    assert "learned_range, predicted: ddim sample and evaluate take it with --sigma-learned" in capsys.readouterr().out
    made = ("--sigma-learned", "--label", 3, "--steps", 2, "--n", 1)
    assert run("sample", tmp_path / "a", *made, "--eta", 1, "--out", tmp_path / "s") == 0
    assert read_json(tmp_path / "s/recipe.json")["variance"] == "learned_range"
    assert run("export", tmp_path / "a", tmp_path / "b", "--variance") == 0
    assert "DDPMPipeline" in capsys.readouterr().out and load_folder(tmp_path / "b").variance == "learned_range"
    assert run("export", tmp_path / "a", tmp_path / "c") == 0
    for model, args, word in (
        ("c", made, "predicts a variance"),
        ("a", (*made, "--eta", 0.5), "--sigma-learned is DDPM's noise (eta 1)"),
        ("a", (*made, "--sigma-hat"), "give one of them"),
    ):
        capsys.readouterr()
        assert run("sample", tmp_path / model, *args, "--out", tmp_path / "x") == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1 and word in said and not (tmp_path / "x").exists()
