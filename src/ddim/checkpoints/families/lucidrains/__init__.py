"""denoising-diffusion-pytorch's Trainer files."""

from ddim.checkpoints.families.lucidrains.reader import is_this, named_schedule, read
from ddim.checkpoints.families.parts import FileFamily

FAMILY = FileFamily("lucidrains", is_this, read)

__all__ = ["FAMILY", "named_schedule"]
