"""Requests that were once met in silence, by garbage, by waiting or by all the memory: each refused with its cause."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import ddim
from ddim.cli import main
from ddim.cli.interrupts import patient
from ddim.data.columns import numbered
from ddim.engine import pick_device
from ddim.pixels import open_image
from ddim.process import Objective, noise, parse_seeds
from ddim.refused import Refused
from ddim.uses import Latents, along, decode, encode, inpaint

SCHEDULE = ddim.Schedule.linear(100)
ORACLE = ddim.GaussianDenoiser(SCHEDULE, 0.0, 1.0)
TAU = ddim.tau(100, 4)


@pytest.mark.parametrize("seed", [0.9, 1.9, np.float64(2), "1", None, -1])
def test_a_seed_is_a_whole_number(seed):
    with pytest.raises(Refused, match="a seed must be a whole number >= 0"):
        noise([0, seed], (2,))
    assert torch.equal(noise([np.int64(3), torch.tensor(4)], (2,)), noise([3, 4], (2,)))


def test_pictures_and_latents_are_no_whole_numbers():
    levels = torch.zeros(2, 1, 4, 4, dtype=torch.uint8)
    for call in (
        lambda: encode(ORACLE, levels, TAU), lambda: ddim.sample(ORACLE, levels.int(), TAU),
        lambda: decode(ORACLE, levels.long(), TAU), lambda: ddim.sample(ORACLE, levels.to(torch.complex64), TAU),
    ):  # fmt: skip
        with pytest.raises(Refused, match="states are floating-point tensors, got torch"):
            call()


def test_numbers_that_are_none():
    x = torch.zeros(1, 1, 2, 2)
    with pytest.raises(Refused, match="`amount` must be finite, got nan"):
        along(x, x[0], float("nan"))
    with pytest.raises(Refused, match="1000 at most, got 1e\\+30"):
        ddim.Guided(ORACLE, 1e30, 0)
    with pytest.raises(Refused, match="min_snr_gamma must be a number above 0, got inf"):
        Objective("v", float("inf"))
    for device in ("meta", "hpu", "hpu:0", "nonsense"):
        with pytest.raises(Refused, match="device"):
            pick_device(device)


@pytest.mark.parametrize(
    "mask", [torch.ones(3, 4), torch.ones(4), torch.tensor(1.0), torch.full((4, 4), 0.5), torch.ones(2, 4)]
)
def test_a_mask_of_another_shape_or_between_0_and_1(mask):
    with pytest.raises(Refused, match="mask"):
        inpaint(ORACLE, torch.zeros(1, 1, 4, 4), mask, TAU, seeds=[0], resample=1)


def test_a_mask_file_lies_over_its_image(tiny_folder, tmp_path, capsys):
    Image.new("L", (16, 16)).save(tmp_path / "image.png")
    Image.new("L", (16, 8), 255).save(tmp_path / "wide.png")
    words = ["edit", str(tiny_folder), str(tmp_path / "image.png"), "--out", str(tmp_path / "out"), "--mask"]
    with pytest.raises(SystemExit) as stop:
        main([*words, str(tmp_path / "wide.png")])
    assert stop.value.code == 2 and "is 8x16 and the image 16x16 (height x width)" in capsys.readouterr().err


def test_seeds_are_counted_before_they_are_listed():
    with pytest.raises(Refused, match="more than 1024 seeds at once in '1-100000000'"):
        parse_seeds("1-100000000", 1024)
    with pytest.raises(Refused, match="cannot read"):
        parse_seeds("1-" + "9" * 5000)


def test_class_names_without_images_are_no_network():
    with pytest.raises(Refused, match="only 2 different ones occur"):
        numbered([0, 1], "x.parquet", tuple(map(str, range(10**6))))
    assert len(numbered(range(900), "x.parquet", tuple(map(str, range(1000))))) == 1000


def test_a_pipe_is_no_picture(tmp_path):
    os.mkfifo(tmp_path / "x.png")
    with pytest.raises(Refused, match="it is no file"):
        open_image(tmp_path / "x.png")


# -- latents -----------------------------------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path):
    encode(ORACLE, torch.linspace(-1, 1, 32).view(2, 1, 4, 4), TAU, "bdia").save(tmp_path / "z.safetensors")
    return tmp_path / "z.safetensors"


def changed(path, tensors=None, **recipe):
    with safe_open(path, "pt") as opened:
        words = dict(opened.metadata())
    told = {k: v for k, v in {**json.loads(words["recipe"]), **recipe}.items() if v is not ...}
    state = {k: v for k, v in {**load_file(path), **(tensors or {})}.items() if v is not None}
    save_file(state, path, {**words, "recipe": json.dumps(told)})
    return path


@pytest.mark.parametrize(
    ("tensors", "recipe", "words"),
    [
        ({"x_T": torch.full((2, 1, 4, 4), float("nan"))}, {}, "x_T is not finite"),
        ({"x_T": torch.ones(2, 1, 4, 4, dtype=torch.int64)}, {}, "x_T must be floating-point latents"),
        ({"x_T": torch.ones(2, 1, 4, 4, dtype=torch.complex64)}, {}, "x_T must be floating-point latents"),
        ({"x_T": None}, {}, "lacks x_T"),
        ({"coupled": torch.ones(3, dtype=torch.bool)}, {}, "2 latents, but coupled for 3"),
        ({"states": torch.ones(1, 2, 1, 4, 4, dtype=torch.float64)}, {}, "do not fit 2 coupled images"),
        ({"states": None}, {}, "do not fit 2 coupled images"),
        ({"nfe": torch.ones(2)}, {}, "nfe must be one int64 an image"),
        ({}, {"tau": [0, 50, 100]}, "tau must be falling times"),
        ({}, {"tau": [100]}, "tau must be falling times"),
        ({}, {"method": "magic"}, "method must be one of naive"),
        ({}, {"gamma": 0}, "gamma must be a number from 1"),
        ({}, {"model": ...}, "its recipe lacks model"),
        ({}, {"conditions": [1]}, "conditions must be a mapping"),
        ({}, {"conditions": {"guidance": "strong"}}, "guidance must be a finite number"),
        ({}, {"conditions": {"label": [1, 2, 3]}}, "2 latents, but label for 3"),
        ({}, {"unsolved": [7]}, "unsolved names images"),
        ({}, {"names": ["../a", "b"]}, "names must be a list of file names"),
        ({}, {"names": ["a"]}, "2 latents, but names for 1"),
    ],
)
def test_latents_that_cannot_be(file, tensors, recipe, words):
    assert len(Latents.load(file)) == 2
    with pytest.raises(Refused, match=words):
        Latents.load(changed(file, tensors, **recipe))


# -- waiting -----------------------------------------------------------------------------------------------------


def test_a_silent_hub_is_not_waited_for_twice(tmp_path):
    """A server that accepts and says nothing: once 15 seconds, here 1."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port, held = server.getsockname()[1], []

        def accept():
            with contextlib.suppress(OSError):
                while True:
                    held.append(server.accept())

        threading.Thread(target=accept, daemon=True).start()
        code = (
            "import ddim.checkpoints.opening as o, time; o.PATIENCE = 1.0; begun = time.monotonic()\n"
            "try:\n o.open_checkpoint('some/model')\n"
            "except OSError as error:\n print(int(time.monotonic() - begun), error)"
        )
        env = {**os.environ, "HF_ENDPOINT": f"http://127.0.0.1:{port}", "HF_HOME": str(tmp_path)}
        env = {k: v for k, v in env.items() if k not in ("HF_HUB_OFFLINE", "http_proxy", "HTTP_PROXY", "all_proxy")}
        done = subprocess.run(
            [sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=120, check=False
        )
    seconds, _, words = done.stdout.partition(" ")
    assert "the hub cannot be reached" in words, done.stderr
    assert int(seconds) < 20 and len(words.splitlines()) == 1


LONG = pytest.mark.faults


@pytest.mark.parametrize("wait", [0.05, *(pytest.param(0.15 * i, marks=LONG) for i in range(1, 12))])
def test_an_interrupt_while_torch_is_imported_is_one_line(wait, tmp_path):
    words = [sys.executable, "-m", "ddim", "sample", "--count", "1", "--steps", "1000", "--out", str(tmp_path / "out")]
    run = subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    while run.poll() is None and not importing_torch(run.pid):
        time.sleep(0.01)
    time.sleep(wait)
    run.send_signal(signal.SIGINT)
    _, err = run.communicate(timeout=120)
    assert run.returncode in (130, -signal.SIGINT, 0), err
    assert "Traceback" not in err and (run.returncode != 130 or err.splitlines()[-1] == "ddim: interrupted")


def test_what_fails_after_an_interrupt_was_interrupted():
    """Seen of safetensors: its compiled code answered Ctrl-C with a ValueError."""
    with pytest.raises(KeyboardInterrupt), patient():
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise ValueError("could not determine the shape of object type") from None
    with pytest.raises(ValueError, match="its own"), patient():
        raise ValueError("a fault of its own")


def importing_torch(pid):
    """Whether that process has begun to load torch."""
    return "libtorch" in Path(f"/proc/{pid}/maps").read_text()
