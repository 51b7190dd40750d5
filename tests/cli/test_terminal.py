"""What reaches a terminal: no control character of anybody's file, no message without end."""

import io
import json
import os
import re
import subprocess
import sys

import numpy as np
from test_cli import ddim, mistake

from conftest import save_tiny
from ddim.cli.terminal import LONGEST_LINE, Plain, bounded, escaped, one_line
from ddim.pixels import save_png

EVIL = "a\x1b]0;owned\x07\x1b[2J\x9b31m\u202egnp.\rb"
CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


class Screen(io.StringIO):
    encoding = "ascii"

    def isatty(self):
        return True


def test_what_a_terminal_would_act_on_is_spelled_and_the_rest_is_left():
    assert escaped("Grüße, 数字\nline") == "Grüße, 数字\nline"
    assert escaped("\x1b[2J\r\t\x00\x9b\u202e\ud800") == r"\x1b[2J\r\t\x00\x9b\u202e\ud800"
    assert escaped(os.fsdecode(b"caf\xe9.png")) == r"caf\xe9.png"


def test_long_words_and_lines_keep_both_ends():
    word = "x" * 5000 + "end"
    assert len(bounded(word)) < 450 and bounded(word).endswith("end") and "(4603 characters)" in bounded(word)
    assert bounded("short " * 1000) == "short " * 1000
    line = one_line(f"cause {'y ' * 9000} remedy")
    assert len(line) < LONGEST_LINE + 40 and line.startswith("cause") and line.endswith("remedy")


def test_a_bar_moves_about_where_somebody_watches_and_nowhere_else():
    screen, file = Screen(), io.StringIO()
    for stream in (screen, file):
        for text in ("\r 10%| \x1b[2J", "\x1b[A", "\x1b[A\x1b[A", "ü"):
            Plain(stream).write(text)
    assert screen.getvalue() == "\r 10%| \\x1b[2J\x1b[A\x1b[A\x1b[A\\xfc"
    assert file.getvalue() == "\\r 10%| \\x1b[2J\\x1b[A\\x1b[A\\x1b[Aü"


def test_names_out_of_files_are_printed_plainly(capsys, tmp_path):
    model, pictures = save_tiny(tmp_path / "m", labels=[EVIL, "b", "c"]), tmp_path / "pictures"
    pictures.mkdir()
    save_png(pictures / f"{EVIL}.png", np.zeros((8, 8), np.uint8))
    (pictures / f"{EVIL} broken.png").write_bytes(b"")
    (tmp_path / "job").mkdir()
    (tmp_path / "job" / "manifest.json").write_text(json.dumps({"sha256": {EVIL * 100: "0"}}))
    (tmp_path / "evil.yaml").write_text(json.dumps({EVIL: 1}))
    z = tmp_path / "z.safetensors"
    said = [
        "".join(ddim(capsys, "info", model)[1:]),
        "".join(ddim(capsys, "encode", model, pictures, "--steps", 2, "--method", "naive", "--skip-unreadable",
                     "--out", z)[1:]),
        mistake(capsys, "encode", model, pictures, "--out", tmp_path / "y"),
        mistake(capsys, "sample", model, "--label", f"{EVIL}!", "--out", tmp_path / "x"),
        mistake(capsys, "sample", model, "--label", "q" * 10000, "--out", tmp_path / "x"),
        mistake(capsys, "sample", "--verify", "--out", tmp_path / "job"),
        mistake(capsys, "sample", "--config", tmp_path / "evil.yaml", "--out", tmp_path / "x"),
        mistake(capsys, EVIL),
        mistake(capsys, "sample", f"--{'w' * 10000}"),
    ]  # fmt: skip
    for text in said:
        assert not CONTROL.search(text), text
        assert all(len(line) < LONGEST_LINE + 40 for line in text.splitlines())
    assert all(r"\x1b]0;owned\x07" in text for text in said[:4])


def test_a_name_that_is_no_text_is_no_traceback(tmp_path):
    (tmp_path / os.fsdecode(b"caf\xe9.png")).write_bytes(b"")
    words = [sys.executable, "-m", "ddim", "measure", str(tmp_path), str(tmp_path)]
    environ = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run(words, capture_output=True, check=False, env=environ)
    assert done.returncode == 2 and b"Traceback" not in done.stderr, done.stderr
    assert rb"caf\xe9.png" in done.stderr
