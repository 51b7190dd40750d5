"""Extractors: the bundled classifier knows digits, files are read, what is missing is named."""

import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from ddim.cli import main
from ddim.metrics import distance_name, extractor
from ddim.metrics.classifier import ColourClassifier, load_classifier
from ddim.pixels import from_uint8, save_png
from ddim.refused import Refused

DATA = Path(__file__).parents[1] / "data"


def test_the_bundled_classifier_knows_digits():
    """100 images of the MNIST test set: at least 98 right. (All 10,000: 99.45 %, docs/evaluation.md.)"""
    stored = np.load(DATA / "mnist-100.npz")
    digits = extractor("mnist")
    f, logits = digits.both(from_uint8(stored["pixels"]))
    assert f.shape == (100, 64) and logits.shape == (100, 10)
    assert int((logits.argmax(1).numpy() == stored["labels"]).sum()) >= 98
    assert sum(p.numel() for p in load_classifier().parameters()) < 150_000


def test_a_border_of_two_changes_nothing():
    x = from_uint8(np.load(DATA / "mnist-100.npz")["pixels"][:4])
    padded = torch.nn.functional.pad(x, (2, 2, 2, 2), value=-1.0)
    torch.testing.assert_close(extractor("mnist").features(padded), extractor("mnist").features(x))


def test_small_scans_are_brought_to_the_layout_of_mnist():
    """scikit-learn's 8x8 digits, which the classifier never saw: at least 95 % right (stretched to 28x28: 10 %)."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    x = torch.from_numpy(bunch.images[:500] / 8.0 - 1.0).float()[:, None]
    right = extractor("mnist").logits(x).argmax(1).numpy() == bunch.target[:500]
    assert right.mean() > 0.95


def test_pixels_are_means_of_blocks():
    x = torch.arange(64.0 * 64.0).view(1, 1, 64, 64)
    f = extractor("pixels").features(x)
    assert f.shape == (1, 32 * 32)
    assert float(f[0, 0]) == pytest.approx((0 + 1 + 64 + 65) / 4)
    assert extractor("pixels").logits(x) is None


class _Two(torch.nn.Module):
    def forward(self, x):
        return x.flatten(1)[:, :5] * 2.0, x.flatten(1)[:, :3]


def test_torchscript_and_exported_programs(tmp_path):
    x = torch.linspace(-1, 1, 3 * 16).view(3, 1, 4, 4)
    torch.jit.trace(_Two(), x).save(str(tmp_path / "two.pt"))
    batch = torch.export.Dim("batch")
    torch.export.save(torch.export.export(_Two(), (x,), dynamic_shapes={"x": {0: batch}}), tmp_path / "exported.pt2")
    for name in ("two.pt", "exported.pt2"):
        e = extractor(str(tmp_path / name), trust_code=True)
        f, logits = e.both(x)
        assert torch.equal(f, x.flatten(1)[:, :5] * 2.0)
        assert torch.equal(logits, x.flatten(1)[:, :3])
        assert e.name == Path(name).stem and len(e.weights_hash) == 64


@pytest.mark.parametrize("name", ["net.pt", "net.ts", "net.pt2", "net.bin", "net"])
def test_what_can_run_code_is_not_even_opened_without_trust(tmp_path, monkeypatch, capsys, name):
    def opened(*args, **kwargs):
        raise AssertionError("opened")

    torch.jit.trace(_Two(), torch.zeros(2, 1, 4, 4)).save(str(tmp_path / name))
    for door in ("torch.jit.load", "torch.export.load", "torch.load", "pickle.load", "pickle.loads"):
        monkeypatch.setattr(door, opened)
    with pytest.raises(Refused, match=rf"{re.escape(name)} .*can run any code: give `trust_code`") as caught:
        extractor(str(tmp_path / name))
    assert "\n" not in str(caught.value)
    (tmp_path / "pictures").mkdir()
    for i in range(24):
        save_png(tmp_path / "pictures" / f"{i}.png", np.full((8, 8, 1), 10 * i, np.uint8))
    words = ["measure", tmp_path / "pictures", tmp_path / "pictures", "--extractor", tmp_path / name]
    with pytest.raises(SystemExit) as stop:
        main([str(w) for w in [*words, "--out", tmp_path / "out"]])
    assert stop.value.code == 2 and "give --trust-code if you trust" in capsys.readouterr().err


def onnx_file(path, inputs=("images",)):
    """Features x.flatten(1) / 2, logits their negative."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    make, kind = onnx.helper, onnx.TensorProto.FLOAT
    half = make.make_tensor("half", kind, [], [0.5])
    nodes = [
        make.make_node("Flatten", [inputs[0]], ["flat"], axis=1),
        make.make_node("Mul", ["flat", "half"], ["features"]),
        make.make_node("Neg", ["features"], ["logits"]),
    ]
    takes = [make.make_tensor_value_info(name, kind, ["B", 1, 4, 4]) for name in inputs]
    gives = [make.make_tensor_value_info(name, kind, ["B", 16]) for name in ("features", "logits")]
    graph = make.make_graph(nodes, "net", takes, gives, [half])
    onnx.save(make.make_model(graph, opset_imports=[make.make_opsetid("", 17)], ir_version=9), str(path))


def test_onnx(tmp_path, capfd):
    onnx_file(tmp_path / "net.onnx")
    look, x = extractor(str(tmp_path / "net.onnx")), torch.linspace(-1, 1, 48).view(3, 1, 4, 4)
    f, logits = look.both(x)
    assert torch.equal(f, x.flatten(1) / 2) and torch.equal(logits, -f)
    assert look.name == "net" and len(look.weights_hash) == 64
    with pytest.raises(Refused, match=r"net\.onnx cannot take images of shape \(3, 1, 5, 5\)"):
        look.both(torch.zeros(3, 1, 5, 5))
    onnx_file(tmp_path / "two.onnx", ("x", "t"))
    with pytest.raises(Refused, match="takes x, t: an extractor takes images alone"):
        extractor(str(tmp_path / "two.onnx"))
    (tmp_path / "bad.onnx").write_bytes(b"no network")
    with pytest.raises(Refused, match=r"bad\.onnx cannot be run by ONNX Runtime"):
        extractor(str(tmp_path / "bad.onnx"))
    assert capfd.readouterr() == ("", ""), "the runtime's own lines, in colours, are for nobody"


def test_weights_of_a_known_network(tmp_path):
    torch.manual_seed(0)
    network = ColourClassifier()
    network.head = torch.nn.Linear(network.head.in_features, 3)
    state = {k: v.detach().clone() for k, v in network.state_dict().items()}
    save_file(state, tmp_path / "mine.safetensors", metadata={"classes": '["a", "b", "c"]'})
    look, x = extractor(str(tmp_path / "mine.safetensors")), torch.linspace(-1, 1, 2 * 3072).view(2, 3, 32, 32)
    f, logits = look.both(x)
    assert torch.equal(f, network.features(x)) and torch.equal(logits, network(x))
    assert look.name == "mine" and look.class_names == ("a", "b", "c")
    assert look.weights_hash != extractor("colour").weights_hash
    for change in ({"head.weight": torch.zeros(3, 5)}, {"head.bias": torch.zeros(4)}, {"more": torch.zeros(1)}):
        save_file(state | change, tmp_path / "odd.safetensors")
        with pytest.raises(Refused, match=r"odd\.safetensors holds weights of no network known here"):
            extractor(str(tmp_path / "odd.safetensors"))
    (tmp_path / "bad.safetensors").write_bytes(b"no weights")
    with pytest.raises(Refused, match=r"bad\.safetensors"):
        extractor(str(tmp_path / "bad.safetensors"))


def test_no_file_is_called_by_the_name_of_a_standard_one(tmp_path):
    x = torch.zeros(2, 1, 4, 4)
    torch.jit.trace(_Two(), x).save(str(tmp_path / "inception.pt"))
    assert distance_name(extractor(str(tmp_path / "inception.pt"), trust_code=True).name) == "FD-file-inception"
    torch.jit.trace(torch.nn.Conv2d(3, 2, 1), torch.zeros(1, 3, 4, 4)).save(str(tmp_path / "colour.pt"))
    with pytest.raises(Refused, match=r"colour\.pt cannot take images of shape \(2, 1, 4, 4\)"):
        extractor(str(tmp_path / "colour.pt"), trust_code=True).both(x)


def test_refusals(tmp_path):
    with pytest.raises(Refused, match="there is no extractor 'vgg': choose mnist, colour, inception, dinov2, "):
        extractor("vgg")
    with pytest.raises(Refused, match="reads grey images, got 3 channels"):
        extractor("mnist").features(torch.zeros(1, 3, 28, 28))
    (tmp_path / "bad.pt").write_bytes(b"no program")
    with pytest.raises(Refused, match=r"bad\.pt is no TorchScript or ExportedProgram"):
        extractor(str(tmp_path / "bad.pt"), trust_code=True)
    (tmp_path / "bad.pt2").write_bytes(b"no program")
    with pytest.raises(Refused, match=r"bad\.pt2 is no TorchScript or ExportedProgram"):
        extractor(str(tmp_path / "bad.pt2"), trust_code=True)


@pytest.mark.parametrize(("name", "package"), [("inception", "torch_fidelity"), ("dinov2", "transformers")])
def test_a_missing_extra_is_named(name, package, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr("ddim.metrics.extractors.find_spec", lambda n: None if n == package else found(n))
    with pytest.raises(Refused, match=rf"pip install 'ddim\[{name}\]'"):
        extractor(name)
