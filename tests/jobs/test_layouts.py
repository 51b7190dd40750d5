"""Where images of a job lie: shards that WebDataset reads, folders of a thousand; whole, verified, shared like PNGs."""

import json
import subprocess
import sys
import tarfile

import numpy as np
import pytest

from ddim import noise
from ddim.jobs import Share, Shelves, complete, generate, layout_of, open_job, verify, write_npz
from ddim.refused import Refused

RECIPE = {"tau": [1000, 1, 0], "eta": 0.0}
SEEDS = [3, 1, 4, 15, 9, 2, 6]
SHARDS, FOLDERS = Shelves(shards=3), Shelves(folders=1000)


def make(seeds):
    return noise(seeds, (1, 4, 5)).clamp(-1, 1)


def run(out, layout, seeds=SEEDS, maker=make, **kwargs):
    open_job(out, {**RECIPE, **layout.recipe()})
    return list(generate(maker, seeds, out, RECIPE, batch_size=2, layout=layout, **kwargs))


def files(out):
    return {p.relative_to(out).as_posix(): p.read_bytes() for p in out.rglob("*") if p.is_file()}


def samples(path):
    """As WebDataset groups them: neighbours of one stem are one sample."""
    found = {}
    with tarfile.open(path) as tar:
        for member in tar:
            stem, suffix = member.name.split(".")
            found.setdefault(stem, {})[suffix] = tar.extractfile(member).read()
            assert list(found)[-1] == stem
    return found


def test_shards_hold_the_pngs_of_a_plain_job_with_what_is_known_of_each(tmp_path):
    run(tmp_path / "plain", Shelves(), classes={s: s % 4 for s in SEEDS})
    assert run(tmp_path / "shards", SHARDS, classes={s: s % 4 for s in SEEDS})[-1] == 7
    assert sorted(files(tmp_path / "shards")) == [
        "000000.tar", "000001.tar", "000002.tar", "grid.png", "manifest.json", "recipe.json",
    ]  # fmt: skip
    found = [samples(tmp_path / "shards" / f"00000{i}.tar") for i in range(3)]
    assert [list(shard) for shard in found] == [[f"{s:06d}" for s in SEEDS[i : i + 3]] for i in (0, 3, 6)]
    for sample in (s for shard in found for s in shard.values()):
        told = json.loads(sample["json"])
        assert told == {**RECIPE, "seeds": told["seeds"], "class": told["seeds"] % 4}
        assert sample["png"] == (tmp_path / "plain" / f"{told['seeds']:06d}.png").read_bytes()
    assert verify(tmp_path / "shards") == 7
    assert (tmp_path / "shards" / "grid.png").read_bytes() == (tmp_path / "plain" / "grid.png").read_bytes()
    one = write_npz(SEEDS, tmp_path / "plain", SEEDS)
    assert one.read_bytes() != b"" and one.name == write_npz(SEEDS, tmp_path / "shards", SEEDS, SHARDS).name
    with np.load(one) as a, np.load(tmp_path / "shards" / one.name) as b:
        assert np.array_equal(a["arr_0"], b["arr_0"]) and np.array_equal(a["arr_1"], b["arr_1"])


@pytest.mark.parametrize("layout", [SHARDS, FOLDERS])
@pytest.mark.parametrize("world", [2, 5])
def test_any_number_of_processes_makes_the_same_bytes(tmp_path, layout, world):
    run(tmp_path / "one", layout)
    for rank in range(world):
        run(tmp_path / "many", layout, share=Share(rank, world))
    assert files(tmp_path / "one") == files(tmp_path / "many")


@pytest.mark.parametrize("after", [0, 1, 3])
def test_a_shard_is_whole_or_not_there(tmp_path, after):
    run(tmp_path / "whole", SHARDS)
    calls = []

    def dies(seeds):
        if len(calls) == after:
            raise KeyboardInterrupt
        calls.append(seeds)
        return make(seeds)

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "job", SHARDS, maker=dies)
    assert set(files(tmp_path / "job")) == {"recipe.json", *[f"00000{i}.tar" for i in range(after // 2)]}
    run(tmp_path / "job", SHARDS)
    assert files(tmp_path / "job") == files(tmp_path / "whole")


def test_damage_to_a_shard_is_seen_and_made_anew(tmp_path):
    run(tmp_path, SHARDS)
    good, path = files(tmp_path), tmp_path / "000001.tar"
    for harm in (b"", good[path.name][:1500], good[path.name][:600] + b"?" + good[path.name][601:]):
        path.write_bytes(harm)
        with pytest.raises(Refused, match=r"1 of 3 shards in .* have changed, first 000001"):
            verify(tmp_path)
        (tmp_path / "manifest.json").unlink()
        run(tmp_path, SHARDS)
        assert files(tmp_path) == good
    (tmp_path / "000009.tar").write_bytes(b"")
    with pytest.raises(Refused, match="does not name, first 000009"):
        verify(tmp_path)


def test_many_pngs_lie_in_folders_and_an_older_job_goes_on_as_it_began(tmp_path):
    seeds = [7, 999, 1000, 12345678]
    run(tmp_path, FOLDERS, seeds=seeds)
    pngs = sorted(p for p in files(tmp_path) if p.endswith(".png"))
    assert pngs == ["000/000007.png", "000/000999.png", "001/001000.png", "12345/12345678.png", "grid.png"]
    assert verify(tmp_path) == 4 and complete(seeds, tmp_path, FOLDERS)
    (tmp_path / "001" / "001000.png").unlink()
    with pytest.raises(Refused, match="1 of 4 images are missing"):
        verify(tmp_path)
    assert layout_of(tmp_path / "new", 10_000, 0) == Shelves()
    assert layout_of(tmp_path / "new", 10_001, 0) == FOLDERS == layout_of(tmp_path, 4, 0)
    open_job(tmp_path / "old", RECIPE)
    assert layout_of(tmp_path / "old", 50_000, 0) == Shelves()
    assert layout_of(tmp_path / "new", 50_000, 500) == Shelves(shards=500)
    with pytest.raises(Refused, match="got -1"):
        layout_of(tmp_path / "new", 1, -1)


MEMORY = """
import resource, sys, torch
from pathlib import Path
from ddim.jobs import Shelves, generate, open_job
torch.set_num_threads(1)
n, out = int(sys.argv[1]), Path(sys.argv[2])
layout = Shelves(shards=500) if sys.argv[3] == "shards" else Shelves(folders=1000)
image = torch.rand(1, 4, 4) * 2 - 1
open_job(out, {})
begun = None
for done in generate(lambda s: image.expand(len(s), 1, 4, 4), range(n), out, {}, batch_size=50, layout=layout):
    if begun is None and done >= n // 4:
        begun = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(begun, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads ru_maxrss in kilobytes")
@pytest.mark.parametrize("layout", ["shards", "folders"])
def test_memory_does_not_grow_with_the_number_of_images(tmp_path, layout):
    done = subprocess.run([sys.executable, "-c", MEMORY, "2000", str(tmp_path / "out"), layout],
                          capture_output=True, text=True, check=True)  # fmt: skip
    first, last = map(int, done.stdout.split())
    assert last < 1.05 * first
