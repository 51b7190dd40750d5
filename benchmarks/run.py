"""All benchmarks, one after another, each in a process of its own, then the table and the plot.

python benchmarks/run.py [--quick] [--threads N] [NAME ...]    NAME: sampling peers training curves scaling gpu

A script that cannot run here (exit 2: no CUDA) says so in a line and is no failure.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

SCRIPTS = ("sampling", "peers", "training", "curves", "scaling", "gpu")
SKIPPED = 2


def run(name: str, options: list[str]) -> int:
    print(f"== {name}", flush=True)
    begun = time.monotonic()
    code = subprocess.run([sys.executable, "-W", "ignore", Path(__file__).parent / f"{name}.py", *options]).returncode
    print(f"== {name}: {'skipped' if code == SKIPPED else 'failed' if code else 'done'} after "
          f"{time.monotonic() - begun:.0f} s", flush=True)  # fmt: skip
    return 0 if code == SKIPPED else code


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(SCRIPTS)}; default all")
    parser.add_argument("--quick", action="store_true", help="smallest sizes, to out/benchmarks: no results")
    parser.add_argument("--threads", type=int, help="torch's threads; default all cores")
    args = parser.parse_args()
    unknown = [n for n in args.names if n not in SCRIPTS]
    if unknown:
        parser.error(f"no benchmark {', '.join(unknown)}; choose from {', '.join(SCRIPTS)}")
    quick = ["--quick"] if args.quick else []
    options = quick + (["--threads", str(args.threads)] if args.threads else [])
    failed = [n for n in args.names or SCRIPTS if run(n, options)]
    failed += ["plot"] if run("plot", quick) else []
    sys.exit(f"failed: {', '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    main()
