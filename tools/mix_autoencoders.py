"""Two autoencoders of one ancestor as one, their weights averaged (arXiv 2203.05482): between faithful and sharp.

`python tools/mix_autoencoders.py FAITHFUL SHARP 0.65 DATA OUT`: (1 - 0.65) FAITHFUL + 0.65 SHARP, its latents scaled to
mean 0 and std 1 on DATA, as `ddim train-autoencoder` does. SHARP was trained from FAITHFUL (`--init`); of strangers the
average is noise.
"""

from __future__ import annotations

import copy
import sys
from pathlib import Path

import torch

import ddim
from ddim.checkpoints import save_autoencoder
from ddim.data import open_images
from ddim.jobs import AutoencoderPlan, AutoencoderRecipe
from ddim.jobs.autoencode.judged import Reconstructions
from ddim.nets import Autoencoder


@torch.no_grad()
def main(faithful: str, sharp: str, share: str, data: str, out: str) -> None:
    one, two = (ddim.model.load_autoencoder(name) for name in (faithful, sharp))
    module, weight, toward = copy.deepcopy(one.module), float(share), two.module.state_dict()
    module.load_state_dict({k: torch.lerp(v, toward[k], weight) for k, v in module.state_dict().items()})
    images = open_images(Path(data), labels=False)
    recipe = AutoencoderRecipe(**one.facts["provenance"]["recipe"])
    plan = AutoencoderPlan(Path(out), images, recipe, init=one)
    found = Reconstructions(plan).measured(Autoencoder(module.eval()).plain, 0)
    parents = [{"share": s, **a.facts, "sha256": a.sha256} for s, a in ((1 - weight, one), (weight, two))]
    told = {**one.facts["provenance"], "command": "tools/mix_autoencoders.py " + share, "mixed": parents}
    facts = {k: v for k, v in one.facts.items() if k != "sha256"}
    save_autoencoder(Path(out), found.autoencoder, {**facts, "measured": found.numbers, "provenance": told})
    print(f"{out}: {found.numbers}")


if __name__ == "__main__":
    main(*sys.argv[1:])
