"""Files of the other kinds, NVlabs/edm's pickles and score_sde_pytorch's checkpoints, beside those programs' output.

tests/data/golden/edm and scoresde hold networks with small random weights, written by those programs (the pickles with
their source text emptied), what their denoisers and scores said, and a walk each.
"""

import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import ddim
from ddim.checkpoints.safety import read_torch
from ddim.process import TimeLabel

GOLDEN = Path(__file__).parents[1] / "data/golden"
EDM = ["ddpmpp-vp", "adm-edm-classes", "ncsnpp-ve", "skips-edm-classes"]
SCORE = {"ncsnpp-ve": "ve(0.02, 100)", "ddpmpp-vp": "vp(0.1, 20)"}


def facts(case):
    return json.loads((GOLDEN / "edm" / case / "case.json").read_text())


@pytest.fixture(scope="module", params=EDM)
def edm(request):
    place = GOLDEN / "edm" / request.param
    model = ddim.load(place / "network-snapshot.pkl")
    return facts(request.param), load_file(place / "expected.safetensors"), model


def close(found, wanted, factor=1e-5):
    """To rounding of that program's float32."""
    torch.testing.assert_close(found, wanted, rtol=0, atol=factor * float(wanted.abs().max()))


def test_edm_denoisers_are_its_own(edm):
    told, e, model = edm
    label = None if told["labels"] is None else torch.tensor(told["labels"])
    denoise = model.denoiser(label=label, clip=False)
    for i, sigma in enumerate(told["eval_sigmas"]):
        with torch.no_grad():
            close(denoise(e[f"eval.{i}.x"], sigma).x0, e[f"eval.{i}.D"])


def test_edm_walks_are_its_own(edm):
    told, e, model = edm
    walk = told["walk_sigmas"]
    x = model.sample(latents=walk[0] * e["z_T"], tau=walk, label=told["labels"], clip=False)
    close(x, e["x_0"])
    assert model.process.kind == "edm" and model.tau(5) == ddim.tau(model.process, 5, "edm")


def test_edm_folders_keep_everything(edm, tmp_path):
    told, e, model = edm
    again = ddim.load(model.save(tmp_path / "m"))
    for name in ("process", "prediction", "data_std", "unit_input", "num_classes", "null_label", "config"):
        assert getattr(again.checkpoint, name) == getattr(model.checkpoint, name), name
    assert again.checkpoint.label == model.checkpoint.label
    label = told["labels"]
    with torch.no_grad():
        pair = [m.sample(latents=e["z_T"], tau=[1.0, 0.1, 0.0], label=label) for m in (model, again)]
    assert torch.equal(*pair)
    assert json.loads((tmp_path / "m/ddim.json").read_text())["process"]["kind"] == "edm"


def test_no_class_and_a_mix_of_classes():
    e = load_file(GOLDEN / "edm/adm-edm-classes/expected.safetensors")
    model = ddim.load(GOLDEN / "edm/adm-edm-classes/network-snapshot.pkl")
    assert (model.num_classes, model.null_label) == (5, 5)
    assert any("untrained" in note for note in model.checkpoint.notes)
    with torch.no_grad():
        close(model.denoiser(clip=False)(e["eval.1.x"], 0.11).x0, e["eval.null.D"])
        whole = model.denoiser(label=torch.tensor([1, 1, 1]))(e["eval.1.x"], 0.5).x0
        mixed = model.denoiser(label=torch.eye(5)[[1, 1, 1]])(e["eval.1.x"], 0.5).x0
    torch.testing.assert_close(mixed, whole)


def test_a_label_of_vp_counts_in_its_own_time():
    """c_noise = 999 t, t of VP's process with the same noise/signal (EDM, table 1)."""
    k = ddim.load(GOLDEN / "edm/ddpmpp-vp/network-snapshot.pkl").checkpoint
    vp = ddim.process.vp()
    for t in (0.01, 0.4, 0.9):
        at = vp.at(t)
        sigma = torch.tensor([at.noise / at.signal], dtype=torch.float64)
        assert float(k.time(sigma)) == pytest.approx(999 * t, rel=1e-6)
    assert k.label == TimeLabel("time", 999.0, of=vp)


# -- what else such a pickle could hold ------------------------------------------------------------------------------


class Evil:
    def __reduce__(self):
        return (open, ("/tmp/ddim-was-here", "w"))


class Persistent:
    """As torch_utils.persistence pickles an object."""

    def __init__(self, meta):
        self.meta = meta


def written(path, value):
    """A pickle in which `Persistent` objects call NVlabs' function by its name, as the public ones do."""

    class Pickler(pickle._Pickler):
        def save(self, obj, *args, **kwargs):
            if not isinstance(obj, Persistent):
                return super().save(obj, *args, **kwargs)
            self.write(pickle.GLOBAL + b"torch_utils.persistence\n_reconstruct_persistent_obj\n")
            super().save((obj.meta,))
            return self.write(pickle.REDUCE)

    with path.open("wb") as file:
        Pickler(file, protocol=4).dump(value)
    return path


def module(state, **more):
    return Persistent({"type": "class", "version": 6, "module_src": "raise SystemExit", "class_name": "EDMPrecond",
                       "state": state, **more})  # fmt: skip


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"ema": module({"_modules": {}, "x": Evil()})}, r"needs code execution to be read \(it names (io|_io).open"),
        ({"ema": module({}), "loss_fn": Evil()}, "needs code execution"),
        ({"ema": module({}, type="function")}, "object of an unknown kind"),
        ({"ema": module([1, 2])}, "no state of names and values"),
        ({"ema": module({}, class_name="Other")}, "holds a Other; readable are VPPrecond"),
        ({"ema": module({"_modules": {}})}, "no network that is known"),
        ({"ema": module({"_modules": {"model": module({}, class_name="SongUNet")}})}, "does not say how it was made"),
    ],
)
def test_anything_else_is_refused_and_nothing_is_run(tmp_path, value, words):
    with pytest.raises(ddim.Refused, match=words) as refusal:
        ddim.load(written(tmp_path / "network-snapshot.pkl", value))
    assert "\n" not in str(refusal.value)
    assert not Path("/tmp/ddim-was-here").exists()


def test_the_source_in_a_pickle_is_not_looked_at(tmp_path):
    """A file whose source text is a program that ends Python: read, its module is a name and a state."""
    found = read_torch(written(tmp_path / "n.pkl", {"ema": module({"training": False})}))
    assert found["ema"].class_name == "EDMPrecond" and found["ema"].state == {"training": False}


def test_a_cut_pickle_is_refused(tmp_path):
    whole = (GOLDEN / "edm/ncsnpp-ve/network-snapshot.pkl").read_bytes()
    (tmp_path / "cut.pkl").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ddim.Refused, match="damaged or cut short"):
        ddim.load(tmp_path / "cut.pkl")


# -- score_sde_pytorch ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=SCORE)
def score(request):
    place = GOLDEN / "scoresde" / request.param
    model = ddim.load(place / "checkpoint_7.pth", config={"data": {"image_size": 16}})
    return request.param, load_file(place / "expected.safetensors"), model


def test_scores_are_its_own(score):
    """VE networks know images from 0 to 1: x there is 2x - 1 here, in twice the noise."""
    case, e, model = score
    assert model.process.name == SCORE[case] and "assumed sde" in model.checkpoint.notes[0]
    for i in range(4):
        x, std = e[f"{i}.x"], float(e[f"{i}.std"][0])
        with torch.no_grad():
            eps = model.denoiser(clip=False)(2 * x - 1 if case == "ncsnpp-ve" else x, float(e[f"{i}.t"][0])).eps
        close(-eps / std, e[f"{i}.score"])


def test_score_walks_are_its_own(score):
    case, e, model = score
    nodes = [1.0, 0.8, 0.6, 0.4, 0.2, 0.05, 1e-3, 0.0]
    if case == "ncsnpp-ve":
        x = model.sample(latents=2 * e["walk.x_T"] - 1, tau=nodes, clip=False)
        close((x + 1) / 2, e["walk.x_0"])
    else:
        close(model.sample(latents=e["walk.x_T"], tau=nodes, clip=False), e["walk.x_0"])


def test_score_checkpoints_may_be_taken_as_trained():
    path = GOLDEN / "scoresde/ddpmpp-vp/checkpoint_7.pth"
    averaged, trained = (ddim.load(path, config={"image_size": 16, "ema": ema}) for ema in (True, False))
    a, b = (m.checkpoint.network.state_dict()["unet.map_layer0.weight"] for m in (averaged, trained))
    assert not torch.equal(a, b)
    assert torch.equal(b, torch.load(path, weights_only=True)["model"]["module.all_modules.0.weight"])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"sde": "ouzo"}, "sde = 'ouzo' is unknown"),
        ({"sde": "vesde"}, "with positional features of time is not read"),
        ({"size": 16}, "unknown setting: size"),
        ({"image_size": 15}, "15x15 is not their size"),
    ],
)
def test_settings_of_score_checkpoints_are_checked(settings, words):
    with pytest.raises(ddim.Refused, match=words):
        ddim.load(GOLDEN / "scoresde/ddpmpp-vp/checkpoint_7.pth", config=settings)


def test_a_sub_preserving_checkpoint_is_told_by_its_setting():
    model = ddim.load(GOLDEN / "scoresde/ddpmpp-vp/checkpoint_7.pth", config={"image_size": 16, "sde": "subvpsde"})
    assert model.process == ddim.process.subvp() and model.sample(1, steps=2).shape == (1, 3, 16, 16)


def test_a_checkpoint_of_other_layers_is_refused(tmp_path):
    content = torch.load(GOLDEN / "scoresde/ddpmpp-vp/checkpoint_7.pth", weights_only=True)
    content["model"] = {k: v for k, v in content["model"].items() if ".all_modules.5." not in k}
    torch.save(content, tmp_path / "c.pth")
    with pytest.raises(ddim.Refused, match=r"averages for|not numbered from 0"):
        ddim.load(tmp_path / "c.pth", config={"image_size": 16})
