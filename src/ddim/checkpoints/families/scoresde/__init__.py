"""score_sde_pytorch: checkpoints of DDPM++ and NCSN++, trained as scores of VP, sub-VP and VE processes."""

from ddim.checkpoints.families.parts import FileFamily
from ddim.checkpoints.families.scoresde.reader import is_this, read

FAMILY = FileFamily("scoresde", is_this, read)

__all__ = ["FAMILY"]
