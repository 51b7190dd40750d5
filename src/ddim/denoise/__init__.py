"""What a network says about x_t: the pair (x0, eps), and wrappers that change it: conditions, clips, guidance.

Whatever calls the network, or changes what it says, lives here. Oracles answer in closed form.
"""

from ddim.denoise.autoguidance import Autoguided
from ddim.denoise.binding import Bound, bound
from ddim.denoise.clip import Clip, DynamicThreshold
from ddim.denoise.conditions import NONE, Conditions, labels
from ddim.denoise.consistency import Consistent
from ddim.denoise.guidance import Guided
from ddim.denoise.network import NetworkDenoiser, real_time, zero_based
from ddim.denoise.oracles import GaussianDenoiser, MixtureDenoiser
from ddim.denoise.protocol import Denoiser, Wrapper
from ddim.denoise.stitching import Stitched, refuse_outside
from ddim.denoise.weights import Interval

__all__ = [
    "NONE",
    "Autoguided",
    "Bound",
    "Clip",
    "Conditions",
    "Consistent",
    "Denoiser",
    "DynamicThreshold",
    "GaussianDenoiser",
    "Guided",
    "Interval",
    "MixtureDenoiser",
    "NetworkDenoiser",
    "Stitched",
    "Wrapper",
    "bound",
    "labels",
    "real_time",
    "refuse_outside",
    "zero_based",
]  # fmt: skip
