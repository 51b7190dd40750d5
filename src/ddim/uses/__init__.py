"""What the walk is for: latents and back, paths between latents, edits, agreement, likelihood, the search for times."""

from ddim.uses.agreement import Distance, same_latents
from ddim.uses.certificate import Certificate, LatentRecipe, Reproduction, Road
from ddim.uses.density import Likelihood, likelihood, walk_density
from ddim.uses.edit import along, by_label, by_strength, direction, inpaint, partial_tau
from ddim.uses.invert import decode, described, encode
from ddim.uses.latents import Latents
from ddim.uses.normality import HEAD, Law, law
from ddim.uses.paths import RULES, ddpm_interpolation, lerp, path, path_grid, rule_named, slerp, vp_lerp
from ddim.uses.roads import METHODS, Method, Tell
from ddim.uses.students import progressive_target, walk_target
from ddim.uses.timesearch import Walk, best_path, closed_form, moved, spectrum, walk_long

__all__ = [
    "HEAD", "METHODS", "RULES", "Certificate", "Distance", "LatentRecipe", "Latents", "Law", "Likelihood",
    "Method", "Reproduction", "Road", "Tell", "Walk", "along", "best_path", "by_label", "by_strength", "closed_form",
    "ddpm_interpolation", "decode", "described", "direction", "encode", "inpaint", "law", "lerp", "likelihood",
    "moved", "partial_tau", "path", "path_grid", "progressive_target", "rule_named", "same_latents", "slerp",
    "spectrum", "vp_lerp", "walk_density", "walk_long", "walk_target",
]  # fmt: skip
