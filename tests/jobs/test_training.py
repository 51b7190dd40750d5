import dataclasses
import math
import os
from contextlib import nullcontext
from types import SimpleNamespace
from typing import NamedTuple

import pytest
import torch
from torch import nn

from ddim import Schedule
from ddim.data import Batch
from ddim.data.batches import Order
from ddim.jobs import Denoising, DivergedError, Recipe, TrainState, fit, new_state, resolve_precision, state_of
from ddim.jobs.train.descent import begin_from
from ddim.jobs.train.loop import _accumulate, _watch
from ddim.jobs.train.state import load_checkpoint, save_checkpoint
from ddim.process import Objective, generator
from ddim.refused import Refused

SHAPE = (1, 8, 8)


def constant_batches(n, value=0.5):
    def batch_at(step, rows=slice(None)):
        x0 = torch.full((n, *SHAPE), value)[rows]
        return Batch(x0, torch.zeros(len(x0), dtype=torch.int64))

    return batch_at


def draws(recipe, step, shape):
    return Denoising.of(recipe).draw(generator(recipe.seed, "train", step), recipe.batch_size, shape)


def test_precision_is_settled_before_it_is_stored(monkeypatch):
    for found, expected in (({"avx512_bf16": True}, "bf16"), ({"avx2": True}, "fp32")):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda found=found: found, raising=False)
        assert resolve_precision("auto", "cpu") == expected
    assert resolve_precision("bf16", "cpu") == "bf16"
    with pytest.raises(ValueError, match="fp16 training needs an accelerator"):
        resolve_precision("fp16", "cpu")
    with pytest.raises(ValueError, match="got 'fp8'"):
        resolve_precision("fp8", "cpu")


# -- randomness of a step ------------------------------------------------------------------------------


def test_draws_are_a_function_of_seed_and_step_with_the_right_laws():
    recipe = Recipe(batch_size=4000, label_dropout=0.2, timesteps=10)
    a, b, other = (draws(r, s, (2,)) for r, s in ((recipe, 3), (recipe, 3), (recipe, 4)))
    assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True)) and not torch.equal(a.eps, other.eps)
    counts = torch.bincount(a.t, minlength=11)
    assert int(counts[0]) == 0 and len(counts) == 11  # t in 1..T, both ends drawn
    chi2 = float(((counts[1:] - 400.0) ** 2 / 400.0).sum())
    assert chi2 < 27.9  # 9 degrees of freedom, p = 0.001
    assert abs(float(a.dropped.float().mean()) - 0.2) < 5 * math.sqrt(0.16 / 4000)
    assert abs(float(a.eps.mean())) < 5 / math.sqrt(8000) and abs(float(a.eps.var()) - 1) < 5 * math.sqrt(2 / 8000)


class Recorder(nn.Module):
    """Returns w everywhere and remembers what it was asked."""

    def __init__(self, null_label=None):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(()))
        self.null_label, self.seen = null_label, []

    def forward(self, x, t, label=None):
        self.seen.append((x.detach().clone(), t, label))
        return self.w.expand_as(x)


def recorded_state(recipe, null_label=None):
    """A TrainState around a Recorder, on accelerate as in real runs."""
    state = new_state(recipe, "digits", SHAPE, None, "cpu")
    module = Recorder(null_label)
    optimizer = torch.optim.SGD(module.parameters(), lr=1.0)
    ema = type(state.ema)(module, recipe.ema)
    network, prepared = state.accelerator.prepare(module, optimizer)
    return TrainState(module, network, prepared, ema, state.accelerator, recipe)


def test_the_network_sees_x_t_the_zero_based_time_and_dropped_labels():
    recipe = Recipe(batch_size=64, label_dropout=0.5, warmup=0, clip=1e9)
    state = recorded_state(recipe, null_label=7)
    next(fit(state, constant_batches(64), Denoising.of(recipe), max_steps=1))
    x_t, label_t, label = state.unwrapped.seen[0]
    d = draws(recipe, 0, SHAPE)
    assert torch.equal(label_t, d.t - 1) and label_t.dtype == torch.int64
    a = Schedule.linear().alpha_bar[d.t].float().view(-1, 1, 1, 1)
    assert torch.allclose(x_t, a.sqrt() * 0.5 + (1 - a).sqrt() * d.eps, atol=1e-6)
    assert label.tolist() == [7 if dropped else 0 for dropped in d.dropped]


def test_edms_network_is_shown_c_in_x_t():
    """arXiv 2206.00364, table 1: c_in = 1/sqrt(sigma^2 + sd^2) of x0 + sigma n, so with x_t = signal x0 + noise n it is
    x_t / sqrt(noise^2 + sd^2 signal^2), sd = 0.5."""
    recipe = Recipe(batch_size=64, warmup=0)
    state = recorded_state(recipe)
    next(fit(state, constant_batches(64), Denoising(Objective("edm"), Schedule.linear()), max_steps=1))
    shown, label_t, _ = state.unwrapped.seen[0]
    a = Schedule.linear().alpha_bar[label_t + 1].float().view(-1, 1, 1, 1)
    x_t = a.sqrt() * 0.5 + (1 - a).sqrt() * draws(recipe, 0, SHAPE).eps
    torch.testing.assert_close(shown, x_t / ((1 - a) + 0.25 * a).sqrt(), rtol=0, atol=1e-5)


def test_one_step_is_gradient_descent_on_the_mean_squared_error():
    """out = w = 0: loss = mean eps^2, gradient = -2 mean eps; SGD(lr) gives w = 2 lr mean eps."""
    recipe = Recipe(prediction="eps", batch_size=32, warmup=0, lr=0.1, clip=1e9)
    state = recorded_state(recipe)
    p = next(fit(state, constant_batches(32), Denoising.of(recipe), max_steps=1))
    eps = draws(recipe, 0, SHAPE).eps.double()
    assert p.loss == pytest.approx(float(eps.square().mean()), rel=1e-5)
    assert state.unwrapped.w.item() == pytest.approx(0.1 * 2 * float(eps.mean()), rel=1e-4)
    assert p.grad_norm == pytest.approx(2 * abs(float(eps.mean())), rel=1e-4) and p.step == state.step == 1


def test_the_gradient_is_clipped():
    recipe = Recipe(batch_size=32, warmup=0, lr=1.0, clip=1e-4)
    state = recorded_state(recipe)
    next(fit(state, constant_batches(32), Denoising.of(recipe), max_steps=1))
    assert abs(float(state.unwrapped.w)) == pytest.approx(1e-4, rel=0.02)


def test_accumulation_changes_nothing_but_rounding():
    weights = []
    for parts in (1, 4):
        recipe = Recipe(batch_size=16, accumulation=parts, warmup=0, lr=1e-3)
        state = new_state(recipe, "digits", SHAPE, 2, "cpu")
        losses = [p.loss for p in fit(state, constant_batches(16), Denoising.of(recipe), max_steps=2)]
        weights.append((losses, torch.cat([p.detach().flatten() for p in state.unwrapped.parameters()])))
    (loss_1, w_1), (loss_4, w_4) = weights
    assert loss_1 == pytest.approx(loss_4, rel=1e-5)
    assert float((w_1 - w_4).abs().max()) < 1e-4  # Adam's first steps are lr * sign(gradient): 1e-3 each


def test_ema_follows_the_steps():
    recipe = Recipe(batch_size=4, warmup=0, lr=0.1, clip=1e9, ema=0.5)
    state, expected = recorded_state(recipe), 0.0
    for n, _ in enumerate(fit(state, constant_batches(4), Denoising.of(recipe), max_steps=5)):
        d = min(0.5, (1 + n) / (10 + n))
        expected = d * expected + (1 - d) * float(state.unwrapped.w)
    assert float(state.ema.shadow["w"]) == pytest.approx(expected, rel=1e-5)


def test_the_loss_falls_in_every_prediction():
    for prediction in ("eps", "x0", "v"):
        recipe = Recipe(prediction=prediction, min_snr_gamma=5.0, batch_size=8, lr=2e-3, warmup=0)
        state = new_state(recipe, "digits", SHAPE, None, "cpu")

        def unlabelled(step, rows=slice(None)):
            return Batch(torch.full((8, *SHAPE), 0.5)[rows], None)

        losses = [p.loss for p in fit(state, unlabelled, Denoising.of(recipe), max_steps=25)]
        assert sum(losses[-5:]) < 0.5 * sum(losses[:5]), prediction


# -- guards --------------------------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_stops_before_it_reaches_the_weights():
    recipe = Recipe(batch_size=4, warmup=0)
    state = recorded_state(recipe)

    def poisoned(step, rows=slice(None)):
        return constant_batches(4, math.nan if step == 2 else 0.5)(step, rows)

    # x_t is not looked at by the recorder: let it be
    state.unwrapped.forward = lambda x, t, label=None: state.unwrapped.w + x
    with pytest.raises(DivergedError, match="the loss is nan at step 3"):
        list(fit(state, poisoned, Denoising.of(recipe), max_steps=9))
    assert state.step == 2 and math.isfinite(float(state.unwrapped.w)) and math.isfinite(float(state.ema.shadow["w"]))


def test_a_loss_far_above_its_best_for_long_stops():
    recipe = Recipe(batch_size=20, warmup=0, lr=1e-9)
    state = recorded_state(recipe)
    state.unwrapped.forward = lambda x, t, label=None: state.unwrapped.w + (0 if state.step < 60 else 10) + 0 * x
    with pytest.raises(DivergedError, match="above 5 times its best for 100 steps"):
        list(fit(state, constant_batches(20), Denoising.of(recipe), max_steps=500))
    assert 160 <= state.step < 180


def test_luck_of_the_first_steps_is_no_best():
    """Min-SNR weights differ a thousandfold: a first batch of easy times must not condemn the ordinary ones."""
    state = recorded_state(Recipe(batch_size=4))
    for step in range(1, 400):
        state.step = step
        _watch(state, 1e-4 if step < 4 else 0.3, 4)
    assert state.best_loss == pytest.approx(state.smooth_loss, rel=0.05) and state.high_steps == 0


def test_processes_must_be_able_to_share_a_batch_and_unknown_devices_are_named():
    with pytest.raises(ValueError, match="device 'warp' cannot be used here"):
        new_state(Recipe(), "digits", SHAPE, None, "warp")


@pytest.mark.parametrize("engine", ["FSDP", "DEEPSPEED", "MEGATRON_LM"])
def test_engines_that_split_the_weights_are_refused(monkeypatch, engine):
    monkeypatch.setenv(f"ACCELERATE_USE_{engine}", "true")
    with pytest.raises(Refused, match=r"splits a network's weights among processes.*configure DDP"):
        state_of(nn.Linear(1, 1), Recipe(), "cpu")


class Counting:
    """A loss that remembers which rows of a step's draws it was given."""

    def __init__(self):
        self.given = []

    def draw(self, g, n, shape):
        return Drawn(torch.arange(n))

    def __call__(self, state, batch, draws):
        self.given += draws.row.tolist()
        return torch.zeros(())


class Drawn(NamedTuple):
    row: torch.Tensor


@pytest.mark.parametrize("parts", [1, 2])
def test_the_pictures_of_a_step_are_the_same_for_any_number_of_processes(parts):
    """So a run by two processes that three go on with sees what one sees, step by step; and the draws beside them."""
    recipe, order = Recipe(batch_size=12, accumulation=parts), Order(30, 12, seed=0)

    def seen(world, step):
        places, loss = [], Counting()

        def batch_at(step, rows):
            places.extend(order(step)[rows].tolist())
            return Batch(torch.zeros(len(order(step)[rows]), 1), None)

        for rank in range(world):
            told = SimpleNamespace(
                num_processes=world, process_index=rank, device="cpu", no_sync=lambda network: nullcontext(),
                backward=lambda loss: None, reduce=lambda value, how: value,
            )  # fmt: skip
            _accumulate(SimpleNamespace(accelerator=told, recipe=recipe, step=step, network=None), batch_at, loss)
        assert loss.given == list(range(12))
        return places

    for step in range(8):
        assert seen(2, step) == seen(3, step) == seen(1, step) == order(step).tolist()


def test_a_device_that_accelerate_would_not_use_is_refused_and_its_environment_is_left(monkeypatch):
    """ "meta" stands for cuda:1 on a machine with one device: accelerate must be told, or must not train elsewhere."""
    monkeypatch.delenv("ACCELERATE_TORCH_DEVICE", raising=False)
    assert new_state(Recipe(), "digits", SHAPE, None, "cpu").accelerator.device.type == "cpu"
    told = []
    monkeypatch.setattr("ddim.jobs.train.state.pick_device", torch.device)  # ours refuses it
    monkeypatch.setattr("accelerate.Accelerator", lambda **_: told.append(os.environ["ACCELERATE_TORCH_DEVICE"]) or Cpu)
    with pytest.raises(ValueError, match="`device` meta was asked for, but accelerate would train on cpu"):
        new_state(Recipe(), "digits", SHAPE, None, "meta")
    assert told == ["meta"] and "ACCELERATE_TORCH_DEVICE" not in os.environ


class Cpu:
    device = torch.device("cpu")


@pytest.fixture(scope="module")
def another(tmp_path_factory):
    """A model whose weights fit the digits preset, with other settings of the network."""
    from diffusers import UNet2DModel

    from ddim.checkpoints import load_folder, save_folder
    from ddim.nets import build

    def made(**changes):
        config = dict(build("digits", shape=SHAPE, seed=0).config)
        unet = UNet2DModel(**({k: v for k, v in config.items() if k[0] != "_"} | changes))
        folder = tmp_path_factory.mktemp("another") / "m"
        save_folder(folder, unet, Schedule.linear(), prediction="eps", meta={})
        return load_folder(folder)

    return made


def test_a_model_that_computes_otherwise_is_not_trained_on(another):
    recipe = Recipe(prediction="eps")
    state = new_state(recipe, "digits", SHAPE, None, "cpu")
    same = another(dropout=0.1)
    begin_from(same, state, recipe)
    for changes, says in (
        ({"attention_head_dim": 8}, "attention_head_dim is 8 there and 32 here"),
        ({"norm_num_groups": 16}, "norm_num_groups is 16 there and 8 here"),
        ({"freq_shift": 1}, "freq_shift is 1 there and 0 here"),
    ):
        with pytest.raises(ValueError, match=says):
            begin_from(another(**changes), state, recipe)
    with pytest.raises(ValueError, match=r"images in \[0\.0, 1\.0\]"):
        begin_from(dataclasses.replace(same, data_range=(0.0, 1.0)), state, recipe)
    with pytest.raises(ValueError, match=r"times scaled by 0\.25"):
        begin_from(dataclasses.replace(same, time_scale=0.25), state, recipe)


# -- another loss ----------------------------------------------------------------------------------------


class Slope(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(()))


class Lengths(NamedTuple):
    u: torch.Tensor


class Regression:
    """|w u - 3 u x0|^2 with u of its own, uniform in [1, 2): nothing of diffusion, so w is 3 x0 at the end."""

    def draw(self, g, n, shape):
        self.asked = n, shape
        return Lengths(torch.from_numpy(1 + g.random(n)))

    def __call__(self, state, batch, draws):
        target = 3 * batch.x0.flatten(1).mean(1)
        return ((state.network.w - target) * draws.u).square().mean()


def toy(**changes):
    recipe = Recipe(batch_size=8, warmup=0, lr=0.05, ema=0.5, clip=1e9, **changes)
    return state_of(Slope(), recipe, "cpu")


def test_any_loss_with_draws_of_its_own_is_trained_by_the_same_loop():
    state, loss = toy(), Regression()
    first, *_, last = list(fit(state, constant_batches(8), loss, max_steps=200))
    assert loss.asked == (8, SHAPE)
    u = 1 + generator(0, "train", 0).random(8)
    assert first.loss == pytest.approx(float((1.5 * u) @ (1.5 * u)) / 8, rel=1e-5)  # w = 0, target 3 * 0.5
    assert state.unwrapped.w.item() == pytest.approx(1.5, abs=0.02) and last.loss < 1e-3
    assert float(state.ema.shadow["w"]) == pytest.approx(1.5, abs=0.02)


def test_its_parts_have_their_own_rows_and_it_resumes_bit_for_bit(tmp_path):
    weights = {}
    for parts in (1, 4):
        state = toy(accumulation=parts)
        list(fit(state, constant_batches(8), Regression(), max_steps=12))
        weights[parts] = state.unwrapped.w.item()
    assert weights[1] == pytest.approx(weights[4], rel=1e-5)
    half = toy()
    list(fit(half, constant_batches(8), Regression(), max_steps=5))
    path = save_checkpoint(tmp_path, half)
    other = toy()
    load_checkpoint(path, other)
    list(fit(other, constant_batches(8), Regression(), max_steps=12))
    assert other.step == 12 and other.unwrapped.w.item() == weights[1]
