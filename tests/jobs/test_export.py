"""Export to ONNX Runtime: the same function as torch's network, refused where it cannot be what is asked."""

import copy
import importlib.util
import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch

import ddim
from conftest import save_tiny
from ddim.cli import main
from ddim.jobs import export_onnx
from ddim.jobs.export import trajectory_states
from ddim.refused import Refused


def run(*args: object) -> int:
    with pytest.raises(SystemExit) as stop:
        main([str(a) for a in args])
    return int(stop.value.code or 0)


@pytest.fixture(scope="module")
def exported(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("onnx")
    for precision in ("fp32", "int8"):
        export_onnx(root / precision, ddim.load(tiny_folder).checkpoint, precision=precision)
    return {p: root / p for p in ("fp32", "int8")}


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])  # noqa: S301
def test_it_can_be_copied_and_pickled_unless_its_file_has_changed(exported, copied, tmp_path):
    shutil.copytree(exported["fp32"], tmp_path / "m")
    model = ddim.load(tmp_path / "m")
    assert torch.equal(copied(model).sample(2, steps=2, label=1), model.sample(2, steps=2, label=1))
    shutil.copy(exported["int8"] / "network.onnx", tmp_path / "m/network.onnx")
    with pytest.raises(Refused, match="changed since it was loaded"):
        copied(model)


@pytest.mark.parametrize("label", [None, (2,), (0, 1, 2)])
def test_fp32_is_the_same_function(tiny: ddim.Model, exported: dict[str, Path], label: tuple[int, ...] | None) -> None:
    n = 2 if label is None else len(label)
    x, t = torch.randn(n, 1, 8, 8, generator=torch.Generator().manual_seed(3)), torch.tensor([0, 400, 999][:n])
    given = None if label is None else torch.tensor(label)
    other = ddim.load(exported["fp32"]).checkpoint.network
    with torch.no_grad():
        want = tiny.checkpoint.network(x, t, given)
    assert torch.allclose(other(x, t, given), want, atol=2e-5)
    if label is None:  # the null label is none of the classes
        assert not torch.allclose(other(x, t, torch.zeros(n, dtype=torch.int64)), want, atol=1e-3)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_samples_are_the_original_models(tiny: ddim.Model, exported: dict[str, Path], eta: float) -> None:
    how = {"n": 3, "steps": 5, "eta": eta, "label": [0, 1, 2], "guidance": 1.5}
    want, made = tiny.sample(**how), ddim.load(exported["fp32"]).sample(**how, precision="auto")
    assert torch.allclose(made, want, atol=1e-4)


def test_int8_is_near_and_is_int8(tiny: ddim.Model, exported: dict[str, Path]) -> None:
    import onnx

    network = ddim.load(exported["int8"]).checkpoint.network
    states = [tuple(torch.cat(v) for v in zip(*trajectory_states(tiny.checkpoint, 3)[::7], strict=True))]
    with torch.no_grad():
        (want,) = (tiny.checkpoint.network(*s) for s in states)
    error = float((network(*states[0]) - want).norm() / want.norm())
    assert 1e-4 < error < 0.1
    graph = onnx.load(exported["int8"] / "network.onnx").graph
    produced = {name: node for node in graph.node for name in node.output}
    convs = [n for n in graph.node if n.op_type == "Conv"]
    assert convs and all(produced[n.input[1]].op_type == "DequantizeLinear" for n in convs)


def test_calibration_sees_every_time_and_the_null_label(tiny: ddim.Model) -> None:
    states = trajectory_states(tiny.checkpoint, 6)
    assert len(states) == 60
    assert {int(t) for _, t, _ in states} == {t - 1 for t in tiny.tau(20) if t > 0}
    assert {int(label) for *_, label in states} == {0, 1, 3}  # image i: i modulo 3, but the third and sixth the null


def test_a_model_without_classes_on_another_time_scale(tmp_path: Path) -> None:
    from dataclasses import replace

    plain = ddim.load(save_tiny(tmp_path / "m", num_classes=None)).checkpoint
    scaled = replace(plain, time_scale=0.25, prediction="v", clips=False, labels=None)
    export_onnx(tmp_path / "o", scaled)
    read = ddim.load(tmp_path / "o").checkpoint
    for name in ("shape", "prediction", "time_scale", "clips", "spacing", "data_range", "num_classes", "null_label"):
        assert getattr(read, name) == getattr(scaled, name), name
    assert torch.equal(read.schedule.alpha_bar, scaled.schedule.alpha_bar)
    x = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        want = scaled.denoiser()(x, 7).x0
    assert torch.allclose(read.denoiser()(x, 7).x0, want, atol=2e-5)


def test_commands(
    tiny_folder: Path, exported: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("export", tiny_folder, tmp_path / "o", "--to", "onnx", "--dtype", "int8") == 0
    assert "written to" in capsys.readouterr().out
    assert sorted(p.name for p in (tmp_path / "o").iterdir()) == ["ddim.json", "network.onnx"]
    sampled = ("sample", tmp_path / "o", "--out", tmp_path / "s", "--n", 2, "--steps", 3, "--label", "cycle")
    assert run(*sampled, "--device", "cpu") == 0
    assert json.loads((tmp_path / "s/recipe.json").read_text())["precision"] == "int8"
    assert run("info", tmp_path / "o") == 0
    assert "ONNX Runtime, in int8" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--precision", "bf16"), "exported in fp32"),
        (("--compile", "always"), "compiled by its own runtime"),
        (("--batch-size", "auto"), "give --batch-size a number"),
        (("--label", "7"), "outside 0..2"),
    ],
)
def test_sampling_refuses(
    exported: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str],
    options: tuple[str, ...], words: str,
) -> None:  # fmt: skip
    command = ("sample", exported["fp32"], "--out", tmp_path / "s", "--n", 2, "--steps", 3, "--device", "cpu")
    assert run(*command, *options) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "s").exists()


def test_export_refuses(
    tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("export", tiny_folder, tmp_path / "a", "--dtype", "int8") == 2
    assert "--to onnx" in capsys.readouterr().err
    assert run("export", tiny_folder, tmp_path / "a", "--to", "onnx", "--dtype", "fp16") == 2
    (tmp_path / "b").mkdir()
    (tmp_path / "b/mine").touch()
    assert run("export", tiny_folder, tmp_path / "b", "--to", "onnx") == 2
    with pytest.raises(ValueError, match="fp32 and int8"):
        export_onnx(tmp_path / "a", ddim.load(tiny_folder).checkpoint, precision="int4")
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxscript" else find(name))
    assert run("export", tiny_folder, tmp_path / "a", "--to", "onnx") == 2
    assert "onnxscript, not installed here: pip install" in capsys.readouterr().err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b"]


def test_a_folder_that_is_not_whole_is_refused(exported: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "o"
    folder.mkdir()
    content = (exported["fp32"] / "network.onnx").read_bytes()
    (folder / "network.onnx").write_bytes(content)
    with pytest.raises(ValueError, match=r"no ddim\.json"):
        ddim.load(folder)
    facts = json.loads((exported["fp32"] / "ddim.json").read_text())
    (folder / "ddim.json").write_text(json.dumps({k: v for k, v in facts.items() if k != "prediction"}))
    with pytest.raises(ValueError, match="lacks prediction"):
        ddim.load(folder)
    (folder / "ddim.json").write_text(json.dumps(facts))
    ddim.load(folder)
    (folder / "network.onnx").write_bytes(content[:-100])
    with pytest.raises(ValueError, match="is not the network"):
        ddim.load(folder)
    import hashlib

    facts["sha256"] = hashlib.sha256(content[:-100]).hexdigest()
    (folder / "ddim.json").write_text(json.dumps(facts))
    with pytest.raises(ValueError, match="cannot be run by ONNX Runtime"):
        ddim.load(folder)


@pytest.mark.parametrize("shape", [(1, 5, 3), (0, 1, 8, 8)])
def test_a_program_that_gives_another_shape_is_refused(exported: dict[str, Path], tmp_path: Path, shape) -> None:
    """With its own hash beside it: whoever can change the one can change the other."""
    import hashlib

    from onnx import TensorProto, helper

    shutil.copytree(exported["fp32"], tmp_path / "o")
    takes = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["b", 1, 8, 8])]
    takes += [helper.make_tensor_value_info(name, TensorProto.INT64, ["b"]) for name in ("t", "label")]
    constant = helper.make_tensor("w", TensorProto.FLOAT, shape, [0.0] * int(torch.zeros(shape).numel()))
    gives = [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)]
    graph = helper.make_graph([helper.make_node("Identity", ["w"], ["out"])], "g", takes, gives, [constant])
    program = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    (tmp_path / "o/network.onnx").write_bytes(program)
    facts = json.loads((tmp_path / "o/ddim.json").read_text())
    facts["sha256"] = hashlib.sha256(program).hexdigest()
    (tmp_path / "o/ddim.json").write_text(json.dumps(facts))
    assert run("sample", tmp_path / "o", "--count", 1, "--steps", 2, "--label", 1, "--out", tmp_path / "made") == 2


def test_a_mix_of_classes_and_a_bench_are_refused(exported: dict[str, Path]) -> None:
    model = ddim.load(exported["fp32"])
    with pytest.raises(ValueError, match="mix of classes"):
        model.checkpoint.network(torch.zeros(1, 1, 8, 8), torch.tensor([3]), torch.ones(1, 3))
    from ddim import engine

    with pytest.raises(ValueError, match="no switches"):
        engine.prepared(model.checkpoint.network)
