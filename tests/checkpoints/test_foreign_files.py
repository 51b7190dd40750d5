"""Files nobody vouches for: one clear line each, no code run, no memory asked for beyond the file's size."""

import io
import pickle
import struct
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch

from ddim.checkpoints import open_checkpoint
from ddim.checkpoints.safety.pickles import read_torch
from ddim.refused import Refused

GOLDEN = Path(__file__).parents[1] / "data/golden"
PLAIN = GOLDEN / "ermongroup/plain/model-790000.ckpt"
ADM = GOLDEN / "guided-diffusion/adm-legacy-attention/ema_0.9999_000100.pt"
FLAGS = {"image_size": 16, "num_head_channels": 16}


def refused(path: Path, *words: str, **options: object) -> str:
    with pytest.raises((Refused, OSError)) as caught:
        open_checkpoint(path, **options)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 600
    for word in words:
        assert word in message, message
    return message


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "empty"),
        (b"404: Not Found\n", "text file"),
        (b"<!DOCTYPE html><html>\xc3\xa9</html>", "text file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git-lfs pointer"),
        (bytes(range(1, 200)), "not a PyTorch file"),
        (b"PK\x03\x04 not really", "damaged"),
    ],
)
def test_no_checkpoint_at_all(tmp_path: Path, content: bytes, word: str) -> None:
    refused(written(tmp_path / "x.pt", content), word)


@pytest.mark.parametrize("file", [PLAIN, ADM], ids=["legacy format", "zip format"])
@pytest.mark.parametrize("kept", [0.02, 0.5, 0.98])
def test_truncated(tmp_path: Path, file: Path, kept: float) -> None:
    content = file.read_bytes()
    refused(written(tmp_path / "cut.pt", content[: int(kept * len(content))]), "cut.pt")


class Spy:
    """A pickle that would leave a mark if any of its code ran."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.mark,))


@pytest.mark.parametrize("how", ["plain pickle", "torch zip", "torch legacy"])
def test_code_is_refused_and_never_run(tmp_path: Path, how: str) -> None:
    mark, path = tmp_path / "mark", tmp_path / "net.pkl"
    value = {"ema": Spy(mark), "x": torch.zeros(2)}
    if how == "plain pickle":
        path.write_bytes(pickle.dumps({"ema": Spy(mark)}))
    else:
        torch.save(value, path, _use_new_zipfile_serialization=how == "torch zip")
    message = refused(path, "code", "refused")
    assert "state dict" in message  # the remedy
    assert not mark.exists()


def test_a_pickle_that_calls_edms_function_on_something_else(tmp_path: Path) -> None:
    body = b"\x80\x03c" + b"torch_utils.persistence\n_reconstruct_persistent_obj\n" + b"}\x85R."
    refused(written(tmp_path / "edm.pkl", body), "is refused", "an object of an unknown kind")


def rezipped(path: Path, change: dict[str, bytes | None], compression: int = zipfile.ZIP_STORED) -> Path:
    """ADM's file with entries replaced or added."""
    with zipfile.ZipFile(ADM) as old, zipfile.ZipFile(path, "w", compression) as new:
        for name in old.namelist():
            new.writestr(name, change.pop(name, old.read(name)))
        for name, content in change.items():
            new.writestr(name, content)
    return path


def test_zip_bomb(tmp_path: Path) -> None:
    path = rezipped(tmp_path / "bomb.pt", {"archive/data/999": bytes(50_000_000)}, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 3_000_000
    refused(path, "compressed")


def test_names_that_leave_their_folder(tmp_path: Path) -> None:
    refused(rezipped(tmp_path / "escape.pt", {"../../etc/passwd": b"x"}), "passwd", "leave its folder")


def test_another_zip(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "notes.pt", "w") as archive:
        archive.writestr("word/document.xml", "x")
    refused(tmp_path / "notes.pt", "not one that torch.save wrote")


def state() -> OrderedDict[str, torch.Tensor]:
    value = read_torch(ADM)
    return OrderedDict((k, v.detach().clone()) for k, v in value.items())


def test_an_expanded_tensor_that_claims_more_than_it_holds(tmp_path: Path) -> None:
    """One number seen as 4 TB by strides of 0: torch.save stores it so, and a copy would need the 4 TB."""
    torch.save({"time_embed.0.weight": torch.zeros(1).expand(10**6, 10**6)}, tmp_path / "big.pt")
    assert (tmp_path / "big.pt").stat().st_size < 5000
    refused(tmp_path / "big.pt", "claims 1000000000000 elements")


def test_a_storage_that_claims_more_than_the_legacy_file(tmp_path: Path) -> None:
    """The legacy format tells a storage's length before its bytes; torch would allocate on its word."""
    torch.save({"a": torch.zeros(12345)}, tmp_path / "l.pt", _use_new_zipfile_serialization=False)
    content = (tmp_path / "l.pt").read_bytes()
    told = b"M" + struct.pack("<H", 12345)  # BININT2
    assert content.count(told) >= 2
    huge = content.replace(told, b"J" + struct.pack("<i", 2**31 - 1))
    refused(written(tmp_path / "huge.pt", huge), "claims")


def test_a_storage_that_claims_more_than_its_zip_entry(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(12345)}, tmp_path / "z.pt")
    with zipfile.ZipFile(tmp_path / "z.pt") as old:
        entries = {n: old.read(n) for n in old.namelist()}
    pickled = next(n for n in entries if n.endswith("data.pkl"))
    told = b"M" + struct.pack("<H", 12345)
    entries[pickled] = entries[pickled].replace(told, b"J" + struct.pack("<i", 2**31 - 1))
    with zipfile.ZipFile(tmp_path / "huge.pt", "w") as new:
        for name, content in entries.items():
            new.writestr(name, content)
    refused(tmp_path / "huge.pt", "claims")


def test_missing_keys_are_listed(tmp_path: Path) -> None:
    value = state()
    for name in ("middle_block.0.in_layers.2.bias", "out.0.weight"):
        del value[name]
    torch.save(value, tmp_path / "m.pt")
    refused(tmp_path / "m.pt", "2 missing", "middle_block.0.in_layers.2.bias", "out.0.weight", config=FLAGS)


def test_left_over_keys_are_listed(tmp_path: Path) -> None:
    torch.save(state() | {"encoder.secret": torch.zeros(1)}, tmp_path / "m.pt")
    refused(tmp_path / "m.pt", "1 not of this layout", "encoder.secret", config=FLAGS)


def test_wrong_shapes(tmp_path: Path) -> None:
    torch.save(state() | {"out.0.weight": torch.zeros(33)}, tmp_path / "m.pt")
    refused(tmp_path / "m.pt", "(33,)", "(32,)", config=FLAGS)


def test_no_layout_we_know(tmp_path: Path) -> None:
    torch.save({"layer1.weight": torch.zeros(3)}, tmp_path / "m.pt")
    refused(tmp_path / "m.pt", "layer1.weight", "no layout")
    torch.save([1, 2], tmp_path / "l.pt")
    refused(tmp_path / "l.pt", "list")


@pytest.mark.parametrize(
    ("flags", "word"),
    [
        ({"image_size": 16, "num_channels": 64}, "num_channels = 64"),
        ({"image_size": 16, "learn_sigma": False}, "learn_sigma = False"),
        ({"image_size": 16, "noise_schedule": "quadratic"}, "quadratic"),
        ({"image_size": 16, "num_heads": 5}, "num_heads = 5"),
        ({"image_size": 16, "unheard_of": 1}, "unheard_of"),
        ({}, "image size"),
    ],
)
def test_flags_that_contradict_the_weights(flags: dict[str, object], word: str) -> None:
    refused(ADM, word, config=flags)


def test_a_config_file_that_is_none(tmp_path: Path) -> None:
    refused(ADM, "YAML", config=written(tmp_path / "c.yml", b"a: [1,\n"))
    refused(ADM, "settings", config=written(tmp_path / "d.yml", b"- 1\n"))


def test_nothing_there(tmp_path: Path) -> None:
    refused(tmp_path / "no" / "such.pt", "no model at")
    refused(tmp_path, "not a model folder")


def test_the_hub_without_a_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    def offline(*args: object, **kwargs: object) -> str:
        raise LocalEntryNotFoundError("cannot connect")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    monkeypatch.chdir(tmp_path)
    refused(Path("google/ddpm-cifar10-32"), "hub cannot be reached", "give the folder")


def test_a_revision_of_the_hub_is_pinned(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import huggingface_hub

    asked = []

    def model_info(self: object, name: str, *, revision: str | None = None, timeout: float = 0) -> None:
        asked.append((name, revision))

    def snapshot(name: str, *, revision: str | None = None, **how: object) -> str:
        asked.append((name, revision))
        return str(GOLDEN / "diffusers/mnist-like/pipeline")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", model_info)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.chdir(tmp_path)
    assert open_checkpoint("a/b@0123abc").family == "diffusers"
    assert open_checkpoint("a/b").family == "diffusers"
    assert asked == [("a/b", "0123abc")] * 2 + [("a/b", None)] * 2
    refused(Path("a/b@../../etc"), "no such folder or file")


def test_legacy_and_zip_read_the_same(tmp_path: Path) -> None:
    value = state()
    torch.save(value, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    old = read_torch(tmp_path / "old.pt")
    assert all(torch.equal(old[k], v) for k, v in value.items()) and len(old) == len(value)


def test_module_prefix_and_safetensors(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({f"module.{k}": v for k, v in state().items()}, tmp_path / "m.safetensors")
    k = open_checkpoint(tmp_path / "m.safetensors", config=FLAGS)
    assert k.family == "openai" and k.num_classes == 10
    content = (tmp_path / "m.safetensors").read_bytes()
    refused(written(tmp_path / "cut.safetensors", content[:-10]), "safetensors")
    refused(written(tmp_path / "huge.safetensors", struct.pack("<Q", 2**60) + b"{}"), "safetensors")


def test_read_torch_wants_a_file_not_a_stream(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save({"a": torch.ones(3)}, buffer)
    assert torch.equal(read_torch(written(tmp_path / "a.pt", buffer.getvalue()))["a"], torch.ones(3))
