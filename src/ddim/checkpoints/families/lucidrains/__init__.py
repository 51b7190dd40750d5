"""denoising-diffusion-pytorch's Trainer files."""

from ddim.checkpoints.families.lucidrains.reader import is_this, named_schedule, read

__all__ = ["is_this", "named_schedule", "read"]
