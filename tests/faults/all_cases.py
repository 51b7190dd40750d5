"""All groups of cases by name."""

from file_cases import pickle_cases, picture_cases, table_cases, tensor_cases
from json_cases import json_cases
from own_cases import cell_cases, latent_cases, onnx_cases
from word_cases import flag_cases, place_cases, yaml_cases

GROUPS = {
    "json": json_cases,
    "pictures": picture_cases,
    "tables": table_cases,
    "pickles": pickle_cases,
    "tensors": tensor_cases,
    "latents": latent_cases,
    "cells": cell_cases,
    "onnx": onnx_cases,
    "words": flag_cases,
    "places": place_cases,
    "yaml": yaml_cases,
}
