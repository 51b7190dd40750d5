"""Step and trajectory: calls as announced, walks that go on from a carry, solvers that never change, gradients."""

from dataclasses import FrozenInstanceError, fields

import pytest
import torch

from ddim import DDIM, GaussianDenoiser, Heun, NetworkDenoiser, Schedule, noise, tau, trajectory
from ddim.process import edm, flow, ve
from ddim.solve import AB, PLMS, SOLVERS, Coupled, DPMSolverPP, Implicit, Solver, Step, UniPC, solver_named

SEEDS = range(3)
PROCESSES = {"schedule": Schedule.linear(), "zero": Schedule.linear().zero_terminal_snr(),
             "edm": edm(), "flow": flow(), "ve": ve()}  # fmt: skip


def z_of(t):
    return noise(SEEDS, (2,), purpose="step", step=t, dtype=torch.float64)


def network(process, calls):
    """A network that counts how often it is asked."""
    oracle = GaussianDenoiser(process, 0.3, torch.tensor([0.05, 4.0], dtype=torch.float64))

    def ask(x, t):
        calls.append(len(x))
        return oracle(x, int(t[0]) if process.discrete else float(t[0])).x0

    return NetworkDenoiser(ask, process, "x0", label=lambda t: t)


def walk(solver, process, times, x=None, carry=None, calls=None):
    x = process.at(times[0]).noise * noise(SEEDS, (2,), dtype=torch.float64) if x is None else x
    return list(trajectory(network(process, [] if calls is None else calls), solver, times, x, z_of, carry))


def taus(process):
    whole = tau(process, 7, "trailing")
    return [whole, tau(process, 1), tau(process, 2, "trailing"), whole[2:], whole[:5], whole[1:3]]


@pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
@pytest.mark.parametrize("name", SOLVERS)
def test_calls_are_what_the_solver_announces_and_what_the_network_sees(process, name):
    """Down to the image, in one step, in two, from in between, and where the walk does not end at 0."""
    solver = solver_named(name)
    for times in taus(process):
        calls = []
        steps = walk(solver, process, times, calls=calls)
        announced = solver.calls(times)
        if name == "plms" and process.at(times[0]).signal == 0.0 and times[2:3] == (0,):
            announced -= 1  # its second call has no place: pure noise before it, the image after it
        assert sum(step.calls for step in steps) == announced == len(calls)
        assert set(calls) == {3}


@pytest.mark.parametrize(
    ("solver", "expected"), [(DDIM(), 10), (Heun(), 19), (PLMS(), 11), (AB(4), 10), (UniPC(3), 10)]
)
def test_calls_of_ten_steps(solver, expected):
    assert solver.calls(tau(1000, 10)) == solver.calls(tau(edm(), 10, "edm")) == expected
    assert solver.calls((1000, 0)) == 1


@pytest.mark.parametrize("name", [n for n in SOLVERS if not solver_named(n).stochastic])
def test_calls_upwards(name):
    solver = solver_named(name)
    up = tau(1000, 6)[::-1]
    steps = walk(solver, PROCESSES["schedule"], up, x=z_of(3))
    assert sum(step.calls for step in steps) == solver.calls(up)


def test_implicit_announces_the_most_there_can_be():
    calls, up = [], tau(1000, 6)[::-1]
    steps = walk(Implicit(), PROCESSES["schedule"], up, x=0.5 * z_of(3), calls=calls)
    assert sum(step.calls for step in steps) == len(calls) <= Implicit().calls(up)
    assert int(sum(step.carry.calls for step in steps).sum()) == sum(calls)  # rows, image by image


@pytest.mark.parametrize("process", [PROCESSES["schedule"], PROCESSES["flow"]], ids=["schedule", "flow"])
@pytest.mark.parametrize("name", SOLVERS)
def test_a_walk_goes_on_from_its_carry_bit_for_bit(process, name):
    solver, times = solver_named(name), tau(process, 8, "trailing")
    whole = walk(solver, process, times)
    for k in range(2, len(times)):
        first = walk(solver, process, times[:k])
        rest = walk(solver, process, times[k - 1 :], x=first[-1].x, carry=first[-1].carry)
        for a, b in zip([*first, *rest], whole, strict=True):
            assert torch.equal(a.x, b.x) and a.calls == b.calls


@pytest.mark.parametrize("name", ["ab3", "dpm++3m", "unipc", "plms"])
def test_without_the_carry_it_is_another_walk(name):
    """The comparison above can fail."""
    solver, process, times = solver_named(name), PROCESSES["schedule"], tau(1000, 8, "trailing")
    whole = walk(solver, process, times)
    anew = walk(solver, process, times[4:], x=whole[3].x)
    assert not torch.equal(anew[-1].x, whole[-1].x)


def test_implicit_and_coupled_go_on_too():
    process, up = PROCESSES["schedule"], tau(1000, 6)[::-1]
    for solver in (Implicit(tolerance=1e-9, difference=1e-6), Coupled(1.2)):
        whole = walk(solver, process, up, x=0.5 * z_of(3))
        first = walk(solver, process, up[:4], x=0.5 * z_of(3))
        rest = walk(solver, process, up[3:], x=first[-1].x, carry=first[-1].carry)
        assert torch.equal(rest[-1].x, whole[-1].x)


@pytest.mark.parametrize("name", SOLVERS)
def test_every_yield_is_a_step_and_its_prediction_is_the_first_at_t(name):
    process, times = PROCESSES["edm"], tau(edm(), 4, "edm")
    steps, x = walk(solver_named(name), process, times), None
    ask = network(process, [])
    x = process.at(times[0]).noise * noise(SEEDS, (2,), dtype=torch.float64)
    assert len(steps) == 4
    for t, step in zip(times, steps, strict=False):
        assert type(step) is Step and step._fields == ("x", "carry", "prediction", "calls")
        assert torch.equal(step.prediction.x0, ask(x, t).x0) and torch.equal(step.prediction.eps, ask(x, t).eps)
        x = step.x


@pytest.mark.parametrize(
    "solver", [DDIM(0.5), Heun(), AB(3), PLMS(), DPMSolverPP(2), UniPC(2), Coupled(1.1), Implicit()], ids=repr
)
def test_solvers_are_frozen_and_facts_are_not_arguments(solver):
    assert isinstance(solver, Solver)
    for name in ("order", "eta", "calls", "anything"):
        with pytest.raises((FrozenInstanceError, AttributeError, TypeError)):
            setattr(solver, name, 7)
    assert solver == type(solver)(**{f.name: getattr(solver, f.name) for f in fields(solver)})
    for made_up in ({"nfe": 0}, {"gain": 2}):
        with pytest.raises(TypeError):
            type(solver)(**made_up)


@pytest.mark.parametrize("kind", [DDIM, Heun, PLMS, UniPC, Coupled, Implicit])
def test_an_order_cannot_be_made_up(kind):
    with pytest.raises(TypeError, match="order"):
        kind(order=7)
    with pytest.raises(TypeError, match="nfe"):
        Heun(nfe=0)


@pytest.mark.parametrize("name", SOLVERS)
def test_gradients_pass_through_the_walk(name):
    """On Gaussian data the walk is affine: its slope by autograd is its difference by running it twice."""
    process, times, solver = PROCESSES["flow"], tau(flow(), 6, "logsnr")[1:], solver_named(name)
    oracle = GaussianDenoiser(process, 0.3, 0.25)
    x = noise(SEEDS, (2,), dtype=torch.float64).requires_grad_()
    *_, last = trajectory(oracle, solver, times, x, z_of)
    (slope,) = torch.autograd.grad(last.x.sum(), x)
    with torch.no_grad():
        *_, moved = trajectory(oracle, solver, times, x + 1.0, z_of)
    assert not moved.x.requires_grad
    torch.testing.assert_close(slope, (moved.x - last.x).detach(), rtol=1e-9, atol=1e-11)
    assert float(slope.abs().min()) > 1e-4
