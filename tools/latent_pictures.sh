#!/bin/sh
# The pictures of docs/latents.md, by the commands printed beside them there.
#   tools/latent_pictures.sh [MODEL] [IMAGES_DIR]     default: mnist docs/images
set -eu
model=${1:-mnist}
images=${2:-docs/images}
ddim=${DDIM:-.venv/bin/ddim}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# ten real test digits, one a class, and a few more for the attribute direction (see tests/data)
"${ddim%ddim}python" - "$work" <<'PY'
import sys
from pathlib import Path
import numpy as np
from ddim.pixels import save_png
data, out = np.load("tests/data/mnist-100.npz"), Path(sys.argv[1])
for folder in ("digits", "light", "bold"):
    (out / folder).mkdir()
for k in range(10):
    save_png(out / "digits" / f"{k}.png", data["pixels"][data["labels"] == k][0])
ink = data["pixels"].reshape(len(data["labels"]), -1).mean(1)
for name, rows in (("light", ink.argsort()[:20]), ("bold", ink.argsort()[-20:])):
    for i in rows:
        save_png(out / name / f"{i}.png", data["pixels"][i])
mask = np.zeros(data["pixels"].shape[1:3], dtype=np.uint8)
mask[mask.shape[0] // 2 :] = 255
save_png(out / "mask.png", mask)
PY
digits=$work/digits
$ddim encode "$model" "$digits" --steps 20 --out "$work/z.safetensors"
$ddim decode "$model" "$work/z.safetensors" --out "$work/back"
$ddim interpolate "$model" --between 0 1 --compare --frames 11 --steps 50 --animation gif --out "$work/paths"
$ddim interpolate "$model" --between "$digits/3.png" "$digits/8.png" --ddpm --frames 11 --steps 50 --spacing quadratic --out "$work/real"
$ddim interpolate "$model" --between 0 1 2 3 --grid 7x7 --steps 50 --out "$work/square"
$ddim edit "$model" "$digits/4.png" --strength 0.5 --seeds 0-5 --out "$work/strength"
$ddim edit "$model" "$digits/8.png" --mask "$work/mask.png" --seeds 0-5 --out "$work/mask"
$ddim edit "$model" "$digits/9.png" --from-label 9 --label 4 --guidance 2 --spacing quadratic --out "$work/label"
$ddim edit "$model" "$digits/2.png" --minus "$work/light" --plus "$work/bold" --amount 2 --spacing quadratic --out "$work/bold-2"
$ddim consistency "$model" --n 8 --steps 5,10,20,50,100 --reference 1000 --out "$work/consistency"

mkdir -p "$images"
cp "$work/paths/strip.png" "$images/paths.png"
cp "$work/paths/path.gif" "$images/path.gif"
cp "$work/real/strip.png" "$images/real-path.png"
cp "$work/square/square.png" "$images/square.png"
for name in strength mask label; do cp "$work/$name/before-after.png" "$images/edit-$name.png"; done
cp "$work/bold-2/before-after.png" "$images/edit-direction.png"
cp "$work/consistency/consistency.png" "$images/consistency.png"
cp "$work/consistency/distance.png" "$images/consistency-distance.png"
ls -l "$images"
