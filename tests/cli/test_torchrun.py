"""The command line under torchrun: flags its parser leaves alone, and work that processes share."""

import dataclasses
import json
import os
import subprocess
import sys

import pytest
from torch.distributed.run import get_args_parser

from ddim.cli.argv import COMMANDS, command_of
from ddim.cli.typed import SPELLED, flag_of


def flags(command):
    for field in dataclasses.fields(command_of(command)):
        flag = flag_of(field.name)
        yield from (flag, f"--no-{flag[2:]}")


@pytest.mark.parametrize("command", COMMANDS)
def test_torchruns_parser_leaves_every_flag_to_the_program(command):
    """It reads abbreviations of its own options out of all words, also behind the program's name."""
    for flag in flags(command):
        for words in ([command, flag, "3"], [command, f"{flag}=3"]):
            left = get_args_parser().parse_args(["--standalone", "--nproc-per-node", "2", "-m", "ddim", *words])
            assert left.training_script_args == words


def test_the_spellings_are_needed(capsys):
    for option in SPELLED:
        with pytest.raises(SystemExit):
            get_args_parser().parse_args(["-m", "ddim", "sample", f"--{option}", "3"])
        assert "ambiguous option" in capsys.readouterr().err


def launched(*words, processes=2, **more):
    """Both streams of torchrun with that many processes on the CPU."""
    environ = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE")}
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes),
         "-m", "ddim", *map(str, words)],
        capture_output=True, text=True, check=False, timeout=300, env={**environ, "OMP_NUM_THREADS": "1", **more},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_two_processes_sample_and_evaluate_once(tiny_folder, tmp_path):
    out, report, cache = tmp_path / "images", tmp_path / "report", {"DDIM_CACHE": str(tmp_path / "cache")}
    said = launched("sample", tiny_folder, "--count", 20, "--steps", 2, "--batch-size", 4, "--device", "cpu",
                    "--precision", "fp32", "--out", out)  # fmt: skip
    assert f"20 images in {out}" in said
    assert json.loads((out / "manifest.json").read_text())["images"] == 20
    said = launched("evaluate", tiny_folder, out, "--held-out", out, "--count", 10, "--steps", "2,3", "--eta", "0",
                    "--no-sigma-hat", "--extractor", "pixels", "--batch-size", 3, "--device", "cpu", "--precision",
                    "fp32", "--out", report, **cache)  # fmt: skip
    ended = said.count(f"others are still at work on {report}") + said.count(f"report: {report}")
    assert ended == 2 and f"report: {report}" in said
    assert len(json.loads((report / "report.json").read_text())["rows"]) == 2
    assert [p.suffix for p in (report / "cells").iterdir()] == [".safetensors"] * 4  # two of real images, two rows
