import pytest
import torch

from ddim import Schedule, noise
from ddim.process import Objective, diffuse, edm, flow, subvp, ve, vp

SCHEDULE = Schedule.linear()


def test_diffuse_is_ddpm_eq_4():
    x0, eps = noise([0, 1], (3,)), noise([2, 3], (3,))
    x_t = diffuse(x0, eps, torch.tensor([1, 1000]), SCHEDULE)
    for i, t in enumerate((1, 1000)):
        a = float(SCHEDULE.alpha_bar[t])
        torch.testing.assert_close(x_t[i], a**0.5 * x0[i] + (1 - a) ** 0.5 * eps[i])


@pytest.mark.parametrize("gamma", [None, 5.0])
@pytest.mark.parametrize("t", [1, 100, 600, 1000])
def test_min_snr_weights_the_x0_error_alike_in_every_parameterisation(gamma, t):
    """One wrong pair, seen by three losses: with min-SNR they must agree, and equal min(SNR, gamma) |x0 error|^2."""
    x0, eps, level = noise([0], (50,)).double(), noise([1], (50,)).double(), SCHEDULE.at(t)
    x_t = level.signal * x0 + level.noise * eps
    wrong_x0 = x0 + 0.1 * noise([2], (50,)).double()
    wrong_eps = (x_t - level.signal * wrong_x0) / level.noise
    snr = (level.signal / level.noise) ** 2
    error = float((wrong_x0 - x0).square().mean())
    expected = {
        None: {"eps": snr * error, "x0": error, "v": (snr + 1) * error},
        5.0: dict.fromkeys(("eps", "x0", "v"), min(snr, 5.0) * error),
    }[gamma]
    for prediction, value in expected.items():
        objective = Objective(prediction, gamma)
        out = objective.parameterisation.target(wrong_x0, wrong_eps, level)
        loss = objective.losses(out, x0, eps, torch.tensor([t]), SCHEDULE)
        assert float(loss) == pytest.approx(value, rel=1e-3)


def test_zero_terminal_snr_weights_are_finite():
    zero = SCHEDULE.zero_terminal_snr()
    weights = Objective("v", 5.0).weight(zero.at_batch(torch.tensor([1, 1000]), torch.zeros(2, 1)))
    assert bool(torch.isfinite(weights).all()) and float(weights[1]) == 0.0


def test_bad_settings():
    with pytest.raises(ValueError, match="unknown prediction"):
        Objective("noise")
    with pytest.raises(ValueError, match="min-SNR weights are of the predictions eps, x0 and v, not of 'score'"):
        Objective("score", 5.0)
    with pytest.raises(ValueError, match="above 0"):
        Objective("eps", 0.0)


@pytest.mark.parametrize("process", [ve(), edm(), flow(), vp(), subvp()], ids=lambda p: p.name)
@pytest.mark.parametrize("gamma", [None, 5.0])
def test_on_continuous_processes_too(process, gamma):
    """x_t, and min-SNR's promise: one wrong pair costs min(SNR, gamma) |x0 error|^2 in every parameterisation."""
    x0, eps, wrong_x0 = (noise([i], (50,), dtype=torch.float64) for i in range(3))
    for t in (process.first, 0.1 * process.T, 0.7 * process.T):
        level, at = process.at(t), torch.tensor([t], dtype=torch.float64)
        x_t = diffuse(x0, eps, at, process)
        torch.testing.assert_close(x_t, level.signal * x0 + level.noise * eps, rtol=1e-12, atol=1e-12)
        wrong_eps = (x_t - level.signal * wrong_x0) / level.noise
        snr, error = (level.signal / level.noise) ** 2, float((wrong_x0 - x0).square().mean())
        for prediction in ("eps", "x0", "v") if gamma else ("x0", "eps", "velocity"):
            objective = Objective(prediction, gamma)
            out = objective.parameterisation.target(wrong_x0, wrong_eps, level)
            plain = {"eps": snr, "x0": 1.0, "velocity": (1 + level.signal / level.noise) ** 2}
            expected = min(snr, gamma) * error if gamma else plain[prediction] * error
            assert float(objective.losses(out, x0, eps, at, process)) == pytest.approx(expected, rel=1e-4)
