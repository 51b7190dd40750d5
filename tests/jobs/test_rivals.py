"""Several models in one report: a student walks its own way, another model every row, and all draw the same seeds."""

import json
from dataclasses import replace

import pytest

import ddim
from conftest import save_tiny
from ddim.checkpoints import Student, open_checkpoint, save_checkpoint
from ddim.cli.commands.evaluate import Command
from ddim.pixels import save_png, to_uint8


def told(folder, path, kind, tau):
    save_checkpoint(path, replace(open_checkpoint(folder), student=Student(kind, tau, "ab" * 32), clips=False))


@pytest.fixture(scope="module")
def there(tmp_path_factory):
    root = tmp_path_factory.mktemp("rivals")
    teacher = save_tiny(root / "teacher", prediction="v", clips=False)
    save_tiny(root / "other", prediction="v", clips=False, seed=4)
    save_tiny(root / "large", prediction="v", shape=(3, 8, 8))
    told(teacher, root / "two", "progressive", (1000, 500, 0))
    told(teacher, root / "jump", "consistency", (1000, 500, 0))
    (root / "data").mkdir()
    for i, pixels in enumerate(to_uint8(ddim.noise(range(40), (1, 8, 8)).clamp(-1, 1))):
        save_png(root / "data" / f"{i}.png", pixels)
    return root


def run(there, out, rivals, **options):
    how = {"steps": "2,3", "eta": "0", "sigma_hat": False, "n": 12, "extractor": "pixels", "device": "cpu"}
    names = ",".join(str(there / name) for name in rivals)
    how |= {"precision": "fp32", "spacing": "trailing"} | options
    Command(str(there / "teacher"), str(there / "data"), out=out, rival=names, **how).run()
    return json.loads((out / "report.json").read_text())


def test_teacher_students_and_another_model_in_one_report(there, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("DDIM_CACHE", str(tmp_path / "cache"))
    report = run(there, tmp_path / "report", ["two", "jump", "other"])
    rows = {(r["solver"], r["steps"]): r for r in report["rows"]}
    assert list(rows) == [
        ("ddim", 2), ("ddim", 3), ("two", 2), ("jump", 1), ("jump", 2), ("other ddim", 2), ("other ddim", 3),
    ]  # fmt: skip
    # of one network and the same times, the same pictures from the same seeds
    assert rows["two", 2]["distance"] == rows["ddim", 2]["distance"] != rows["other ddim", 2]["distance"]
    assert rows["two", 2]["rms"] == rows["ddim", 2]["rms"] and rows["two", 2]["nfe"] == 2
    assert set(report["stamp"]["rivals"]) == {"two", "jump", "other"}
    assert "two" in capsys.readouterr().out
    page = (tmp_path / "report/report.html").read_text()
    assert "jump S=1" in page and "two S=2" in page


def test_a_rival_must_make_the_same_kind_of_pictures(there, tmp_path, monkeypatch):
    monkeypatch.setenv("DDIM_CACHE", str(tmp_path / "cache"))
    with pytest.raises(ddim.Refused, match=r"large makes \(3, 8, 8\) of 3 classes.*cannot be asked for the same"):
        run(there, tmp_path / "report", ["large"])
    with pytest.raises(ddim.Refused, match="two rivals are called two"):
        run(there, tmp_path / "report", ["two", "two"])
    assert not (tmp_path / "report").exists()
