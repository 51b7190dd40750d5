"""Solvers with a carry are diffusers' own, on the same nodes: DPM-Solver++, UniPC and PLMS."""

import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, PNDMScheduler, UniPCMultistepScheduler

from ddim import GaussianDenoiser, Schedule, noise, sample, tau, trajectory
from ddim.solve import PLMS, DPMSolverPP, UniPC

SCHEDULE = Schedule.linear()
# two unlike directions and a mean: unit variance alone hides errors
ORACLE = GaussianDenoiser(SCHEDULE, 0.3, torch.tensor([0.05, 4.0], dtype=torch.float64))
SEEDS = range(3)
X_T = noise(SEEDS, (2,), dtype=torch.float64)


def z_of(t):
    return noise(SEEDS, (2,), purpose="step", step=t, dtype=torch.float64)


def diffusers_states(scheduler, times, noisy=False):
    """Walk a diffusers scheduler through our times; the states after every step."""
    scheduler.set_timesteps(len(times) - 1)
    levels = [SCHEDULE.at(t) for t in times]
    scheduler.sigmas = torch.tensor([v.noise / v.signal for v in levels], dtype=torch.float64)  # its float32 blurs
    scheduler.timesteps = torch.tensor([t - 1 for t in times[:-1]])
    x, states = X_T, []
    for t in times[:-1]:
        extra = {"variance_noise": z_of(t)} if noisy else {}
        x = scheduler.step(ORACLE(x, t).eps, t - 1, x, **extra).prev_sample
        states.append(x)
    return states


def our_states(solver, times):
    return [s.x for s in trajectory(ORACLE, solver, times, X_T, z_of if solver.stochastic else None)]


CASES = [
    (DPMSolverPP(1), {"solver_order": 1}),
    (DPMSolverPP(2), {"solver_order": 2}),
    (DPMSolverPP(3, published=True), {"solver_order": 3}),
    (DPMSolverPP(2, stochastic=True), {"solver_order": 2, "algorithm_type": "sde-dpmsolver++"}),
    (DPMSolverPP(1, stochastic=True), {"solver_order": 1, "algorithm_type": "sde-dpmsolver++"}),
]


@pytest.mark.parametrize(("solver", "settings"), CASES)
@pytest.mark.parametrize("spacing", ["uniform", "quadratic", "trailing"])
def test_dpmsolver_equals_diffusers(solver, settings, spacing):
    times = tau(1000, 16, spacing)  # from 15 steps on it lowers the order at the last step only, as we do
    scheduler = DPMSolverMultistepScheduler(1000, final_sigmas_type="zero", **settings)
    for ours, theirs in zip(
        our_states(solver, times), diffusers_states(scheduler, times, solver.stochastic), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=2e-5, atol=2e-5)  # it computes in float32


@pytest.mark.parametrize(
    ("p", "form", "name"), [(2, "B2", "bh2"), (2, "B1", "bh1"), (3, "B2", "bh2"), (1, "B2", "bh2")]
)
@pytest.mark.parametrize("spacing", ["uniform", "quadratic"])
def test_unipc_equals_diffusers(p, form, name, spacing):
    times = tau(1000, 12, spacing)
    scheduler = UniPCMultistepScheduler(1000, solver_order=p, solver_type=name, final_sigmas_type="zero")
    states = list(zip(our_states(UniPC(p, form), times), diffusers_states(scheduler, times), strict=True))
    for ours, theirs in states[: -max(p - 1, 1)]:  # for p = 3 it lowers the order of the last but one, too
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)
    if p < 3 and form == "B2":  # at sigma = 0 its bh1 divides inf by inf and returns NaN; ours returns x0
        torch.testing.assert_close(*states[-1], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("steps", [10, 20, 50])
def test_plms_equals_diffusers_where_its_arithmetic_follows_its_list(steps):
    scheduler = PNDMScheduler(1000, skip_prk_steps=True, set_alpha_to_one=True, timestep_spacing="leading")
    scheduler.alphas_cumprod = SCHEDULE.alpha_bar[1:]
    scheduler.final_alpha_cumprod = torch.tensor(1.0, dtype=torch.float64)
    scheduler.set_timesteps(steps)
    assert len(scheduler.timesteps) == steps + 1  # its second call at the second time, ours within the first step
    x = X_T
    for label in scheduler.timesteps:
        x = scheduler.step(ORACLE(x, int(label) + 1).eps, int(label), x).prev_sample
    ours = sample(ORACLE, X_T, tau(1000, steps, "leading"), solver=PLMS())
    torch.testing.assert_close(ours, x, rtol=1e-9, atol=1e-9)
