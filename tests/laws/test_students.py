"""Students against closed forms: published targets, and the law that halving keeps K_S down to one step.

A student that meets its targets lands where its teacher's two steps do, so on Gaussian data (where every DDIM step is
affine) it has the teacher's gain at every halving: docs/distillation.md.
"""

import json
import math
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import nn

import ddim
from ddim.denoise import Consistent, Denoiser
from ddim.process import Continuous, Prediction, edm, flow, subvp, ve, vp
from ddim.solve import Fresh, Heun, solver_named
from ddim.uses import progressive_target, walk_target

KNOWN = json.loads((Path(__file__).parent.parent / "data" / "beyond.json").read_text())
PROCESSES = {"ddpm": ddim.Schedule.linear(1000), "vp": vp(), "subvp": subvp(), "ve": ve(), "edm": edm(), "flow": flow()}


def column(*numbers):
    return torch.tensor(numbers, dtype=torch.float64)[:, None]


def between(levels):
    """A process that has these three levels at t = 3, 2 and 1 (or 0, the clean image), straight lines between them."""

    def along(i):
        nodes = [(3.0 - k, tuple(at)) for k, at in reversed(list(enumerate(levels))) if at[1] > 0]
        nodes = [(0.0, (1.0, 0.0)), *nodes]

        def scale(t):
            (low, a), (high, b) = next(pair for pair in pairwise(nodes) if pair[0][0] <= t <= pair[1][0])
            return a[i] + (b[i] - a[i]) * (t - low) / (high - low)

        return scale

    return Continuous("fixture", along(0), along(1), T=3.0, first=1e-3)


@pytest.mark.parametrize("case", KNOWN["progressive_targets"], ids=lambda case: f"{case['x_t']:.2f}")
@pytest.mark.parametrize("batched", [False, True])
def test_the_target_of_two_steps_is_the_published_one(case, batched):
    teacher = ddim.GaussianDenoiser(between(case["levels"]), case["mean_data"], case["variance_data"])
    x_t, times = column(case["x_t"], 0.0), (3.0, 2.0, 1.0 if case["levels"][2][1] else 0.0)
    given = [torch.full((2,), t, dtype=torch.float64) for t in times] if batched else times
    p = progressive_target(teacher, x_t, *given)
    assert p.x0[0].item() == pytest.approx(case["target_x0"], abs=1e-10)
    assert p.eps[0].item() == pytest.approx(case["target_eps"], abs=1e-10)
    landed = ddim.process.ddim_step(p, teacher.process.at(3.0), teacher.process.at(times[2]))
    assert landed[0].item() == pytest.approx(case["x_s"], abs=1e-10)


class Linear(Denoiser):
    """x0 = p_t + q_t x_t, fitted to the targets of its own few times by least squares: an exact linear student."""

    invertible = True

    def __init__(self, teacher, times):
        self.process, self.table = teacher.process, {}
        for t, m, s in zip(times[:-2:2], times[1:-1:2], times[2::2], strict=True):
            x = ddim.noise(range(20), (1,), dtype=torch.float64, purpose="law") * self.process.at(t).noise
            target = progressive_target(teacher, x, t, m, s).x0
            design = torch.cat([torch.ones_like(x), x], 1)
            self.table[t] = torch.linalg.lstsq(design, target).solution.flatten()

    def __call__(self, x_t, t, conditions=None):
        p, q = self.table[t]
        at = self.process.at(t)
        return Prediction(p + q * x_t, (x_t - at.signal * (p + q * x_t)) / at.noise)


@pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
def test_every_halving_keeps_the_gain_of_the_teacher(process):
    mean, variance = 0.3, 0.25
    teacher, times = ddim.GaussianDenoiser(process, mean, variance), ddim.tau(process, 16, "trailing")

    def angle(t):
        at = process.at(t)
        return math.atan2(at.noise, at.signal * math.sqrt(variance))

    at = process.at(times[0])
    K = math.sqrt(variance / (at.signal**2 * variance + at.noise**2))
    K *= math.prod(math.cos(angle(t) - angle(s)) for t, s in pairwise(times))
    x_T = column(0.0, 1.0)
    shift = ddim.sample(teacher, x_T, times)[0].item()
    for halvings in range(5):
        ends = ddim.sample(teacher, x_T, times).flatten().tolist()
        assert ends[1] - ends[0] == pytest.approx(K, abs=1e-9), f"{16 >> halvings} steps"
        assert ends[0] == pytest.approx(shift, abs=1e-9)
        if len(times) > 2:
            teacher, times = Linear(teacher, times), times[::2]
    assert len(times) == 2


def test_a_target_of_one_step_is_the_teachers_own_pair_and_more_steps_land_together():
    schedule = ddim.Schedule.linear(1000)
    teacher = ddim.MixtureDenoiser(schedule, [0.4, 0.6], [-1.0, 1.0], 0.04)
    x = ddim.noise(range(6), (1,), dtype=torch.float64)
    own, alone = teacher(x, 800), progressive_target(teacher, x, 800, 300)
    assert torch.allclose(own.x0, alone.x0, atol=1e-10) and torch.allclose(own.eps, alone.eps, atol=1e-10)
    times = (1000, 800, 500, 100, 0)
    for name in ("ddim", "heun", "dpm++2m", "unipc"):
        solver = solver_named(name)
        p = walk_target(teacher, solver, x, times)
        assert torch.allclose(p.x0, ddim.sample(teacher, x, times, solver=solver), atol=1e-10)
    with pytest.raises(ddim.Refused, match="deterministic"):
        walk_target(teacher, solver_named("ddim", 1.0), x, times)
    with pytest.raises(ddim.Refused, match="must fall, but 300 is followed by 500"):
        progressive_target(teacher, x, 800, 300, 500)
    with pytest.raises(ddim.Refused, match="at least one step"):
        progressive_target(teacher, x, 800)


@pytest.mark.parametrize("case", KNOWN["consistency"], ids=lambda case: f"{case['t']:.2f}")
def test_the_consistency_function_of_gaussian_data(case):
    """From the exact denoiser by many steps of Heun, and from a network that has learnt it, in eps and in x0."""
    process = edm(sigma_min=case["t_min"])
    oracle = ddim.GaussianDenoiser(process, 0.0, case["variance_data"])
    x, t, f = column(case["x_t"]), case["t"], case["f"]
    n = 400
    way = [t * (case["t_min"] / t) ** (i / n) for i in range(n)] + [case["t_min"]]
    assert ddim.solve.end_of(ddim.trajectory(oracle, Heun(), way, x)).item() == pytest.approx(f, rel=1e-4)

    def learnt(x, label):
        flowed = x * ((case["variance_data"] + case["t_min"] ** 2) / (case["variance_data"] + label**2)[:, None]) ** 0.5
        return (x - flowed) / (label[:, None] - case["t_min"])  # the eps whose step to t_min ends there

    for name, network in (("eps", learnt), ("x0", lambda x, label: x - label[:, None] * learnt(x, label))):
        net = ddim.NetworkDenoiser(network, process, name, label=lambda t: t.double())
        for asked in (t, torch.tensor([t], dtype=torch.float64)):
            p = Consistent(net)(x, asked)
            assert p.x0.item() == pytest.approx(f, abs=1e-10)
            assert (p.x0 + t * p.eps).item() == pytest.approx(case["x_t"], abs=1e-10)


@pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
@pytest.mark.parametrize("prediction", ["eps", "x0", "v", "edm"])
def test_at_its_cleanest_time_it_is_the_image_itself_bit_for_bit(process, prediction):
    net = nn.Linear(3, 3)
    network = ddim.NetworkDenoiser(lambda x, label: net(x), process, prediction)
    f, x = Consistent(network), ddim.noise(range(5), (3,))
    assert torch.equal(f(x, process.first).x0, x)
    times = torch.full((5,), process.first, dtype=torch.int64 if process.discrete else torch.float64)
    times[1] = times[1] * 2
    assert torch.equal(f(x, times).x0[[0, 2, 3, 4]], x[[0, 2, 3, 4]]) and not torch.equal(f(x, times).x0[1], x[1])


def test_its_samples_forget_the_old_noise_and_depend_on_their_seed_alone():
    schedule = ddim.Schedule.linear(1000)
    student = Consistent(ddim.GaussianDenoiser(schedule, 0.5, 0.04))
    x_T, times = ddim.noise([7, 8], (2,), dtype=torch.float64), (1000, 400, 0)
    made = ddim.sample(student, x_T, times, solver=Fresh(), seeds=[7, 8])
    first = student(x_T, 1000).x0
    at = schedule.at(400)
    z = ddim.noise([7, 8], (2,), purpose="step", step=1000, dtype=torch.float64)
    assert torch.allclose(made, student(at.signal * first + at.noise * z, 400).x0, atol=1e-12)
    alone = ddim.sample(student, x_T[1:], times, solver=Fresh(), seeds=[8])
    assert torch.equal(alone, made[1:])
    with pytest.raises(ddim.Refused, match="knows no way back to one latent"):
        ddim.encode(student, made, times)
