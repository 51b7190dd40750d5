"""The command line under torchrun: flags its parser leaves alone, and work that processes share."""

import dataclasses
import json
import os
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch.distributed.run import get_args_parser

from ddim.cli.argv import COMMANDS, command_of, main
from ddim.cli.typed import SPELLED, flag_of
from ddim.files import Crew


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


def test_two_processes_make_a_student_as_one(tmp_path):
    """The teacher's pictures are made by one of them, every stage is written once, and the losses are those of one."""
    from conftest import save_tiny

    teacher, cache = save_tiny(tmp_path / "teacher", prediction="v"), {"DDIM_CACHE": str(tmp_path / "cache")}
    words = ("distil", teacher, "--to", 1, "--from", 4, "--updates", 2, "--batch-size", 4, "--made", 8, "--log-every",
             1, "--preview-every", 0, "--solver", "dpm++2m", "--device", "cpu", "--precision", "fp32",
             "--out")  # fmt: skip
    losses = []
    for processes in (1, 2):
        run = tmp_path / str(processes)
        assert launched(*words, run, processes=processes, **cache).count("a student of 1 step; now") == 1
        losses.append([json.loads(line)["loss"] for line in (run / "log.jsonl").read_text().splitlines()])
        assert sorted(p.name for p in (run / "stages").iterdir()) == ["steps-1", "steps-2"]
    assert len(losses[0]) == 4 and losses[1] == pytest.approx(losses[0], rel=1e-5)


def pictures(folder, n=7):
    folder.mkdir()
    for i in range(n):
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (8, 8), np.uint8)).save(folder / f"p{i}.png")
    return folder


@pytest.fixture
def both(monkeypatch, capsys):
    """A command alone, or as one process of several; its code and its words."""

    def run(*words, rank=None, world=2):
        for name, value in (("RANK", rank), ("WORLD_SIZE", world)):
            monkeypatch.delenv(name, raising=False) if rank is None else monkeypatch.setenv(name, str(value))
        try:
            main([str(w) for w in words])
            code = 0
        except SystemExit as stop:
            code = stop.code
        said = capsys.readouterr()
        return code, said.out + said.err

    return run


ENCODE = ("--steps", 2, "--method", "naive", "--batch-size", 2, "--device", "cpu")


def test_processes_share_an_encoding_and_the_last_one_joins_it(tiny_folder, tmp_path, both):
    """The first has died: the folder with its piece, and nobody at work. Others at work are waited for by nobody."""
    images, one, many = pictures(tmp_path / "images"), tmp_path / "one.safetensors", tmp_path / "many.safetensors"
    assert both("encode", tiny_folder, images, *ENCODE, "--out", one)[0] == 0
    words = ("encode", tiny_folder, images, *ENCODE, "--out", many)
    place = tmp_path / "many.safetensors.parts"
    from ddim.jobs import Pieces

    made, keep = Pieces.made, []

    def besides(self, *what, **how):
        for name in made(self, *what, **how):
            if not keep:
                keep.append(Crew(place / "recipe.json"))  # the second process is at work by now
            yield name

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Pieces, "made", besides)
        code, said = both(*words, rank=0)
    assert code == 0 and "others are still at work" in said and not many.exists()
    assert sorted(p.name for p in place.iterdir()) == ["0", "4", "recipe.json"]  # of batches 0, 2, 4, 6
    keep[0].leave()  # it died without having made anything
    code, said = both(*words, rank=0)
    assert code == 0 and "latents of 7 images" in said and not place.exists()
    a, b = load_file(one), load_file(many)
    assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a if k != "residual")
    assert "others have made them" in both(*words, rank=1)[1]  # a process that starts when all is done
    assert both(*words)[0] == 2


def test_processes_share_a_search_for_times(tmp_path, both):
    from conftest import save_tiny

    model, images, out = save_tiny(tmp_path / "model"), pictures(tmp_path / "images"), tmp_path / "tau.json"
    words = ("tune", model, images, "--steps", "2,3", "--latents", 2, "--long", 8, "--candidates", 6, "--trials", 2,
             "--no-save", "--device", "cpu", "--out")  # fmt: skip
    assert both(*words, tmp_path / "one.json")[0] == 0
    place = tmp_path / "tau.json.parts"
    place.mkdir()
    code, _ = both(*words, out, rank=1)
    assert code == 0 and not place.exists() and out.read_bytes() == (tmp_path / "one.json").read_bytes()
    assert "others have made it" in both(*words, out, rank=0)[1]


@pytest.mark.parametrize("verb", ["encode", "tune"])
def test_a_process_that_is_slow_to_begin_finds_the_result_at_its_end(tmp_path, both, verb):
    """It saw no result before it loaded the model; when it comes to its share another has made all, and gone."""
    from conftest import save_tiny
    from ddim.jobs import Pieces

    model, images, out = save_tiny(tmp_path / "model"), pictures(tmp_path / "images", 4), tmp_path / "result"
    tune = ("--steps", 2, "--latents", 2, "--long", 4, "--candidates", 4, "--trials", 0, "--no-save", "--device", "cpu")
    words, made, first = (verb, model, images, *(ENCODE if verb == "encode" else tune), "--out", out), Pieces.made, []

    def late(self, *what, **how):
        if not first:
            first.append(0)
            first[0] = both(*words, rank=0)[0] or out.read_bytes()
        yield from made(self, *what, **how)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Pieces, "made", late)
        code, said = both(*words, rank=1)
    assert code == 0 and "others have made" in said and first == [out.read_bytes()]
    assert not (tmp_path / "result.parts").exists()


@pytest.mark.skipif(os.name != "posix", reason="tells the living from the dead by file locks")
def test_of_processes_that_sample_the_last_one_makes_what_the_dead_left(tiny_folder, tmp_path, both):
    words = ("sample", tiny_folder, "--count", 6, "--steps", 2, "--batch-size", 2, "--device", "cpu", "--precision",
             "fp32", "--out")  # fmt: skip
    assert both(*words, tmp_path / "one")[0] == 0
    out = tmp_path / "many"
    child = subprocess.Popen(
        [sys.executable, "-c", f"from ddim.jobs import open_job, crew_of; import pathlib, json, time\n"
         f"out = open_job(pathlib.Path({str(out)!r}), json.loads({(tmp_path / 'one' / 'recipe.json').read_text()!r}))\n"
         "crew = crew_of(out); print('at work', flush=True); time.sleep(300)"], stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    child.stdout.readline()
    code, said = both(*words, out, rank=0)
    assert code == 0 and "others are still at work" in said and len(list(out.glob("0*.png"))) == 3
    child.kill()
    child.communicate()
    code, said = both(*words, out, rank=0)
    assert code == 0 and f"6 images in {out}" in said
    assert {p.name: p.read_bytes() for p in out.iterdir()} == {
        p.name: p.read_bytes() for p in (tmp_path / "one").iterdir()
    }


@pytest.mark.skipif(os.name != "posix", reason="tells the living from the dead by file locks")
def test_of_processes_that_ask_at_once_one_is_the_last(tmp_path):
    for _ in range(50):
        crews, found = [Crew(tmp_path) for _ in range(4)], []
        threads = [threading.Thread(target=lambda c=c, found=found: found.append(c.last())) for c in crews]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        assert sorted(found) == [False, False, False, True]
        for crew in crews:
            crew.leave()


@pytest.mark.skipif(os.name != "posix", reason="tells the living from the dead by file locks")
def test_of_processes_that_evaluate_or_score_the_last_one_does_what_the_dead_left(tiny_folder, tmp_path, both):
    images, report = pictures(tmp_path / "images", 20), tmp_path / "report"
    code, said = both(
        "evaluate", tiny_folder, images, "--count", 10, "--steps", 2, "--eta", 0, "--no-sigma-hat", "--extractor",
        "pixels", "--batch-size", 4, "--device", "cpu", "--precision", "fp32", "--out", report, rank=1,
    )  # fmt: skip
    assert code == 0 and f"report: {report}" in said
    assert [p.suffix for p in (report / "cells").iterdir()] == [".safetensors"] * 3
    scored = tmp_path / "scored"
    code, said = both("likelihood", tiny_folder, images, "--count", 4, "--batch-size", 2, "--probes", 2, "--draws", 2,
                      "--tolerance", 0.1, "--device", "cpu", "--out", scored, rank=1)  # fmt: skip
    assert code == 0 and (scored / "likelihood.json").exists(), said
