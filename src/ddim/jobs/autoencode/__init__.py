"""Training an autoencoder as a job: what decides it, what it minimises, how good it is so far, its folder."""

from ddim.jobs.autoencode.plan import AutoencoderPlan
from ddim.jobs.autoencode.recipe import AutoencoderRecipe
from ddim.jobs.autoencode.run import AutoencoderRun, autoencoder_run, begin_autoencoder

__all__ = ["AutoencoderPlan", "AutoencoderRecipe", "AutoencoderRun", "autoencoder_run", "begin_autoencoder"]
