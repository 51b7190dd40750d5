"""NVlabs/edm: pickles of networks with their preconditioning, read without the program that lies in them."""

from ddim.checkpoints.families.edm.reader import is_this, read
from ddim.checkpoints.families.parts import FileFamily

FAMILY = FileFamily("edm", is_this, read)

__all__ = ["FAMILY"]
