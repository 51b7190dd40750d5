"""Do the weights fit what the file says about them? Readings compared on real images."""

from ddim.checkpoints.probe.bench import probe_checkpoint
from ddim.checkpoints.probe.prepared import denoising_error
from ddim.checkpoints.probe.readings import Verdict, clearly_below

__all__ = ["Verdict", "clearly_below", "denoising_error", "probe_checkpoint"]
