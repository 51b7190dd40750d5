"""Exactness for any network, the refusals, the recipe, the file: whatever does not need Gaussian data."""

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from ddim import Clip, Denoiser, GaussianDenoiser, NetworkDenoiser, Schedule, load, noise, sample, tau
from ddim.denoise import NONE, Bound, DynamicThreshold, Guided, labels
from ddim.process import Prediction
from ddim.solve import Coupled, Implicit, Older, end_of, trajectory
from ddim.uses import Latents, decode, encode

SCHEDULE = Schedule.linear(1000)
TAU = tau(1000, 20)


class Network(nn.Module):
    """A small random convolution, rough enough that the implicit step does not contract everywhere."""

    def __init__(self, strength=1.0, classes=4):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.first, self.last = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 1, 3, padding=1)
            self.embed = nn.Embedding(classes + 1, 8)
        self.strength, self.classes = strength, classes
        self.requires_grad_(False)

    def forward(self, x, t, label=None):
        label = torch.full((len(x),), self.classes) if label is None else label
        hidden = torch.tanh(self.first(x) + self.embed(label)[:, :, None, None] + t.to(x)[:, None, None, None] / 500)
        return self.strength * (self.last(hidden) + 0.3 * x)


def network(strength=1.0, dtype=torch.float32):
    return NetworkDenoiser(Network(strength).to(dtype), SCHEDULE)


def images(n=5, dtype=torch.float32):
    return (noise(range(n), (1, 8, 8), dtype=dtype) * 0.7).clamp(-1, 1)


LABELS = torch.tensor([0, 1, 2, 3, 0])


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


def test_zero_terminal_snr_can_be_encoded():
    schedule = SCHEDULE.zero_terminal_snr()
    oracle, x = GaussianDenoiser(schedule, 0.2, 0.25), images(dtype=torch.float64)
    times = tau(1000, 20, "trailing")
    # at signal 0 the Gaussian's x0 is its mean: DDIM's step keeps noise_s eps of x_T, and nothing else
    z = encode(oracle, x, times)
    torch.testing.assert_close(decode(oracle, z), x, rtol=0, atol=1e-6)


def test_latents_behave_like_their_tensor():
    z = encode(network(), images(), TAU, "naive")
    assert z[0].shape == (1, 8, 8) and len(z) == 5 and z.shape == (5, 1, 8, 8)
    assert torch.equal(torch.stack([z[0], z[1]]), z.x_T[:2])
    assert torch.equal(torch.cat([z, z]), torch.cat([z.x_T, z.x_T]))
    assert torch.equal(torch.stack(list(z)), z.x_T)
    assert torch.mean(z) == z.x_T.mean()
    assert "5 images" in str(z.certificate)


def test_a_file_of_latents_comes_back_whole(tmp_path):
    z = encode(network(6.0), images(), TAU, label=LABELS)
    assert z.states is not None and int(z.coupled.sum()) > 0
    z.save(tmp_path / "z.safetensors")
    back = Latents.load(tmp_path / "z.safetensors")
    assert torch.equal(back.x_T, z.x_T) and torch.equal(back.states, z.states) and back.recipe == z.recipe
    assert back.unsolved == z.unsolved and torch.equal(back.coupled, z.coupled)
    assert torch.equal(back.certificate.psnr, z.certificate.psnr)
    torch.testing.assert_close(decode(network(6.0), back, label=LABELS), images(), rtol=0, atol=2e-3)
    with pytest.raises(ValueError, match="exists"):
        z.save(tmp_path / "z.safetensors")
    (tmp_path / "no.safetensors").write_bytes(b"nothing of the kind")
    with pytest.raises(ValueError, match="not a safetensors"):
        Latents.load(tmp_path / "no.safetensors")
    with pytest.raises(ValueError, match="no file"):
        Latents.load(tmp_path / "missing.safetensors")


def test_batches_join_in_order():
    denoise, x = network(6.0), images()
    whole = encode(denoise, x, TAU, "bdia", label=LABELS)
    parts = [encode(denoise, x[i], TAU, "bdia", label=LABELS[i]) for i in (slice(0, 2), slice(2, 5))]
    joined = Latents.join(parts)
    torch.testing.assert_close(joined.x_T, whole.x_T, rtol=0, atol=1e-4)
    assert joined.recipe == whole.recipe
    torch.testing.assert_close(decode(denoise, joined, label=LABELS), x, rtol=0, atol=1e-3)
    with pytest.raises(ValueError, match="different recipes"):
        Latents.join([parts[0], encode(denoise, x, tau(1000, 5), "bdia", label=LABELS)])
    with pytest.raises(ValueError, match="different recipes"):  # labels of some images only
        Latents.join([encode(denoise, x[:2], TAU, "bdia"), parts[1]])


def test_parts_are_what_was_joined():
    """Some images coupled, some not, so that the states of the coupled ones must be found among them."""
    guided = Guided(network(6.0), 2.0, 4, interval=(0, 80))
    x = images()
    parts = [encode(Bound(guided, labels(LABELS[i])), x[i], TAU) for i in (slice(0, 2), slice(2, 5))]
    whole = Latents.join(parts)
    whole = replace(whole, coupled=torch.tensor([True, False, True, True, False]), names=tuple("abcde"),
                    states=torch.arange(3.0).view(3, 1, 1, 1, 1).expand(3, 2, 1, 8, 8), unsolved=(1, 3))  # fmt: skip
    assert whole.recipe.conditions["interval"] == [0, 80] and whole.recipe.conditions["label"] == LABELS.tolist()
    part = whole.part(1, 4)
    assert torch.equal(part.x_T, whole.x_T[1:4]) and part.names == ("b", "c", "d") and part.unsolved == (0, 2)
    assert part.states[:, 0, 0, 0, 0].tolist() == [1.0, 2.0] and part.coupled.tolist() == [False, True, True]
    assert part.recipe.conditions["label"] == [1, 2, 3] and part.recipe.conditions["interval"] == [0, 80]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # the same recipe: the images come back
        torch.testing.assert_close(
            decode(guided, Latents.join(parts).part(2, 5), label=LABELS[2:]), x[2:], rtol=0, atol=2e-3
        )


def test_more_labels_than_a_tensor_is_written_out_for():
    many = torch.arange(5000) % 4
    z = encode(network(), images(1).expand(5000, 1, 8, 8)[:, :, :2, :2], (1000, 500, 0), "naive", label=many)
    assert z.recipe.conditions["label"] == many.tolist()


def test_another_exported_network_is_another_recipe():
    """It has no parameters of torch's: its file stands for them."""

    class Elsewhere(nn.Module):
        def __init__(self, sha256):
            super().__init__()
            self.sha256 = sha256

        def forward(self, x, t):
            return 0.1 * x

    first, second = (NetworkDenoiser(Elsewhere(name), SCHEDULE) for name in "ab")
    z = encode(first, images(), TAU, "naive")
    with pytest.warns(UserWarning, match="network"):
        decode(second, z)


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
