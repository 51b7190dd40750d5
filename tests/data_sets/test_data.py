import errno
import io
import json
import os
import shutil
import subprocess
import sys
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from ddim.data import Batches, open_images, open_source
from ddim.files import HOST
from ddim.pixels import from_uint8


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("DDIM_CACHE", str(folder))
    return folder


def grey(value, size=(8, 8)):
    return Image.new("L", size, value)


def fill(folder, images):
    for name, image in images.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        image.save(folder / name)
    return folder


def parquet(path, images, labels=None, column="image", metadata=None):
    cells = []
    for i, image in enumerate(images):
        file = path.with_name(f"cell{i}.png")
        image.save(file)
        cells.append({"bytes": file.read_bytes(), "path": None})
        file.unlink()
    columns = {column: pa.array(cells)} | ({"label": pa.array(labels)} if labels is not None else {})
    table = pa.table(columns)
    pq.write_table(table.replace_schema_metadata(metadata) if metadata else table, path, row_group_size=3)
    return path


def test_flat_folder_in_name_order_without_classes(tmp_path):
    fill(tmp_path, {"b.PNG": grey(20), "a.png": grey(10), "c.Jpg": grey(30), "note.txt.png": grey(40)})
    images = open_images(tmp_path)
    assert images.labels is None and images.class_names is None and images.shape == (1, 8, 8)
    assert [int(p.mean()) for p in images.pixels] == [10, 20, 30, 40]


def test_folder_per_class_sorted_names_are_the_labels(tmp_path):
    fill(tmp_path, {"zebra/1.png": grey(1), "ant/2.png": grey(2), "ant/deep/3.png": grey(3), ".hidden/4.png": grey(4)})
    images = open_images(tmp_path)
    assert images.class_names == ("ant", "zebra") and images.labels.tolist() == [0, 0, 1]
    assert images.report.classes == {"ant": 2, "zebra": 1}
    assert [int(p.mean()) for p in images.pixels] == [2, 3, 1]


def test_parquet_with_labels_and_names_from_its_metadata(tmp_path):
    path = parquet(tmp_path / "d.parquet", [grey(v) for v in range(7)], [2, 0, 2, 0, 2, 2, 0])
    images = open_images(path)
    assert images.class_names == ("0", "1", "2") and images.labels.tolist() == [2, 0, 2, 0, 2, 2, 0]
    assert images.report.classes == {"0": 3, "1": 0, "2": 4}
    assert [int(p.mean()) for p in images.pixels] == list(range(7))
    features = {"info": {"features": {"label": {"names": ["cat", "dog", "cow"], "_type": "ClassLabel"}}}}
    named = parquet(tmp_path / "n.parquet", [grey(0), grey(1)], [2, 0], metadata={"huggingface": json.dumps(features)})
    assert open_source(named).class_names == ("cat", "dog", "cow")


def test_a_folder_of_parquet_files_is_read_in_name_order(tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    parquet(folder / "2.parquet", [grey(3)], [1])
    parquet(folder / "1.parquet", [grey(1), grey(2)], [0, 1])
    assert [int(p.mean()) for p in open_images(folder).pixels] == [1, 2, 3]


def test_digits_are_those_of_scikit_learn():
    datasets = pytest.importorskip("sklearn.datasets")
    images, bunch = open_images("digits"), datasets.load_digits()
    assert images.shape == (1, 8, 8) and len(images) == 1797 and images.class_names == tuple("0123456789")
    assert images.labels.tolist() == bunch.target.tolist()
    assert np.abs(images.pixels[..., 0] - bunch.images * 255 / 16).max() <= 0.5


def test_channels_are_grey_only_if_every_image_is(tmp_path):
    fill(tmp_path, {"a.png": grey(10), "b.png": Image.new("RGB", (8, 8), (1, 2, 3))})
    images = open_images(tmp_path)
    assert images.shape == (3, 8, 8) and images.pixels[0, 0, 0].tolist() == [10, 10, 10]
    assert images.report.modes == {"L": 1, "RGB": 1}
    assert open_images(tmp_path, channels=1).shape == (1, 8, 8)


def test_mixed_modes_and_sizes_become_one_shape(tmp_path):
    wide = Image.new("L", (90, 30), 0)
    wide.paste(255, (30, 0, 60, 30))
    sixteen = Image.fromarray(np.full((30, 30), 65535, np.uint16))
    fill(tmp_path, {"a.png": wide, "b.png": sixteen, "c.png": grey(255, (50, 40)).convert("RGBA")})
    images = open_images(tmp_path, size=(12, 12))
    assert images.shape == (3, 12, 12) and int(images.pixels.min()) > 230  # the filter sees a little beyond the cut
    assert images.report.sizes == {"90x30": 1, "30x30": 1, "50x40": 1}
    assert set(images.report.modes) == {"L", "I;16", "RGBA"}
    assert int(open_images(tmp_path, size=(12, 12), fit="pad").pixels[0, 0].max()) == 0
    assert open_images(tmp_path, size=(10, 20)).shape == (3, 10, 20)


def test_different_sizes_without_size_are_refused_with_the_counts(tmp_path):
    fill(tmp_path, {"a.png": grey(1), "b.png": grey(2), "c.png": grey(3, (9, 8))})
    with pytest.raises(ValueError, match=r"2 different sizes \(8x8 \(2\), 9x8 \(1\)\): give `size` 8 \(the median\)"):
        open_images(tmp_path)


def test_unreadable_files_are_refused_by_name_or_left_out(tmp_path, own_cache):
    fill(tmp_path, {"a.png": grey(1), "b.png": grey(2), "d.png": grey(4)})
    (tmp_path / "c.png").write_bytes(b"no picture")
    (tmp_path / "e.png").write_bytes((tmp_path / "a.png").read_bytes()[:40])
    with pytest.raises(ValueError, match=r"2 of 5 images cannot be read.*c\.png.*e\.png.*`skip_unreadable`"):
        open_images(tmp_path)
    assert not list(own_cache.iterdir())
    images = open_images(tmp_path, skip_unreadable=True)
    assert [int(p.mean()) for p in images.pixels] == [1, 2, 4]
    assert any("c.png" in line and "e.png" in line for line in images.report.lines())


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda p: p, "holds no images"),
        (lambda p: fill(p, {"a.png": grey(1)}), "1 readable image.*at least 2"),
        (lambda p: p / "nothing", "there is no folder or file"),
        (lambda p: fill(p, {"a.png": grey(1)}) / "a.png", "is a single file"),
    ],
)
def test_data_that_cannot_be_trained_on_is_refused_in_one_line(tmp_path, own_cache, make, words):
    with pytest.raises(ValueError, match=words) as caught:
        open_images(make(tmp_path))
    assert "\n" not in str(caught.value)
    assert not list(own_cache.iterdir())


def test_bad_parquet_is_refused_in_one_line(tmp_path):
    good = parquet(tmp_path / "g.parquet", [grey(v) for v in range(9)], [0] * 9).read_bytes()
    cut, damaged = tmp_path / "cut.parquet", tmp_path / "damaged.parquet"
    cut.write_bytes(good[: len(good) // 2])
    with pytest.raises(ValueError, match=r"cut\.parquet cannot be read as Parquet"):
        open_images(cut)
    damaged.write_bytes(good[:40] + bytes(400) + good[440:])
    with pytest.raises(ValueError, match=r"damaged\.parquet is damaged|cannot be read"):
        open_images(damaged)
    other = tmp_path / "other.parquet"
    pq.write_table(pa.table({"text": ["x"]}), other)
    with pytest.raises(ValueError, match=r"no column 'image'.*text"):
        open_images(other)
    with pytest.raises(ValueError, match=r"class numbers 0, 1, \.\.\., but one is -1"):
        open_images(parquet(tmp_path / "neg.parquet", [grey(1), grey(2)], [-1, 0]))
    missing = parquet(tmp_path / "null.parquet", [grey(1), grey(2)], [0, 1])
    pq.write_table(pa.table({"image": pa.array([{"bytes": b"", "path": None}] * 3)}), missing)
    with pytest.raises(ValueError, match="3 of 3 images cannot be read: row 0"):
        open_images(missing)


def test_no_network_for_a_hub_id_is_said_clearly(monkeypatch):
    import datasets

    def offline(*_, **__):
        raise ConnectionError("Couldn't reach 'nobody/nothing' on the Hub")

    monkeypatch.setattr(datasets, "load_dataset", offline)
    with pytest.raises(ValueError, match=r"no folder nobody/nothing, and as a hub id it cannot be loaded.*reach"):
        open_source("nobody/nothing")


def test_hub_data_sets_are_read_with_their_class_names(monkeypatch):
    import datasets

    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})
    table = datasets.Dataset.from_dict({"image": [grey(5), grey(6), grey(7)], "label": [1, 0, 1]}, features=features)
    monkeypatch.setattr(datasets, "load_dataset", lambda name, split: table)
    images = open_images("somebody/pets")
    assert images.class_names == ("cat", "dog") and images.labels.tolist() == [1, 0, 1]
    assert [int(p.mean()) for p in images.pixels] == [5, 6, 7]


def test_digits_without_scikit_learn_name_the_extra(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ValueError, match=r"pip install 'ddim\[digits\]'"):
        open_source("digits")


def test_the_cache_is_used_and_a_changed_file_is_seen(tmp_path, monkeypatch):
    fill(tmp_path, {"a.png": grey(1), "b.png": grey(2)})
    first = open_images(tmp_path)
    assert isinstance(first.pixels, np.memmap) and first.pixels.dtype == np.uint8
    monkeypatch.setattr("ddim.data.cache._decoded", None)  # nothing may be decoded again
    again = open_images(tmp_path)
    assert again.report == first.report and np.array_equal(again.pixels, first.pixels)
    monkeypatch.undo()
    grey(9, (8, 8)).save(tmp_path / "b.png")
    os.utime(tmp_path / "b.png", ns=(1, 1))
    assert int(open_images(tmp_path, cache=tmp_path / "c").pixels[1].mean()) == 9
    assert open_images(tmp_path, cache=tmp_path / "c").report.sha256 != first.report.sha256


def test_where_it_lay_is_told_when_it_is_gone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fill(tmp_path / "data", {"a.png": grey(1), "b.png": grey(2)})
    images = open_images("data")
    shutil.rmtree("data")
    assert images.source == str(tmp_path / "data") and images.report.source == "data"


def flip(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("harm", [
    lambda c: flip(c / "pixels.npy"), lambda c: (c / "pixels.npy").write_bytes((c / "pixels.npy").read_bytes()[:-3]),
    lambda c: (c / "pixels.npy").unlink(), lambda c: flip(c / "labels.npy"), lambda c: (c / "labels.npy").unlink(),
    lambda c: (c / "report.json").write_text(""), lambda c: (c / "report.json").write_text("{}"),
    lambda c: (c / "report.json").write_text("[1]"), lambda c: (c / "report.json").unlink(),
    lambda c: np.save(c / "pixels.npy", np.zeros((2, 4, 4), np.uint8)),
    lambda c: np.save(c / "pixels.npy", np.zeros(3)),
])  # fmt: skip
def test_a_damaged_cache_heals(tmp_path, own_cache, harm):
    for name in ("cat", "dog"):
        fill(tmp_path / "data" / name, {"a.png": grey(len(name)), "b.png": grey(200)})
    first = open_images(tmp_path / "data")
    pixels, labels = first.pixels.copy(), first.labels.copy()
    (folder,) = own_cache.iterdir()
    harm(folder)
    for _ in range(2):
        again = open_images(tmp_path / "data")
        assert np.array_equal(again.pixels, pixels) and again.labels.tolist() == labels.tolist()
        assert again.report == first.report
    assert {p.name for p in folder.iterdir()} == {"pixels.npy", "labels.npy", "report.json"}


def test_pictures_swapped_with_equal_size_and_time_are_seen(tmp_path):
    a, b = tmp_path / "d" / "a.bmp", tmp_path / "d" / "b.bmp"
    a.parent.mkdir()
    for path, level in ((a, 10), (b, 200)):
        grey(level).save(path)
        os.utime(path, (1e9, 1e9))
    assert open_images(a.parent).pixels[:, 0, 0, 0].tolist() == [10, 200]
    a.rename(tmp_path / "x")
    b.rename(a)
    (tmp_path / "x").rename(b)
    assert open_images(a.parent).pixels[:, 0, 0, 0].tolist() == [200, 10]
    a.write_bytes(b.read_bytes())
    os.utime(a, (1e9, 1e9))
    assert open_images(a.parent).pixels[:, 0, 0, 0].tolist() == [10, 10]


def test_the_hash_tells_data_not_places(tmp_path):
    a = fill(tmp_path / "a", {"x.png": grey(1), "y.png": grey(2)})
    b = fill(tmp_path / "b", {"p.png": grey(1), "q.png": grey(2)})
    assert open_images(a).report.sha256 == open_images(b).report.sha256


def test_duplicates_are_counted(tmp_path):
    images = open_images(fill(tmp_path, {"a.png": grey(1), "b.png": grey(2), "c.png": grey(1), "d.png": grey(1)}))
    assert images.report.duplicates == 2


def test_hidden_folders_are_passed_over_at_every_depth(tmp_path):
    images = open_images(fill(tmp_path, {"a/1.png": grey(1), "a/.thumbs/2.png": grey(2), "b/3.png": grey(3)}))
    assert [int(p.mean()) for p in images.pixels] == [1, 3]


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path, own_cache, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    fill(tmp_path, {"a.png": grey(1), "b.png": grey(2)})
    monkeypatch.setattr("os.posix_fallocate", full, raising=False)
    with pytest.raises(OSError, match=r"has no room for 0\.0 MB.*No space left.*DDIM_CACHE") as caught:
        open_images(tmp_path)
    assert "\n" not in str(caught.value) and not list(own_cache.iterdir())
    monkeypatch.setattr("os.posix_fallocate", lambda *_: (_ for _ in ()).throw(OSError(errno.EOPNOTSUPP, "")))
    assert len(open_images(tmp_path)) == 2  # a file system that cannot promise room


def test_what_killed_builds_left_is_swept_and_what_lives_is_not(tmp_path, own_cache):
    key, day = "0" * 24, 90_000
    child = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    names = {
        "dead": f".{key}-{HOST}-{int(child.stdout)}-abc", "alive": f".{key}-{HOST}-{os.getpid()}-abc",
        "elsewhere": f".{key}-{'f' * 8}-1-abc", "old": f".{key}-{'f' * 8}-1-old", "mine": ".notes-of-mine",
    }  # fmt: skip
    for name in names.values():
        (own_cache / name).mkdir()
        (own_cache / name / "all.npy").write_bytes(b"0")
    for name in (names["old"], names["mine"]):
        for path in (own_cache / name / "all.npy", own_cache / name):
            os.utime(path, (time.time() - day, time.time() - day))
    open_images(fill(tmp_path, {"a.png": grey(1), "b.png": grey(2)}))
    left = {p.name for p in own_cache.iterdir()}
    assert {k for k, name in names.items() if name in left} == {"alive", "elsewhere", "mine"}


def tables(folder, *columns, metadata=None):
    folder.mkdir()
    for i, c in enumerate(columns):
        pq.write_table(pa.table(c).replace_schema_metadata(metadata), folder / f"{i}.parquet")
    return folder


def cells(n=4):
    out = []
    for i in range(n):
        buffer = io.BytesIO()
        grey(i).save(buffer, "PNG")
        out.append({"bytes": buffer.getvalue(), "path": None})
    return out


LISTED = {"huggingface": json.dumps({"info": {"features": {"label": [{"dtype": "int64"}]}}})}
TWO_NAMES = {"huggingface": json.dumps({"info": {"features": {"label": {"names": ["a", "b"]}}}})}


@pytest.mark.parametrize(
    ("columns", "metadata", "words"),
    [
        ([{"label": [0, 1]}, {}], None, r"1\.parquet has no column 'label'"),
        ([{"label": ["a", "b"]}], None, r"column 'label' of .*0\.parquet holds string, not class numbers"),
        ([{"label": [[1], [2]]}], LISTED, "holds list<.*not class numbers"),
        ([{"label": [None, 1]}], None, "class numbers 0, 1, ..., but one is None"),
        ([{"label": [0, 2]}], TWO_NAMES, r"0\.\.1, one for each of its names, but one is 2"),
        ([{"label": [0, 3_000_000]}], None, "go up to 3000000, but only 2 different ones occur"),
    ],
)
def test_label_columns_that_are_none_are_refused_or_ignored(tmp_path, columns, metadata, words):
    folder = tables(tmp_path / "t", *[{"image": pa.array(cells(2))} | c for c in columns], metadata=metadata)
    with pytest.raises(ValueError, match=words) as caught:
        open_images(folder)
    assert "\n" not in str(caught.value) and "`labels` ignore" in str(caught.value)
    images = open_images(folder, labels=False)
    assert images.class_names is None and len(images) == 2 * len(columns)


def test_sound_labels_that_are_ignored_are_the_same_data(tmp_path):
    path = parquet(tmp_path / "d.parquet", [grey(1), grey(2)], [0, 1])
    assert open_images(path, labels=False).report.sha256 == open_images(path).report.sha256


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ([{"image": pa.array(cells(2))}, {"img": pa.array(cells(2))}], r"1\.parquet has no column 'image'.*are img"),
        ([{"image": [[0] * 64] * 2}], r"column 'image' of .*0\.parquet holds list<"),
        ([{"image": [1, 2]}], "holds int64"),
        ([{"image": [{"path": "x"}, {"path": "y"}]}], "holds struct<path: string>"),
    ],
)
def test_image_columns_that_are_none_are_refused_by_file(tmp_path, columns, words):
    with pytest.raises(ValueError, match=words) as caught:
        open_source(tables(tmp_path / "t", *columns))
    assert "\n" not in str(caught.value)


def test_rows_without_an_image_in_a_hub_set_are_unreadable_ones(monkeypatch):
    import datasets

    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("string")})
    table = datasets.Dataset.from_dict({"image": [grey(5), None, grey(6)], "label": ["a", "b", "c"]}, features=features)
    monkeypatch.setattr(datasets, "load_dataset", lambda name, split: table)
    with pytest.raises(ValueError, match="column 'label' of x/y holds string"):
        open_images("x/y")
    with pytest.raises(ValueError, match="1 of 3 images cannot be read: row 1: no image bytes"):
        open_images("x/y", labels=False)
    assert len(open_images("x/y", labels=False, skip_unreadable=True)) == 2
    odd = datasets.Dataset.from_dict({"image": [1, 2]})
    monkeypatch.setattr(datasets, "load_dataset", lambda name, split: odd)
    with pytest.raises(ValueError, match="column 'image' of x/y holds no images"):
        open_source("x/y")


# -- batches -------------------------------------------------------------------------------------------


@pytest.fixture
def ten(tmp_path):
    return open_images(fill(tmp_path, {f"{v % 2}/{v}.png": grey(10 * v) for v in range(10)}))


def test_every_epoch_holds_every_image_once_in_another_order(ten):
    batches = Batches(ten, 4, seed=0)
    stream = np.concatenate([batches.indices(s) for s in range(10)])  # 40 places: 4 epochs, batches across borders
    epochs = stream.reshape(4, 10)
    assert all(sorted(e) == list(range(10)) for e in epochs)
    assert len({tuple(e) for e in epochs.tolist()}) == 4


def test_a_batch_is_a_function_of_seed_and_step(ten):
    forward, backward = Batches(ten, 3, seed=5), Batches(ten, 3, seed=5)
    ahead = [forward.indices(s).tolist() for s in range(20)]
    assert [backward.indices(s).tolist() for s in reversed(range(20))][::-1] == ahead
    assert [Batches(ten, 3, seed=6).indices(s).tolist() for s in range(20)] != ahead


def test_rows_are_rows_of_the_whole_batch(ten):
    batches = Batches(ten, 6, seed=1, flip=True)
    whole = batches(3)
    parts = [batches(3, slice(0, 2)), batches(3, slice(2, 6))]
    assert torch.equal(torch.cat([p.x0 for p in parts]), whole.x0)
    assert torch.equal(torch.cat([p.label for p in parts]), whole.label)


def test_images_and_labels_belong_together(ten):
    batch = Batches(ten, 10, seed=2)(0)
    index = Batches(ten, 10, seed=2).indices(0)
    assert torch.equal(batch.x0, from_uint8(np.asarray(ten.pixels)[index]))
    assert batch.label.tolist() == [int(ten.labels[i]) for i in index]
    assert Batches(ten, 4, seed=2, labelled=False)(0).label is None


def test_flip_mirrors_about_half_left_to_right(tmp_path):
    ramp = Image.fromarray(np.arange(8, dtype=np.uint8)[None].repeat(8, 0))
    images = open_images(fill(tmp_path, {"a.png": ramp, "b.png": ramp}))
    x = Batches(images, 400, seed=0, flip=True, labelled=False)(0).x0
    mirrored = int((x[:, 0, 0, 0] > x[:, 0, 0, 7]).sum())
    assert 150 < mirrored < 250  # 200 +- 5 standard deviations
    assert all(torch.equal(row[0, 0], row[0, 5]) for row in x)  # never top to bottom
    plain = Batches(images, 400, seed=0, labelled=False)(0).x0
    assert bool((plain[:, 0, 0, 0] < plain[:, 0, 0, 7]).all())


def test_batches_refuse_what_makes_no_sense(tmp_path):
    images = open_images(fill(tmp_path, {"a.png": grey(1), "b.png": grey(2)}))
    with pytest.raises(ValueError, match="has no classes"):
        Batches(images, 2, seed=0)
    with pytest.raises(ValueError, match="at least 1, got 0"):
        Batches(images, 0, seed=0, labelled=False)


# -- a folder as people have it --------------------------------------------------------------------------


def test_pictures_beside_folders_are_one_set_unless_classes_are_wanted(tmp_path):
    fill(tmp_path, {"b.png": grey(2), "k/a.png": grey(1), "k/deep/c.png": grey(3), "l/d.png": grey(4)})
    for labels in (None, False):
        images = open_images(tmp_path, labels=labels)
        assert images.class_names is None and sorted(int(p.mean()) for p in images.pixels) == [1, 2, 3, 4]
    for cache in (None, tmp_path / "empty"):  # also where the same pictures lie decoded already
        with pytest.raises(ValueError, match="1 images beside 2 folders with images; give `labels` ignore"):
            open_images(tmp_path, labels=True, cache=cache)


def test_all_that_is_wrong_is_said_at_once_with_a_size_to_take(photos):
    with pytest.raises(ValueError, match="beside 1 folders") as caught:
        open_images(photos, labels=True)
    said = str(caught.value)
    for words in ("`labels` ignore", "1 of 12 images cannot be read", "broken.jpg", "`skip_unreadable`",
                  "10 different sizes", "give `size` 64 (their median is 72", "`fit` pad", "left out: 1 in HEIC",
                  "IMG_1.HEIC", "save them as JPEG"):  # fmt: skip
        assert words in said, words
    images = open_images(photos, labels=False, skip_unreadable=True, size=(64, 64))
    assert len(images) == 11 and images.shape == (3, 64, 64)
    report = "\n".join(images.report.lines())
    assert "1 unreadable, left out" in report and "left out: 1 in HEIC" in report
    assert images.report.sizes["60x100"] == 1  # 100x60 in the file, turned as its EXIF says
    assert images.report.modes == {"RGB": 7, "P": 1, "RGBA": 1, "CMYK": 1, "L": 1}


@pytest.mark.parametrize(
    ("sides", "says"),
    [([8, 9, 9], "`size` 8 (the median, 9, in multiples of 8)"), ([32, 48, 48, 500], "`size` 48 (the median)"),
     ([5, 6], "`size` 8 (the median, 5"), ([3000, 4000], "`size` 64 (their median is 3000")],
)  # fmt: skip
def test_the_proposed_size_is_the_median_that_a_network_takes(tmp_path, sides, says):
    from ddim.data.report import proposed

    assert says in proposed({f"{side + 10}x{side}": 1 for side in dict.fromkeys(sides)} | {
        f"{side}x{side + 10}": sides.count(side) - 1 for side in dict.fromkeys(sides) if sides.count(side) > 1
    })  # fmt: skip


def test_a_folder_of_heic_alone_says_what_to_do_and_one_added_later_is_seen(tmp_path):
    (tmp_path / "IMG_2.heic").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"holds no images.*1 in HEIC.*IMG_2\.heic.*save them as JPEG"):
        open_images(tmp_path)
    fill(tmp_path, {"a.png": grey(1), "b.png": grey(2)})
    assert open_images(tmp_path).report.unread == ["IMG_2.heic"]
    (tmp_path / "IMG_3.HEIF").write_bytes(b"x")
    assert open_images(tmp_path).report.unread == ["IMG_2.heic", "IMG_3.HEIF"]  # though the pixels are cached
