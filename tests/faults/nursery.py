"""A process with everything imported, which forks a child for every command, several at a time: torch is paid once.

Reads one JSON object a line: {"id", "argv", "home", "out", "err", "env", "times", "root", "kill", "stop", "events"}.
Writes {"id", "pid"} when the child is there, {"id", "stopped"} when it has stopped, {"id", "code", "seconds",
"megabytes"} when it has ended. A code below 0 is a signal.

With `times` a child may take so many times the usual seconds of the processor, and 3 GB. With `events`, a file, what
it does to files below `root` is counted and named there: every opening to write, making, renaming, linking, removing.
It kills itself before the event number `kill`, or stops itself before number `stop`.
"""

import importlib
import json
import os
import resource
import select
import signal
import sys
from pathlib import Path
from typing import Any

HEAVY = ("datasets", "diffusers", "accelerate", "pyarrow.parquet", "matplotlib.figure", "torch.utils.tensorboard",
         "torchmetrics", "onnxruntime", "sklearn.datasets", "yaml", "tyro", "ddim.jobs", "ddim.nets.unet",
         "ddim.cli.training", "ddim.cli.between", "ddim.cli.edits", "ddim.cli.facts", "ddim.cli.table2")  # fmt: skip
CPU_SECONDS, ROOM = 25, 3 * 2**30
WATCHED = {"open", "os.mkdir", "os.rename", "os.link", "os.remove", "os.rmdir", "os.truncate"}
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
MEGABYTE = 1024  # of what getrusage counts in


def main() -> None:
    import torch

    from ddim.cli.argv import COMMANDS, command_of

    torch.set_num_threads(1)
    for name in HEAVY:
        importlib.import_module(name)
    for name in COMMANDS:
        command_of(name)
    from diffusers import DDIMScheduler, UNet2DModel  # noqa: F401  lazily imported otherwise, in every child again

    say({"id": "ready", "megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MEGABYTE})
    children: dict[int, int] = {}
    waiting = b""
    while True:
        if select.select([0], [], [], 0.005)[0]:
            heard = os.read(0, 65536)
            if not heard:
                return
            *lines, waiting = (waiting + heard).split(b"\n")
            for line in lines:
                asked = json.loads(line)
                child = os.fork()
                if child == 0:
                    run(asked)
                children[child] = asked["id"]
                say({"id": asked["id"], "pid": child})
        while children:
            pid, status, used = os.wait4(-1, os.WNOHANG | os.WUNTRACED)
            if not pid:
                break
            if os.WIFSTOPPED(status):
                say({"id": children[pid], "stopped": True})
            else:
                say({"id": children.pop(pid), "code": os.waitstatus_to_exitcode(status),
                     "seconds": used.ru_utime + used.ru_stime, "megabytes": used.ru_maxrss / MEGABYTE})  # fmt: skip


def say(words: dict[str, Any]) -> None:
    print(json.dumps(words), flush=True)


def run(asked: dict[str, Any]) -> None:
    code = 70
    try:
        os.chdir(asked["home"])
        for name, number in (("out", 1), ("err", 2)):
            os.dup2(os.open(asked[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.environ.update(asked["env"])
        sys.stdout = open(1, "w", encoding="utf-8", errors="surrogateescape", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", 1, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
        if asked["times"]:
            confine(asked["times"])
        if asked["events"]:
            watch(asked)
        code = command(asked["argv"])
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def confine(times: int) -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS * times,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + ROOM,) * 2)


def command(argv: list[str]) -> int:
    from ddim.cli import main as ddim

    try:
        ddim(argv)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
    except BaseException:
        import traceback

        traceback.print_exc()
        return 1
    return 0


def watch(asked: dict[str, Any]) -> None:
    """Count what happens to files; at the number asked for, end or stop before it does."""
    log = os.open(asked["events"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
    count = 0

    def hook(event: str, args: tuple[Any, ...]) -> None:
        nonlocal count
        if event not in WATCHED or (event == "open" and not writing(args)):
            return
        paths = [Path(os.fsdecode(a)) for a in args[:2] if isinstance(a, str | bytes | os.PathLike)]
        names = [str(Path.cwd() / path) for path in paths]
        if not any(name.startswith(asked["root"]) for name in names):
            return
        count += 1
        os.write(log, f"{event} {paths[0].name}\n".encode(errors="replace"))
        if count == asked["kill"]:
            os.kill(os.getpid(), signal.SIGKILL)
        if count == asked["stop"]:
            os.kill(os.getpid(), signal.SIGSTOP)

    sys.addaudithook(hook)


def writing(args: tuple[Any, ...]) -> bool:
    return isinstance(args[0], str | bytes | os.PathLike) and bool((args[2] or 0) & WRITES)


if __name__ == "__main__":
    main()
