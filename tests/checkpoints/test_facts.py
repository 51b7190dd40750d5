"""Folders whose JSON files hold other types, or facts that cannot be true: one line that names file and field."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import save_tiny
from ddim.checkpoints import load_folder, open_checkpoint, save_checkpoint
from ddim.checkpoints.facts import checked
from ddim.cli import main
from ddim.refused import Refused

GOLDEN = Path(__file__).parents[1] / "data/golden"
MNIST = GOLDEN / "diffusers/mnist-like/pipeline"
LUCID = GOLDEN / "lucidrains/pred-v-sigmoid/model-1.pt"


def changed(path: Path, **changes: Any) -> None:
    held = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps(held | changes))


def refused(folder: Path, *words: str, **options: Any) -> None:
    with pytest.raises(Refused) as caught:
        load_folder(folder, **options)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 600
    for word in words:
        assert word in message, message


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    return Path(shutil.copytree(MNIST, tmp_path / "plain"))


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    """3 classes and a null label: 4 embeddings."""
    return Path(save_tiny(tmp_path / "labelled"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("shape", 5), ("shape", "abc"), ("shape", [1, 28]), ("shape", [1, 28.5, 28]), ("shape", [1, -28, 28]),
        ("data_range", 2), ("data_range", [1.0, -1.0]), ("data_range", [0, 0]),
        ("data_range", [0, 10**400]), ("data_range", [-1, 0, 1]),
        ("data_range", "01"), ("num_classes", [10]), ("num_classes", "ten"), ("num_classes", 0), ("null_label", -1),
        ("null_label", True), ("labels", 5), ("labels", "ab"), ("labels", [None, "a"]), ("notes", 3),
        ("notes", "one sentence"), ("notes", [1]), ("alpha_bar", 5), ("alpha_bar", [1, 10**400]),
        ("alpha_bar", ["a"]), ("spacing", 5), ("spacing", "sideways"), ("variance_type", 5), ("prediction", ["eps"]),
        ("clips", "yes"), ("time_scale", 0),
    ],
)  # fmt: skip
def test_facts_of_another_type(name: str, value: Any, labelled: Path) -> None:
    changed(labelled / "ddim.json", **{name: value})
    refused(labelled, "ddim.json", f"{name} must be")


@pytest.mark.parametrize("settings", [{"data_range": [1, -1]}, {"null_label": "none"}, {"shape": 5}])
def test_facts_given_by_hand(settings: dict[str, Any], labelled: Path) -> None:
    refused(labelled, "settings given", next(iter(settings)), config=settings)


def test_facts_come_in_their_own_types() -> None:
    facts = {
        "shape": [1, 8, 8],
        "data_range": [0, 1],
        "labels": [0, "one"],
        "notes": ["a"],
        "null_label": None,
        "x": {},
    }
    assert checked(facts, "here") == {
        "shape": (1, 8, 8), "data_range": (0.0, 1.0), "labels": ("0", "one"), "notes": ("a",), "null_label": None,
        "x": {},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"null_label": 4}, ("null_label = 4", "0 to 3")),
        ({"null_label": 10**12}, ("null_label = 1000000000000", "0 to 3")),
        ({"num_classes": 5}, ("num_classes = 5", "4 class embeddings")),
        ({"labels": ["a", "b"]}, ("2 label names", "3 classes")),
    ],
)
def test_classes_without_an_embedding(facts: dict[str, Any], words: tuple[str, ...], labelled: Path) -> None:
    changed(labelled / "ddim.json", **facts)
    refused(labelled, "ddim.json", *words)


def test_a_null_label_for_a_network_without_classes(plain: Path) -> None:
    refused(plain, "plain", "null_label = 3", "no class embeddings", config={"null_label": 3})
    changed(plain / "ddim.json", num_classes=10)
    refused(plain, "ddim.json", "num_classes = 10", "no class embeddings")


def test_the_last_embedding_may_be_the_null_label(labelled: Path) -> None:
    changed(labelled / "ddim.json", num_classes=None)
    k = load_folder(labelled)
    assert (k.num_classes, k.null_label) == (3, 3)


@pytest.mark.parametrize("table", [[0.9, 0.5], [1.0], [1.0, 0.5, 0.7]])
def test_a_table_that_is_no_schedule_names_its_file(table: list[float], labelled: Path) -> None:
    changed(labelled / "ddim.json", alpha_bar=table)
    refused(labelled, "ddim.json", "alpha_bar")


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"block_out_channels": 5}, "block_out_channels must be a list"),
        ({"block_out_channels": ["8", "16"]}, "cannot build"),
        ({"block_out_channels": None}, "block_out_channels must be a list"),
        ({"norm_eps": None}, "norm_eps must be a number"),
        ({"downsample_padding": 0.5}, "downsample_padding must be a whole number"),
        ({"attn_norm_num_groups": -1}, "attn_norm_num_groups must be a whole number"),
        ({"layers_per_block": True}, "layers_per_block"),
        ({"_ddim": 5}, "_ddim must hold settings"),
        ({"_ddim": {"attention_heads": 0}}, "_ddim: attention_heads must be a whole number from 1"),
        ({"_ddim": {"attention_heads": "two"}}, "_ddim: attention_heads"),
        ({"_ddim": {"time_channels": -8}}, "_ddim: time_channels"),
        ({"_ddim": {"attention_head": 2}}, "nearest is attention_heads"),
        ({"sample_size": 32.5}, "sample_size"),
        ({"sample_size": [32]}, "sample_size"),
        ({"sample_size": "32"}, "sample_size"),
        ({"in_channels": "one"}, "in_channels must be a whole number from 1"),
        ({"out_channels": None}, "out_channels"),
        ({"num_class_embeds": "ten"}, "num_class_embeds"),
        ({"freq_shift": "a"}, "freq_shift must be a number"),  # diffusers would find out when it is run
        ({"time_embedding_type": "odd"}, "cannot build"),
        ({"block_out_chanels": [8, 16]}, "nearest is block_out_channels"),
    ],
)
def test_network_configs_of_another_type(changes: dict[str, Any], word: str, plain: Path) -> None:
    changed(plain / "unet/config.json", **changes)
    refused(plain, "config.json", word)


@pytest.mark.parametrize(
    "changes",
    [
        {"dim_mults": 5},
        {"dim_mults": ["a"]},
        {"full_attn": 5},
        {"heads": 0},
        {"dim": 2},
        {"mem": "x"},
        {"dim_head": None},
    ],
)
def test_configs_of_lucidrains_networks(changes: dict[str, Any], tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "m", open_checkpoint(LUCID, config={"diffusion": {"image_size": 16}}))
    assert load_folder(tmp_path / "m").shape == (3, 16, 16)
    changed(tmp_path / "m/unet/config.json", **changes)
    refused(tmp_path / "m", "config.json", next(iter(changes)))


@pytest.mark.parametrize(
    ("table", "word"),
    [
        ([], "weight_map"), (None, "weight_map"), ({}, "weight_map"), ("x", "weight_map"), ({"a": ["x"]}, "weight_map"),
        ({"a": "x", "b": 3}, "weight_map"), ({"a": "../x.bin"}, "outside"), ({"a": ".."}, "outside"),
    ],
)  # fmt: skip
def test_an_index_of_shards_that_is_none(table: Any, word: str, plain: Path) -> None:
    weights = plain / "unet/diffusion_pytorch_model.safetensors"
    weights.rename(plain / "unet/part.safetensors")
    changed(Path(f"{weights}.index.json"), weight_map=table)
    refused(plain, "index.json", word)


def test_an_index_of_shards_is_still_read(plain: Path) -> None:
    before = load_folder(plain).network.unet.conv_in.weight
    weights = plain / "unet/diffusion_pytorch_model.safetensors"
    weights.rename(plain / "unet/part.safetensors")
    changed(Path(f"{weights}.index.json"), weight_map={"conv_in.weight": "part.safetensors"})
    assert torch.equal(load_folder(plain).network.unet.conv_in.weight, before)


def test_onnx_folders_are_checked_alike(tiny: Any, tmp_path: Path) -> None:
    from ddim.checkpoints import write_onnx_folder
    from ddim.checkpoints.families.onnx.folder import load_onnx_folder

    write_onnx_folder(tmp_path / "o", tiny.checkpoint, "fp32", lambda file: file.write_bytes(b"none"), {})
    held = (tmp_path / "o/ddim.json").read_text()
    for name, value in (("notes", "one"), ("data_range", [1, 0]), ("clips", 1), ("shape", 5), ("ends_at", 7)):
        changed(tmp_path / "o/ddim.json", **{name: value})
        with pytest.raises(Refused, match=f"ddim.json: {name} must be"):
            load_onnx_folder(tmp_path / "o")
        (tmp_path / "o/ddim.json").write_text(held)
    changed(tmp_path / "o/ddim.json", clips=None)
    with pytest.raises(Refused, match="lacks clips"):
        load_onnx_folder(tmp_path / "o")


def test_the_command_line_says_it_in_one_line(labelled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    changed(labelled / "ddim.json", shape=5)
    with pytest.raises(SystemExit) as stop:
        main(["info", str(labelled)])
    err = capsys.readouterr().err
    assert stop.value.code == 2 and err.count("\n") == 1 and "ddim.json: shape must be" in err
