"""One thread a test process: the suite shares two cores, and small networks gain nothing from more."""

import shutil
import subprocess

import numpy as np
import pytest
import torch
from PIL import Image

from ddim import Schedule

torch.set_num_threads(1)


def save_tiny(path, *, num_classes=3, shape=(1, 8, 8), schedule=None, prediction="eps", seed=0, **more):
    """A model folder with the smallest network there is, random weights: enough for everything but looks."""
    from ddim.checkpoints import save_folder
    from ddim.nets import build

    unet = build("digits", shape=shape, num_classes=num_classes, seed=seed)
    meta = {"shape": list(shape), "num_classes": num_classes, "null_label": num_classes, **more}
    schedule = Schedule.linear() if schedule is None else schedule
    save_folder(path, unet, schedule, prediction=prediction, meta=meta)
    return path


def save_latent(place):
    """An LDM folder of 16 x 16 pictures in latents of 2 x 8 x 8; weights of small random numbers."""
    import diffusers

    from ddim.process import noise

    halves = {
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
        "block_out_channels": (8, 8),
        "norm_num_groups": 4,
        "layers_per_block": 1,
    }
    parts = {
        "unet": diffusers.UNet2DModel(
            sample_size=8, in_channels=2, out_channels=2, block_out_channels=(8, 16), norm_num_groups=4,
            layers_per_block=1, down_block_types=("DownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "UpBlock2D"),
        ),
        "vqvae": diffusers.AutoencoderKL(**halves, latent_channels=2, sample_size=16),
    }  # fmt: skip
    for k, part in enumerate(parts.values()):
        for i, (name, p) in enumerate(part.named_parameters()):
            own = noise([1000 * k + i], tuple(p.shape), purpose="weights")[0]
            norm = p.ndim == 1 and "norm" in name and name.endswith("weight")
            p.data = own * (0.7 / p[0].numel() ** 0.5 if p.ndim > 1 else 0.1) + float(norm)
    scheduler = diffusers.DDIMScheduler(clip_sample=False)
    diffusers.LDMPipeline(**parts, scheduler=scheduler).save_pretrained(place)
    return place


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="session")
def tiny(tiny_folder):
    from ddim.model import load

    return load(tiny_folder)


@pytest.fixture
def photos(tmp_path):
    """photos/, as people have it: sizes, modes, EXIF, folders in it, a film, one broken, one HEIC, notes."""
    root = tmp_path / "photos"
    (root / "holiday" / "beach").mkdir(parents=True)
    for i in range(6):
        ramp(90 + 10 * i, 70 + i, i).save(root / f"p{i}.jpg", quality=80)
    turned = Image.Exif()
    turned[0x0112] = 6
    ramp(100, 60, 3).save(root / "holiday" / "turned.JPG", exif=turned)
    ramp(80, 80, 3).convert("L").save(root / "holiday" / "grey.jpeg")
    ramp(80, 90, 3).convert("CMYK").save(root / "holiday" / "cmyk.jpg")
    ramp(64, 64, 5).convert("RGBA").save(root / "holiday" / "beach" / "a.png")
    ramp(64, 64, 5).save(root / "film.gif", save_all=True, append_images=[ramp(64, 64, 9)])
    (root / "broken.jpg").write_bytes((root / "p0.jpg").read_bytes()[:300])
    (root / "IMG_1.HEIC").write_bytes(b"0000ftypheic")
    (root / "notes.txt").write_text("not a picture")
    return root


def ramp(width, height, i):
    """A smooth colour picture."""
    y, x = np.mgrid[0:height, 0:width]
    levels = np.stack([x * 255 // width, y * 255 // height, np.full_like(x, i * 10 % 256)], -1)
    return Image.fromarray(levels.astype(np.uint8))


class Disk:
    """A disk in memory whose size can be changed, in KiB."""

    def __init__(self, path):
        self.path = path

    def size(self, kib):
        subprocess.run(["mount", "-o", f"remount,size={kib}k", str(self.path)], check=True)


@pytest.fixture
def small_disk(tmp_path):
    path = tmp_path / "disk"
    path.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=64m", "ddim-test", str(path)]
    made = subprocess.run(words, check=False, capture_output=True, text=True) if shutil.which("mount") else None
    if made is None or made.returncode:
        pytest.skip(f"no small disk can be made here: {'no mount' if made is None else made.stderr.strip()}")
    try:
        yield Disk(path)
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


@pytest.fixture(scope="session")
def nursery(tmp_path_factory):
    """Of tests/faults: a warm process in which commands are children."""
    from children import Nursery

    made = Nursery(tmp_path_factory.mktemp("said"))
    yield made
    made.close()


@pytest.fixture(scope="session")
def trials(tmp_path_factory, nursery):
    from trials import Trials

    return Trials(tmp_path_factory.mktemp("trials"), nursery)
