"""The house of design section 4: a module imports only from strictly lower floors."""

import ast
from pathlib import Path

import pytest

SRC = Path(__file__).parent.parent / "src" / "ddim"

FLOORS = {
    "schedule": 0, "tau": 0, "noise": 0,
    "predict": 1, "update": 1,
    "denoiser": 2,
    "guidance": 3, "solver": 3, "objective": 3, "analytic": 3,
    "multistep": 4, "sample": 4,
    "invert": 5, "interpolate": 5, "consistency": 5, "distil": 5,
    "nets": "w1", "images": "w1", "ema": "w1", "engine": "w1",
    "data": "w2", "checkpoints": "w2", "metrics": "w2",
    "edit": 6, "train": 6, "onnx_export": 6, "generate": 6, "evaluate": 6, "tune": 6,
    "model": 7,
    "cli": 8, "studio": 8,
}  # fmt: skip

# Modules that grew out of one room stay in that room: they may import one another, but no room beside theirs.
ROOMS = {
    "dpmsolver": "multistep", "unipc": "multistep",
    "roots": "invert", "implicit": "invert", "coupled": "invert", "latents": "invert", "latent_law": "invert",
    "measured": "evaluate", "scoring": "evaluate", "report": "evaluate", "timesearch": "tune",
    "capacity": "engine", "exported": "engine", "asked": "model",
    "recipe": "train", "trainstate": "train", "trainrun": "train", "trainlog": "train",
}  # fmt: skip


def room(module: str) -> str:
    return ROOMS.get(module, module)


def may_import(importer: str, imported: str) -> bool:
    if room(importer) == room(imported):
        return True
    here, there = FLOORS[room(importer)], FLOORS[room(imported)]
    if here == "w1":
        return there in (0, 1, 2)
    if here == "w2":
        return there in (0, 1, 2, "w1")
    if there in ("w1", "w2"):
        return here >= 6
    return there < here


def modules() -> list[Path]:
    return sorted(p for p in SRC.rglob("*.py") if p.relative_to(SRC).parts not in {("__init__.py",), ("__main__.py",)})


def imports_of(path: Path) -> set[str]:
    """Top-level names under ddim that a file imports, wherever in the file; functions import lazily too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            if node.module == "ddim":
                found |= {a.name for a in node.names if (SRC / f"{a.name}.py").exists() or (SRC / a.name).is_dir()}
                continue
            names = [node.module or ""]
        elif isinstance(node, ast.Import):
            names = [a.name for a in node.names]
        else:
            continue
        found |= {n.split(".")[1] for n in names if n.startswith("ddim.")}
    return found


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(SRC)))
def test_imports_only_from_lower_floors(path: Path) -> None:
    importer = path.relative_to(SRC).parts[0].removesuffix(".py")
    assert room(importer) in FLOORS, f"{importer} has no floor: give it one here and in design.md"
    for imported in imports_of(path):
        assert may_import(importer, imported), f"{path.relative_to(SRC)} ({importer}) may not import ddim.{imported}"


@pytest.mark.parametrize(
    ("importer", "imported", "allowed"),
    [("sample", "solver", True), ("solver", "sample", False), ("data", "solver", False), ("train", "data", True),
     ("model", "cli", False), ("solver", "objective", False), ("images", "denoiser", True)],
)  # fmt: skip
def test_the_rule_itself(importer: str, imported: str, allowed: bool) -> None:
    assert may_import(importer, imported) is allowed


def test_no_global_randomness_or_hard_wired_device_in_src() -> None:
    banned = ("randn_like", "rand_like", "torch.randn(", "torch.rand(", "manual_seed(", ".cuda()", '.to("cuda")')
    excused = {("nets.py", "manual_seed(")}  # initialisers and dropout read torch's global stream and take no other
    for path in SRC.rglob("*.py"):
        found = [b for b in banned if b in path.read_text() and (path.name, b) not in excused]
        assert not found, f"{path} uses {found}"


def test_no_banned_name_in_the_core() -> None:
    """design section 2: prev, beta_prod, final_alpha; a bare alpha."""
    banned = {"prev", "beta_prod", "final_alpha", "alpha", "prev_t", "alpha_prod_t"}
    for name, floor in FLOORS.items():
        path = SRC / f"{name}.py"
        if isinstance(floor, int) and floor <= 5 and path.exists():
            names = {n.id for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Name)}
            assert not names & banned, f"{path} uses {names & banned}"
