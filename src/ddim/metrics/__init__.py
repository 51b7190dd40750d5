"""Measures of image quality on the features of a pluggable extractor. Maths only: nothing here prints or writes."""

from ddim.metrics.bundled import Extractor
from ddim.metrics.extractors import extractor, usual
from ddim.metrics.kernel import Estimate, kid, mmd2
from ddim.metrics.moments import Moments, distance_name, frechet, frechet_bias
from ddim.metrics.neighbours import Fidelity, diversity, fidelity, radii
from ddim.metrics.scores import estrangement, inception_score

__all__ = [
    "Estimate",
    "Extractor",
    "Fidelity",
    "Moments",
    "distance_name",
    "diversity",
    "estrangement",
    "extractor",
    "fidelity",
    "frechet",
    "frechet_bias",
    "inception_score",
    "kid",
    "mmd2",
    "radii",
    "usual",
]
