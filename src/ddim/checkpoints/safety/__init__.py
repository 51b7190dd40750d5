"""Files nobody vouches for: no code is run, and none asks for more memory than it has bytes."""

from ddim.checkpoints.safety.persistent import Persisted
from ddim.checkpoints.safety.pickles import read_torch
from ddim.checkpoints.safety.tensors import read_safetensors

__all__ = ["Persisted", "read_safetensors", "read_torch"]
