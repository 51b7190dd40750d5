"""ermongroup/ddim's training lists and state dicts."""

from ddim.checkpoints.families.ermongroup.reader import is_this, read

__all__ = ["is_this", "read"]
