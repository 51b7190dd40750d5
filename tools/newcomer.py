"""A stranger's first hour, in minutes: own pictures, own checkpoint, own network, on data made here.

python tools/newcomer.py [FOLDER]: prints each command and what is checked of it; exit code 0 only if all of it holds.
Nothing but the public command line and the public names of `ddim`; what it writes goes to FOLDER (a temporary one).
"""

import contextlib
import hashlib
import json
import math
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

GOLDEN = Path(__file__).parents[1] / "tests" / "data" / "golden"
MOST_SECONDS = 600


def main(argv: list[str]) -> int:
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        walk = Walk(Path(argv[0] if argv else temporary).resolve())
        for door in DOORS:
            start = time.monotonic()
            print(f"\n=== {door.__doc__}", flush=True)
            with contextlib.suppress(ShutError):
                door(walk)
            print(f"    {time.monotonic() - start:.0f} s", flush=True)
        seconds = time.monotonic() - began
        walk.check(f"all three doors in {seconds:.0f} s, at most {MOST_SECONDS}", seconds <= MOST_SECONDS)
    print(f"\n{walk.held} checks hold" if not walk.wrong else "\nWRONG:\n  " + "\n  ".join(walk.wrong))
    return 1 if walk.wrong else 0


class ShutError(Exception):
    """A command did not do what the next ones need."""


class Walk:
    """A folder in which commands are typed, and what was found of them."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.held, self.wrong = folder, 0, []
        self.environ = {**os.environ, "DDIM_CACHE": str(folder / "cache")}

    def types(self, command: str, code: int = 0) -> str:
        """Run `ddim ...` there as somebody types it; all it said. The exit code is checked."""
        print(f"$ {command}", flush=True)
        return self._said([sys.executable, "-m", *shlex.split(command)], code, command)

    def runs(self, name: str, program: str) -> str:
        """Run a Python program there."""
        print(f"$ python {name}", *(f"  | {line}" for line in program.strip().splitlines()), sep="\n", flush=True)
        (self.folder / name).write_text(program)
        return self._said([sys.executable, name], 0, f"python {name}")

    def _said(self, words: list[str], code: int, what: str) -> str:
        done = subprocess.run(
            words, cwd=self.folder, env=self.environ, capture_output=True, text=True, check=False, timeout=MOST_SECONDS
        )
        said = done.stdout + done.stderr
        shown = said.strip().splitlines()
        print("".join(f"    {line[:160]}\n" for line in shown[-6:]), end="", flush=True)
        self.check(f"ends with exit code {code}", done.returncode == code, f"{what}\n{said}")
        if done.returncode != code:
            raise ShutError
        return said

    def check(self, what: str, holds: bool, more: str = "") -> None:
        print(f"  {'ok   ' if holds else 'WRONG'} {what}", flush=True)
        if holds:
            self.held += 1
        else:
            self.wrong.append(f"{what}\n{more}" if more else what)

    def steps(self, run: str) -> list[int]:
        """Of the lines of a run's log."""
        return [json.loads(line)["step"] for line in (self.folder / run / "log.jsonl").read_text().splitlines()]

    def there(self, *paths: str) -> None:
        for path in paths:
            self.check(f"{path} is there", (self.folder / path).exists())

    def json(self, path: str) -> dict:
        return json.loads((self.folder / path).read_text())


# -- the first door -------------------------------------------------------------------------------------------


def own_pictures(walk: Walk) -> None:
    """Own pictures: train, go on, sample, evaluate, measure."""
    photos(walk.folder / "photos")
    quick = "--preset digits --batch-size 16 --warmup 5 --log-every 10 --preview-every 10 --device cpu --max-steps 20"
    said = walk.types(f"ddim train photos --out run {quick}", code=2)
    wanted = ("broken.jpg", "--skip-unreadable", "--labels ignore", "--size")
    walk.check(f"one summary says all of {wanted}", all(word in said for word in wanted))
    walk.types(f"ddim train photos --out run --labels ignore --skip-unreadable --size 16 {quick}")
    walk.there("run/model_index.json", "run/ddim.json", "run/log.jsonl", "run/previews")
    walk.types("ddim train --resume run --max-steps 30")
    steps = walk.steps("run")
    walk.check(f"the log ends at step 30: {steps}", bool(steps) and steps[-1] == 30 and steps == sorted(set(steps)))
    said = walk.types("ddim info run")
    walk.check("info says what it makes and how far it is", "3 x 16 x 16" in said and "30" in said)
    sampled(walk)
    rows = "--steps 2,4 --eta 0 --no-sigma-hat --count 20"
    said = walk.types(f"ddim evaluate run photos --skip-unreadable {rows} --out report")
    walk.check("it answers the question", "the fewest steps within 5 % of the best are" in said)
    walk.there("report/report.html", "report/report.csv")
    rows = walk.json("report/report.json").get("rows", [])
    walk.check("two rows with a finite distance", len(rows) == 2 and all(math.isfinite(r["distance"]) for r in rows))
    said = walk.types("ddim measure images photos --skip-unreadable --count 12 --out measured")
    walk.check("it says whether they are told apart", "told apart from real images" in said)


def photos(folder: Path) -> None:
    """Pictures as people have them: discs on gradients, of all sizes, in and beside folders, some on their side."""
    draw = np.random.RandomState(0)
    for place in (folder, folder / "cats", folder / "dogs"):
        place.mkdir(parents=True, exist_ok=True)
        for i in range(20):
            height, width = draw.randint(24, 90, 2)
            y, x = np.mgrid[:height, :width]
            disc = (y / height - draw.rand()) ** 2 + (x / width - draw.rand()) ** 2 < draw.uniform(0.02, 0.1)
            ground = 255 * (x / width)[..., None] * draw.rand(3)
            pixels = np.where(disc[..., None], 255 * draw.rand(3), ground).astype(np.uint8)
            exif = Image.Exif()
            if i % 4 == 0:
                exif[0x0112] = 6  # orientation: lies on its side
            Image.fromarray(pixels).save(place / f"IMG_{i:04d}.jpg", quality=90, exif=exif)
    whole = (folder / "cats" / "IMG_0001.jpg").read_bytes()
    (folder / "cats" / "broken.jpg").write_bytes(whole[: len(whole) // 2])


def sampled(walk: Walk) -> None:
    command = "ddim sample run --count 12 --steps 4 --batch-size 5 --out images"
    walk.types(command)
    images = sorted((walk.folder / "images").glob("0*.png"))
    alike = {(i.size, i.mode) for i in map(Image.open, images)}
    walk.check(f"12 colour images of 16x16: {alike}", len(images) == 12 and alike == {((16, 16), "RGB")})
    walk.there("images/grid.png", "images/recipe.json")
    burnt, real = saturated(images), saturated(sorted((walk.folder / "photos").rglob("IMG_*.jpg")))
    walk.check(f"{burnt:.0%} of their pixels are at 0 or 255, in the photos {real:.0%}", burnt < real + 0.1)
    walk.types("ddim sample --verify --out images")
    before = [hashlib.sha256(path.read_bytes()).hexdigest() for path in images]
    for path in images[5:]:
        path.unlink()
    (walk.folder / "images/manifest.json").unlink(missing_ok=True)
    walk.types(command)
    after = [hashlib.sha256(path.read_bytes()).hexdigest() for path in images]
    walk.check("a job that lost images makes the same ones again", before == after)


def saturated(paths: list[Path]) -> float:
    """The share of numbers at the end of the range."""
    pixels = np.concatenate([np.asarray(Image.open(path)).ravel() for path in paths])
    return float(((pixels == 0) | (pixels == 255)).mean())


# -- the second door ------------------------------------------------------------------------------------------


def own_checkpoint(walk: Walk) -> None:
    """Own checkpoint: somebody else's file, imported, sampled, exported."""
    shutil.copy(GOLDEN / "ermongroup/ckpt/ckpt.pth", walk.folder / "ckpt.pth")
    shutil.copy(GOLDEN / "ermongroup/ckpt/config.yml", walk.folder / "celeba.yml")
    shutil.copy(GOLDEN / "ermongroup/ckpt/expected.safetensors", walk.folder / "said-by-their-program.safetensors")
    walk.types("ddim import ckpt.pth model --config celeba.yml")
    walk.there("model/model_index.json", "model/ddim.json")
    said = walk.types("ddim info model")
    walk.check("info says whose it is", "from ermongroup" in said and "3 x 16 x 16" in said)
    said = walk.types("ddim import ckpt.pth model --config celeba.yml", code=2)
    walk.check("nothing is overwritten", "exists" in said)
    walk.types("ddim sample model --count 4 --steps 3 --out faces")
    said = walk.types("ddim sample ckpt.pth --count 4 --out guessed", code=2)
    walk.check("a size that the file does not say is asked for", "image_size" in said)
    walk.types("ddim export model plain")
    walk.runs("theirs.py", THEIRS)
    file = "ema_0.9999_000100.pt"
    shutil.copy(GOLDEN / "improved-diffusion/learn-sigma-cosine" / file, walk.folder / file)
    settings = "image_size=16 attention_resolutions=8 num_heads=2 diffusion_steps=200 noise_schedule=cosine"
    walk.types(f"ddim import {file} openai --set {settings} rescale_timesteps=True --data photos")
    walk.types("ddim sample openai --count 4 --steps 3 --out more")
    said = walk.types(f"ddim import {file} wrong --set image_side=16", code=2)
    walk.check("a misspelt setting is named with its nearest", "image_size" in said)


THEIRS = """
import torch
from diffusers import DDIMPipeline
from safetensors.torch import load_file
import ddim

theirs = DDIMPipeline.from_pretrained("plain")
said = load_file("said-by-their-program.safetensors")
x, t, eps = said["eval.x"], said["eval.t"], said["eval.eps_ema"]
with torch.no_grad():
    assert torch.allclose(theirs.unet(x, t).sample, eps, atol=1e-4)
    assert torch.allclose(ddim.load("model").checkpoint.network(x, t), eps, atol=1e-4)
"""


# -- the third door -------------------------------------------------------------------------------------------


def own_network(walk: Walk) -> None:
    """Own network: a module, its samples, its latents, saved and loaded."""
    said = walk.runs("mine.py", MINE)
    found = re.search(r"error ([\d.e-]+)", said)
    walk.check("a latent leads back to its image", found is not None and float(found[1]) < 0.1)
    walk.there("mine/ddim.json")


MINE = """
import torch, ddim

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.Conv2d(8, 3, 3, padding=1)

    def forward(self, x, t):
        return self.b(torch.relu(self.a(x)))

torch.manual_seed(0)
model = ddim.Model.from_network(Net(), ddim.Schedule.linear(1000), shape=(3, 16, 16), prediction="v")
x = model.sample(4, steps=10, seed=0)
assert x.shape == (4, 3, 16, 16) and x.isfinite().all()
assert torch.allclose(model.sample(1, steps=10, seed=3), x[3:], atol=1e-5)      # image i depends on seed i alone

sampler = model.sampler(steps=50)
image = sampler.sample(seeds=[0, 1])
print(f"error {float((sampler.decode(sampler.encode(image)) - image).abs().max()):.2e}")

model.save("mine")
assert torch.equal(ddim.load("mine", network=Net()).sample(4, steps=10, seed=0), x)
"""

DOORS = (own_pictures, own_checkpoint, own_network)

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
