"""The probe names the right reading of mislabelled weights. One tiny network is trained for a few seconds; every
mislabelled checkpoint is that network with one fact told wrongly, or behind a module that makes the fact true."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import ddim
from ddim.checkpoints import Checkpoint, Verdict, open_checkpoint, probe_checkpoint, save_checkpoint
from ddim.checkpoints.probe.readings import Reading
from ddim.checkpoints.probe.remedies import remedy
from ddim.cli.commands.import_ import merged
from ddim.engine import Exported
from ddim.nets import DiffusersNetwork, torch_randomness
from ddim.process import diffuse, generator, noise
from ddim.refused import Refused

T, SIZE = 100, 8
SCHEDULE = ddim.Schedule.linear(T, beta_start=0.1 / T, beta_end=20.0 / T)


def pictures(seeds: range) -> Tensor:
    """Warm discs on a cool ground, float (N, 3, 8, 8) in [-1, 1]: channels differ, so their order shows."""
    u = torch.tensor(np.stack([generator(s, "pictures").random(6) for s in seeds])).float()
    y, x = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    inside = (x - SIZE * u[:, :1, None]) ** 2 + (y - SIZE * u[:, 1:2, None]) ** 2 < (1.5 + 2 * u[:, 2:3, None]) ** 2
    disc = torch.stack([0.2 + 0.8 * u[:, 3], 0.4 * u[:, 4] - 0.6, 0.5 * u[:, 5] - 1.0], 1)[:, :, None, None]
    ground = torch.tensor([-0.9, -0.5, 0.4]).view(1, 3, 1, 1)
    return torch.where(inside[:, None], disc, ground)


@pytest.fixture(scope="module")
def trained() -> nn.Module:
    from diffusers import UNet2DModel

    with torch_randomness(0, "weights"):
        unet = UNet2DModel(
            sample_size=SIZE, in_channels=3, out_channels=3, block_out_channels=(16, 32), layers_per_block=1,
            norm_num_groups=4, down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2,
            add_attention=False,
        )  # fmt: skip
    steps, data = 250, pictures(range(512))
    optimizer = torch.optim.AdamW(unet.parameters(), 3e-3)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for i in range(steps):
        draw = generator(i, "training")
        x0 = data[torch.from_numpy(draw.integers(0, len(data), 48))]
        t = torch.from_numpy(draw.integers(1, T + 1, 48))
        eps = noise(range(48 * i, 48 * i + 48), x0.shape[1:])
        loss = (unet(diffuse(x0, eps, t, SCHEDULE), t - 1).sample - eps).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        decay.step()
    return DiffusersNetwork(unet).eval()


@pytest.fixture(scope="module")
def true(trained: nn.Module) -> Checkpoint:
    return Checkpoint(trained, SCHEDULE, "eps", (3, SIZE, SIZE), "diffusers", "here", "")


IMAGES = pictures(range(1000, 1016))


class Behind(nn.Module):
    """The network with its input, time or output changed."""

    def __init__(self, network: nn.Module, run: Callable[[nn.Module, Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.network, self.run = network, run

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        return self.run(self.network, x, t)


def wrong_about(report: Verdict) -> set[str]:
    return {axis for axis in ("schedule", "prediction", "time scale", "time offset", "data range", "channel order")
            if report.said.option(axis) != report.best.option(axis)}  # fmt: skip


def test_a_true_label_is_confirmed(true: Checkpoint) -> None:
    report = probe_checkpoint(true, IMAGES)
    assert report.fits and report.best == report.said and not report.warnings
    said = {r.axis: r.error for r in report.rows if r.said}
    others = [(r.axis, r.error) for r in report.rows if not r.said]
    assert len(others) >= 9
    assert all(error > said[axis] for axis, error in others)


@pytest.mark.parametrize(
    ("mislabel", "axis", "answer"),
    [
        ({"prediction": "v"}, "prediction", "eps"),
        ({"prediction": "x0"}, "prediction", "eps"),
        ({"process": ddim.Schedule.cosine(T)}, "schedule", "linear"),
        ({"time_scale": 10.0}, "time scale", "1"),
        ({"data_range": (0.0, 1.0)}, "data range", "-1..1"),
    ],
)
def test_one_fact_told_wrongly(true: Checkpoint, mislabel: dict[str, object], axis: str, answer: str) -> None:
    report = probe_checkpoint(dataclasses.replace(true, **mislabel), IMAGES)
    assert wrong_about(report) == {axis}
    assert report.best.option(axis) == answer
    assert (
        len(report.warnings) == 1
        and f"{axis} {answer}" in report.warnings[0]
        and "as the file says" in report.warnings[0]
    )


@pytest.mark.parametrize(
    ("mislabel", "setting"),
    [
        ({"prediction": "v"}, "prediction_type=epsilon"),
        (
            {"process": ddim.Schedule.cosine(T)},
            "beta_schedule=linear beta_start=0.001 beta_end=0.2 trained_betas=null",
        ),
        ({"data_range": (0.0, 1.0)}, "data_range=[-1,1]"),
    ],
)
def test_the_setting_in_a_warning_typed_as_it_stands(true: Checkpoint, mislabel, setting: str, tmp_path) -> None:
    save_checkpoint(tmp_path / "m", dataclasses.replace(true, **mislabel))
    (warning,) = probe_checkpoint(open_checkpoint(tmp_path / "m"), IMAGES).warnings
    assert warning.rpartition("setting")[2].removeprefix("s").strip() == setting
    mended = open_checkpoint(tmp_path / "m", config=merged({}, tuple(setting.split())))
    assert probe_checkpoint(mended, IMAGES).fits


READING = Reading("as given", "eps", 1.0, 0, "-1..1", "RGB")
GOLDEN = Path(__file__).parents[1] / "data/golden"


@pytest.mark.parametrize(
    ("file", "config", "axis", "best", "right"),
    [
        ("guided-diffusion/adm-legacy-attention/ema_0.9999_000100.pt", {"image_size": 16, "num_heads": 2}, *more)
        for more in (
            ("schedule", {"schedule": "cosine"}, lambda k: k.schedule == ddim.Schedule.cosine(1000)),
            ("prediction", {"prediction": "x0"}, lambda k: k.prediction == "x0"),
        )
    ]
    + [
        ("ermongroup/ckpt/ckpt.pth", {"data": {"image_size": 16}}, *more)
        for more in (
            ("schedule", {"schedule": "linear"}, lambda k: k.schedule == ddim.Schedule.linear(1000)),
            ("schedule", {"schedule": "scaled_linear"},
             lambda k: k.schedule == ddim.Schedule.scaled_linear(1000, beta_start=0.00085, beta_end=0.012)),
            ("data range", {"data_range": "0..1"}, lambda k: k.data_range == (0.0, 1.0)),
        )
    ]
    + [
        ("lucidrains/pred-v-sigmoid/model-1.pt", {"diffusion": {"image_size": 16}}, "prediction", {"prediction": "x0"},
         lambda k: k.prediction == "x0"),
    ],
)  # fmt: skip
def test_every_familys_settings(file: str, config, axis: str, best, right) -> None:
    family = {"guided-diffusion": "openai"}.get(file.split("/")[0], file.split("/")[0])
    told = remedy(family, axis, dataclasses.replace(READING, **best), 1000)
    assert told is not None and right(open_checkpoint(GOLDEN / file, config=merged(config, tuple(told.split()))))


def test_what_no_setting_says_has_no_remedy() -> None:
    rescaled = dataclasses.replace(READING, time_scale=1000 / 430)
    assert remedy("openai", "time scale", rescaled, 430) == "rescale_timesteps=true"
    assert remedy("openai", "time scale", READING, 430) == "rescale_timesteps=false"
    assert remedy("openai", "time scale", dataclasses.replace(READING, time_scale=3.0), 430) is None
    assert remedy("openai", "prediction", dataclasses.replace(READING, prediction="v"), 430) is None
    assert remedy("ermongroup", "schedule", dataclasses.replace(READING, schedule="cosine"), 1000) is None
    assert remedy("ermongroup", "channel order", READING, 1000) is None


def test_channels_the_other_way_round(true: Checkpoint) -> None:
    bgr = dataclasses.replace(true, network=Behind(true.network, lambda f, x, t: f(x.flip(1), t).flip(1)))
    report = probe_checkpoint(bgr, IMAGES)
    assert wrong_about(report) == {"channel order"} and report.best.channel_order == "BGR"


def test_times_that_count_from_one(true: Checkpoint) -> None:
    one_based = dataclasses.replace(true, network=Behind(true.network, lambda f, x, t: f(x, t - 1)))
    report = probe_checkpoint(one_based, IMAGES)
    assert wrong_about(report) == {"time offset"} and report.best.time_offset == 1


def test_times_rescaled_to_a_thousand(true: Checkpoint) -> None:
    rescaled = dataclasses.replace(true, network=Behind(true.network, lambda f, x, t: f(x, t / 10)))
    report = probe_checkpoint(rescaled, IMAGES)
    assert wrong_about(report) == {"time scale"} and report.best.option("time scale") == "10"


def test_two_facts_told_wrongly(true: Checkpoint) -> None:
    report = probe_checkpoint(dataclasses.replace(true, prediction="v", process=ddim.Schedule.cosine(T)), IMAGES)
    assert wrong_about(report) == {"prediction", "schedule"}
    assert (report.best.prediction, report.best.schedule) == ("eps", "linear")


def test_a_table_of_times_is_probed_as_the_sinusoid_it_holds(true: Checkpoint, tmp_path) -> None:
    """A rescaled network is saved with its times as a table; the probe still knows the scale."""
    save_checkpoint(tmp_path / "m", dataclasses.replace(true, time_scale=10.0))  # wrong on purpose: it wants 1
    k = open_checkpoint(tmp_path / "m")
    report = probe_checkpoint(k, IMAGES)
    assert report.said.option("time scale") == "10" and report.best.option("time scale") == "1"
    assert k.network.unet.time_proj.weight.shape == (T, 16)  # and leaves the network as it was


class Typed(Exported):
    """An exported network as its runtime has it: times of one number type, whatever their values."""

    def __init__(self, network: nn.Module, dtype: torch.dtype) -> None:
        super().__init__("fp32")
        self.run, self.dtype = network, dtype
        self.fed: set[float] = set()

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        assert t.dtype == self.dtype and t.shape == (len(x),)
        self.fed |= set(t.tolist())
        return self.run(x, t * 10 if self.dtype == torch.float32 else t)


@pytest.mark.parametrize(("scale", "dtype"), [(1.0, torch.int64), (0.1, torch.float32)])
def test_an_exported_network_is_fed_only_times_it_takes(true: Checkpoint, scale: float, dtype: torch.dtype) -> None:
    network = Typed(true.network, dtype)
    report = probe_checkpoint(dataclasses.replace(true, network=network, time_scale=scale), IMAGES)
    assert report.fits
    assert network.fed <= set((torch.arange(T).to(dtype) * scale).to(dtype).tolist())
    for axis in ("time scale", "time offset"):
        (row,) = [r for r in report.rows if r.axis == axis]
        assert row.said and row.best and "untried" in row.option and "exported" in row.option
    assert not any("untried" in r.option for r in report.rows if not r.axis.startswith("time"))
    wrong = probe_checkpoint(dataclasses.replace(true, network=network, time_scale=scale, prediction="v"), IMAGES)
    assert wrong_about(wrong) == {"prediction"}  # everything else is tried as ever


def test_a_real_onnx_folder_from_the_command_line(true: Checkpoint, tmp_path, capsys) -> None:
    from PIL import Image

    from ddim.cli import main
    from ddim.jobs import export_onnx

    export_onnx(tmp_path / "o", true)
    (tmp_path / "data").mkdir()
    for i, image in enumerate(IMAGES[:6]):
        Image.fromarray(((image + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()).save(tmp_path / f"data/{i}.png")
    with pytest.raises(SystemExit) as stop:
        main(["info", str(tmp_path / "o"), "--check", "--data", str(tmp_path / "data")])
    out = capsys.readouterr().out
    assert stop.value.code == 0 and "others untried" in out and "the file's own reading fits best" in out


@pytest.mark.parametrize(
    ("images", "word"),
    [(IMAGES[:3], "at least 4"), (IMAGES[:, :1], "images of"), ((IMAGES + 1) * 127.5, "in \\[-1, 1\\]")],
)
def test_images_it_cannot_use(true: Checkpoint, images: Tensor, word: str) -> None:
    with pytest.raises(Refused, match=word):
        probe_checkpoint(true, images)
