"""Generation as a job: exactly these images, whatever crashes, whoever shares the work."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ddim import noise
from ddim.files import HOST
from ddim.jobs import Share, generate, open_job, verify, write_npz
from ddim.jobs.layouts import Shelves
from ddim.refused import Refused

file_name = Shelves().png
RECIPE = {"tau": [1000, 1, 0], "eta": 0.0}
SEEDS = [3, 1, 4, 15, 9, 2, 6]


def make(seeds):
    return noise(seeds, (1, 4, 5)).clamp(-1, 1)


def run(out, seeds=SEEDS, recipe=RECIPE, maker=make, **kwargs):
    open_job(out, recipe)
    return list(generate(maker, seeds, out, recipe, batch_size=kwargs.pop("batch_size", 3), **kwargs))


def files(out):
    return {p.name: p.read_bytes() for p in out.iterdir() if p.suffix in (".png", ".json")}


def test_one_png_a_seed_with_its_pixels_and_its_recipe(tmp_path):
    assert run(tmp_path / "a") == [0, 3, 6, 7]
    for seed in SEEDS:
        image = Image.open(tmp_path / "a" / f"{seed:06d}.png")
        expected = ((make([seed])[0, 0] + 1) * 127.5).round().to(torch.uint8).numpy()
        assert np.array_equal(np.asarray(image), expected)
        assert json.loads(image.text["ddim"]) == {**RECIPE, "seeds": seed}
    assert {p.name for p in (tmp_path / "a").iterdir()} == {
        *map(file_name, SEEDS), "grid.png", "manifest.json", "recipe.json",
    }  # fmt: skip
    assert verify(tmp_path / "a") == 7


@pytest.mark.parametrize("harm", [
    lambda p: p.write_bytes(b""), lambda p: p.write_bytes(p.read_bytes()[:-20]),
    lambda p: p.write_bytes(p.read_bytes()[:60] + b"?" + p.read_bytes()[61:]),
])  # fmt: skip
def test_a_manifest_vouches_for_no_image_that_the_disk_lost(tmp_path, harm):
    whole, out = tmp_path / "whole", tmp_path / "out"
    run(whole)
    run(out, share=Share(0, 2))
    harm(out / file_name(SEEDS[0]))  # before the job is complete: a power cut, a disk
    with pytest.raises(Refused, match=f"1 images in .* are damaged, first {file_name(SEEDS[0])}"):
        run(out, share=Share(1, 2))
    assert not (out / "manifest.json").exists()
    run(out, share=Share(0, 2))
    assert files(out) == files(whole) and verify(out) == 7
    harm(out / file_name(SEEDS[1]))
    (out / "manifest.json").unlink()
    run(out)
    assert files(out) == files(whole)


@pytest.mark.parametrize("world", [1, 2, 3, 9])
def test_any_number_of_processes_makes_the_same_bytes(tmp_path, world):
    run(tmp_path / "one")
    for rank in range(world):
        run(tmp_path / "many", share=Share(rank, world))
    assert files(tmp_path / "one") == files(tmp_path / "many")


def test_every_call_has_the_same_number_of_rows(tmp_path):
    sizes = []

    def counting(seeds):
        sizes.append(len(seeds))
        return make(seeds)

    run(tmp_path, maker=counting)
    assert sizes == [3, 3, 3]


@pytest.mark.parametrize("after", [0, 1, 2])
def test_a_crash_leaves_no_gap_and_no_duplicate(tmp_path, after):
    run(tmp_path / "whole")
    calls = []

    def dies(seeds):
        if len(calls) == after:
            raise KeyboardInterrupt
        calls.append(seeds)
        return make(seeds)

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "job", maker=dies)
    assert not (tmp_path / "job" / "manifest.json").exists()
    with pytest.raises(ValueError, match="not finished"):
        verify(tmp_path / "job")
    made = []

    def counting(seeds):
        made.extend(seeds)
        return make(seeds)

    run(tmp_path / "job", maker=counting)
    assert files(tmp_path / "job") == files(tmp_path / "whole")
    assert not set(made) & set(SEEDS[: 3 * after])  # nothing is made twice


def test_a_finished_job_is_left_alone(tmp_path):
    run(tmp_path)
    before = files(tmp_path)

    def never(seeds):
        raise AssertionError("nothing was missing")

    assert run(tmp_path, maker=never) == [7]
    assert files(tmp_path) == before


def test_a_second_run_does_not_vouch_for_what_was_changed_since(tmp_path):
    run(tmp_path)
    path = tmp_path / file_name(SEEDS[2])
    path.write_bytes(path.read_bytes() + b"tampered with")
    run(tmp_path)  # nothing is missing: the manifest of what was made stays as it is
    with pytest.raises(ValueError, match=f"1 of 7 images in .* have changed, first {path.name}"):
        verify(tmp_path)


def test_another_recipe_or_a_foreign_folder_is_refused(tmp_path):
    run(tmp_path / "job")
    with pytest.raises(ValueError, match=r"eta is 0.0, yours 0.5"):
        open_job(tmp_path / "job", {**RECIPE, "eta": 0.5})
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "me.jpg").write_bytes(b"x")
    with pytest.raises(ValueError, match="no sampling job"):
        open_job(tmp_path / "photos", RECIPE)
    assert [p.name for p in (tmp_path / "photos").iterdir()] == ["me.jpg"]


def test_verify_sees_every_kind_of_damage(tmp_path):
    run(tmp_path)
    good = files(tmp_path)
    (tmp_path / file_name(4)).write_bytes(b"broken")
    with pytest.raises(ValueError, match=r"1 of 7 .* have changed, first 000004"):
        verify(tmp_path)
    (tmp_path / file_name(4)).unlink()
    with pytest.raises(ValueError, match=r"1 of 7 images are missing"):
        verify(tmp_path)
    (tmp_path / file_name(4)).write_bytes(good[file_name(4)])
    (tmp_path / "000999.png").write_bytes(good[file_name(4)])
    with pytest.raises(ValueError, match=r"does not name, first 000999"):
        verify(tmp_path)


@pytest.mark.parametrize("channels", [1, 3])
def test_npz_is_the_adm_evaluators_file(tmp_path, channels):
    def coloured(seeds):
        return noise(seeds, (channels, 4, 5)).clamp(-1, 1)

    run(tmp_path, maker=coloured)
    path = write_npz(SEEDS, tmp_path, labels=[s % 10 for s in SEEDS])
    assert path.name == f"samples_7x4x5x{channels}.npz"
    with np.load(path) as arrays:
        assert arrays["arr_0"].dtype == np.uint8 and arrays["arr_0"].shape == (7, 4, 5, channels)
        expected = ((coloured(SEEDS) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
        assert np.array_equal(arrays["arr_0"], expected)
        assert arrays["arr_1"].tolist() == [s % 10 for s in SEEDS]


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_an_image_that_is_not_finite_is_refused_and_never_saved(tmp_path, broken):
    def breaks(seeds):
        images = make(seeds)
        images[[s == 15 for s in seeds], 0, 2, 3] = broken
        return images

    with pytest.raises(ValueError, match=r"seed 15 is not finite .*`precision` fp32 or a `guidance`"):
        run(tmp_path, maker=breaks)
    assert {p.name for p in tmp_path.iterdir()} == {"recipe.json", *map(file_name, [3, 1, 4])}


@pytest.mark.parametrize("world", [1, 2])
def test_a_manifest_does_not_outlive_the_images_it_names(tmp_path, world):
    run(tmp_path)
    before = files(tmp_path)
    (tmp_path / file_name(SEEDS[1])).unlink()  # of two processes it is the second one's
    open_job(tmp_path, RECIPE)
    next(generate(make, SEEDS, tmp_path, RECIPE, batch_size=3, share=Share(0, world)))
    assert not (tmp_path / "manifest.json").exists()
    run(tmp_path)
    assert files(tmp_path) == before


def test_a_job_that_another_process_begins_meanwhile_is_taken_up(tmp_path, monkeypatch):
    """It appears after the first look for recipe.json, before the folder is found not to be empty."""
    listed = Path.iterdir

    def arrives(folder):
        (folder / "recipe.json").write_text(json.dumps(RECIPE))
        return listed(folder)

    monkeypatch.setattr(Path, "iterdir", arrives)
    (tmp_path / "same").mkdir()
    assert open_job(tmp_path / "same", RECIPE) == tmp_path / "same"
    (tmp_path / "other").mkdir()
    with pytest.raises(ValueError, match=r"eta is 0.0, yours 0.5"):
        open_job(tmp_path / "other", {**RECIPE, "eta": 0.5})


def test_a_recipe_that_a_crash_left_half_written_does_not_block_the_folder(tmp_path):
    """Under a name of this version or an older one."""
    for name in (".recipe.json.4711", ".recipe.json.0123abcd-4711-0123abcd.part"):
        (tmp_path / name).write_text('{"tau": [10')
    open_job(tmp_path, RECIPE)
    assert json.loads((tmp_path / "recipe.json").read_text()) == RECIPE


def test_an_npz_that_cannot_be_finished_leaves_nothing(tmp_path):
    run(tmp_path)
    write_npz(SEEDS, tmp_path)
    whole = {p.name for p in tmp_path.iterdir()}
    with pytest.raises(FileNotFoundError, match="000099"):
        write_npz([*SEEDS, 99], tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == whole


def test_every_png_says_its_own_class(tmp_path):
    recipe = {**RECIPE, "label": "cycle"}
    run(tmp_path, recipe=recipe, classes={s: s % 4 for s in SEEDS})
    for seed in SEEDS:
        text = Image.open(tmp_path / file_name(seed)).text["ddim"]
        assert json.loads(text) == {**recipe, "seeds": seed, "class": seed % 4}
    assert json.loads((tmp_path / "recipe.json").read_text()) == recipe


def test_what_a_killed_process_left_is_cleared_away_when_the_job_goes_on(tmp_path):
    run(tmp_path)
    before = files(tmp_path)
    child = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    dead = tmp_path / f".000003.png.{HOST}-{int(child.stdout)}-0123abcd.part"
    alive = tmp_path / f".000003.png.{HOST}-{os.getpid()}-0123abcd.part"
    for path in (dead, alive):
        path.write_bytes(b"half")
    run(tmp_path)
    assert files(tmp_path) == before and not dead.exists() and alive.exists()


def test_an_image_that_cannot_be_saved_ends_the_job_and_the_others_are_whole(tmp_path, monkeypatch):
    from ddim.jobs import generation

    save = generation._save

    def full(path, png):
        if path.name == file_name(4):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        save(path, png)

    run(tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(generation, "_save", full)
        with pytest.raises(OSError, match="No space left"):
            run(tmp_path / "job")
    there = files(tmp_path / "job")
    assert file_name(4) not in there and "manifest.json" not in there
    assert there.items() <= files(tmp_path / "whole").items()
    run(tmp_path / "job")
    assert files(tmp_path / "job") == files(tmp_path / "whole")


@pytest.mark.parametrize("text", ["{", "[]", '{"images": 7}'])
def test_damaged_papers_of_a_job_are_refused_by_name(tmp_path, text):
    run(tmp_path)
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(Refused, match=r"manifest\.json"):
        verify(tmp_path)
    (tmp_path / "recipe.json").write_text("{")
    with pytest.raises(Refused, match=r"recipe\.json is not readable"):
        open_job(tmp_path, RECIPE)
