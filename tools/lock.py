"""Write requirements.lock: everything that set-up installs, with the sha256 of every file the index has of it.

`.venv/bin/python tools/lock.py`, after constraints.txt has changed. pip resolves; PyPI says the hashes; the file that
pip chose here counts too. For Linux that is the CPU wheel of PyTorch, which is not on PyPI (it must lie where pip looks
as by PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu): the wheels for Linux on PyPI need gigabytes of
CUDA that nobody here has hashed, and are left out. `make setup LOCKED=1` installs by it.
"""

import json
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

ROOT = Path(__file__).parent.parent
INDEX = "https://pypi.org/simple"
HEAD = """# Made by tools/lock.py from constraints.txt and pyproject.toml: change those and run it again.
# make setup LOCKED=1 installs exactly this, and nothing whose hash is not here.
"""


def resolved() -> list[tuple[str, str, set[str]]]:
    """Name, version and hashes of the chosen files, of all but ourselves."""
    with tempfile.TemporaryDirectory() as temporary:
        report = Path(temporary) / "report.json"
        command = [sys.executable, "-m", "pip", "install", "--dry-run", "--quiet", "--ignore-installed", "--report",
                   str(report), "--constraint", str(ROOT / "constraints.txt"), "torch", f"{ROOT}[dev]"]  # fmt: skip
        subprocess.run([*command, "setuptools>=77"], check=True)
        found = json.loads(report.read_text())["install"]
    return [
        (item["metadata"]["name"], item["metadata"]["version"], {archive["hashes"]["sha256"]})
        for item in found
        if (archive := item["download_info"].get("archive_info"))
    ]


def published(name: str, version: str) -> set[str]:
    """The hashes of all files of that version on the index."""
    asked = urllib.request.Request(f"{INDEX}/{name}/", headers={"Accept": "application/vnd.pypi.simple.v1+json"})
    with urllib.request.urlopen(asked, timeout=60) as answer:
        files = json.load(answer)["files"]
    needs_cuda = name == "torch"
    return {
        f["hashes"]["sha256"]
        for f in files
        if version in f["filename"].replace(".tar.gz", "").split("-") and not (needs_cuda and "linux" in f["filename"])
    }


def main() -> None:
    lines = [HEAD]
    for name, version, chosen in sorted(resolved(), key=lambda item: item[0].lower()):
        plain = version.partition("+")[0]  # 2.13.0+cpu is what a local wheel calls itself; 2.13.0 lets pip take it
        hashes = sorted(chosen | published(name, plain))
        lines.append(" \\\n".join([f"{name}=={plain}", *(f"    --hash=sha256:{h}" for h in hashes)]) + "\n")
    (ROOT / "requirements.lock").write_text("".join(lines))
    print(f"{len(lines) - 1} packages in requirements.lock")


if __name__ == "__main__":
    main()
