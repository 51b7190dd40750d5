"""Likelihood as a job: values against closed forms, an error budget by hand, taken up where it stopped."""

import json
import math

import numpy as np
import pytest
import torch

import ddim
from ddim.cli import main
from ddim.jobs import Scoring, bits_by_image, error_budget, score_images, scored_rows
from ddim.jobs.scored import _scored, dequantised
from ddim.pixels import PixelSpace
from ddim.process import flow

N, SHAPE = 6, (1, 2, 2)
PIXELS = np.random.default_rng(0).integers(60, 200, (N, 2, 2, 1)).astype(np.uint8)
HOW = Scoring(tolerance=1e-5, probes=None)


def finished(folder, low=-1.0, high=1.0, how=HOW, batch_size=4):
    oracle = ddim.GaussianDenoiser(flow(), (low + high) / 2, (0.3 * (high - low) / 2) ** 2)
    space = PixelSpace.of(SHAPE, (low, high))
    list(score_images(lambda _: oracle, space, PIXELS, how, folder, batch_size=batch_size, device=torch.device("cpu")))
    return scored_rows(folder, N, batch_size)


@pytest.mark.parametrize(("low", "high"), [(-1.0, 1.0), (0.0, 1.0)])
def test_bits_are_those_of_the_gaussian_whatever_the_range(tmp_path, low, high):
    """-log2 of N(x; 0, 0.3^2) times the width of a level, 2/255, at the dequantised values: of pictures in [-1, 1]."""
    rows = finished(tmp_path, low, high)
    law = torch.distributions.Normal(0.0, 0.3)
    for draw in range(2):
        x = dequantised(PIXELS, list(range(N)), HOW, draw)
        right = -(law.log_prob(x) / math.log(2)).flatten(1).mean(1) - math.log2(2 / 255)
        found = [row["bits"] for row in rows if row["draw"] == draw]
        assert found == pytest.approx(right.tolist(), abs=1e-3)


def test_dequantisation_stays_within_the_level():
    x = dequantised(PIXELS, list(range(N)), HOW, 1)
    levels = (x + 1) * 127.5 - torch.from_numpy(PIXELS).permute(0, 3, 1, 2)
    assert float(levels.abs().max()) <= 0.5 and float(levels.std()) == pytest.approx(12**-0.5, rel=0.3)


@pytest.mark.parametrize(("kind", "bits"), [(np.uint8, 5), (np.uint8, 1), (np.uint16, 16), (np.uint16, 10)])
def test_any_bit_depth(tmp_path, kind, bits):
    """Levels of 8 or 16 bits, merged to fewer: minus the integral of N(x; 0, 0.3^2) over a level, on average over U."""
    stored = 8 * np.dtype(kind).itemsize
    pixels = (PIXELS.astype(np.int64) * (2 ** (stored - 8)) + 3).astype(kind)
    how = Scoring(tolerance=1e-5, probes=None, bits=bits)
    step, level = 2 / (2**stored - 1), (pixels.astype(int) >> (stored - bits)) << (stored - bits)
    low = torch.from_numpy((level - 0.5) * step - 1).permute(0, 3, 1, 2)
    width = step * 2 ** (stored - bits)
    x = dequantised(pixels, list(range(N)), how, 0)
    assert bool(((x >= low) & (x <= low + width)).all()) and float(((x - low) / width).std()) > 0.2
    oracle, space = ddim.GaussianDenoiser(flow(), 0.0, 0.09), PixelSpace.of(SHAPE, (-1.0, 1.0))
    list(score_images(lambda _: oracle, space, pixels, how, tmp_path, device=torch.device("cpu")))
    right = -(torch.distributions.Normal(0.0, 0.3).log_prob(x) / math.log(2)).flatten(1).mean(1) - math.log2(width)
    found = [row["bits"] for row in scored_rows(tmp_path, N, 16) if row["draw"] == 0]
    assert found == pytest.approx(right.tolist(), abs=2e-3)


def test_upside_down_is_the_same_picture_turned_by_half():
    """A Gaussian of another mean in every pixel: the turned picture's density is known too."""
    mean = torch.tensor([[0.5, -0.5], [0.1, 0.0]], dtype=torch.float64)
    oracle, space = ddim.GaussianDenoiser(flow(), mean.view(1, 2, 2), 0.09), PixelSpace.of(SHAPE, (-1.0, 1.0))
    how = Scoring(tolerance=1e-5, probes=None, upside_down=True)
    rows = _scored(oracle, space, PIXELS, how, list(range(N)), torch.device("cpu"))
    x = dequantised(PIXELS, list(range(N)), how, 0).rot90(2, (-2, -1))
    right = -(torch.distributions.Normal(mean, 0.3).log_prob(x) / math.log(2)).flatten(1).mean(1) - math.log2(2 / 255)
    assert [row["upside_down"] for row in rows if row["draw"] == 0] == pytest.approx(right.tolist(), abs=1e-3)


def test_probes_reach_the_stated_error():
    root = torch.linalg.qr(ddim.noise(range(4), (4,), dtype=torch.float64))[0]
    oracle = ddim.GaussianDenoiser(
        flow(), 0.0, root @ torch.diag(torch.tensor([0.01, 0.1, 0.3, 1.0]).double()) @ root.T
    )
    space = PixelSpace.of((1, 1, 4), (-1.0, 1.0))
    how = Scoring(tolerance=1e-3, probes=2, trace_error=0.05)
    rows = _scored(oracle, space, PIXELS.reshape(N, 1, 4, 1), how, list(range(N)), torch.device("cpu"))
    assert all(row["error"] <= 0.05 for row in rows)
    assert {row["probes"] for row in rows} == {0}  # in 4 dimensions the exact trace is the cheapest


def test_parts_of_the_error_are_what_they_are_called():
    rows = [
        {"place": 0, "draw": 0, "bits": 3.0, "error": 0.4, "tighter": 3.1, "probes": 8, "upside_down": 3.3},
        {"place": 0, "draw": 1, "bits": 3.2, "error": 0.3, "probes": 4, "upside_down": 3.0},
        {"place": 1, "draw": 0, "bits": 5.0, "error": 0.0, "probes": 0, "upside_down": 4.0},
        {"place": 1, "draw": 1, "bits": 5.0, "error": 0.0, "probes": 0, "upside_down": 5.5},
    ]
    b = error_budget(rows)
    assert bits_by_image(rows) == {0: 3.1, 1: 5.0} and b.bits == pytest.approx(4.05)
    assert b.solver == pytest.approx(0.1) and b.trace == pytest.approx(0.5 / 4)
    assert b.dequantisation == pytest.approx(math.sqrt((0.02 + 0.0) / 2 / 2 / 2))
    assert b.probes == 3.0 and b.likelier_upright == 0.5
    assert b.sample == pytest.approx(np.std([3.1, 5.0], ddof=1) / math.sqrt(2))


def test_an_interrupted_job_goes_on_and_batches_change_nothing(tmp_path):
    how = Scoring(tolerance=1e-3, probes=3)
    whole = finished(tmp_path / "a", how=how)
    part = tmp_path / "a/parts/00000004.json"
    before = json.loads(part.read_text())
    part.unlink()
    assert scored_rows(tmp_path / "a", N, 4) is None
    kept = (tmp_path / "a/parts/00000000.json").stat().st_mtime_ns
    finished(tmp_path / "a", how=how)
    assert json.loads(part.read_text()) == before
    assert (tmp_path / "a/parts/00000000.json").stat().st_mtime_ns == kept
    others = finished(tmp_path / "b", how=how, batch_size=6)
    key = lambda row: (row["place"], row["draw"])  # noqa: E731  one place
    for mine, theirs in zip(sorted(whole, key=key), sorted(others, key=key), strict=True):
        assert mine["bits"] == pytest.approx(theirs["bits"], abs=1e-9)


def test_the_command_writes_its_report_and_is_taken_up(tmp_path, capsys):
    from conftest import save_tiny
    from ddim.pixels import save_png

    tiny_folder = save_tiny(tmp_path / "m", prediction="v")
    (tmp_path / "d").mkdir()
    c, h, w = ddim.load(tiny_folder).picture_shape
    for i in range(2):
        save_png(tmp_path / f"d/{i}.png", np.full((h, w, c), 40 * i + 20, np.uint8))
    words = ["likelihood", tiny_folder, tmp_path / "d", "--tolerance", 0.9, "--probes", 2, "--out", tmp_path / "r"]
    for again in (False, True):
        with pytest.raises(SystemExit) as stop:
            main([str(word) for word in words])
        said = capsys.readouterr()
        assert stop.value.code == 0, said.err
        assert "bits a dimension, mean of 2 images" in said.out, again
    told = json.loads((tmp_path / "r/likelihood.json").read_text())
    assert {"solver", "trace", "dequantisation", "sample"} <= set(told) and told["n"] == 2
    assert len((tmp_path / "r/likelihood.csv").read_text().splitlines()) == 3
    assert (tmp_path / "r/likelihood.png").exists()
    mistakes = {"another recipe": ("--seed", 1), "--draws": ("--draws", 1), "at most 8": ("--bits", 12),
                "--bits": ("--bits", 0), "--trace-error": ("--trace-error", 0)}  # fmt: skip
    for says, words_more in mistakes.items():
        with pytest.raises(SystemExit) as stop:
            main([str(word) for word in [*words, *words_more]])
        assert stop.value.code == 2 and says in capsys.readouterr().err
