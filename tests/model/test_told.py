"""Conditions of any name, one eta an image and progress, through Model and Sampler: what the pieces by hand give."""

from itertools import pairwise

import pytest
import torch
from torch import nn

from ddim import DDIM, Conditions, Guided, Model, NetworkDenoiser, Refused, Schedule, noise, sample, tau

SCHEDULE = Schedule.linear(1000)
TEXT = torch.linspace(-1.0, 1.0, 5 * 6).reshape(5, 2, 3)
NULL = torch.full((2, 3), -0.5)


class Reader(nn.Module):
    """A vector of 4 numbers under a text (2, 3) and a strength that all images share."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.look, self.read = nn.Linear(4, 4), nn.Linear(6, 4)

    def forward(self, x, t, text=None, strength=1.0):
        read = 0.0 if text is None else self.read(text.flatten(1))
        return self.look(x) + strength * read + t[:, None].to(x) / 1000


@pytest.fixture(scope="module")
def model():
    return Model.from_network(Reader(), SCHEDULE, shape=(4,), prediction="v")


def by_hand(model, conditions, weight=1.0, solver=None, n=5):
    denoise = NetworkDenoiser(model.checkpoint.network, SCHEDULE, "v")
    denoise = denoise if weight == 1.0 else Guided(denoise, weight, {"text": NULL})
    seeds = list(range(n))
    return sample(
        denoise, noise(seeds, (4,)), tau(1000, 6), solver=solver or DDIM(), seeds=seeds, conditions=conditions
    )


TOLD = Conditions({"text": TEXT}, {"strength": 0.7})


def test_conditions_of_any_name_in_batches_of_any_size(model):
    expected = by_hand(model, TOLD)
    for batch_size in (1, 2, 64):
        found = model.sample(5, steps=6, conditions=TOLD, batch_size=batch_size)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(model.sample(5, steps=6), expected, atol=1e-2)
    rule = model.sample(seeds=[3, 1], steps=6, conditions=lambda seeds: TOLD.rows(torch.tensor(list(seeds))))
    torch.testing.assert_close(rule, expected[[3, 1]], rtol=1e-5, atol=1e-5)


def test_guidance_over_any_condition_through_the_model(model):
    found = model.sample(5, steps=6, conditions=TOLD, guidance=3.0, null={"text": NULL}, batch_size=2)
    torch.testing.assert_close(found, by_hand(model, TOLD, 3.0), rtol=1e-5, atol=1e-5)
    with pytest.raises(Refused, match="`null`: what stands for no condition"):
        model.sample(5, steps=6, conditions=TOLD, guidance=3.0)
    with pytest.raises(Refused, match="needs a text for every image"):
        model.sample(5, steps=6, guidance=3.0, null={"text": NULL})
    with pytest.raises(Refused, match="`guidance` is one number"):
        model.sample(5, steps=6, conditions=TOLD, guidance=torch.ones(5), null={"text": NULL})


def test_encoding_under_conditions_leads_back(model):
    how = {"steps": 8, "conditions": TOLD, "guidance": 2.0, "null": {"text": NULL}}
    x = model.sample(5, **how)
    z = model.encode(x, **how)
    torch.testing.assert_close(
        model.decode(z, conditions=TOLD, guidance=2.0, null={"text": NULL}), x, rtol=0, atol=1e-4
    )
    with pytest.warns(UserWarning, match="text"):
        model.decode(z, conditions=Conditions({"text": TEXT + 1}, {"strength": 0.7}), guidance=2.0, null={"text": NULL})


def test_recipes_know_conditions_from_one_another_and_are_silent_without(model):
    plain = model.sampler(steps=6).recipe
    assert "conditions" not in plain and "null" not in plain
    other = Conditions({"text": TEXT + 1e-3}, {"strength": 0.7})
    first, second = (model.sampler(steps=6, conditions=c, null={"text": NULL}).recipe for c in (TOLD, other))
    assert first["conditions"] != second["conditions"] and first["null"] == second["null"] != {}


def test_conditions_of_another_number_of_images_are_refused(model, tiny):
    with pytest.raises(Refused, match="5 rows for 4 images"):
        model.sample(4, steps=2, conditions=TOLD, batch_size=2)
    with pytest.raises(Refused, match="no other `conditions`"):
        tiny.sampler(conditions=TOLD)


ETAS = [0.0, 0.5, 1.0, 0.2, 0.9]


@pytest.mark.parametrize("etas", [ETAS, tuple(ETAS), torch.tensor(ETAS)], ids=["list", "tuple", "tensor"])
def test_one_eta_an_image_in_batches_of_any_size(model, etas):
    found = [model.sample(5, steps=6, eta=etas, batch_size=size) for size in (2, 64)]
    torch.testing.assert_close(found[0], found[1], rtol=1e-5, atol=1e-5)
    for i, eta in enumerate(ETAS):
        torch.testing.assert_close(model.sample(seeds=[i], steps=6, eta=eta), found[1][i : i + 1], rtol=1e-5, atol=1e-5)
    assert model.sampler(eta=etas).recipe["eta"] == pytest.approx(ETAS)


@pytest.mark.parametrize(("n", "etas"), [(4, 6 * [0.5]), (5, 4 * [0.5])])
def test_etas_of_another_number_of_images_are_refused_whatever_the_batches(model, n, etas):
    for batch_size in (2, 64):
        with pytest.raises(Refused, match=f"{n} images need one eta or sigma each"):
            model.sample(n, steps=3, eta=etas, batch_size=batch_size)


def test_solvers_that_have_no_eta_say_so_of_rows_too(model):
    with pytest.raises(Refused, match=r"'heun' is deterministic, but eta = 0, 0\.5 was asked for"):
        model.sampler(solver="heun", eta=torch.tensor([0.0, 0.5]))
    with pytest.raises(Refused, match="belongs to the solver object"):
        model.sampler(solver=DDIM(), eta=torch.tensor([0.0, 0.5]))
    assert model.sampler(solver="heun", eta=[0.0, 0.0]).solver.order == 2


@pytest.mark.parametrize(("solver", "calls"), [("ddim", 6), ("heun", 11), ("dpm++2m", 6)])
def test_progress_counts_every_call_and_ends_at_the_end(model, solver, calls):
    told = []
    model.sample(5, steps=6, solver=solver, batch_size=2, progress=lambda done, total: told.append((done, total)))
    assert len(told) == 3 * 6 and told[-1] == (5 * calls, 5 * calls)
    assert all(a < b for (a, _), (b, _) in pairwise(told))


@pytest.mark.parametrize("method", ["naive", "implicit", "bdia", "exact"])
def test_progress_of_encoding(model, method):
    told = []
    x = model.sample(3, steps=6)
    model.encode(x, method=method, steps=6, progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (12, 12) and 10 <= len(told) <= 13 and told[0] == (1, 12)


def test_gradients_pass_through_the_trajectory_and_not_through_sample(model):
    x_T = noise([0], (4,)).requires_grad_()
    sampler = model.sampler(steps=4)
    *_, last = sampler.trajectory([0], latents=x_T)
    (slope,) = torch.autograd.grad(last.x.sum(), x_T)
    moved = sampler.sample([0], latents=x_T.detach() + torch.tensor([1e-3, 0, 0, 0]))
    assert float((moved - last.x.detach()).sum() / 1e-3) == pytest.approx(float(slope[0, 0]), rel=1e-2)
    assert not sampler.sample([0], latents=x_T).requires_grad


def test_rows_where_one_value_is_meant_are_refused_in_our_words(model):
    for how, says in (({"guidance": torch.ones(2), "null": {"text": NULL}}, "`guidance` is one number"),
                      ({"guidance": [1.0, 2.0]}, "`guidance` is one number"),
                      ({"clip": torch.tensor([True, False])}, "`clip` is true or false"),
                      ({"eta": [[0.0], [1.0]]}, "one for all images or one an image"),
                      ({"conditions": {"text": TEXT}}, "`conditions` are ddim.Conditions"),
                      ({"label": "three"}, "`label` is a class")):  # fmt: skip
        with pytest.raises(Refused, match=says):
            model.sampler(**how)
    with pytest.raises(Refused, match="`guidance` is one number"):
        Guided(NetworkDenoiser(lambda x, t: x, SCHEDULE), torch.ones(2), 0)


@pytest.mark.parametrize("row", [list, tuple, torch.tensor])
def test_times_are_any_row(model, row):
    times = [1000, 500, 0]
    expected = model.sample(2, tau=times)
    assert torch.equal(model.sample(2, spacing=row(times)), expected)
    assert torch.equal(model.sample(2, tau=row(times)), expected)
    z = model.encode(expected, tau=row(times))
    with pytest.warns(UserWarning, match="tau"):
        model.decode(z, tau=row([1000, 400, 0]))
    with pytest.warns(UserWarning, match="tau"):
        model.decode(z, spacing=row([1000, 400, 0]))
