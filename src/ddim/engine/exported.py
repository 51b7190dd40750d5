"""Networks that another runtime runs: their number format and device were settled when they were exported."""

from __future__ import annotations

import torch
from torch import nn

from ddim.refused import Refused


class Exported(nn.Module):
    """A network without parameters of torch's: it runs as it was exported, on the CPU.

    Args:
        precision: what its arithmetic is, e.g. "int8".
    """

    def __init__(self, precision: str) -> None:
        super().__init__()
        self.precision = precision

    def checked(self, precision: str, device: torch.device, compiled: bool = False) -> Exported:
        """Itself, if what is asked of it can be had: "auto" and "fp32", the defaults, mean "as it is".

        Raises:
            Refused: another precision or device, or compilation.
        """
        if precision not in ("auto", "fp32", self.precision):
            raise Refused(
                f"this network was exported in {self.precision} and cannot run in {precision}: leave `precision` out, "
                "or use the model it was exported from"
            )
        if device.type != "cpu":
            raise Refused(f"an exported network runs on the CPU, not on {device.type}: give `device` cpu")
        if compiled:
            raise Refused("an exported network was compiled by its own runtime: it is not `compiled` again")
        return self
