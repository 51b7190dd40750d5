"""Commands as children of the warm process (`nursery`): run to their end, killed or stopped at work."""

import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

from ddim.files import is_temporary

PATIENCE, SLOWEST = 300.0, 1800.0  # seconds, on a machine that others work on as well: of a child, of the warm process
# What no text of ours holds: C0 but tab and newline, DEL, C1, and the marks that turn the direction of a line.
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


class Nursery:
    """The warm process; what its children say is kept in `root`. `megabytes`: of memory it has itself."""

    def __init__(self, root):
        self.root, self.count, self.news = Path(root), 0, {}
        env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", "HF_HUB_OFFLINE": "1",
               "HF_DATASETS_OFFLINE": "1"}  # fmt: skip
        env.pop("DDIM_TRACEBACK", None)
        words = [sys.executable, str(Path(__file__).with_name("nursery.py"))]
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env)
        self._rest = b""
        self._until(lambda: "ready" in self.news, SLOWEST)
        self.megabytes = self.news["ready"]["megabytes"]

    def start(self, argv, home, *, kill=None, stop=None, watched=None, times=None, **env):
        """A child at work in `home`; `watched` is the folder whose events count, `times` bounds it instead."""
        self.count += 1
        place = self.root / str(self.count)
        asked = {
            "id": self.count, "argv": [str(word) for word in argv], "home": str(home), "root": str(watched or home),
            "out": f"{place}.out", "err": f"{place}.err", "events": None if times else f"{place}.events",
            "env": {"DDIM_CACHE": str(Path(home) / "cache"), **env}, "kill": kill, "stop": stop, "times": times,
        }  # fmt: skip
        self.news[self.count] = {}
        self.process.stdin.write(json.dumps(asked).encode() + b"\n")
        self.process.stdin.flush()
        child = Child(self, self.count, asked)
        self._until(lambda: "pid" in self.news[child.id])
        return child

    def run(self, argv, home, **how):
        return self.start(argv, home, **how).ended()

    def close(self):
        self.process.kill()  # its children have ended
        self.process.wait(60)

    def hear(self, seconds=0.05):
        """What has become of its children."""
        if select.select([self.process.stdout], [], [], seconds)[0]:
            heard = os.read(self.process.stdout.fileno(), 65536)
            if not heard:
                raise RuntimeError("the warm process has ended")
            *lines, self._rest = (self._rest + heard).split(b"\n")
            for line in lines:
                said = json.loads(line)
                self.news.setdefault(said["id"], {}).update(said)

    def _until(self, holds, patience=PATIENCE):
        begun = time.monotonic()
        while not holds():
            if time.monotonic() - begun > patience:
                return False
            self.hear()
        return True


class Child:
    def __init__(self, nursery, number, asked):
        self.nursery, self.id, self.asked = nursery, number, asked

    @property
    def out(self):
        return Path(self.asked["out"]).read_bytes().decode(errors="surrogateescape")

    @property
    def err(self):
        return Path(self.asked["err"]).read_bytes().decode(errors="surrogateescape")

    @property
    def said(self):
        return self.out + self.err

    @property
    def events(self):
        return Path(self.asked["events"]).read_text().splitlines()

    @property
    def told(self):
        """What the warm process says of it: code, seconds, megabytes; its code is not there before its end."""
        return self.nursery.news[self.id]

    @property
    def code(self):
        return self.told.get("code")

    def signal(self, number):
        if self.code is None:
            os.kill(self.told["pid"], number)

    def stopped(self):
        """Waits until it has stopped, or ended without."""
        self.nursery._until(lambda: {"stopped", "code"} & set(self.told))
        return self.code is None

    def ended(self, patience=PATIENCE):
        """Waits for its end; a child that never ends is a fault of its own."""
        if not self.nursery._until(lambda: self.code is not None, patience):
            if patience < PATIENCE:
                return None
            self.signal(signal.SIGKILL)
            raise AssertionError(f"never ended: {self.asked['argv']}\n{self.said[-2000:]}")
        return self


def lines_of_refusal(err):
    """Its lines that say why a command was refused."""
    return [line for line in err.splitlines() if line.startswith("ddim: ") and "warning" not in line[:15]]


def wrong(code, out, err):
    """What is wrong with how a command ended: exit 0, or 2 with one line; no traceback, no control character."""
    found, said = [], len(lines_of_refusal(err))
    if code not in (0, 2):
        found.append(f"code {code}")
    if code == 2 and said != 1:
        found.append(f"{said} lines of refusal")
    if "Traceback" in err or "Traceback" in out:
        found.append("traceback")
    if CONTROL.search(out) or CONTROL.search(err):
        found.append("control bytes")
    return found


def refused_well(child):
    found = wrong(child.code, child.out, child.err)
    assert not found, f"{child.asked['argv']}: {found}\n{child.said[-3000:]}"


def hidden(folder):
    """What a writer left below a folder under a temporary name."""
    return [str(p.relative_to(folder)) for p in Path(folder).rglob("*") if is_temporary(p.name)]
