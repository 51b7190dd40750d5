"""The probe on continuous processes: exact networks of Gaussian pictures, told of rightly and wrongly."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from ddim import noise
from ddim.checkpoints import Checkpoint, probe_checkpoint
from ddim.process import USUAL, TimeLabel, parameterisation, process_of, usual_label, usual_unit_input

STD = 0.3
IMAGES = STD * noise(range(12), (1, 6, 6), purpose="pictures").clamp(-3, 3)


class Exact(nn.Module):
    """What the best network of N(0, STD^2) pictures returns on a process, asked as is usual there."""

    def __init__(self, kind, prediction):
        super().__init__()
        self.process, self.label = process_of(kind), usual_label(kind, prediction)
        self.meaning = parameterisation(prediction, unit_input=usual_unit_input(kind, prediction))

    def forward(self, shown, told, label=None):
        at = self.process.at(self._time(float(told[0])))
        one = torch.ones((1, 1))
        x_t = shown / float(self.meaning.feed(one, at))
        c = at.signal**2 * STD**2 + at.noise**2
        return self.meaning.target(at.signal * STD**2 / c * x_t, at.noise / c * x_t, at)

    def _time(self, told):
        value = (told - self.label.shift) / self.label.scale
        if self.label.clock == "time":
            return min(max(value, 1e-6), self.process.T)
        return self.process.time_of(min(value if self.label.clock == "noise" else math.exp(min(value, 4.0)), 49.0))


def told(kind, prediction=None):
    prediction = prediction or USUAL[kind].prediction
    return Checkpoint(
        Exact(kind, prediction), process_of(kind), prediction, (1, 6, 6), "diffusers", "here", "",
        unit_input=usual_unit_input(kind, prediction),
    )  # fmt: skip


@pytest.mark.parametrize("kind", USUAL)
def test_the_file_is_right(kind):
    assert probe_checkpoint(told(kind), IMAGES).fits


@pytest.mark.parametrize(
    ("true", "mislabelled", "axis"),
    [
        ("flow", {"prediction": "v"}, "prediction velocity"),
        ("edm", {"time_label": TimeLabel("noise")}, "network's time 0.25 log(noise/signal)"),
        ("vp", {"data_range": (0.0, 1.0)}, "data range -1..1"),
    ],
)
def test_a_wrong_word_is_found(true, mislabelled, axis):
    (warning,) = probe_checkpoint(replace(told(true), **mislabelled), IMAGES).warnings
    assert f"the weights fit {axis}" in warning


def test_another_process_altogether_is_found():
    """Weights that follow a flow, in a file that says vp."""
    liar = replace(told("flow"), process=process_of("vp"), prediction="eps", time_label=None)
    report = probe_checkpoint(liar, IMAGES)
    assert report.best.schedule == "flow" and not report.fits
    assert "the weights fit process flow, velocity, told 1000 t" in report.warnings[0]
