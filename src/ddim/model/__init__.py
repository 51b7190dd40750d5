"""Names into objects: `load` gives a `Model`, a `Model` gives a `Sampler`. The one place that does."""

from ddim.model.asked import LabelRule, Labels, labels_of, seeds_of
from ddim.model.loading import BUNDLED, DEFAULT, bundled_names, holds_autoencoder, load, load_autoencoder
from ddim.model.model import Model
from ddim.model.own import OwnFacts
from ddim.model.sampler import Overflowed, Sampler
from ddim.model.students import student_times, through
from ddim.model.told import Nulls, Told

__all__ = [
    "BUNDLED",
    "DEFAULT",
    "LabelRule",
    "Labels",
    "Model",
    "Nulls",
    "Overflowed",
    "OwnFacts",
    "Sampler",
    "Told",
    "bundled_names",
    "holds_autoencoder",
    "labels_of",
    "load",
    "load_autoencoder",
    "seeds_of",
    "student_times",
    "through",
]  # fmt: skip
