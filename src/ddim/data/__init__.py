"""Images to train and evaluate on: any source, checked once, decoded once, then read by index."""

from ddim.data.batches import Batch, Batches, LatentBatches, TensorBatches
from ddim.data.cache import Images, cache_root, open_images
from ddim.data.few import few_images
from ddim.data.held import held_out
from ddim.data.kept import keep_array, whole_array
from ddim.data.latents import LatentImages, Spread, open_latents
from ddim.data.memory import images_of
from ddim.data.report import Report
from ddim.data.sources import Source, open_source

__all__ = [
    "Batch",
    "Batches",
    "Images",
    "LatentBatches",
    "LatentImages",
    "Report",
    "Source",
    "Spread",
    "TensorBatches",
    "cache_root",
    "few_images",
    "held_out",
    "images_of",
    "keep_array",
    "open_images",
    "open_latents",
    "open_source",
    "whole_array",
]  # fmt: skip
