"""One thread a test process: the suite shares two cores, and small networks gain nothing from more."""

import pytest
import torch

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


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="session")
def tiny(tiny_folder):
    from ddim.model import load

    return load(tiny_folder)
