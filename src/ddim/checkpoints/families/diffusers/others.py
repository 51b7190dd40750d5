"""diffusers' schedulers of continuous processes, in both directions: score SDEs, Karras and EDM, flow matching.

Each class walks one process and tells its network one label of time; both are facts of the class, and its numbers are
in its scheduler_config.json. How a class steps is passed over: our solvers step on all of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from ddim.checkpoints.families.diffusers.betas import MAX_T, schedule_of
from ddim.checkpoints.families.diffusers.sampling import Sampling
from ddim.checkpoints.settings import choice, known_only, number, whole
from ddim.process import Continuous, Process, TimeLabel, edm, flow, ve, vp
from ddim.refused import Refused

EDM_LABEL = TimeLabel("log-sigma", 0.25)
FLOW_STEPS = (
    "shift", "use_dynamic_shifting", "base_shift", "max_shift", "base_image_seq_len", "max_image_seq_len",
    "shift_terminal", "use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "time_shift_type",
    "stochastic_sampling", "invert_sigmas",
)  # fmt: skip
Way = Callable[[Mapping[str, Any]], Sampling]


def _score_ve(fields: Mapping[str, Any]) -> Sampling:
    process = ve(_above(fields, "sigma_min", 0.01), _above(fields, "sigma_max", 1348.0))
    return Sampling(
        process, "score", time_label=TimeLabel("noise"), data_range=(0.0, 1.0),
        notes=("ScoreSdeVeScheduler: the network's images are taken to run from 0 to 1, as its pipeline shows them",),
    )  # fmt: skip


def _score_vp(fields: Mapping[str, Any]) -> Sampling:
    process = vp(_above(fields, "beta_min", 0.1), _above(fields, "beta_max", 20.0))
    note = "ScoreSdeVpScheduler does not say what the network is told of time: assumed 999 t, as score_sde trains"
    return Sampling(process, "eps", time_label=TimeLabel("time", 999.0), notes=(note,))


def _karras_ve(fields: Mapping[str, Any]) -> Sampling:
    """Its pipeline shows a network of images in 0..1 half of (x + 1) and of sigma: that is what the network knows."""
    process = ve(_above(fields, "sigma_min", 0.02) / 2, _above(fields, "sigma_max", 100.0) / 2)
    return Sampling(
        process, "score", time_label=TimeLabel("noise"), spacing="logsnr", data_range=(0.0, 1.0),
        notes=("KarrasVeScheduler: its pipeline asks a network of images from 0 to 1 at half of each sigma",),
    )  # fmt: skip


def _edm(fields: Mapping[str, Any]) -> Sampling:
    low, high, sd = (_above(fields, n, d) for n, d in (("sigma_min", 0.002), ("sigma_max", 80.0), ("sigma_data", 0.5)))
    spacing = "edm" if choice(fields, "sigma_schedule", "karras", ("karras", "exponential")) == "karras" else "logsnr"
    kind = choice(fields, "prediction_type", "epsilon", ("epsilon", "v_prediction"))
    if kind == "epsilon":
        return Sampling(edm(low, high), "edm", data_std=sd, time_label=EDM_LABEL, spacing=spacing)
    # its v is that of x/sigma_data at unit variance: the network's numbers run further by 1/sigma_data
    label = TimeLabel("log-sigma", 0.25, 0.25 * math.log(sd))
    return Sampling(
        edm(low / sd, high / sd), "v", unit_input=True, time_label=label, spacing=spacing, data_range=(-1 / sd, 1 / sd)
    )


def _flow(fields: Mapping[str, Any]) -> Sampling:
    if fields.get("invert_sigmas"):
        raise Refused(
            "scheduler_config.json says invert_sigmas: that flow runs from the image to noise, and is not read"
        )
    T = whole(fields, "num_train_timesteps", 1000, most=MAX_T)
    shift = f"shift = {fields['shift']:g}: " if fields.get("shift", 1.0) != 1.0 else ""
    notes = (f"{shift}its own times are not used; ours are even unless `spacing` says otherwise",) if shift else ()
    return Sampling(flow(), "velocity", time_label=TimeLabel("time", float(T)), notes=notes)


def _flow_sigmas(fields: Mapping[str, Any]) -> Sampling:
    if fields.get("prediction_type") != "flow_prediction":
        raise Refused(
            "scheduler_config.json says use_flow_sigmas, which is read with prediction_type flow_prediction only"
        )
    T = whole(fields, "num_train_timesteps", 1000, most=MAX_T)
    note = f"written for {fields['_class_name']} with use_flow_sigmas: its own way of stepping is not used"
    return Sampling(flow(), "velocity", time_label=TimeLabel("time", float(T)), notes=(note,))


def _euler_continuous(fields: Mapping[str, Any]) -> Sampling:
    """EulerDiscrete's EDM: x at unit variance, v, log(sigma)/4."""
    choice(fields, "prediction_type", "epsilon", ("v_prediction",))
    table = schedule_of(fields)
    ends = [at.noise / at.signal for at in (table.at(1), table.at(table.T))]
    low, high = (_above(fields, n, d) for n, d in zip(("sigma_min", "sigma_max"), ends, strict=True))
    return Sampling(edm(low, high), "v", unit_input=True, time_label=EDM_LABEL, spacing="edm")


CLASSES: dict[str, tuple[Way, tuple[str, ...]]] = {
    "ScoreSdeVeScheduler": (
        _score_ve, ("num_train_timesteps", "snr", "sigma_min", "sigma_max", "sampling_eps", "correct_steps"),
    ),
    "ScoreSdeVpScheduler": (_score_vp, ("num_train_timesteps", "beta_min", "beta_max", "sampling_eps")),
    "KarrasVeScheduler": (_karras_ve, ("sigma_min", "sigma_max", "s_noise", "s_churn", "s_min", "s_max")),
    **dict.fromkeys(
        ("EDMEulerScheduler", "EDMDPMSolverMultistepScheduler"),
        (_edm, ("sigma_min", "sigma_max", "sigma_data", "sigma_schedule", "num_train_timesteps", "prediction_type",
                "rho", "final_sigmas_type", "solver_order", "thresholding", "dynamic_thresholding_ratio",
                "sample_max_value", "algorithm_type", "solver_type", "lower_order_final", "euler_at_final")),
    ),
    **dict.fromkeys(
        ("FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler"),
        (_flow, ("num_train_timesteps", *FLOW_STEPS)),
    ),
}  # fmt: skip
"""Scheduler class -> how it is read, and the fields it has."""
READ = frozenset(name for _, names in CLASSES.values() for name in names)


def is_other(config: Mapping[str, Any]) -> bool:
    """Whether this scheduler_config.json is of a continuous process."""
    if config.get("_class_name") in CLASSES:
        return True
    continuous = config.get("timestep_type") == "continuous" and config.get("_class_name") == "EulerDiscreteScheduler"
    return continuous or config.get("use_flow_sigmas") is True


def read(config: Mapping[str, Any]) -> Sampling:
    """A scheduler_config.json for which `is_other` holds.

    Raises:
        Refused: an unknown field or value; names it.
    """
    kind = str(config.get("_class_name"))
    if kind not in CLASSES:
        return _flow_sigmas(config) if config.get("use_flow_sigmas") is True else _euler_continuous(config)
    way, names = CLASSES[kind]
    known_only((k for k in config if not k.startswith("_")), names, f"scheduler_config.json of {kind}", "setting")
    if config.get("thresholding"):
        raise Refused(f"scheduler_config.json: {kind} with thresholding is not read; set thresholding to false")
    return way(config)


def write(
    process: Process, prediction: str, label: TimeLabel | None, data_std: float, data_range: tuple[float, float]
) -> dict[str, Any] | None:
    """The scheduler_config.json of the diffusers class that asks a network as this one is asked, or None."""
    if not isinstance(process, Continuous) or process.numbers is None:
        return None
    found: dict[str, Any] | None = None
    if process.kind == "ve" and prediction == "score" and label == TimeLabel("noise") and data_range == (0.0, 1.0):
        found = {"_class_name": "ScoreSdeVeScheduler", "sampling_eps": 1e-5, **process.numbers}
    elif process.kind == "vp" and prediction == "eps" and label == TimeLabel("time", 999.0):
        found = {"_class_name": "ScoreSdeVpScheduler", "sampling_eps": process.first, **process.numbers}
    elif process.kind == "edm" and prediction == "edm" and label == EDM_LABEL:
        found = {"_class_name": "EDMEulerScheduler", "sigma_data": data_std, **process.numbers}
    elif process.kind == "flow" and prediction == "velocity" and label is not None and label.clock == "time":
        found = {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": round(label.scale)}
    if found is None:
        return None
    import diffusers

    return {**found, "_diffusers_version": diffusers.__version__}


def _above(fields: Mapping[str, Any], name: str, default: float) -> float:
    value = fields.get(name)
    return number({} if value is None else fields, name, default, low=0.0, where="scheduler_config.json")
