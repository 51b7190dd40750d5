"""docs/pictures.md and the README's lines about pictures do what they say, on a folder as people have it."""

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
from PIL import Image

from ddim.cli import main
from ddim.nets import PRESETS
from ddim.nets.unet import Preset

ROOT = Path(__file__).parent.parent
GOLDEN = ROOT / "tests/data/golden/ermongroup/ckpt"
PAGE = (ROOT / "docs/pictures.md").read_text()
README = (ROOT / "README.md").read_text()
FEW = ("--max-steps", "2", "--batch-size", "4", "--preview-every", "1")
SHORT = {
    "train": FEW,
    "train-autoencoder": ("--max-steps", "20", *FEW[2:], "--width", "8", "--warmup", "0"),
    "evaluate": ("--eta", "0"),
}
TRAINS = (["train", "photos/"], ["train-autoencoder", "photos/"], ["train", "--resume"], ["info", "run"])


def lines(text):
    found = [line for block in re.findall(r"```\w*\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
    return [shlex.split(line, comments=True)[1:] for line in found if line.startswith("ddim ")]


def enough(home):
    """An evaluation needs twenty different pictures."""
    for i in range(16):
        picture = Image.effect_mandelbrot((70, 80), (-2, -1.5, 1, 1.5 - i / 20), 20)
        picture.convert("RGB").save(home / f"photos/m{i}.jpg")


@pytest.fixture
def at_home(photos, tmp_path, monkeypatch):
    """A folder with photos/ in it, and networks that take seconds where people's take hours."""
    monkeypatch.setenv("DDIM_CACHE", str(tmp_path / "cache"))
    for preset in ("64", "cifar10-small"):
        monkeypatch.setitem(PRESETS, preset, Preset((8, 16), 1, (), 8, "for tests", head_dim=None))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(words, capsys):
    """The exit code and what was said; with fewer steps and images, and otherwise as written."""
    short = dict(zip(SHORT.get(words[0], ())[::2], SHORT.get(words[0], ())[1::2], strict=True))
    if "--resume" in words:
        short = {"--max-steps": "3"}
    words = ["2" if w in ("20", "50", "5,10,20", "5,10,20,50") else w for w in words]
    for flag, value in short.items():
        words = [w for i, w in enumerate(words) if flag not in (w, words[i - 1])] + [flag, value]
    with pytest.raises(SystemExit) as stop:
        main(words)
    return stop.value.code, capsys.readouterr()


def test_the_page_is_walked_from_the_first_command_to_the_last(at_home, capsys):
    first, *rest = lines(PAGE)
    assert len(rest) >= 10
    code, said = run(first, capsys)
    proposed = said.err.splitlines()[-1]
    assert code == 2 and all(word in proposed for word in ("--labels ignore", "--skip-unreadable", "--size 64"))
    for words in rest:
        if words[0] == "evaluate":
            enough(at_home)
        code, said = run(words, capsys)
        assert code == 0, (words, said.err)
    assert json.loads((at_home / "next/ddim.json").read_text())["provenance"]["init"]["provenance"]["steps"] == 3
    assert {p.name for p in at_home.iterdir()} >= {"run", "next", "images", "more", "walk", "edited", "back"}


def test_the_readmes_lines_about_pictures_and_checkpoints_run(at_home, capsys):
    """On pictures of several sizes in one folder, as the line says; the broken one is taken out first."""
    (at_home / "photos/broken.jpg").unlink()
    shutil.rmtree(at_home / "photos/holiday")
    shutil.copy(GOLDEN / "ckpt.pth", at_home / "ema.pt")
    shutil.copy(GOLDEN / "config.yml", at_home / "settings.yaml")
    enough(at_home)
    written = lines(README)
    for words in (w for w in written if w[:2] in TRAINS):
        code, said = run(words, capsys)
        assert code == 0, (words, said.err)
    (evaluated,) = (w for w in written if w[:3] == ["evaluate", "run", "photos/"])
    code, said = run(evaluated, capsys)
    assert code == 0, said.err
    (imported,) = (w for w in written if w[0] == "import")
    code, said = run(imported, capsys)
    assert code == 0, said.err
