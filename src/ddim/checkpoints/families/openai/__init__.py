"""improved-diffusion's and guided-diffusion's state dicts."""

from ddim.checkpoints.families.openai.reader import is_this, read
from ddim.checkpoints.families.parts import FileFamily

FAMILY = FileFamily("openai", is_this, read)

__all__ = ["FAMILY"]
