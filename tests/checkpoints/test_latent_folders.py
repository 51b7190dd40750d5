"""Folders of latent diffusion, against diffusers' own pipelines: LDMPipeline and DiTPipeline, random small weights."""

import json
import shutil

import diffusers
import pytest
import torch

import ddim
from ddim.checkpoints import export_checkpoint
from ddim.refused import Refused


def filled(network, seed=1, gain=0.7):
    """Weights that say something: random ones of the size that keeps activations, norms near 1."""
    for i, (name, p) in enumerate(network.named_parameters()):
        own = ddim.noise([1000 * seed + i], tuple(p.shape), purpose="weights")[0]
        norm = p.ndim == 1 and "norm" in name and name.endswith("weight")
        p.data = own * (gain / max(1, p[0].numel()) ** 0.5 if p.ndim > 1 else 0.1) + float(norm)
    return network.eval()


HALVES = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2,
          "block_out_channels": (8, 8), "norm_num_groups": 4, "layers_per_block": 1}  # fmt: skip


def kl(**changes):
    return filled(diffusers.AutoencoderKL(**HALVES | {"latent_channels": 2, "sample_size": 16} | changes), 2, 1.0)


def vq(**changes):
    own = {"latent_channels": 3, "vq_embed_dim": 2, "num_vq_embeddings": 32, "sample_size": 16, "scaling_factor": 0.7}
    made = filled(diffusers.VQModel(**HALVES | own | changes), 3, 1.0)
    made.quantize.embedding.weight.data = 1.5 * ddim.noise([7], (32, 2), purpose="codes")[0]
    return made


def tiny(**changes):
    own = {"encoder_block_out_channels": (8, 8), "decoder_block_out_channels": (8, 8), "num_encoder_blocks": (1, 1),
           "num_decoder_blocks": (1, 1), "latent_channels": 2}  # fmt: skip
    return filled(diffusers.AutoencoderTiny(**own | changes), 4, 1.0)


def unet(**changes):
    settings = {"sample_size": 8, "in_channels": 2, "out_channels": 2, "block_out_channels": (8, 16),
                "norm_num_groups": 4, "layers_per_block": 1, "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
                "attention_head_dim": 8, "up_block_types": ("AttnUpBlock2D", "UpBlock2D")} | changes  # fmt: skip
    return filled(diffusers.UNet2DModel(**settings))


def dit():
    return filled(diffusers.DiTTransformer2DModel(
        num_attention_heads=2, attention_head_dim=8, in_channels=2, out_channels=4, num_layers=2, sample_size=8,
        patch_size=2, num_embeds_ada_norm=1000, norm_num_groups=4,
    ))  # fmt: skip


def older():
    """The class under which the hub's DiT-XL-2-256 lies, with the settings of its file."""
    return filled(diffusers.Transformer2DModel(
        num_attention_heads=2, attention_head_dim=8, in_channels=2, out_channels=4, num_layers=2, sample_size=8,
        patch_size=2, num_embeds_ada_norm=1000, norm_num_groups=4, activation_fn="gelu-approximate",
        attention_bias=True, norm_elementwise_affine=False, norm_type="ada_norm_zero",
    ))  # fmt: skip


def scheduler(**changes):
    return diffusers.DDIMScheduler(**{"clip_sample": False, "beta_start": 0.0015, "beta_end": 0.0195,
                                      "beta_schedule": "scaled_linear"} | changes)  # fmt: skip


def ldm(autoencoder, **changes):
    pipe = diffusers.LDMPipeline(vqvae=autoencoder, unet=unet(**changes), scheduler=scheduler())
    pipe.set_progress_bar_config(disable=True)
    return pipe


def drawn(pipe, steps=6, n=2):
    """x_T and the pictures (n, C, H, W) in [0, 1] of diffusers' pipeline from it."""
    made = pipe(batch_size=n, num_inference_steps=steps, output_type="np", generator=torch.Generator().manual_seed(5))
    x_T = torch.randn((n, 2, 8, 8), generator=torch.Generator().manual_seed(5))
    return x_T, torch.from_numpy(made.images).permute(0, 3, 1, 2)


def ours(model, x_T, **how):
    return (model.sample(latents=x_T, spacing="diffusers", **how) / 2 + 0.5).clamp(0, 1)


def close(found, wanted):
    assert float(wanted.std()) > 0.05, "a flat picture proves nothing"
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-4)


@pytest.mark.parametrize("make", [vq, kl, tiny])
def test_ldm_pipeline_there_and_back(make, tmp_path):
    """Read theirs: the same pictures. Write ours: LDMPipeline loads it and draws them again."""
    pipe = ldm(make())
    x_T, wanted = drawn(pipe)
    pipe.save_pretrained(tmp_path / "theirs")
    model = ddim.load(tmp_path / "theirs")
    assert (model.shape, model.picture_shape, model.checkpoint.autoencoder.kind) == (
        (2, 8, 8), (3, 16, 16), type(pipe.vqvae).__name__,
    )  # fmt: skip
    close(ours(model, x_T, steps=6), wanted)
    for name, write in (("saved", model.save), ("export", lambda p: export_checkpoint(p, model.checkpoint))):
        write(tmp_path / name)
        again = diffusers.LDMPipeline.from_pretrained(tmp_path / name)
        again.set_progress_bar_config(disable=True)
        close(drawn(again)[1], wanted)
        close(ours(ddim.load(tmp_path / name), x_T, steps=6), wanted)
    assert ddim.load(tmp_path / "saved").identity == model.identity


@pytest.mark.parametrize("make, guidance", [(dit, 1.0), (dit, 3.0), (older, 3.0)])
def test_dit_pipeline_there_and_back(make, guidance, tmp_path):
    """Classes, guidance against the last embedding, the second C channels left to whoever wants them."""
    pipe = diffusers.DiTPipeline(transformer=make(), vae=kl(), scheduler=scheduler())
    pipe.set_progress_bar_config(disable=True)
    how = {"class_labels": [7, 999], "guidance_scale": guidance, "num_inference_steps": 5, "output_type": "np"}

    def pictures(of):
        return torch.from_numpy(of(generator=torch.Generator().manual_seed(5), **how).images).permute(0, 3, 1, 2)

    wanted = pictures(pipe)
    x_T = torch.randn((2, 2, 8, 8), generator=torch.Generator().manual_seed(5))
    pipe.save_pretrained(tmp_path / "theirs")
    index = tmp_path / "theirs/model_index.json"  # on the hub it names the classes; save_pretrained leaves them out
    names = {"id2label": {str(k): f"kind {k}, sort {k}" for k in range(1000)}}
    index.write_text(json.dumps(json.loads(index.read_text()) | names))
    model = ddim.load(tmp_path / "theirs")
    assert (model.num_classes, model.null_label, model.checkpoint.learned_variance) == (1000, 1000, True)
    assert model.checkpoint.labels[7] == "kind 7, sort 7"
    close(ours(model, x_T, steps=5, label=[7, 999], guidance=guidance), wanted)
    assert export_checkpoint(tmp_path / "ours", model.checkpoint) == ()
    again = diffusers.DiTPipeline.from_pretrained(tmp_path / "ours")
    again.set_progress_bar_config(disable=True)
    close(pictures(again), wanted)
    assert again.get_label_ids(["sort 7"]) == [7]
    close(ours(ddim.load(tmp_path / "ours"), x_T, steps=5, label=[7, 999], guidance=guidance), wanted)


def test_scale_shift_and_moments_as_the_file_says(tmp_path):
    """A vae/ beside a unet/ without an index; (E(x) - shift) scale, by channel where the file has latents_mean."""
    x = ddim.noise([3], (3, 16, 16)).clamp(-1, 1)
    for name, said, scale, shift in (
        ("flat", {"scaling_factor": 2.0, "shift_factor": 0.25}, [2.0], [0.25]),
        ("by channel", {"scaling_factor": 0.5, "latents_mean": [0.1, -1.0], "latents_std": [2.0, 4.0]}, [0.25, 0.125],
         [0.1, -1.0]),
    ):  # fmt: skip
        place, made = tmp_path / name, kl(**said)
        unet().save_pretrained(place / "unet")
        made.save_pretrained(place / "vae")
        space = ddim.load(place).space
        scale, shift = (torch.tensor(v).view(-1, 1, 1) for v in (scale, shift))
        with torch.no_grad():
            mean = made.encode(x).latent_dist.mean
            torch.testing.assert_close(space.encode(x), (mean - shift) * scale)
            z = ddim.noise([4], (2, 8, 8))
            torch.testing.assert_close(space.decode(z), made.decode(z / scale + shift).sample)
        assert not space.lossless


def test_float64_states_and_many_pictures(tmp_path, monkeypatch):
    """The autoencoder keeps its own precision, the states theirs; parts of a batch make the whole."""
    from ddim.nets import Autoencoder, autoencoder

    made = Autoencoder(kl())
    z = ddim.noise(range(5), (2, 8, 8))
    whole = made.decode(z)
    assert made.decode(z.double()).dtype == torch.float64
    seen = []
    monkeypatch.setattr(made.module, "decode", lambda z, own=made.module.decode: seen.append(len(z)) or own(z))
    monkeypatch.setattr(autoencoder, "PIXELS", 2 * 16 * 16)
    torch.testing.assert_close(made.decode(z), whole, rtol=0, atol=1e-5)
    assert seen == [2, 2, 1]


BAD = {
    "scale of zero": ({"scaling_factor": 0.0}, "scaling_factor must be above 0, got 0"),
    "scale of words": ({"scaling_factor": "much"}, "scaling_factor must be a number"),
    "std of zero": ({"latents_mean": [0, 0], "latents_std": [1, 0]}, "stds above 0"),
    "another channel count": ({"latents_mean": [0, 0, 0], "latents_std": [1, 1, 1]}, "2 numbers"),
    "unknown setting": ({"scaling": 1.0}, "unknown setting in the autoencoder's config: scaling"),
    "another class": ({"_class_name": "AutoencoderDC"}, "readable are AutoencoderKL"),
    "halves that do not fit": ({"up_block_types": ["UpDecoderBlock2D"]}, "autoencoder"),
    "no such weights": ({"block_out_channels": [8, 16]}, "does not hold the weights"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_autoencoders_are_one_line(name, tmp_path):
    changes, words = BAD[name]
    ldm(kl()).save_pretrained(tmp_path / "m")
    file = tmp_path / "m/vqvae/config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    with pytest.raises(Refused, match=words) as error:
        ddim.load(tmp_path / "m")
    assert "\n" not in str(error.value) and str(file.parent) in str(error.value)


def test_what_does_not_belong_together(tmp_path):
    ldm(kl(latent_channels=3), in_channels=2).save_pretrained(tmp_path / "channels")
    with pytest.raises(Refused, match="latents have 3 channels, and the network walks in 2"):
        ddim.load(tmp_path / "channels")
    pipe = ldm(kl())
    pipe.save_pretrained(tmp_path / "two")
    shutil.copytree(tmp_path / "two/vqvae", tmp_path / "two/vae")
    with pytest.raises(Refused, match="leave one autoencoder"):
        ddim.load(tmp_path / "two")
    shutil.rmtree(tmp_path / "two/vae")
    model = ddim.load(tmp_path / "two")
    for shape, words in (((3, 15, 16), "multiples of 2, got 15x16"), ((1, 16, 16), "pictures of 3 channels, got 1")):
        with pytest.raises(Refused, match=words):
            model.checkpoint.autoencoder.encode(torch.zeros(1, *shape))
        with pytest.raises(Refused, match="this model makes"):
            model.encode(torch.zeros(1, *shape), steps=3)
    model.save(tmp_path / "own")
    shutil.rmtree(tmp_path / "own/vqvae")
    with pytest.raises(Refused, match="lacks its autoencoder, the folder vqvae"):
        ddim.load(tmp_path / "own")
    (tmp_path / "own/model_index.json").unlink()
    with pytest.raises(Refused, match="an autoencoder that is missing"):
        ddim.load(tmp_path / "own")


@pytest.mark.parametrize("changes", [{"norm_type": "layer_norm"}, {"cross_attention_dim": 64}, {"caption_channels": 8}])
def test_a_transformer_that_is_no_dit(changes, tmp_path):
    pipe = diffusers.DiTPipeline(transformer=older(), vae=kl(), scheduler=scheduler())
    pipe.save_pretrained(tmp_path / "m")
    file = tmp_path / "m/transformer/config.json"
    config = json.loads(file.read_text())
    assert config["_class_name"] == "Transformer2DModel"
    file.write_text(json.dumps(config | changes))
    with pytest.raises(Refused, match=f"is read where it is a DiT.*{next(iter(changes))}") as error:
        ddim.load(tmp_path / "m")
    assert "\n" not in str(error.value)


def test_another_autoencoder_is_another_model(tmp_path):
    """Weights of the autoencoder decide pictures: recipes differ, and our folder tells a swap."""
    a, b = ldm(kl()), ldm(kl())
    b.vqvae.decoder.conv_out.bias.data += 1.0
    for name, pipe in (("a", a), ("b", b)):
        pipe.save_pretrained(tmp_path / name)
    first, second = (ddim.load(tmp_path / name) for name in ("a", "b"))
    assert first.weights_hash == second.weights_hash and first.identity != second.identity
    with pytest.raises(Refused, match="another autoencoder"):
        first.sampler(steps=3, early=second, at=500)
    first.save(tmp_path / "own")
    shutil.copy(tmp_path / "b/vqvae/diffusion_pytorch_model.safetensors", tmp_path / "own/vqvae")
    with pytest.raises(Refused, match=r"not what ddim\.json says"):
        ddim.load(tmp_path / "own")
