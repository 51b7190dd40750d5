"""ermongroup/ddim's training lists and state dicts."""

from ddim.checkpoints.families.ermongroup.reader import is_this, read
from ddim.checkpoints.families.parts import FileFamily

FAMILY = FileFamily("ermongroup", is_this, read)

__all__ = ["FAMILY"]
