"""A model for ONNX Runtime, in fp32 or with convolutions and matrix products in int8.

int8 is static: weights by channel, activations by tensor, their ranges read off the network's own trajectories, so
that no data is needed. What it buys and costs was measured: docs/engine.md, "Other runtimes".
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ddim.checkpoints import Checkpoint, write_onnx_folder
from ddim.denoise import NONE, Denoiser, labels
from ddim.engine import INPUTS, require
from ddim.process import noise, tau, usual_spacing
from ddim.refused import Refused
from ddim.solve import DDIM, trajectory

PRECISIONS = ("fp32", "int8")
IMAGES, STEPS = 6, 20  # calibration: trajectories, and steps of each; every second state of each is used
Inputs = tuple[Tensor, ...]


def export_onnx(path: str | Path, checkpoint: Checkpoint, *, precision: str = "fp32") -> None:
    """Write a model folder whose network is an ONNX file; `ddim.load` reads it.

    Args:
        path: the folder, a new or an empty one.
        checkpoint: any model whose network torch can export.
        precision: "fp32" or "int8".

    Raises:
        Refused: an unknown precision, path exists, packages missing, or torch cannot export the network.
    """
    if checkpoint.autoencoder is not None:
        raise Refused("an ONNX folder has no place for an autoencoder, and this model's pictures need theirs")
    if precision not in PRECISIONS:
        raise Refused(f"ONNX export knows {' and '.join(PRECISIONS)}, not {precision!r}")
    require("onnx", "onnxscript", "onnxruntime")
    states = trajectory_states(checkpoint, IMAGES if precision == "int8" else 1)

    def make(file: Path) -> None:
        if precision == "fp32":
            _convert(checkpoint, states[0], file)
            return
        plain = file.with_suffix(".fp32.onnx")
        _convert(checkpoint, states[0], plain)
        _quantise(plain, states, file)
        plain.unlink()

    about = {"calibration": {"images": IMAGES, "steps": STEPS, "states": len(states)}} if precision == "int8" else {}
    write_onnx_folder(Path(path), checkpoint, precision, make, about)


@torch.no_grad()
def trajectory_states(checkpoint: Checkpoint, images: int) -> list[Inputs]:
    """What the network is fed along DDIM trajectories, one image a state: (x, t) or (x, t, label).

    Image i is of class i modulo K; where there is a null label every third has that, for guidance asks it too.
    """
    told: Inputs = ()
    if checkpoint.num_classes is not None:
        null = checkpoint.null_label
        label = [null if null is not None and i % 3 == 2 else i % checkpoint.num_classes for i in range(images)]
        told = (torch.tensor(label),)
    process = checkpoint.process
    times = tau(process, min(STEPS, process.T) if process.discrete else STEPS, usual_spacing(process))
    x = process.start(times[0]) * noise(range(images), checkpoint.shape, purpose="calibration")
    denoise: Denoiser = checkpoint.denoiser()
    if checkpoint.clips:
        denoise = checkpoint.clipped(denoise)
    conditions = labels(*told) if told else NONE
    found: list[Inputs] = []
    for t, step in zip(times[:-1], trajectory(denoise, DDIM(), times, x, conditions=conditions), strict=True):
        shown = checkpoint.parameterisation.feed(x, process.at(t))
        found.append((shown, checkpoint.time(torch.full((images,), t)), *told))
        x = step.x
    return [tuple(v[i : i + 1] for v in inputs) for k, inputs in enumerate(found) for i in range(k % 2, images, 2)]


def _convert(checkpoint: Checkpoint, state: Inputs, file: Path) -> None:
    """The network as an ONNX file, weights inside, batch size left open."""
    batch = torch.export.Dim("batch", min=1, max=4096)
    example = tuple(torch.cat([v, v]) for v in state)
    shapes = tuple({0: batch} for _ in example)
    try:
        with _quiet():
            torch.onnx.export(
                checkpoint.network, example, file, dynamo=True, input_names=INPUTS[: len(example)],
                dynamic_shapes=shapes, external_data=False, verbose=False,
            )  # fmt: skip
    except Exception as error:  # whatever torch cannot trace; its classes differ from release to release
        reason = (str(error).strip().splitlines() or [""])[0][:200]
        raise Refused(f"torch cannot export this network to ONNX: {type(error).__name__}: {reason}") from error


def _quantise(plain: Path, states: list[Inputs], file: Path) -> None:
    from onnxruntime import quantization as q

    inputs = iter([{name: v.numpy() for name, v in zip(INPUTS, state, strict=False)} for state in states])

    class Reader(q.CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
        def get_next(self) -> dict[str, Any] | None:
            return next(inputs, None)

    ready = file.with_suffix(".pre.onnx")
    kinds = {"activation_type": q.QuantType.QUInt8, "weight_type": q.QuantType.QInt8, "per_channel": True}
    with _quiet():
        q.quant_pre_process(str(plain), str(ready), skip_symbolic_shape=True)
        q.quantize_static(str(ready), str(file), Reader(), op_types_to_quantize=["Conv", "Gemm", "MatMul"], **kinds)
    ready.unlink()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """torch's and ONNX Runtime's exporters tell of their own insides on every channel there is."""
    nowhere = io.StringIO()
    with warnings.catch_warnings(), contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)
