"""A family is one entry of `READERS`: with it its models open, without it they do not, and two may not claim one."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import ddim
from ddim.checkpoints import Checkpoint, load_folder, open_checkpoint
from ddim.checkpoints.families import READERS, FileFamily, FolderFamily, Parts
from ddim.refused import Refused

GOLDEN = Path(__file__).parents[1] / "data/golden"
SIGMA = 0.3


class Unit(nn.Module):
    """The best eps for images that are N(0, SIGMA^2), times from 0: noise x / (signal^2 SIGMA^2 + noise^2)."""

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        a = ddim.Schedule.linear(1000).alpha_bar.float()[t + 1].view(-1, 1, 1, 1)
        return (1 - a).sqrt() * x / (a * SIGMA**2 + 1 - a)


def marked(content: Any) -> bool:
    return isinstance(content, Mapping) and "toy" in content


def parts(content: Any, settings: Mapping[str, Any], where: str) -> Parts:
    side = int(content["toy"])
    config = {"in_channels": 1, "out_channels": 1, "sample_size": side}
    notes = [f"read from {Path(where).name} with {dict(settings)}"]
    return Parts(config, {}, ddim.Schedule.linear(1000), "eps", notes, clips=False, module=Unit())


TOY = FileFamily("toy", marked, parts)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    torch.save({"toy": torch.tensor(3)}, tmp_path / "model.pt")
    return tmp_path / "model.pt"


def test_a_file_family_is_one_entry(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Refused, match=r"no layout of ermongroup, openai, lucidrains, edm, scoresde \(it holds toy"):
        open_checkpoint(file)
    monkeypatch.setitem(READERS, "toy", TOY)
    k = open_checkpoint(file, config={"a": 1})
    assert (k.family, k.shape, k.notes) == ("toy", (1, 3, 3), ("read from model.pt with {'a': 1}",))
    assert open_checkpoint(file, family="toy").shape == (1, 3, 3)
    model = ddim.load(file)
    x_T = ddim.noise([0, 1], (1, 3, 3))
    # of Gaussian data every step is a scaling, and 1000 of them end near the law's own standard deviation
    torch.testing.assert_close(model.sample(latents=x_T, steps=1000), SIGMA * x_T, rtol=0.02, atol=0)


def test_a_folder_family_is_one_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(folder: Path, settings: Mapping[str, Any]) -> Checkpoint:
        return dataclasses.replace(load_folder(GOLDEN / "diffusers/mnist-like/pipeline"), source=str(folder))

    (tmp_path / "toy.txt").write_text("here")
    with pytest.raises(Refused, match="not a model folder"):
        open_checkpoint(tmp_path)
    monkeypatch.setitem(READERS, "toys", FolderFamily("toys", lambda folder: (folder / "toy.txt").exists(), load))
    assert open_checkpoint(tmp_path).source == str(tmp_path)
    with pytest.raises(Refused, match="is a file; a toys model is a folder"):
        open_checkpoint(tmp_path / "toy.txt", family="toys")


def test_two_families_may_not_claim_one(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(READERS, "toy", TOY)
    monkeypatch.setitem(READERS, "other", dataclasses.replace(TOY, name="other"))
    with pytest.raises(Refused, match="may be of toy or other: say which by `family`"):
        open_checkpoint(file)
    assert open_checkpoint(file, family="other").family == "other"


def test_what_is_asked_for_must_be_there(file: Path) -> None:
    with pytest.raises(Refused, match="unknown family 'toy'; choose one of auto, onnx, diffusers"):
        open_checkpoint(file, family="toy")
    with pytest.raises(Refused, match="is a folder, not a file of openai"):
        open_checkpoint(GOLDEN / "diffusers/mnist-like/pipeline", family="openai")
    with pytest.raises(FileNotFoundError, match="no model at"):
        open_checkpoint(file.parent / "nothing")
