"""Networks on continuous processes: real labels of time, what they are shown, and the image at t = 0."""

import pytest
import torch

from ddim import GaussianDenoiser, NetworkDenoiser, Refused, Schedule, noise, sample, tau
from ddim.process import PARAMETERISATIONS, edm, flow, parameterisation, subvp, ve, vp

PROCESSES = {"ve": ve(), "edm": edm(), "flow": flow(), "vp": vp(), "subvp": subvp()}


@pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
def test_labels_are_real_times_float32_unless_told_otherwise(process):
    seen = []

    def network(x, t):
        seen.append(t)
        return torch.zeros_like(x)

    x, half = noise([0, 1], (3, 4, 4)), 0.5 * process.T
    denoise = NetworkDenoiser(network, process, "v")
    denoise(x, half)
    denoise(x, torch.tensor([half, process.T], dtype=torch.float64))
    denoise(x, 0)
    denoise(x, torch.zeros(2))
    first = torch.tensor(process.first)
    for label, expected in zip(seen, [(half, half), (half, process.T), (first, first), (first, first)], strict=True):
        assert label.dtype == torch.float32 and label.tolist() == torch.tensor(expected).tolist()
    NetworkDenoiser(network, process, "v", label=lambda t: t.log() / 4)(x, half)  # EDM's c_noise
    torch.testing.assert_close(seen[-1], (torch.full((2,), half, dtype=torch.float64).log() / 4))


@pytest.mark.parametrize("process", [*PROCESSES.values(), Schedule.linear()], ids=[*PROCESSES, "schedule"])
@pytest.mark.parametrize("name", PARAMETERISATIONS)
def test_a_network_of_any_kind_made_from_the_oracle_is_the_oracle(process, name):
    """It is fed what its parameterisation says, answers in its own terms, and samples are the oracle's."""
    oracle, p = GaussianDenoiser(process, 0.3, 0.09), parameterisation(name)
    times = tau(process, 8, "trailing")
    if process.at(times[0]).signal == 0.0:
        times = times[1:]  # eps and score do not tell x0 there

    def network(shown, label):
        t = float(label[0])
        at = process.at(round(t) if process.discrete else t)
        x_t = shown / p.feed(torch.ones((), dtype=torch.float64), at)  # undo the scale it is shown at
        pair = oracle(x_t, round(t) if process.discrete else t)
        return p.target(pair.x0, pair.eps, at)

    x = process.start(times[0]) * noise(range(3), (5,), dtype=torch.float64)
    ours = sample(NetworkDenoiser(network, process, name, label=lambda t: t), x, times)
    torch.testing.assert_close(ours, sample(oracle, x, times), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
def test_at_time_0_the_image_is_itself_and_batched_times_are_single_ones(process):
    denoise = NetworkDenoiser(lambda x, t: 0.3 * x + t[:, None].to(x), process, "x0", label=lambda t: t)
    x = noise([0, 1, 2], (4,), dtype=torch.float64)
    assert torch.equal(denoise(x, 0).x0, x) and torch.equal(denoise(x, 0.0).x0, x)
    times = [0.0, 0.3 * process.T, process.T]
    together = denoise(x, torch.tensor(times, dtype=torch.float64))
    for i, t in enumerate(times):
        alone = denoise(x[i : i + 1], t)
        torch.testing.assert_close(together.x0[i : i + 1], alone.x0, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(together.eps[i : i + 1], alone.eps, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["eps", "score"])
def test_without_signal_eps_does_not_tell_x0(name):
    """flow at t = 1: (x - eps) / 0 would be an image of nan; below it all is well."""
    denoise, x = NetworkDenoiser(lambda x, t: 0.5 * x, flow(), name), noise([0, 1], (4,))
    for t in (1.0, 1, torch.ones(2), torch.tensor([0.5, 1.0])):
        with pytest.raises(Refused, match=rf"{name} does not tell x0 where there is no signal.* begin below t = 1"):
            denoise(x, t)
    assert bool(torch.isfinite(denoise(x, 0.999).x0).all())
    for other in ("v", "x0", "velocity", "edm"):
        assert bool(torch.isfinite(NetworkDenoiser(lambda x, t: 0.5 * x, flow(), other)(x, 1.0).x0).all())
    with pytest.raises(Refused, match="zero-terminal-SNR"):
        NetworkDenoiser(lambda x, t: x, Schedule.linear().zero_terminal_snr(), name)
