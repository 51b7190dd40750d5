"""`ddim bench` measures every switch and says what it found."""

import pytest
import torch

from ddim.cli.argv import main
from ddim.jobs.bench import switch_sets


def bench(capsys, *args):
    with pytest.raises(SystemExit) as stop:
        main(["bench", *map(str, args)])
    return stop.value.code, capsys.readouterr()


def test_every_switch_has_its_row(capsys, tiny_folder):
    code, said = bench(capsys, tiny_folder, "--batch-size", 2, "--steps", 2, "--repeats", 1, "--device", "cpu")
    assert code == 0, said.err
    for name in switch_sets(torch.device("cpu"), compiled=False):
        row = next(line for line in said.out.splitlines() if line.strip().startswith(f"{name} "))
        assert all(float(cell.rstrip("x%")) >= 0 for cell in row.removeprefix(name).split() if cell[0].isdigit())
    for found in ("matrix product: ", "fastest here: ", "batch size that fits", "compiling "):
        assert found in said.out
    first = next(line for line in said.out.splitlines() if line.strip().startswith("fp32 "))
    assert "1.00x" in first, "the network as it was loaded is the measure of all others"


def test_the_exported_model_beside_the_switches(capsys, tiny_folder):
    given = (tiny_folder, "--batch-size", 2, "--steps", 2, "--repeats", 1, "--device", "cpu", "--onnx")
    code, said = bench(capsys, *given)
    assert code == 0, said.err
    lines = [line.split() for line in said.out.splitlines() if line.strip().startswith("onnx ")]
    assert [line[1] for line in lines] == ["fp32", "int8"]
    assert all(float(line[2]) > 0 and line[-2:] == ["-", "-"] for line in lines)


def test_what_makes_no_sense_is_refused(capsys, tiny_folder):
    code, said = bench(capsys, tiny_folder, "--repeats", 0)
    assert code == 2 and "--repeats must be at least 1" in said.err
