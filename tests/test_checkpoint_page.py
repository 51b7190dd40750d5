"""docs/checkpoints.md does what it says, command by command, on small networks in the peers' layouts."""

import re
import shlex
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from ddim.checkpoints import load_folder
from ddim.cli import main

ROOT = Path(__file__).parent.parent
GOLDEN = ROOT / "tests/data/golden"
PAGE = (ROOT / "docs/checkpoints.md").read_text()
LESS = {"5,10,20": "2,3", "20": "2", "50": "2"}
MORE = {"evaluate": ["--eta", "0", "--no-sigma-hat", "--count", "10"]}


def commands():
    blocks = re.findall(r"```\n(.*?)```", PAGE, re.DOTALL)
    words = [shlex.split(line, comments=True) for block in blocks for line in block.splitlines()]
    return [line[1:] for line in words if line[:1] == ["ddim"]]


@pytest.fixture
def at_home(tmp_path, monkeypatch):
    """The files and the pictures that the page names."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent / "checkpoints"))
    from peer_layouts import filled, openai

    (tmp_path / "photos").mkdir()
    for i in range(24):
        picture = Image.effect_mandelbrot((50 + i, 60), (-2, -1.5, 1, 1.5 - i / 20), 20)
        picture.convert("RGB").save(tmp_path / f"photos/p{i}.jpg")
    (tmp_path / "configs").mkdir()
    shutil.copy(GOLDEN / "ermongroup/ckpt/ckpt.pth", tmp_path)
    for place in (tmp_path, tmp_path / "configs"):
        shutil.copy(GOLDEN / "ermongroup/ckpt/config.yml", place / "celeba.yml")
    shutil.copy(GOLDEN / "lucidrains/pred-v-sigmoid/model-1.pt", tmp_path / "model-10.pt")
    shutil.copytree(GOLDEN / "diffusers/mnist-like/pipeline", tmp_path / "google/ddpm-cifar10-32")
    adm = openai(
        model_channels=64, channel_mult=(1, 2, 3, 4), num_res_blocks=1, attention=(1, 2, 3), conv_resample=True,
        resblock_updown=True, use_scale_shift_norm=True, learn_sigma=True, num_classes=None,
    )  # fmt: skip
    torch.save(filled(adm), tmp_path / "ema_0.9999_500000.pt")
    monkeypatch.setenv("DDIM_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_page_is_walked_from_the_first_command_to_the_last(at_home, capsys):
    written = commands()
    assert len(written) > 10
    for words in written:
        with pytest.raises(SystemExit) as stop:
            main([LESS.get(word, word) for word in words] + MORE.get(words[0], []))
        said = capsys.readouterr()
        assert stop.value.code == 0, (words, said.err)
    shapes = {name: tuple(load_folder(at_home / name).shape) for name in ("adm", "celeba", "flowers", "cifar10")}
    assert shapes == {"adm": (3, 64, 64), "celeba": (3, 16, 16), "flowers": (3, 128, 128), "cifar10": (1, 28, 28)}
    assert (at_home / "report/report.html").exists() and (at_home / "plain/model_index.json").exists()
    assert {"images", "z.safetensors"} <= {path.name for path in at_home.iterdir()}
