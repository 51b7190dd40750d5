"""Exactness for any network, the refusals, the recipe, the file: whatever does not need Gaussian data."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from rough_network import LABELS, SCHEDULE, TAU, Network, images, network

from ddim import Clip, Denoiser, GaussianDenoiser, NetworkDenoiser, load, sample, tau
from ddim.denoise import NONE, Bound, DynamicThreshold, Guided, labels
from ddim.process import Prediction, flow
from ddim.refused import Refused
from ddim.solve import Coupled, Implicit, Older, end_of, trajectory
from ddim.uses import decode, encode


class Folded(Denoiser):
    """No image has a preimage below its fold: eps folds x over, so DDIM's step never goes below a level."""

    process, invertible = SCHEDULE, True

    def __call__(self, x_t, t, conditions=NONE):
        at = SCHEDULE.at(max(t, 1))
        x0 = x_t.abs()
        return Prediction(x_t if t == 0 else x0, (x_t - at.signal * x0) / at.noise if t else torch.zeros_like(x_t))


@pytest.mark.parametrize("strength", [0.5, 1.0, 6.0])
@pytest.mark.parametrize("method", ["exact", "bdia"])
@pytest.mark.parametrize(("dtype", "least"), [(torch.float32, 60.0), (torch.float64, 120.0)])
def test_exact_returns_every_image_of_any_network(strength, method, dtype, least):
    denoise, x = network(strength, dtype), images(dtype=dtype)
    z = encode(denoise, x, TAU, method, label=LABELS)
    y = decode(denoise, z, label=LABELS)
    error = (y - x).double().flatten(1)
    psnr = 10 * torch.log10(4 / error.square().mean(1))
    assert float(psnr.min()) >= least
    torch.testing.assert_close(z.certificate.psnr, psnr, rtol=1e-6, atol=1e-6)  # what the certificate says is true
    torch.testing.assert_close(z.certificate.max_error, error.abs().amax(1))
    assert y.dtype == x.dtype and z.x_T.dtype == dtype


def test_images_without_a_preimage_are_named_and_encoded_all_the_same():
    """Both signs in one batch: DDIM's step of the folding denoiser has no inverse at negative x."""
    x = torch.tensor([[0.5, 0.7], [-0.5, -0.7], [0.6, 0.6]], dtype=torch.float64)
    implicit = encode(Folded(), x, tau(1000, 4), "implicit")
    assert implicit.unsolved == (1,)
    assert implicit.certificate.residual[1] > 0.1
    assert bool((implicit.certificate.residual[[0, 2]] <= implicit.recipe.tolerance).all())
    z = encode(Folded(), x, tau(1000, 4))
    assert z.coupled.tolist() == [False, True, False] and z.unsolved == (1,)
    assert z.states.shape == (1, 2, 2)
    torch.testing.assert_close(decode(Folded(), z), x, rtol=0, atol=1e-8)


def test_each_image_is_solved_as_if_alone():
    """Rows drop out of the batch as they converge; their labels must go with them."""
    denoise, x = network(2.0, torch.float64), images(dtype=torch.float64)
    together = encode(denoise, x, TAU, "implicit", label=LABELS)
    for i in range(len(x)):
        alone = encode(denoise, x[i : i + 1], TAU, "implicit", label=LABELS[i : i + 1])
        torch.testing.assert_close(alone.x_T[0], together.x_T[i], rtol=1e-6, atol=1e-7)
        assert alone.certificate.nfe[0] == together.certificate.nfe[i]


def test_nfe_counts_every_row_the_network_sees():
    rows, x = [], images()

    class Counted(Network):
        def forward(self, x, t, label=None):
            rows.append(len(x))
            return super().forward(x, t, label)

    counted, S = NetworkDenoiser(Counted(2.0), SCHEDULE), len(TAU) - 1
    for method in ("naive", "implicit", "bdia", "exact"):
        rows.clear()
        z = encode(counted, x, TAU, method)
        certifying = (method != "bdia") * len(x) * S + int(z.coupled.sum()) * (S - 1)
        assert int(z.certificate.nfe.sum()) == sum(rows) - certifying, method


def test_naive_is_the_published_reversal():
    denoise, x = network(1.0, torch.float64), images(dtype=torch.float64)
    expected = x
    for t, s in zip(TAU[::-1][:-1], TAU[::-1][1:], strict=True):
        at, to = SCHEDULE.at(t), SCHEDULE.at(s)
        eps = denoise.network(expected, torch.full((len(x),), max(t - 1, 0)))
        expected = to.signal * (expected - at.noise * eps) / at.signal + to.noise * eps
    torch.testing.assert_close(encode(denoise, x, TAU, "naive").x_T, expected, rtol=1e-10, atol=1e-10)


def test_gamma_1_is_bdia_written_out():
    """x_{i-1} = x_{i+1} - [x_i moved up] + [x_i moved down], both moves with one eps (arXiv 2307.10829, eq. 14)."""
    denoise, x = network(1.0, torch.float64), images(dtype=torch.float64)
    r, t, s = 700, 640, 600
    move = lambda a, b, y, e: b.signal / a.signal * y + (b.noise - b.signal * a.noise / a.signal) * e  # noqa: E731
    older, at = x + 0.1, SCHEDULE.at(t)
    eps = denoise(x, t).eps
    expected = older - move(at, SCHEDULE.at(r), x, eps) + move(at, SCHEDULE.at(s), x, eps)
    found = end_of(trajectory(denoise, Coupled(1.0), (t, s), x, carry=Older(r, older)))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    back = end_of(trajectory(denoise, Coupled(1.0), (t, r), x, carry=Older(s, found)))
    torch.testing.assert_close(back, older, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("method", ["naive", "implicit", "bdia", "exact"])
def test_encode_leaves_its_input_alone_and_is_repeatable(method):
    denoise, x = network(6.0, torch.float64), images(dtype=torch.float64)
    before = x.clone()
    first, second = encode(denoise, x, TAU, method), encode(denoise, x, TAU, method)
    assert torch.equal(x, before)
    assert torch.equal(first.x_T, second.x_T)


def test_guided_models_are_encoded_exactly_and_know_their_weight():
    guided = Guided(network(), 3.0, 4)
    z = encode(Bound(guided, labels(LABELS)), images(), TAU)
    assert float(z.certificate.psnr.min()) >= 60
    assert z.recipe.conditions["guidance"] == 3.0 and z.recipe.conditions["label"] == LABELS.tolist()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        torch.testing.assert_close(decode(guided, z, label=LABELS), images(), rtol=0, atol=2e-3)
    with pytest.warns(UserWarning, match=r"guidance 2\.0 instead of 3\.0"):
        decode(Guided(network(), 2.0, 4), z, label=LABELS)


def test_another_recipe_warns_and_is_plain_sampling_from_x_T():
    denoise, z = network(), encode(network(), images(), TAU, "bdia", label=LABELS)
    other = tau(1000, 10)
    with pytest.warns(UserWarning, match="10 steps"):
        y = decode(denoise, z, other, label=LABELS)
    torch.testing.assert_close(y, sample(denoise, z.x_T.double(), other, label=LABELS).float())
    with pytest.warns(UserWarning, match="label"):
        decode(denoise, z, label=LABELS.flip(0))
    with pytest.warns(UserWarning, match="another network"):
        decode(network(2.0).__class__(Network(1.0, classes=5), SCHEDULE), z, label=LABELS)
    with pytest.warns(UserWarning, match="visits 600"):
        decode(denoise, z, tuple(600 if t == TAU[8] else t for t in TAU), label=LABELS)


@pytest.mark.parametrize(
    "wrap", [Clip, DynamicThreshold, lambda d: Bound(Clip(d), labels(LABELS)), lambda d: Guided(Clip(d), 2, 4)]
)
def test_clipping_is_refused(wrap):
    with pytest.raises(ValueError, match="clip=False"):
        encode(wrap(network()), images(), TAU, label=LABELS)


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="naive, implicit, bdia, exact"):
        encode(network(), images(), TAU, "edict")
    with pytest.raises(ValueError, match="fall"):
        encode(network(), images(), TAU[::-1])
    with pytest.raises(ValueError, match="2 steps"):
        encode(network(), images(), (1000, 0), "bdia")
    with pytest.raises(ValueError, match="tau"):
        decode(network(), images())
    with pytest.raises(ValueError, match="gamma"):
        Coupled(0.0)


def test_one_step_is_encoded_by_the_implicit_method():
    z = encode(GaussianDenoiser(SCHEDULE, 0.0, 0.25), images(dtype=torch.float64), (1000, 0))
    assert float(z.certificate.psnr.min()) > 120
    with pytest.raises(ValueError, match=r"images have no preimage in 1 step; .* at least 2 steps"):
        encode(Folded(), images(), (1000, 0))


@pytest.mark.parametrize("process", [SCHEDULE.zero_terminal_snr(), flow()], ids=lambda p: p.name)
def test_one_step_between_the_image_and_pure_noise_is_refused(process):
    with pytest.raises(Refused, match="one step between the image and pure noise"):
        encode(GaussianDenoiser(process, 0.1, 0.25), torch.zeros(2, 3), (process.T, 0), "exact")


def test_zero_terminal_snr_can_be_encoded():
    schedule = SCHEDULE.zero_terminal_snr()
    oracle, x = GaussianDenoiser(schedule, 0.2, 0.25), images(dtype=torch.float64)
    times = tau(1000, 20, "trailing")
    # at signal 0 the Gaussian's x0 is its mean: DDIM's step keeps noise_s eps of x_T, and nothing else
    z = encode(oracle, x, times)
    torch.testing.assert_close(decode(oracle, z), x, rtol=0, atol=1e-6)


def test_newton_solves_what_mixing_alone_leaves():
    """A stiff linear step: gains from 1 down to 1e-3, more of them than mixing remembers."""
    from ddim.solve import roots

    gains = torch.logspace(0, -2, 12, dtype=torch.float64)
    residual = lambda u, rows: 1.0 - gains * u - 0.01 * torch.tanh(u)  # noqa: E731
    start = torch.zeros(2, 12, dtype=torch.float64)
    mixing = roots.begin(residual, start)
    roots.anderson(residual, mixing, tolerance=1e-8, calls=12, memory=3)
    both = roots.begin(residual, start)
    roots.anderson(residual, both, tolerance=1e-8, calls=12, memory=3)
    roots.newton_krylov(residual, both, tolerance=1e-8, rounds=20, krylov=12, difference=1e-6)
    assert float(mixing.error.max()) > 1e-3 > 1e-8 >= float(both.error.max())


def test_settings_of_the_solve_can_be_given():
    strict = encode(network(1.0, torch.float64), images(dtype=torch.float64), TAU, solver=Implicit(tolerance=1e-11))
    assert strict.recipe.tolerance == 1e-11


@pytest.mark.parametrize(("precision", "least"), [("fp32", 60.0), ("fp64", 120.0)])
def test_a_fitted_diffusers_network_gives_real_digits_back(precision, least):
    """The project's bar, in small: S = 20 on a pipeline folder of diffusers' own making."""
    data = Path(__file__).parents[1] / "data"
    pixels = np.load(data / "mnist-100.npz")["pixels"][::50]
    model = load(data / "golden" / "diffusers" / "mnist-like" / "pipeline")
    x = torch.from_numpy(pixels).movedim(-1, 1).double() / 127.5 - 1
    x = x if precision == "fp64" else x.float()
    z = model.encode(x, steps=20, precision=precision)
    assert float(z.certificate.psnr.min()) >= least
    assert float(z.certificate.psnr.min()) > 40 + float(
        model.encode(x, steps=20, method="naive", precision=precision).certificate.psnr.max()
    )
    torch.testing.assert_close(model.decode(z, precision=precision), x, rtol=0, atol=20 * 10 ** (-least / 20))
