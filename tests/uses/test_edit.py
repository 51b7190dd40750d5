"""Edits: what is kept is kept, what is made is what the model makes; on Gaussians the result is known."""

import itertools
import math

import pytest
import torch

from ddim import DDIM, Denoiser, GaussianDenoiser, Schedule, noise, sample, tau
from ddim.denoise import NONE, Bound, Guided, labels
from ddim.process import Prediction
from ddim.uses import along, by_label, by_strength, direction, encode, inpaint, partial_tau

SCHEDULE = Schedule.linear(1000)
ORACLE = GaussianDenoiser(SCHEDULE, 0.1, 0.25)
TAU = tau(1000, 20)
SEEDS = [3, 4, 5]


def images(dtype=torch.float64):
    return 0.5 * noise([10, 11, 12], (1, 4, 4), dtype=dtype)


def half():
    mask = torch.zeros(1, 4, 4, dtype=torch.bool)
    mask[:, :, 2:] = True
    return mask


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_strength_0_is_the_image_and_strength_1_ignores_it(eta):
    x = images()
    assert torch.equal(by_strength(ORACLE, x, TAU, 0.0, seeds=SEEDS, eta=eta), x)
    full = by_strength(ORACLE, x, TAU, 1.0, seeds=SEEDS, eta=eta)
    assert torch.equal(full, by_strength(ORACLE, -x, TAU, 1.0, seeds=SEEDS, eta=eta))
    plain = sample(ORACLE, noise(SEEDS, (1, 4, 4), dtype=x.dtype), TAU, solver=DDIM(eta=eta), seeds=SEEDS)
    assert torch.equal(full, plain)


def test_strength_starts_at_the_time_it_names_and_keeps_less_the_more_it_is():
    assert partial_tau(TAU, 0.5, 1000) == TAU[10:] and TAU[10] <= 500 < TAU[9]
    assert partial_tau(TAU, 0.0005, 1000) == (0,)
    x = images()
    kept = [float((by_strength(ORACLE, x, TAU, s, seeds=SEEDS) - x).square().mean()) for s in (0.1, 0.3, 0.6, 1.0)]
    assert kept == sorted(kept) and kept[0] < 0.05 < kept[-1]
    with pytest.raises(ValueError, match=r"1\.2"):
        by_strength(ORACLE, x, TAU, 1.2, seeds=SEEDS)
    with pytest.raises(ValueError, match="3 seeds"):
        by_strength(ORACLE, x, TAU, 0.5, seeds=[1])


def test_strength_on_a_gaussian_has_a_closed_form():
    """Noised to t, then one affine DDIM map: gain K = flow * prod cos on what was noised (docs/theory.md, 2)."""
    x, times = images(), partial_tau(TAU, 0.5, 1000)
    at = SCHEDULE.at(times[0])
    noised = at.signal * x + at.noise * noise(SEEDS, (1, 4, 4), purpose="edit", dtype=x.dtype)
    phi = [math.atan2(SCHEDULE.at(t).noise, SCHEDULE.at(t).signal * 0.5) for t in times]
    gain = 0.5 / math.sqrt(at.signal**2 * 0.25 + at.noise**2)
    gain *= math.prod(math.cos(a - b) for a, b in itertools.pairwise(phi))
    expected = 0.1 + gain * (noised - at.signal * 0.1)
    torch.testing.assert_close(by_strength(ORACLE, x, TAU, 0.5, seeds=SEEDS), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(("resample", "jump"), [(1, 1), (3, 1), (2, 5), (2, 7)])
def test_masks(eta, resample, jump):
    """Empty: nothing changes. Full: plain sampling. Half: kept pixels bit for bit, the others new."""
    x, options = images(), {"seeds": SEEDS, "eta": eta, "resample": resample, "jump": jump}
    assert torch.equal(inpaint(ORACLE, x, torch.zeros(1, 4, 4), TAU, **options), x)
    full = inpaint(ORACLE, x, torch.ones(1, 4, 4), TAU, **options)
    plain = sample(ORACLE, noise(SEEDS, (1, 4, 4), dtype=x.dtype), TAU, solver=DDIM(eta=eta), seeds=SEEDS)
    assert torch.equal(full, plain)
    some = inpaint(ORACLE, x, half(), TAU, **options)
    assert torch.equal(some[..., :2], x[..., :2])
    assert float((some - x)[..., 2:].abs().min()) > 1e-3
    assert torch.equal(some, inpaint(ORACLE, x, half(), TAU, **options))


def test_each_image_may_have_its_own_mask_and_does_not_feel_the_others():
    x = images()
    masks = torch.stack([half(), torch.zeros_like(half()), torch.ones_like(half())])
    together = inpaint(ORACLE, x, masks, TAU, seeds=SEEDS)
    for i in range(3):
        alone = inpaint(ORACLE, x[i : i + 1], masks[i : i + 1], TAU, seeds=SEEDS[i : i + 1])
        torch.testing.assert_close(alone[0], together[i])


def test_bound_conditions_go_with_their_image():
    """Of three images one has nothing to paint: its label must not stay behind."""

    class ByLabel(Denoiser):
        process, invertible = SCHEDULE, True

        def __call__(self, x_t, t, conditions=NONE):
            assert len(conditions.per_image["label"]) == len(x_t)
            return GaussianDenoiser(SCHEDULE, 0.1, 0.25)(x_t, t)

    masks = torch.stack([torch.zeros(1, 4, 4, dtype=torch.bool), half(), half()])
    bound = Bound(ByLabel(), labels(torch.tensor([0, 1, 2])))
    made = inpaint(bound, images(), masks, TAU, seeds=SEEDS)
    assert torch.equal(made, inpaint(ORACLE, images(), masks, TAU, seeds=SEEDS))


def test_inpainting_uses_what_it_knows_and_resampling_helps():
    """Two pixels of correlation 0.9, one known: the other's mean is 0.9 times it, its variance 0.19 (times 0.25).

    Without resampling the painted pixel follows half-heartedly; with it, it approaches the conditional law.
    """
    covariance = 0.25 * torch.tensor([[1.0, 0.9], [0.9, 1.0]], dtype=torch.float64)
    oracle, n = GaussianDenoiser(SCHEDULE, 0.0, covariance), 120
    x = torch.stack([torch.linspace(-1, 1, n, dtype=torch.float64), torch.zeros(n, dtype=torch.float64)], 1)
    slope = {}
    for resample in (1, 10):
        y = inpaint(oracle, x, torch.tensor([False, True]), tau(1000, 40), seeds=range(n), resample=resample)
        slope[resample] = float((y[:, 1] * x[:, 0]).sum() / x[:, 0].square().sum())
    assert slope[10] > slope[1] + 0.05
    assert slope[10] == pytest.approx(0.9, abs=0.08)


def test_bad_masks_are_named():
    with pytest.raises(ValueError, match="mask"):
        inpaint(ORACLE, images(), torch.zeros(1, 3, 3), TAU, seeds=SEEDS)
    with pytest.raises(ValueError, match="resample"):
        inpaint(ORACLE, images(), half(), TAU, seeds=SEEDS, resample=0)


class PerLabel(Denoiser):
    """Data N(mean of the label, 0.25)."""

    process, invertible, means = SCHEDULE, True, torch.tensor([-0.8, 0.6, 0.0], dtype=torch.float64)

    def __call__(self, x_t, t, conditions=NONE):
        label = conditions.per_image["label"]
        parts = [GaussianDenoiser(SCHEDULE, float(self.means[k]), 0.25)(x[None], t) for x, k in zip(x_t, label)]  # noqa: B905
        return Prediction(torch.cat([p.x0 for p in parts]), torch.cat([p.eps for p in parts]))


def test_a_label_switch_moves_the_class_mean_and_keeps_the_rest():
    """With one covariance for all classes, the change is the same for every image: what is not the class stays."""
    x, source, target = images(), torch.tensor([0, 0, 0]), torch.tensor([1, 1, 1])
    y = by_label(PerLabel(), x, tau(1000, 50), source=source, target=target)
    move = y - x
    torch.testing.assert_close(move, torch.full_like(move, float(move.mean())), rtol=0, atol=1e-6)
    assert float(move.mean()) == pytest.approx(1.4, abs=0.05)
    stay = by_label(PerLabel(), x, tau(1000, 50), source=source, target=source)
    torch.testing.assert_close(stay, x, rtol=0, atol=1e-6)
    assert torch.equal(by_label(PerLabel(), x, TAU, source=source, target=target, strength=0.0), x)
    further = by_label(PerLabel(), x, TAU, source=source, target=target, guided=Guided(PerLabel(), 2.0, 2))
    assert float(further.mean()) > float(y.mean()) + 0.3


def test_a_direction_is_the_difference_of_means_and_a_walk_along_it_keeps_the_norm():
    having, without = noise(range(6), (1, 4, 4)), noise(range(6, 9), (1, 4, 4))
    towards = direction(without, having)
    torch.testing.assert_close(towards, having.mean(0) - without.mean(0))
    z = encode(ORACLE, images(), TAU)
    x_T = z.x_T
    assert torch.equal(along(x_T, towards, 0.0), x_T)
    moved = along(x_T, towards, 2.0)
    torch.testing.assert_close(moved.flatten(1).norm(dim=1), x_T.flatten(1).norm(dim=1))
    assert bool(((moved - x_T) * towards).flatten(1).sum(1).gt(0).all())
    torch.testing.assert_close(direction(z, z), torch.zeros_like(x_T[0]))


def test_consistency_falls_with_steps_for_ddim_and_not_for_ddpm():
    """On a Gaussian the long trajectory is known; DDIM draws near at rate 1/S, DDPM stays as far as chance."""
    from ddim.uses import same_latents

    x_T = noise(range(8), (1, 4, 4), dtype=torch.float64)
    taus = [tau(1000, s) for s in (10, 40, 160)]
    rows = list(same_latents(ORACLE, x_T, taus, tau(1000, 1000), seeds=range(8)))
    ddim = [float(r.distance.mean()) for r in rows if r.eta == 0.0]
    ddpm = [float(r.distance.mean()) for r in rows if r.eta == 1.0]
    assert ddim[0] > 3 * ddim[1] > 9 * ddim[2]
    assert min(ddpm) > 0.7 * rows[0].unrelated > 4 * max(ddim[1:])
    assert [r.steps for r in rows] == [10, 40, 160] * 2
