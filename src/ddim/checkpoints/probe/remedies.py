"""The setting that makes a family's reader read what fits: word for word, or none where no setting of it says that."""

from __future__ import annotations

from collections.abc import Callable

from ddim.checkpoints.probe.readings import RANGES, Reading

LINEAR, SCALED = (0.1, 20.0), (0.85, 12.0)  # first and last beta times T, as in `schedules`


def remedy(family: str, axis: str, best: Reading, T: int) -> str | None:
    """NAME=VALUE, perhaps several, that turn this axis into `best`.

    Args:
        family: as `Checkpoint.family`; our folders are diffusers'.
        axis: of `AXES`.
        T: steps of the schedule.
    """
    rule = RULES.get(("diffusers" if family == "ddim" else family, axis))
    return None if rule is None else rule(best, T)


def _betas(prefix: str, name: str, ends: tuple[float, float], T: int) -> str:
    start, end = ends[0] / T, min(ends[1] / T, 0.999)
    return f"{prefix}beta_schedule={name} {prefix}beta_start={start!r} {prefix}beta_end={end!r}"


def _diffusers_schedule(best: Reading, T: int) -> str | None:
    if best.schedule == "cosine":
        return "beta_schedule=squaredcos_cap_v2 trained_betas=null"
    ends = {"linear": LINEAR, "scaled_linear": SCALED}.get(best.schedule)
    return None if ends is None else _betas("", best.schedule, ends, T) + " trained_betas=null"


def _ermongroup_schedule(best: Reading, T: int) -> str | None:
    told = {"linear": ("linear", LINEAR), "scaled_linear": ("quad", SCALED)}.get(best.schedule)
    return None if told is None else _betas("diffusion.", *told, T)


def _rescaled(best: Reading, T: int) -> str | None:
    words = {1000.0 / T: "true"} | {1.0: "false"}  # at T = 1000 both are the same
    word = next((w for scale, w in words.items() if abs(best.time_scale / scale - 1) < 1e-9), None)
    return word and f"rescale_timesteps={word}"


def _range(best: Reading, T: int) -> str | None:
    ends = RANGES.get(best.data_range)
    return ends and "data_range=[{:g},{:g}]".format(*ends)


def _one_of(name: str, axis: str, words: dict[str, str]) -> Callable[[Reading, int], str | None]:
    def rule(best: Reading, T: int) -> str | None:
        word = words.get(getattr(best, axis))
        return word and f"{name}={word}"

    return rule


RULES: dict[tuple[str, str], Callable[[Reading, int], str | None]] = {
    ("diffusers", "schedule"): _diffusers_schedule,
    ("diffusers", "prediction"): _one_of(
        "prediction_type", "prediction", {"eps": "epsilon", "x0": "sample", "v": "v_prediction"}
    ),
    ("diffusers", "data range"): _range,
    ("ermongroup", "schedule"): _ermongroup_schedule,
    ("ermongroup", "data range"): _one_of("data.rescaled", "data_range", {"-1..1": "true", "0..1": "false"}),
    ("openai", "schedule"): _one_of("noise_schedule", "schedule", {"linear": "linear", "cosine": "cosine"}),
    ("openai", "prediction"): _one_of("predict_xstart", "prediction", {"eps": "false", "x0": "true"}),
    ("openai", "time scale"): _rescaled,
    ("lucidrains", "schedule"): _one_of(
        "diffusion.beta_schedule", "schedule", {n: n for n in ("linear", "cosine", "sigmoid")}
    ),
    ("lucidrains", "prediction"): _one_of(
        "diffusion.objective", "prediction", {"eps": "pred_noise", "x0": "pred_x0", "v": "pred_v"}
    ),
}
