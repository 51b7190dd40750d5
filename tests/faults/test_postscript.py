"""PostScript under a picture's name: at no door does Pillow get to start Ghostscript."""

import contextlib
import io
import shutil

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from PIL import EpsImagePlugin, Image

import ddim
from ddim.cli import main

PAGE = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"


@pytest.fixture
def place(tmp_path, monkeypatch, tiny_folder):
    """Pictures, one of them PostScript, as a folder and as Parquet; a job half done with one of its images swapped."""
    started = []
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *words: started.append(words))
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", "gs")
    monkeypatch.setenv("DDIM_CACHE", str(tmp_path / "cache"))
    (tmp_path / "data").mkdir()
    cells = []
    for i in range(24):
        ddim.pixels.save_png(tmp_path / "data" / f"{i:02}.png", np.full((8, 8, 1), 10 * i, np.uint8))
        cells.append((tmp_path / "data" / f"{i:02}.png").read_bytes())
    (tmp_path / "data/photo.png").write_bytes(PAGE)
    shutil.copytree(tmp_path / "data", tmp_path / "small")
    (tmp_path / "small/00.png").write_bytes(PAGE)  # the first, for who looks at a few
    for name, odd in (("bytes", {"bytes": PAGE, "path": None}), ("path", {"bytes": PAGE, "path": "photo.png"})):
        column = [{"bytes": cell, "path": None} for cell in cells] + [odd]
        pyarrow.parquet.write_table(pyarrow.table({"image": column}), tmp_path / f"{name}.parquet")
    ddim.load(tiny_folder).encode(ddim.noise([1], (1, 8, 8)), steps=2, label=1, method="naive").save(
        tmp_path / "z.safetensors"
    )
    yield tmp_path
    assert not started


def run(*words):
    with pytest.raises(SystemExit) as stop:
        main([str(w) for w in words])
    return stop.value.code


def test_the_page_would_start_it_where_any_format_is_opened(monkeypatch):
    started = []
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *words: started.append(words))
    with contextlib.suppress(Exception), Image.open(io.BytesIO(PAGE)) as file:  # the stand-in gives nothing back
        file.load()
    assert started


@pytest.mark.parametrize(
    "words",
    [
        ("train", "data", "--out", "run", "--max-steps", 1, "--preset", "digits"),
        ("train", "bytes.parquet", "--out", "run", "--max-steps", 1, "--preset", "digits"),
        ("train", "path.parquet", "--out", "run", "--max-steps", 1, "--preset", "digits"),
        ("edit", "MODEL", "data/photo.png", "--steps", 2, "--label", 1, "--out", "out"),
        ("edit", "MODEL", "data/01.png", "--mask", "data/photo.png", "--steps", 2, "--label", 1, "--out", "out"),
        ("interpolate", "MODEL", "--between", "data/photo.png", 1, "--steps", 2, "--label", 1, "--out", "out"),
        ("encode", "MODEL", "data/photo.png", "--steps", 2, "--label", 1, "--out", "new.safetensors"),
        ("encode", "MODEL", "data", "--steps", 2, "--label", 1, "--out", "new.safetensors"),
        ("decode", "MODEL", "data/photo.png", "--label", 1, "--out", "out"),
        ("reconstruct", "MODEL", "data", "--steps", 2, "--count", 2, "--label", 1, "--out", "out"),
        ("measure", "data", "data", "--extractor", "pixels", "--out", "out"),
        ("info", "MODEL", "--check", "--data", "small"),
    ],
    ids=lambda words: "-".join(map(str, words[:3])),
)
def test_no_door(place, monkeypatch, capsys, tiny_folder, words):
    monkeypatch.chdir(place)
    code = run(*(tiny_folder if w == "MODEL" else w for w in words))
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert code == 2 and said.startswith("ddim: "), said


def test_a_job_whose_image_was_swapped(place, capsys, tiny_folder):
    job = ("sample", tiny_folder, "--count", 3, "--steps", 1, "--label", 1, "--out", place / "out")
    assert run(*job) == 0
    (place / "out/000001.png").write_bytes(PAGE)
    (place / "out/000002.png").unlink()
    for words in (job, (*job, "--npz"), ("sample", "--verify", "--out", place / "out")):
        try:
            run(*words)
        except (OSError, ValueError) as error:  # Pillow's own word for a file that is none of the formats asked for
            assert "cannot identify" in str(error)
