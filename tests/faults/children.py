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

PATIENCE = 300.0  # seconds, on a machine that others work on as well
CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")


class Nursery:
    """The warm process. Everything happens below `root`."""

    def __init__(self, root):
        self.root, self.count, self.news = Path(root), 0, {}
        env = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore"}
        env.pop("DDIM_TRACEBACK", None)
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("nursery.py"))], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, env=env,
        )  # fmt: skip
        self._rest = b""
        self._until(lambda: "ready" in self.news)

    def start(self, argv, home, *, kill=None, stop=None, watched=None, **env):
        """A child at work; `watched` is the folder whose events count, `home` unless given."""
        self.count += 1
        asked = {
            "id": self.count, "argv": [str(word) for word in argv], "home": str(home), "root": str(watched or home),
            "out": str(self.root / f"{self.count}.out"), "events": str(self.root / f"{self.count}.events"),
            "env": {"DDIM_CACHE": str(Path(home) / "cache"), **env}, "kill": kill, "stop": stop,
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

    def _until(self, holds, patience=PATIENCE):
        begun = time.monotonic()
        while not holds():
            if time.monotonic() - begun > patience:
                return False
            if select.select([self.process.stdout], [], [], 0.05)[0]:
                heard = os.read(self.process.stdout.fileno(), 65536)
                if not heard:
                    raise RuntimeError("the warm process has ended")
                *lines, self._rest = (self._rest + heard).split(b"\n")
                for line in lines:
                    said = json.loads(line)
                    self.news.setdefault(said.get("id", "ready"), {}).update(said)
        return True


class Child:
    def __init__(self, nursery, number, asked):
        self.nursery, self.id, self.asked = nursery, number, asked

    @property
    def said(self):
        return Path(self.asked["out"]).read_text(errors="surrogateescape")

    @property
    def events(self):
        return Path(self.asked["events"]).read_text().splitlines()

    @property
    def code(self):
        return self.nursery.news[self.id].get("code")

    def signal(self, number):
        if self.code is None:
            os.kill(self.nursery.news[self.id]["pid"], number)

    def stopped(self):
        """Waits until it has stopped, or ended without."""
        self.nursery._until(lambda: {"stopped", "code"} & set(self.nursery.news[self.id]))
        return self.code is None

    def ended(self, patience=PATIENCE):
        """Waits for its end; a child that never ends is a fault of its own."""
        if not self.nursery._until(lambda: self.code is not None, patience):
            if patience < PATIENCE:
                return None
            self.signal(signal.SIGKILL)
            raise AssertionError(f"never ended: {self.asked['argv']}\n{self.said[-2000:]}")
        return self


def refused_well(child):
    """Exit 0, or 2 with one line of ours: no traceback, no control character."""
    words = child.said
    where = f"{child.asked['argv']}: {child.code}\n{words[-3000:]}"
    assert child.code in (0, 2) and "Traceback" not in words and not CONTROL.search(words), where
    assert child.code == 0 or sum(line.startswith("ddim: ") for line in words.splitlines()) == 1, where


def hidden(folder):
    """What a writer left below a folder under a temporary name."""
    return [str(p.relative_to(folder)) for p in Path(folder).rglob("*") if is_temporary(p.name)]
