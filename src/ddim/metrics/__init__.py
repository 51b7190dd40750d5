"""Measures of image quality on the features of a pluggable extractor. Maths only: nothing here prints or writes."""

from ddim.metrics.extractors import Extractor, extractor
from ddim.metrics.kernel import Estimate, kid, mmd2
from ddim.metrics.moments import Moments, distance_name, frechet, frechet_bias, moments_of
from ddim.metrics.neighbours import Fidelity, diversity, fidelity, radii
from ddim.metrics.scores import Reconstruction, consistency, inception_score, reconstruction

__all__ = [
    "Estimate",
    "Extractor",
    "Fidelity",
    "Moments",
    "Reconstruction",
    "consistency",
    "distance_name",
    "diversity",
    "extractor",
    "fidelity",
    "frechet",
    "frechet_bias",
    "inception_score",
    "kid",
    "mmd2",
    "moments_of",
    "radii",
    "reconstruction",
]
