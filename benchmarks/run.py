"""All timing benchmarks, one after another, each in a process of its own: `python benchmarks/run.py [--quick]`."""

import subprocess
import sys
from pathlib import Path

SCRIPTS = ("sampling.py", "scaling.py")

if __name__ == "__main__":
    failed = [
        s for s in SCRIPTS if subprocess.run([sys.executable, Path(__file__).parent / s, *sys.argv[1:]]).returncode
    ]
    sys.exit(f"failed: {', '.join(failed)}" if failed else 0)
