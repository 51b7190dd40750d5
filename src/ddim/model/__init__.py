"""Names into objects: `load` gives a `Model`, a `Model` gives a `Sampler`. The one place that does."""

from ddim.model.asked import LabelRule, Labels, labels_of, seeds_of
from ddim.model.model import BUNDLED, DEFAULT, Model, bundled_names, load
from ddim.model.sampler import Sampler

__all__ = [
    "BUNDLED", "DEFAULT", "LabelRule", "Labels", "Model", "Sampler", "bundled_names", "labels_of", "load", "seeds_of",
]  # fmt: skip
