"""The oracles on every process: eps is minus noise times the score of the law of x_t, by autograd on its density."""

import math

import pytest
import torch

from ddim import GaussianDenoiser, MixtureDenoiser, Schedule
from ddim.process import edm, flow, subvp, ve, vp

PROCESSES = {"ve": ve(), "edm": edm(), "flow": flow(), "vp": vp(), "subvp": subvp(), "schedule": Schedule.linear()}
X = torch.linspace(-3, 3, 12, dtype=torch.float64).view(6, 2)
PARTS = [(0.3, -0.6, 0.05), (0.7, 0.5, 0.4)]


def log_density(x, at, parts):
    """log sum_k w_k N(x; signal m_k, signal^2 v_k + noise^2), written out."""
    terms = []
    for weight, mean, variance in parts:
        c = at.signal**2 * variance + at.noise**2
        terms.append(math.log(weight) - 0.5 * ((x - at.signal * mean) ** 2 / c + math.log(2 * math.pi * c)).sum(-1))
    return torch.logsumexp(torch.stack(terms), 0)


@pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
@pytest.mark.parametrize("parts", [[(1.0, 0.3, 0.2)], PARTS], ids=["gaussian", "mixture"])
@pytest.mark.parametrize("share", [0.001, 0.2, 0.7])
def test_eps_is_minus_noise_times_the_score_and_the_pair_is_consistent(process, parts, share):
    w, m, v = zip(*parts, strict=True)
    denoise = GaussianDenoiser(process, m[0], v[0]) if len(parts) == 1 else MixtureDenoiser(process, w, m, list(v))
    t = max(share * process.T, process.first)
    t = round(t) if process.discrete else t
    at, x = process.at(t), X.clone().requires_grad_()
    (score,) = torch.autograd.grad(log_density(x, at, parts).sum(), x)
    p = denoise(X, t)
    torch.testing.assert_close(p.eps, -at.noise * score, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(at.signal * p.x0 + at.noise * p.eps, X, rtol=1e-10, atol=1e-10)
    times = torch.full((6,), t, dtype=torch.int64 if process.discrete else torch.float64)
    together = denoise(X, times)
    torch.testing.assert_close(together.eps, p.eps, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(together.x0, p.x0, rtol=1e-12, atol=1e-12)
