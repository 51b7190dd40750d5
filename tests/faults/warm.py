"""A process with everything imported, which forks a child for every command: what costs is the command, not torch.

Reads one JSON object a line, {"argv", "cwd", "out", "err", "env", "times"}; runs `ddim` with these words in a child
that may take so many seconds and so much memory; writes {"code", "seconds", "megabytes"}. A code below 0 is a signal.
"""

import importlib
import json
import os
import resource
import signal
import sys
import time

CPU_SECONDS, PATIENCE, ROOM = 25, 40, 3 * 2**30  # a file that never ends takes no time of the processor
HEAVY = (
    "datasets",
    "diffusers",
    "accelerate",
    "pyarrow.parquet",
    "matplotlib.figure",
    "torch.utils.tensorboard",
    "ddim.jobs",
    "ddim.nets.unet",
    "ddim.cli.training",
    "ddim.cli.between",
    "ddim.cli.edits",
    "ddim.cli.facts",
    "ddim.cli.table2",
    "torchmetrics",
    "onnxruntime",
    "sklearn.datasets",
    "yaml",
    "tyro",
)


def main() -> None:
    from ddim.cli.argv import COMMANDS, command_of

    for name in HEAVY:
        importlib.import_module(name)
    for name in COMMANDS:
        command_of(name)
    from diffusers import DDIMScheduler, UNet2DModel  # noqa: F401  lazily imported otherwise, in every child again

    print(json.dumps({"ready": resident()}), flush=True)
    for line in sys.stdin:
        print(json.dumps(run(json.loads(line))), flush=True)


def run(asked: dict) -> dict:
    """One command in a child of its own."""
    begun = time.monotonic()
    child = os.fork()
    if child == 0:
        _child(asked)
    while True:
        done, status, usage = os.wait4(child, os.WNOHANG)
        if done:
            break
        if time.monotonic() - begun > PATIENCE * asked["times"]:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.005)
    seconds, megabytes = usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024
    return {"code": os.waitstatus_to_exitcode(status), "seconds": seconds, "megabytes": megabytes}


def _child(asked: dict) -> None:
    code = 70
    try:
        os.chdir(asked["cwd"])
        for name, number in (("out", 1), ("err", 2)):
            handle = os.open(asked[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(handle, number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.environ.update(asked["env"])
        sys.stdout = open(1, "w", encoding="utf-8", errors="surrogateescape", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS * asked["times"],) * 2)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_AS, (virtual() + ROOM,) * 2)
        from ddim.cli import main as ddim

        try:
            ddim(asked["argv"])
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
        except BaseException:
            import traceback

            traceback.print_exc()
            code = 1
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def virtual() -> int:
    """Bytes of this process's address space."""
    with open("/proc/self/statm") as file:  # noqa: PTH123  every child reads it
        return int(file.read().split()[0]) * resource.getpagesize()


def resident() -> float:
    """Megabytes of memory it has at most had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
