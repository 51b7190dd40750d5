"""A network that ONNX Runtime runs on the CPU, in the number format it was exported in."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ddim.engine.exported import Exported
from ddim.refused import Refused

INPUTS = ("x", "t", "label")
EXTRA = "pip install 'ddim[onnx]'"


def require(*packages: str) -> None:
    """Say which optional packages are missing.

    Raises:
        Refused: one of them is not installed; the remedy with it.
    """
    missing = [p for p in packages if importlib.util.find_spec(p) is None]
    if missing:
        raise Refused(f"ONNX needs {', '.join(missing)}, not installed here: {EXTRA}")


class OnnxNetwork(Exported):
    """An ONNX file as network(x, t, label) -> tensor. No gradients, no mixes of classes, CPU only.

    Args:
        path: the file; the weights lie inside it.
        precision: what its arithmetic is: "fp32" or "int8".
        null_label: the label that means "any class", or None where there is none.

    Raises:
        Refused: onnxruntime is missing, or the file is not one it runs.
    """

    def __init__(self, path: Path, precision: str, null_label: int | None = None) -> None:
        super().__init__(precision)
        self.path, self.null_label = path, null_label
        self.session, self.sha256 = onnx_session(path)
        self.names = [i.name for i in self.session.get_inputs()]
        if self.names not in (list(INPUTS[:2]), list(INPUTS)):
            raise Refused(f"{path} takes {', '.join(self.names)} where {', '.join(INPUTS)} were expected")

    def __getstate__(self) -> dict[str, Any]:
        """Without the session, which cannot be copied: whoever gets this opens the file again."""
        return {name: value for name, value in self.__dict__.items() if name != "session"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]  # torch's
        self.session, digest = onnx_session(self.path)
        if digest != self.sha256:
            raise Refused(f"{self.path} has changed since it was loaded: load the model again")

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        """x float32 (B, C, H, W), t (B,) as the network's time, label int64 (B,) or None for the null label."""
        if label is not None and label.is_floating_point():
            raise Refused("an exported network takes one class an image; a mix of classes needs the original model")
        fed: dict[str, Any] = {"x": x.float().numpy(force=True), "t": t.numpy(force=True)}
        if "label" in self.names:
            if label is None:
                if self.null_label is None:
                    raise Refused("this network has no null label; give a label")
                label = torch.full((len(x),), self.null_label, dtype=torch.int64)
            fed["label"] = label.numpy(force=True)
        try:
            said = self.session.run(None, fed)[0]
        except Exception as error:  # onnxruntime's exceptions share no base class but this
            reason = " ".join(str(error).split())[:160]
            raise Refused(f"the ONNX network cannot take {tuple(x.shape)} at times {t.dtype}: {reason}") from None
        if not isinstance(said, np.ndarray) or said.dtype != np.float32 or said.shape[:1] != x.shape[:1]:
            raise Refused(f"the ONNX network returns no float32 tensor of {len(x)} rows")
        return torch.from_numpy(said).to(x)


def onnx_session(path: Path) -> tuple[Any, str]:
    """A file ready to run on the CPU, and its sha256: of what was read, not of what lies there later.

    Raises:
        Refused: onnxruntime is missing, or the file is not one it runs.
    """
    require("onnxruntime")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4  # nothing but what it raises: its warnings and errors are lines of its own, coloured
    # The bytes, not the path: a file nobody vouches for must not name other files as its weights.
    content = path.read_bytes()
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # see `forward`
        reason = " ".join(str(error).split())[:160]
        raise Refused(f"{path} cannot be run by ONNX Runtime: {reason}") from None
    return session, hashlib.sha256(content).hexdigest()
