"""Measures of image quality on the features of a pluggable extractor. Maths only: no files but weights, no printing."""
