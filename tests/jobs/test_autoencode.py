"""Training an autoencoder: its loss by hand, its folder as diffusers has it, resumed bitwise, what is refused."""

import json
from types import SimpleNamespace

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image

import ddim
from ddim.cli.argv import main
from ddim.data import Batch, held_out, images_of, open_images
from ddim.jobs import AutoencoderPlan, AutoencoderRecipe
from ddim.jobs.autoencode.judged import Reconstructions, spread_of
from ddim.jobs.autoencode.run import Reconstructing
from ddim.nets import Autoencoder, PatchCritic, Trainee, new_autoencoder
from ddim.process import noise
from ddim.refused import Refused

SMALL = ["--factor", "2", "--width", "8", "--batch-size", "4", "--held-out", "40", "--warmup", "0", "--log-every", "1",
         "--precision", "fp32"]  # fmt: skip


def ran(capsys, *words, code=0):
    with pytest.raises(SystemExit) as stop:
        main([str(w) for w in words])
    out = capsys.readouterr()
    assert stop.value.code == code, out.err
    return out.out if code == 0 else out.err.splitlines()[-1]


def trainee(kind="kl", **more):
    made = new_autoencoder(kind, shape=(3, 16, 16), factor=4, latent_channels=4, width=8, blocks=1)
    return Trainee(made, PatchCritic(3, width=8), **{"kl_weight": 0.01, "critic_weight": 0.7} | more)


X, EPS = noise(range(3), (3, 16, 16)).clamp(-1, 1), noise(range(3), (4, 4, 4), purpose="eps")


@torch.no_grad()
def test_the_loss_is_l1_and_kl_of_a_draw():
    own = trainee()
    said = own.autoencoder.encode(X).latent_dist
    gaussian = torch.distributions.Normal(said.mean, said.std)
    kl = torch.distributions.kl_divergence(gaussian, torch.distributions.Normal(0.0, 1.0)).sum()
    back = own.autoencoder.decode(said.mean + said.std * EPS).sample
    assert float(own(X, EPS)) == pytest.approx(float((back - X).abs().mean() + 0.01 * kl / X.numel()), rel=1e-5)
    tiny = trainee("tiny")
    back = tiny.autoencoder.decode(tiny.autoencoder.encode(X).latents).sample
    assert float(tiny(X, EPS)) == pytest.approx(float((back - X).abs().mean()), rel=1e-5)


@pytest.mark.parametrize("kind", ["kl", "tiny"])
def test_the_critic_learns_by_its_hinge_loss_and_is_weighed_by_the_last_layer(kind):
    """The value stays that of L1 and KL; at the last layer the critic's gradient is 0.7 times L1's."""
    own = trainee(kind)
    last, critic = own._last(), own.critic
    plain, judged = own(X, EPS), own(X, EPS, True)
    assert judged.item() == pytest.approx(plain.item(), rel=1e-6)
    a, b = (torch.autograd.grad(loss, last, retain_graph=True)[0] for loss in (plain, judged))
    assert float((b - a).norm()) == pytest.approx(0.7 * float(a.norm()), rel=0.01)
    with torch.no_grad():
        made = own.autoencoder.encode(X)
        z = made.latents if kind == "tiny" else made.latent_dist.mean + made.latent_dist.std * EPS
        back = own.autoencoder.decode(z).sample
    hinge = 0.5 * (torch.relu(1 - critic(X)).mean() + torch.relu(1 + critic(back)).mean())
    for p in critic.parameters():
        got, wanted = (torch.autograd.grad(loss, p, retain_graph=True)[0] for loss in (judged, hinge))
        assert torch.allclose(got, wanted, atol=1e-6)


def test_the_critic_is_listened_to_from_its_step_on(tmp_path):
    plan = AutoencoderPlan(tmp_path, open_images("digits"), AutoencoderRecipe(factor=2, width=8, critic_from=2))
    asked = []
    for step in range(4):
        state = SimpleNamespace(
            step=step,
            accelerator=SimpleNamespace(device=torch.device("cpu")),
            network=lambda x, eps, on: asked.append(on),
        )
        loss = Reconstructing(plan)
        loss(state, Batch(X, None), loss.draw(np.random.default_rng(0), 3, (1, 8, 8)))
    assert asked == [False, False, True, True]


def test_latents_are_spread_as_their_draws():
    """Per channel a mean; variance of the draws about it: that of the means, and the mean of the variances."""
    moments = torch.zeros(2, 2, 2, 1, 2)  # pictures, (mean, std), channels, place
    moments[:, 0, 0] = torch.tensor([[[1.0, 3.0]], [[3.0, 5.0]]])
    moments[:, 1] = 2.0
    spread = spread_of(moments)
    assert spread.mean == (3.0, 0.0)
    assert spread.std**2 == pytest.approx((4 + 0 + 0 + 4) / 8 + 4.0)
    assert spread.apart**2 == pytest.approx((1 + 1 + 0 + 0) / 4)


def test_what_is_held_out_is_never_learnt_from():
    pixels = np.arange(10, dtype=np.uint8)[:, None, None, None].repeat(8, 1).repeat(8, 2)
    train, held = held_out(images_of(pixels), 3, seed=1)
    a, b = (sorted(part.pixels[list(range(len(part)))][:, 0, 0, 0]) for part in (train, held))
    assert len(b) == 3 and sorted([*a, *b]) == list(range(10)) and train.shape == (1, 8, 8)
    with pytest.raises(Refused, match="cannot be held out"):
        held_out(images_of(pixels), 10, seed=1)


@pytest.mark.parametrize("kind", ["kl", "tiny"])
def test_a_run_that_stops_and_goes_on_is_the_same_bit_for_bit_and_diffusers_loads_it(kind, tmp_path, capsys):
    """The critic comes in between: its weights and moments go on as well."""
    words = ["--kind", kind, *SMALL, "--critic-from", "2", "--preview-every", "3"]
    ran(capsys, "train-autoencoder", "digits", "--out", tmp_path / "a", *words, "--max-steps", 5)
    ran(capsys, "train-autoencoder", "digits", "--out", tmp_path / "b", *words, "--max-steps", 3)
    said = ran(capsys, "train-autoencoder", "--resume", tmp_path / "b", "--max-steps", 5)
    assert "5 steps, 40 held-out images come back with PSNR" in said
    name = "diffusion_pytorch_model.safetensors"
    assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert (tmp_path / "a/config.json").read_bytes() == (tmp_path / "b/config.json").read_bytes()
    told = [json.loads(line) for line in (tmp_path / "b/log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in told] == [1, 2, 3, 4, 5] and {"psnr", "FD-mnist"} <= set(told[-1])
    assert Image.open(tmp_path / "b/previews/step-00000003.png").width > 8 * 8
    load = {"kl": diffusers.AutoencoderKL, "tiny": diffusers.AutoencoderTiny}[kind]
    theirs, ours = load.from_pretrained(tmp_path / "a"), ddim.model.load_autoencoder(tmp_path / "a")
    x = ddim.pixels.from_uint8(open_images("digits").pixels[:500])
    with torch.no_grad():
        said = theirs.encode(x)
        z = said.latents if kind == "tiny" else said.latent_dist.sample(torch.Generator().manual_seed(0))
        z = (z - (theirs.config.shift_factor or 0.0)) * theirs.config.scaling_factor
        assert float(z.mean()) == pytest.approx(0, abs=0.05) and float(z.std()) == pytest.approx(1, abs=0.05)
        mean = ours.encode(x)
        assert torch.allclose(theirs.decode(mean / ours.scale + ours.shift).sample, ours.decode(mean), atol=1e-5)


def test_info_says_what_it_is_and_what_is_no_model_is_refused(tmp_path, capsys):
    ran(capsys, "train-autoencoder", "digits", "--out", tmp_path / "a", *SMALL, "--max-steps", 2)
    said = ran(capsys, "info", tmp_path / "a")
    for words in ("goes on with  ddim train-autoencoder --resume", "AutoencoderKL", "4 channels, sides 1/2", "PSNR",
                  "2 steps on 1757 images of digits"):  # fmt: skip
        assert words in said, said
    assert "is an autoencoder alone" in ran(capsys, "sample", tmp_path / "a", "--out", tmp_path / "s", code=2)
    again = ["train-autoencoder", "digits", "--out", tmp_path / "a", *SMALL]
    assert "give --resume" in ran(capsys, *again, code=2)
    assert "kl_weight was 1e-06 and is now 0.1" in ran(capsys, *again, "--resume", "--kl-weight", 0.1, code=2)
    for path in (tmp_path / "a/state").glob("*.pt"):
        path.unlink()
    assert "nothing is left to go on with; begin anew" in ran(capsys, *again, "--resume", code=2)


def test_a_run_killed_before_it_wrote_its_model_goes_on(tmp_path, capsys, monkeypatch):
    """State first, then the folder: what lies between is whole."""
    words = ["train-autoencoder", "digits", *SMALL, "--checkpoint-every", 2, "--preview-every", 0]
    ran(capsys, *words, "--out", tmp_path / "a", "--max-steps", 3)

    def killed(*args, **more):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("ddim.jobs.autoencode.run.save_autoencoder", killed)
        ran(capsys, *words, "--out", tmp_path / "b", "--max-steps", 3, code=130)
    assert not (tmp_path / "b/config.json").exists()
    ran(capsys, *words, "--out", tmp_path / "b", "--max-steps", 3, "--resume")
    name = "diffusion_pytorch_model.safetensors"
    assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--factor", "16"], "multiples of 16, got 8x8"),
        (["--factor", "3"], "--factor must be a power of two"),
        (["--held-out", "1797"], "cannot be held out"),
        (["--latent-channels", "0"], "latent_channels must be"),
        (["--kl-weight", "-1"], "kl_weight must be at least 0"),
        (["--lr-decay-steps", "100"], "must lie beyond warmup"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(words, said, tmp_path, capsys):
    assert said in ran(capsys, "train-autoencoder", "digits", "--out", tmp_path / "a", *words, code=2)
    assert not (tmp_path / "a").exists()


def test_several_processes_have_no_critic(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(Refused, match="learns in one process"):
        AutoencoderPlan(tmp_path, open_images("digits"), AutoencoderRecipe(factor=2, width=8, critic_from=2))


def test_one_that_collapsed_is_told_with_its_std(tmp_path, capsys):
    (tmp_path / "data").mkdir()
    for i in range(6):
        Image.new("L", (8, 8), 128).save(tmp_path / f"data/{i}.png")
    words = [tmp_path / "data", "--out", tmp_path / "a", *SMALL, "--held-out", 2, "--max-steps", 1]
    assert "has collapsed by step 1" in ran(capsys, "train-autoencoder", *words, code=2)
    plan = AutoencoderPlan(tmp_path / "b", open_images("digits"), AutoencoderRecipe(factor=2, width=8))
    module = plan.module()
    judge = Reconstructions(plan)
    assert judge.measured(Autoencoder(module).plain, 0).numbers["latent_std"] > 0.1
    with torch.no_grad():
        module.quant_conv.weight.zero_()  # what KL alone would like best
        module.quant_conv.bias.zero_()
    with pytest.raises(Refused, match=r"differ by a std of 0, and their own is 1, .*lower `kl_weight` \(now 1e-06\)"):
        judge.measured(Autoencoder(module).plain, 7)
