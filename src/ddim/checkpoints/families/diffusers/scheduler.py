"""diffusers' scheduler_config.json in both directions: a `Schedule` and what the file says about sampling.

Every field that changes the maths is read; a field or a value this file does not know is an error, because
a setting that is passed over makes wrong images without a word.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from ddim.checkpoints.families.diffusers.betas import MAX_T, flag_of, named_betas, schedule_of
from ddim.checkpoints.families.diffusers.others import CLASSES as CONTINUOUS
from ddim.checkpoints.families.diffusers.sampling import Sampling
from ddim.checkpoints.settings import choice, number, whole
from ddim.process import Schedule
from ddim.refused import Refused

PREDICTIONS = {"epsilon": "eps", "sample": "x0", "v_prediction": "v"}
SPACINGS = ("leading", "trailing", "linspace")
VARIANCES = ("fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log", "learned", "learned_range")
DDPM = ("DDPMScheduler", "DDPMParallelScheduler")
DDIM = ("DDIMScheduler", "DDIMParallelScheduler", "DDIMInverseScheduler")
OTHERS = (
    "PNDMScheduler", "DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler", "UniPCMultistepScheduler",
    "DEISMultistepScheduler", "EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler", "HeunDiscreteScheduler",
    "LMSDiscreteScheduler",
)  # fmt: skip

READ = frozenset({
    "num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas", "rescale_betas_zero_snr",
    "prediction_type", "predict_epsilon", "clip_sample", "clip_sample_range", "thresholding",
    "dynamic_thresholding_ratio", "sample_max_value", "set_alpha_to_one", "steps_offset", "timestep_spacing",
    "variance_type",
})  # fmt: skip
# how one other sampler walks; what the network learned does not depend on them
SAMPLER_ONLY = frozenset({
    "skip_prk_steps", "solver_order", "solver_type", "solver_p", "algorithm_type", "lower_order_final",
    "euler_at_final", "use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "use_flow_sigmas",
    "use_lu_lambdas", "final_sigmas_type", "lambda_min_clipped", "predict_x0", "disable_corrector",
    "interpolation_type", "timestep_type", "sigma_min", "sigma_max", "flow_shift", "use_dynamic_shifting",
    "time_shift_type", "tensor_format", "timestep_values", "timesteps", "clip_sigmas", "sigma_data",
})  # fmt: skip
MATHS_CHANGERS = {"use_flow_sigmas": (None, False), "timestep_type": (None, "discrete"), "timestep_values": (None,)}


def read(config: Mapping[str, Any]) -> Sampling:
    """A scheduler_config.json (or the same names given by hand) as `Sampling`.

    Raises:
        Refused: a scheduler of another kind of process, an unknown field or value; names it.
    """
    kind = str(config.get("_class_name", "DDPMScheduler"))
    if kind not in (*DDPM, *DDIM, *OTHERS):
        raise Refused(f"scheduler {kind!r} is unknown; readable are {', '.join((*DDPM, *DDIM, *OTHERS, *CONTINUOUS))}")
    given = {k: v for k, v in config.items() if not k.startswith("_")}
    unknown = sorted(set(given) - READ - SAMPLER_ONLY)
    if unknown:
        raise Refused(f"scheduler_config.json has fields of unknown meaning: {', '.join(unknown)}")
    fields = _defaults(kind) | given
    for name, allowed in MATHS_CHANGERS.items():
        if fields.get(name) not in allowed:
            raise Refused(f"scheduler_config.json says {name} = {fields[name]!r}: that process is not DDPM's")
    notes = []
    other = kind in OTHERS
    if other:
        passed_over = sorted(set(given) & SAMPLER_ONLY)
        notes.append(
            f"written for {kind}: its noise schedule is used, its own way of stepping ({_list(passed_over)}) is not"
        )
    to_one = flag_of(fields, "set_alpha_to_one", True)
    if not to_one:
        notes.append(
            "set_alpha_to_one = False: the file's own walk stops at alpha_bar[1]; ours ends at the clean image"
        )
    thresholding = flag_of(fields, "thresholding", False)
    return Sampling(
        process=schedule_of(fields),
        prediction=_prediction(fields),
        clips=flag_of(fields, "clip_sample", not other) or thresholding,
        clip_range=number(fields, "clip_sample_range", 1.0, low=0.0),
        thresholding=thresholding,
        threshold_quantile=number(fields, "dynamic_thresholding_ratio", 0.995, low=0.0, high=1.0),
        threshold_maximum=number(fields, "sample_max_value", 1.0, low=0.0),
        spacing=choice(fields, "timestep_spacing", "leading", SPACINGS),
        steps_offset=whole(fields, "steps_offset", 0, least=0, most=MAX_T),
        ends_at=0 if to_one else 1,
        variance_type=choice(fields, "variance_type", "", VARIANCES) if fields.get("variance_type") else None,
        notes=tuple(notes),
    )


def _defaults(kind: str) -> dict[str, Any]:
    """What that scheduler class takes where the file is silent (old files name few fields)."""
    import diffusers

    parameters = inspect.signature(getattr(diffusers, kind).__init__).parameters
    return {k: p.default for k, p in parameters.items() if k in READ and p.default is not p.empty}


def _prediction(fields: Mapping[str, Any]) -> str:
    name = choice(fields, "prediction_type", "epsilon", tuple(PREDICTIONS))
    if fields.get("predict_epsilon") is False:  # the name before diffusers 0.9
        if name != "epsilon":
            raise Refused(f"predict_epsilon = False contradicts prediction_type = {name!r}")
        name = "sample"
    return PREDICTIONS[name]


# -- writing -------------------------------------------------------------------------------------------


def write(
    schedule: Schedule,
    prediction: str,
    *,
    clips: bool = True,
    clip_range: float = 1.0,
    thresholding: bool = False,
    threshold_quantile: float = 0.995,
    threshold_maximum: float = 1.0,
    spacing: str | None = None,
    steps_offset: int = 0,
    ends_at: int = 0,
    variance: str | None = None,
) -> dict[str, Any]:
    """A DDIMScheduler config. A beta schedule is named where that name gives the table bit for bit.

    variance: what the network's second C channels mean; then it is a DDPMScheduler's config, which alone splits them
    off. spacing defaults to "leading", the only spacing whose steps diffusers computes right for every S, and to
    "trailing" where only T itself is pure noise (zero terminal SNR).
    """
    import diffusers

    if spacing not in SPACINGS:
        spacing = "trailing" if schedule.has_zero_terminal_snr else "leading"
    kind = {"_class_name": "DDPMScheduler", "variance_type": variance} if variance else {"_class_name": "DDIMScheduler"}
    ends = {} if variance and ends_at == 0 else {"set_alpha_to_one": ends_at == 0}  # DDPMScheduler has no such field
    return {
        **kind,
        "_diffusers_version": diffusers.__version__,
        "num_train_timesteps": schedule.T,
        **named_betas(schedule),
        "prediction_type": {ours: theirs for theirs, ours in PREDICTIONS.items()}[prediction],
        "clip_sample": clips and not thresholding,
        "clip_sample_range": clip_range,
        "thresholding": thresholding,
        "dynamic_thresholding_ratio": threshold_quantile,
        "sample_max_value": threshold_maximum,
        **ends,
        "steps_offset": steps_offset,
        "timestep_spacing": spacing,
    }


def _list(names: list[str]) -> str:
    return ", ".join(names) or "no settings"
