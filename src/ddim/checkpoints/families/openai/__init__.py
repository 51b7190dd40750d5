"""improved-diffusion's and guided-diffusion's state dicts."""

from ddim.checkpoints.families.openai.reader import is_this, read

__all__ = ["is_this", "read"]
