import math

import pytest

from ddim import Schedule
from ddim.jobs import Recipe
from ddim.jobs.train.recipe import difference, read_recipe


def test_learning_rate_rises_linearly_then_falls_as_a_cosine():
    recipe = Recipe(lr=1.0, warmup=4, lr_decay_steps=14)
    assert [recipe.lr_at(s) for s in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert recipe.lr_at(9) == pytest.approx(0.01 + 0.99 / 2)  # half way of the cosine
    assert recipe.lr_at(14) == recipe.lr_at(99) == pytest.approx(0.01)
    assert Recipe(lr=1.0, warmup=0).lr_at(0) == Recipe(lr=1.0, warmup=0).lr_at(10**6) == 1.0


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"lr": 0.0}, "lr must be a number above 0, got 0.0"),
        ({"lr": math.nan}, "lr must be a number above 0"),
        ({"batch_size": 0}, "batch_size must be a whole number from 1"),
        ({"batch_size": 10, "accumulation": 4}, "batch_size = 10 is no multiple of accumulation = 4"),
        ({"label_dropout": 1.0}, "label_dropout must be at least 0 and below 1"),
        ({"ema": 1.0}, "ema must be at least 0 and below 1"),
        ({"prediction": "noise"}, "unknown prediction 'noise'"),
        ({"prediction": "score"}, "prediction score is of a continuous process"),
        ({"draws": "uniform"}, "draws is of a continuous process"),
        ({"process": "ou"}, "unknown process 'ou'"),
        ({"process": "vp", "draws": "often"}, "unknown draws 'often'"),
        ({"process": "vp", "sigma_min": 0.1}, "process vp has no sigma_min"),
        ({"process": "ve", "sigma_min": 5.0, "sigma_max": 1.0}, "needs 0 < sigma_min < sigma_max"),
        ({"process": "edm", "sigma_min": 90.0}, "needs 0 < first < T"),
        ({"process": "flow", "prediction": "eps"}, "does not tell the image where process flow has no signal"),
        ({"process": "vp", "schedule": "cosine"}, "schedule is of whole times"),
        ({"process": "vp", "zero_terminal_snr": True}, "zero_terminal_snr is of whole times"),
        ({"min_snr_gamma": 0.0}, "min_snr_gamma must be a number above 0"),
        ({"zero_terminal_snr": True, "prediction": "eps"}, "use prediction v or x0"),
        ({"lr_decay_steps": 500, "warmup": 500}, "must lie beyond warmup = 500"),
        ({"min_snr_gamma": math.inf}, "min_snr_gamma must be a number above 0, got inf"),
        ({"seed": 0.5}, "seed must be a whole number from 0, got 0.5"),
        ({"flip": "yes"}, "flip must be true or false, got 'yes'"),
        ({"lr": None}, "needs lr, got None"),
        ({"optimizer": "sgd"}, "adam or adamw"),
        ({"seed": -1}, "seed must be a whole number from 0"),
    ],
)
def test_impossible_recipes_are_refused(wrong, words):
    with pytest.raises(ValueError, match=words):
        Recipe(**wrong)


def test_schedules_by_name():
    assert Recipe().noise_schedule() == Schedule.linear(1000)
    assert Recipe(schedule="cosine", timesteps=50).noise_schedule() == Schedule.cosine(50)
    assert Recipe(zero_terminal_snr=True, prediction="v").noise_schedule().has_zero_terminal_snr
    with pytest.raises(ValueError, match="unknown schedule 'sine'"):
        Recipe(schedule="sine").noise_schedule()


def test_the_differing_field_is_named():
    assert difference(Recipe().as_dict(), Recipe(lr=1.0).as_dict()) == "lr was 0.0002 and is now 1.0"
    assert difference(Recipe().as_dict(), Recipe().as_dict()) is None


def test_a_stored_recipe_that_is_missing_or_damaged_is_named(tmp_path):
    path = tmp_path / "recipe.json"
    with pytest.raises(ValueError, match=r"holds no run to resume \(no recipe\.json\)"):
        read_recipe(path, tmp_path)
    for text in ("{", "[]"):
        path.write_text(text)
        with pytest.raises(ValueError, match=r"recipe\.json is damaged"):
            read_recipe(path, tmp_path)
