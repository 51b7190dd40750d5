"""`ddim train --autoencoder`: moments encoded once and drawn by (seed, step), scaled as measured, bitwise resumed."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image

import ddim
from ddim.checkpoints import open_autoencoder
from ddim.cli import main
from ddim.data import Batches, open_images
from ddim.jobs import Plan, Recipe, latent_data, start
from ddim.jobs.train.state import checkpoints

N = 24
HALVES = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2,
          "block_out_channels": (8, 8), "norm_num_groups": 4, "layers_per_block": 1, "sample_size": 16}  # fmt: skip
FIXED = ["--preset", "digits", "--batch-size", "8", "--lr", "1e-3", "--warmup", "5", "--precision", "fp32",
         "--device", "cpu", "--checkpoint-every", "10", "--flip"]  # fmt: skip


def kl(**changes):
    return diffusers.AutoencoderKL(**HALVES | {"latent_channels": 2} | changes)


def vq():
    return diffusers.VQModel(**HALVES, latent_channels=3, vq_embed_dim=2, num_vq_embeddings=32)


def tiny():
    small = {"encoder_block_out_channels": (8, 8), "decoder_block_out_channels": (8, 8)}
    return diffusers.AutoencoderTiny(
        **small, num_encoder_blocks=(1, 1), num_decoder_blocks=(1, 1), latent_channels=2, scaling_factor=3.0
    )


def filled(module, gain=1.0):
    for i, (name, p) in enumerate(module.named_parameters()):
        own = ddim.noise([i], tuple(p.shape), purpose="weights")[0]
        norm = p.ndim == 1 and "norm" in name and name.endswith("weight")
        p.data = own * (gain / max(1, p[0].numel()) ** 0.5 if p.ndim > 1 else 0.3) + float(norm)
    return module.eval()


MAKERS = {"kl": kl, "kl without 1x1": lambda: kl(use_quant_conv=False, use_post_quant_conv=False), "vq": vq,
          "tiny": tiny}  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Pictures of two classes, four autoencoders, a cache."""
    root = tmp_path_factory.mktemp("latent")
    draw = np.random.default_rng(0)
    y, x = np.mgrid[:16, :16][..., None] / 16
    for i in range(N):
        pixels = draw.uniform(0, 255, 3) + draw.uniform(-160, 160, 3) * (x if i % 2 else y)
        (root / f"data/{i % 2}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(root / f"data/{i % 2}/{i}.png")
    for name, make in MAKERS.items():
        filled(make()).save_pretrained(root / name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DDIM_CACHE", str(root / "cache"))
        yield root


def train(place, run, steps, *options, by="kl"):
    words = ["train", place / "data", "--autoencoder", place / by, "--out", run, "--max-steps", steps]
    with pytest.raises(SystemExit) as stop:
        main([*map(str, words), *FIXED, *options])
    return stop.value.code


@pytest.fixture(scope="module")
def images(place):
    return open_images(place / "data")


@pytest.fixture(scope="module", params=MAKERS)
def made(request, place, images):
    own = open_autoencoder(place / request.param)
    return own, latent_data(images, own, measured=True, flip=True, device="cpu")


def test_rows_are_what_diffusers_says(made, images):
    """Every picture and its mirror image, through diffusers' own encode."""
    own, data = made
    pictures = ddim.pixels.from_uint8(images.pixels[:])
    for view, x in enumerate((pictures, pictures.flip(-1))):
        said = own.module.encode(x)
        wanted = [said.latent_dist.mean, said.latent_dist.std] if own.kind == "AutoencoderKL" else [said.latents]
        torch.testing.assert_close(torch.from_numpy(np.array(data.encoded.rows[:, view])), torch.stack(wanted, 1))


def test_scale_is_measured(made):
    """Whatever scaling_factor the file says: over all that is drawn, mean 0 by channel and std 1 (no 1x1 convolutions:
    mean 0 and std 1 over all channels)."""
    own, data = made
    rows = torch.from_numpy(np.array(data.encoded.rows)).double()
    scale, shift = data.autoencoder.scale.double(), data.shift.double()
    means = (rows[:, :, 0] - shift) * scale
    power = means.square() + (rows[:, :, 1:] * scale).square().sum(2)
    by_channel = means.mean((0, 1, 3, 4))
    moved = data.autoencoder.sha256 != own.sha256
    assert moved == all(getattr(own.module, n, None) is not None for n in ("quant_conv", "post_quant_conv"))
    assert float(by_channel.abs().max() if moved else by_channel.mean().abs()) < 1e-5
    assert float(power.mean()) == pytest.approx(1.0, abs=1e-5)


def test_one_function_under_another_scale(made, images):
    """Standardised, an autoencoder still shows the same pictures, and LDMPipeline's arithmetic decodes its latents."""
    own, data = made
    x = ddim.pixels.from_uint8(images.pixels[:4])
    new = data.autoencoder
    torch.testing.assert_close(new.decode(new.encode(x)), own.decode(own.encode(x)), rtol=0, atol=1e-4)
    drawn = (torch.from_numpy(np.array(data.encoded.rows[:4, 0, 0])) - data.shift) * new.scale
    torch.testing.assert_close(new.encode(x), drawn, rtol=0, atol=1e-4)
    if new.sha256 != own.sha256:
        z = new.encode(x)
        plain = new.module.decode(z / new.config["scaling_factor"]).sample
        torch.testing.assert_close(plain, new.decode(z), rtol=0, atol=1e-5)


def test_draws_are_of_seed_and_step(place, images):
    """mean + std z: z N(0, 1), new in every step, the same however a batch is split."""
    data = latent_data(images, open_autoencoder(place / "kl"), measured=True, flip=True, device="cpu")
    at = data.batches(8, 3, flip=True, labelled=True)
    again = data.batches(8, 3, flip=True, labelled=True)
    for step in (0, 5):
        whole = at(step)
        parts = [again(step, slice(i, i + 4)) for i in (0, 4)]
        assert torch.equal(whole.x0, torch.cat([p.x0 for p in parts]))
        assert torch.equal(whole.label, torch.cat([p.label for p in parts]))
    z, mirrors = [], 0
    rows, pictures = torch.from_numpy(np.array(data.encoded.rows)), ddim.pixels.from_uint8(images.pixels[:])
    shown = Batches(images, 8, 3, flip=True)
    for step in range(60):
        index, x0 = at.indices(step), at(step).x0 / data.autoencoder.scale + data.shift
        view = (shown(step).x0 != pictures[index]).flatten(1).any(1).long()  # mirrored just where pixels would be
        z.append((x0 - rows[index, view, 0]) / rows[index, view, 1])
        mirrors += int(view.sum())
    z = torch.stack(z)
    assert 0.15 < mirrors / 480 < 0.35  # every other picture is its own mirror image
    assert abs(float(z.mean())) < 4 / z.numel() ** 0.5 and abs(float(z.var()) - 1) < 4 * (2 / z.numel()) ** 0.5
    assert abs(float((z[0] * z[1]).mean())) < 4 / z[0].numel() ** 0.5


def test_encoded_once(place, images, monkeypatch):
    """The cache goes by data, autoencoder and flips, not by scale; damaged it is made anew; parts are gone on with."""
    own = open_autoencoder(place / "kl")
    first = latent_data(images, own, measured=True, flip=True, device="cpu")
    before = np.array(first.encoded.rows)
    other = type(own)(own.module, own.sha256, {"scaling_factor": 5.0})
    calls = []
    monkeypatch.setattr(
        type(own), "moments", lambda self, x: calls.append(len(x)) or self._by_parts(self._moments, x, 1)
    )
    assert (
        latent_data(images, other, measured=False, flip=True, device="cpu").encoded.rows.base is not None and not calls
    )
    latent_data(images, own, measured=True, device="cpu")
    assert calls == [N]
    folder = Path(first.encoded.rows.filename).parent
    rows = np.load(folder / "rows.npy", mmap_mode="r+")
    rows[0, 0, 0, 0, 0, 0] += 1
    rows.flush()
    again = latent_data(images, own, measured=True, flip=True, device="cpu")
    assert calls == [N, N, N] and np.array_equal(again.encoded.rows, before)
    assert again.encoded.spread == first.encoded.spread
    shutil.rmtree(folder)
    monkeypatch.setattr("ddim.data.latents.PART", 8 * 256)
    stopped = iter([True, True, False])
    monkeypatch.setattr(
        type(own), "moments", lambda self, x: self._by_parts(self._moments, x, 1) if next(stopped) else 1 / 0
    )
    with pytest.raises(ZeroDivisionError):
        latent_data(images, own, measured=True, flip=True, device="cpu")
    monkeypatch.setattr(
        type(own), "moments", lambda self, x: calls.append(len(x)) or self._by_parts(self._moments, x, 1)
    )
    calls.clear()
    parted = latent_data(images, own, measured=True, flip=True, device="cpu")
    assert calls == [8, 8, 8, 8]
    np.testing.assert_allclose(parted.encoded.rows, before, atol=1e-5)


def test_several_wait_for_one(place, images, tmp_path, monkeypatch):
    """The lock is of an open file, so two threads are to it what two processes are."""
    own, calls = open_autoencoder(place / "kl"), []
    monkeypatch.setattr(
        type(own), "moments", lambda self, x: calls.append(len(x)) or self._by_parts(self._moments, x, 1)
    )
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(lambda _: latent_data(images, own, measured=True, device="cpu", cache=tmp_path), range(2)))
    assert calls == [N] and np.array_equal(both[0].encoded.rows, both[1].encoded.rows)


@pytest.mark.parametrize("by", MAKERS)
def test_a_run_is_a_pipeline_folder(place, by, tmp_path):
    """`ddim.load` and LDMPipeline draw the same pictures from a run; where a shift cannot be told LDMPipeline, it does
    not load."""
    run = tmp_path / "run"
    assert train(place, run, 3, "--labels", "ignore", "--preview-every", "0", by=by) == 0
    model = ddim.load(run)
    assert model.picture_shape == (3, 16, 16) and model.shape == (2, 8, 8) and not model.clips
    assert (
        json.loads((run / "ddim.json").read_text())["provenance"]["autoencoder"]
        == open_autoencoder(place / by).plain.identity
    )
    if float(model.checkpoint.autoencoder.shift.abs().max()) > 0:
        assert by in ("tiny", "kl without 1x1")
        with pytest.raises((ValueError, AttributeError, ImportError)):
            diffusers.LDMPipeline.from_pretrained(run)
        return
    pipe = diffusers.LDMPipeline.from_pretrained(run)
    pipe.set_progress_bar_config(disable=True)
    theirs = pipe(batch_size=2, num_inference_steps=6, output_type="np", generator=torch.Generator().manual_seed(5))
    x_T = torch.randn((2, 2, 8, 8), generator=torch.Generator().manual_seed(5))
    ours = (model.sample(latents=x_T, steps=6, spacing="diffusers") / 2 + 0.5).clamp(0, 1)
    assert float(ours.std()) > 0.02
    torch.testing.assert_close(torch.from_numpy(theirs.images).permute(0, 3, 1, 2), ours, rtol=0, atol=1e-4)


def test_goes_on_bitwise_and_shows_what_it_samples(place, tmp_path):
    """5 steps + save + load + 3 are 8, bit for bit; the preview is `ddim sample RUN --steps 20 --label cycle`."""
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    assert train(place, whole, 8, "--preview-every", "8", "--preview-precision", "fp32") == 0
    assert train(place, halves, 5, "--preview-every", "0") == 0
    with pytest.raises(SystemExit) as stop:
        main(["train", "--resume", str(halves), "--max-steps", "8"])
    assert stop.value.code == 0
    one, two = (torch.load(checkpoints(r / "state")[-1], weights_only=True) for r in (whole, halves))
    for name, value in one["network"].items():
        assert torch.equal(value, two["network"][name]), name
    for name, value in one["ema"].items():
        assert torch.equal(value, two["ema"][name]), name
    a, b = ((r / "vqvae/diffusion_pytorch_model.safetensors").read_bytes() for r in (whole, halves))
    assert a == b
    shown = np.asarray(Image.open(whole / "previews/step-00000008.png"))
    x = ddim.load(whole).sample(8, steps=20, label="cycle")
    first = ddim.pixels.to_uint8(x[:1])[0]
    scale = ddim.pixels.enlargement(16, 2)
    tile = np.kron(first, np.ones((scale, scale, 1), np.uint8))
    found = [
        (r, c)
        for r in range(40)
        for c in range(200)
        if np.array_equal(shown[r : r + len(tile), c : c + len(tile)], tile)
    ]
    assert found


def test_on_a_continuous_process(place, tmp_path):
    """EDM's scaling is for data of std 1 there; a run that goes on without a word about it is of the same recipe."""
    own = ("--process", "edm", "--preview-every", "0")
    assert train(place, tmp_path / "run", 2, *own) == 0
    with pytest.raises(SystemExit) as stop:
        main(["train", "--resume", str(tmp_path / "run"), "--max-steps", "3"])
    assert stop.value.code == 0
    model = ddim.load(tmp_path / "run")
    assert model.checkpoint.data_std == 1.0
    assert bool(model.sample(1, steps=3, label=1).isfinite().all())


def test_verbs_of_a_run_with_classes(place, tmp_path, capsys):
    """Edits by label and direction, an average of another length, one latent at many steps: all in latents."""
    run, picture = tmp_path / "run", next((place / "data/0").iterdir())
    assert train(place, run, 40, "--preview-every", "0") == 0
    small = ("--steps", 3, "--precision", "fp32")
    for words in (
        ("edit", run, picture, "--label", "0", "--from-label", "0", *small),
        ("edit", run, picture, "--label", "1", "--from-label", "0", *small),
        ("edit", run, picture, "--minus", place / "data/0", "--plus", place / "data/1", *small),
        ("ema", run, "--length", "0.1"),
        ("consistency", run, "--steps", "2,4", "--n", 2, "--reference", 8),
        ("reconstruct", run, place / "data", "--steps", "2", "--n", 2),
    ):
        out = () if words[0] == "reconstruct" else ("--out", tmp_path / f"out-{len(list(tmp_path.iterdir()))}")
        with pytest.raises(SystemExit) as stop:
            main([str(w) for w in (*words, *out)])
        assert stop.value.code in (0, None), capsys.readouterr().err
        if words[0] == "edit" and "--label" in words:
            own = ddim.load(run).space
            before = ddim.pixels.from_uint8(np.asarray(Image.open(picture))[None])
            back = ddim.pixels.to_uint8(own.decode(own.encode(before)))[0].astype(int)
            apart = np.abs(np.asarray(Image.open(out[1] / "000000.png")).astype(int) - back)
            assert (apart.max() <= 1) == (words[4] == "0"), apart.max()  # turned into itself: the autoencoder's picture
        if words[0] == "ema":
            made = ddim.load(out[1]).checkpoint.autoencoder
            assert made.identity == ddim.load(run).checkpoint.autoencoder.identity


def test_another_autoencoder_is_refused(place, tmp_path, capsys):
    assert train(place, tmp_path / "run", 5, "--preview-every", "0") == 0
    capsys.readouterr()
    assert train(place, tmp_path / "run", 9, "--resume", by="vq") == 2
    assert "another recipe: autoencoder was" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stop:
        words = ["train", place / "data", "--out", tmp_path / "next", "--init", tmp_path / "run", "--max-steps", 3]
        main([*map(str, words), "--autoencoder", str(place / "vq"), *FIXED])
    assert stop.value.code == 2 and "leave out --autoencoder" in capsys.readouterr().err


def test_fine_tuning_keeps_the_scale(place, tmp_path):
    """--init of a latent model brings its autoencoder, and the scale its weights know; to go on needs no --init."""
    own = ["--preview-every", "0", "--labels", "ignore"]
    assert train(place, tmp_path / "run", 5, *own) == 0
    words = ["train", str(place / "data/0"), "--out", str(tmp_path / "next"), *FIXED, *own]
    for steps, more in (("3", ["--init", str(tmp_path / "run")]), ("6", ["--resume"])):
        with pytest.raises(SystemExit) as stop:
            main([*words, "--max-steps", steps, *more])
        assert stop.value.code == 0
    elsewhere = Plan(
        tmp_path / "pixels", open_images(place / "data"), "digits", Recipe(), False, "", "cpu",
        init=ddim.load(tmp_path / "run").checkpoint,
    )  # fmt: skip
    with pytest.raises(ddim.Refused, match="walks in another space"):
        start(elsewhere, 3, resume=False)
    before, after = (ddim.load(tmp_path / name).checkpoint.autoencoder for name in ("run", "next"))
    assert before.identity == after.identity
    half = latent_data(open_images(place / "data/0"), before, measured=True, flip=True, device="cpu")
    assert abs(float(half.autoencoder.scale / after.scale) - 1) > 1e-4  # else nothing was shown


BAD = {
    "scale of zero": ({"scaling_factor": 0.0}, (), "scaling_factor must be above 0, got 0"),
    "sizes": ({}, ("--size", "15"), "multiples of 2, got 15x15; give pictures of 16x16"),
    "sizes of both": ({}, ("--size", "18"), "multiples of 4, got 18x18; give --size 16x16"),
    "channels": ({}, ("--channels", "1"), "takes pictures of 3 channels, got 1"),
    "no folder": (None, (), "there is no autoencoder"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line(place, name, tmp_path, capsys):
    changes, options, words = BAD[name]
    if changes is not None:
        shutil.copytree(place / "kl", tmp_path / "ae")
        file = tmp_path / "ae/config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    assert train(place, tmp_path / "run", 3, *options, by=tmp_path / "ae") == 2
    err = capsys.readouterr().err.strip().splitlines()
    assert words in err[-1] and not any("Traceback" in line for line in err), err
    assert not (tmp_path / "run").exists()


def test_a_collapsed_autoencoder_is_told(place, tmp_path, capsys):
    """One that says the same of every picture, and one that drowns what it says in its own noise."""
    deaf, drowned = filled(kl()), filled(kl())
    deaf.encoder.conv_in.weight.data.zero_()
    drowned.quant_conv.weight.data[2:] = 0.0
    drowned.quant_conv.bias.data[2:] = 9.0
    for name, module in (("deaf", deaf), ("drowned", drowned)):
        module.save_pretrained(tmp_path / name)
        assert train(place, tmp_path / "run", 3, by=tmp_path / name) == 2
        line = capsys.readouterr().err.strip().splitlines()[-1]
        assert "has collapsed" in line and "std of" in line


def test_latents_that_are_no_numbers(place, tmp_path, capsys):
    """Finite weights whose sums are not: nothing is kept in the cache as whole."""
    wild = filled(kl())
    for p in (wild.encoder.conv_out.weight, wild.quant_conv.weight):
        p.data *= 1e25
    wild.save_pretrained(tmp_path / "ae")
    assert train(place, tmp_path / "run", 3, by=tmp_path / "ae") == 2
    assert "no finite numbers for 24 of the pictures 0 to 23" in capsys.readouterr().err
