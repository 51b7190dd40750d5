"""Runs a case in the warm process (`warm.py`) and says what is wrong with how it ended."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

SECONDS, MEGABYTES, LONGEST = 15.0, 900.0, 2200  # of the processor; beyond what the warm process has; letters of a line
# What no text of ours holds: C0 but tab and newline, DEL, C1, and the marks that turn the direction of a line.
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
CANARY = "canary"  # what the code hidden in files would write


@dataclass(frozen=True)
class Case:
    """One command on one kind of bad input; `make` fills the folder it runs in and gives the words."""

    name: str
    make: Callable[[Path], list[str]] = field(compare=False)
    may_write: bool = False  # a refusal may leave something: a job that is gone on with


@dataclass(frozen=True)
class Outcome:
    """How a command ended, and what the folder held before and after."""

    argv: list[str]
    code: int
    seconds: float
    megabytes: float
    out: str
    err: str
    before: dict[str, bytes]
    after: dict[str, bytes]


class Arena:
    """The warm process, and a folder for every case."""

    def __init__(self, root: Path) -> None:
        self.root, self.count = root, 0
        env = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
            "HF_DATASETS_OFFLINE": "1",
            "DDIM_CACHE": str(root / "cache"),
            "PYTHONWARNINGS": "ignore",
        }
        env.pop("DDIM_TRACEBACK", None)
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("warm.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=env,
            text=True,
        )
        self.warm = self._read()["ready"]

    def _read(self) -> dict:
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("the warm process has ended")
        return json.loads(line)

    def run(self, make: Callable[[Path], list[str]], times: int = 1, **env: str) -> Outcome:
        """A command in a new folder that `make` fills, which gives its words; `times` as long as usual."""
        self.count += 1
        home = self.root / f"{self.count:05d}"
        folder = home / "here"
        folder.mkdir(parents=True)
        argv = make(folder)
        before = held(folder)
        asked = {
            "argv": argv,
            "cwd": str(folder),
            "out": str(home / "out"),
            "err": str(home / "err"),
            "env": env,
            "times": times,
        }
        self.process.stdin.write(json.dumps(asked) + "\n")
        self.process.stdin.flush()
        ended = self._read()
        out, err = ((home / n).read_bytes().decode(errors="surrogateescape") for n in ("out", "err"))
        return Outcome(argv, ended["code"], ended["seconds"], ended["megabytes"], out, err, before, held(folder))

    def wrong(self, case: Case) -> list[str]:
        """What is wrong with how a case ended; nothing if nothing."""
        return faults(self.run(case.make), case, self.warm)

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def faults(o: Outcome, case: Case, warm: float) -> list[str]:
    """The property: every bad input is refused in one line, or does no harm."""
    found = []
    said = [line for line in o.err.splitlines() if line.startswith("ddim: ") and "warning" not in line[:15]]
    if o.code not in (0, 2):
        found.append(f"code {o.code}")
    if o.code == 2 and len(said) != 1:
        found.append(f"{len(said)} lines of refusal")
    if "Traceback" in o.err or "Traceback" in o.out:
        found.append("traceback")
    if "out of memory" in o.err:
        found.append("found out by its memory")
    if CONTROL.search(o.out) or CONTROL.search(o.err):
        found.append("control bytes")
    if any(len(line) > LONGEST for line in said):
        found.append(f"a line of {max(map(len, said))} letters")
    if o.code == 2 and not case.may_write and o.before != o.after:
        found.append(f"left {sorted(set(o.after) - set(o.before)) or 'a file changed'} after a refusal")
    if hidden := [n for n in set(o.after) - set(o.before) if Path(n).name.startswith(".")]:
        found.append(f"hidden {hidden}")
    if any(Path(name).name == CANARY for name in o.after):
        found.append("RAN CODE")
    if o.seconds > SECONDS:
        found.append(f"{o.seconds:.0f} s")
    if o.megabytes > warm + MEGABYTES:
        found.append(f"{o.megabytes:.0f} MB")
    if found:
        words = " ".join(w if len(w) < 60 else w[:57] + ".." for w in o.argv)
        last = (o.err.strip().splitlines() or [""])[-1][:300]
        found = [f"{case.name}: {', '.join(found)}\n  ddim {words}\n  {last!r}"]
    return found


def held(folder: Path) -> dict[str, bytes]:
    """What lies in a folder: name -> content (of large files their size), or what kind of thing it is."""
    found = {}
    for path in folder.rglob("*"):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = b"link " + str(path.readlink()).encode(errors="surrogateescape")
        elif path.is_file():
            found[name] = path.read_bytes() if path.stat().st_size < 2**20 else b"%d" % path.stat().st_size
        else:
            found[name] = b"folder" if path.is_dir() else b"special"
    return found
