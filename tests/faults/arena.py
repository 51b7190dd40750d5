"""Bad inputs: a case in a folder of its own, run by the warm process, and what is wrong with how it ended."""

import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from children import Nursery, lines_of_refusal, wrong

WAIT = 40.0  # seconds: a file that never ends takes no time of the processor
SECONDS, MEGABYTES, LONGEST = 15.0, 900.0, 2200  # of the processor; beyond what the warm process has; letters of a line
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
    """A folder for every case."""

    def __init__(self, root: Path, nursery: Nursery) -> None:
        self.root, self.nursery, self.count = root, nursery, 0

    def run(self, make: Callable[[Path], list[str]], times: int = 1) -> Outcome:
        """A command in a new folder that `make` fills, which gives its words; `times` as long as usual."""
        self.count += 1
        folder = self.root / f"{self.count:05d}" / "here"
        folder.mkdir(parents=True)
        argv = make(folder)
        before = held(folder)
        child = self.nursery.start(argv, folder, times=times, DDIM_CACHE=str(self.root / "cache"))
        if child.ended(patience=WAIT * times) is None:
            child.signal(signal.SIGKILL)
            child.ended()
        told, after = (child.told[name] for name in ("code", "seconds", "megabytes")), held(folder)
        for place in (folder.parent, self.root):  # where "../../canary" would lie
            if (place / CANARY).exists():
                after[f"../{CANARY}"] = (place / CANARY).read_bytes()
                (place / CANARY).unlink()
        return Outcome(argv, *told, child.out, child.err, before, after)

    def wrong(self, case: Case) -> list[str]:
        """What is wrong with how a case ended; nothing if nothing."""
        return faults(self.run(case.make), case, self.nursery.megabytes)


def faults(o: Outcome, case: Case, warm: float) -> list[str]:
    """The property: every bad input is refused in one line, or does no harm."""
    found = wrong(o.code, o.out, o.err)
    if "out of memory" in o.err:
        found.append("found out by its memory")
    if longest := max((len(line) for line in lines_of_refusal(o.err) if len(line) > LONGEST), default=0):
        found.append(f"a line of {longest} letters")
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
