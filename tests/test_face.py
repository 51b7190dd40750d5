"""`import ddim`: what it offers, what works as written, and that it costs nothing until asked."""

import importlib
import subprocess
import sys
import types

import pytest

import ddim

FOLDERS = ["process", "denoise", "solve", "uses", "pixels", "data", "nets", "engine", "metrics", "checkpoints", "model",
           "jobs"]  # fmt: skip
FUNCTIONS = ["load", "noise", "tau", "sample", "trajectory", "encode", "decode", "slerp"]
OBJECTS = ["Model", "Sampler", "Schedule", "Level", "Conditions", "Denoiser", "NetworkDenoiser", "GaussianDenoiser",
           "MixtureDenoiser", "Clip", "Guided", "DDIM", "Heun", "AB", "PLMS", "DPMSolverPP", "UniPC", "Latents",
           "Refused"]  # fmt: skip


def run(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_what_is_offered_is_there_and_nothing_else_is_shown():
    assert dir(ddim) == sorted(ddim.__all__)
    assert set(FOLDERS + FUNCTIONS + OBJECTS) <= set(ddim.__all__)
    assert not [name for name in dir(ddim) if name.startswith("_") and name != "__version__"]
    for name in ddim.__all__:
        assert getattr(ddim, name) is not None


@pytest.mark.parametrize("folder", FOLDERS)
def test_folders_are_reached_by_attribute_and_show_their_face(folder):
    module = getattr(ddim, folder)
    assert module is importlib.import_module(f"ddim.{folder}") and module.__doc__
    for name in module.__all__:
        assert hasattr(module, name), name


def test_functions_are_functions_and_no_modules():
    for name in FUNCTIONS:
        assert isinstance(getattr(ddim, name), types.FunctionType)
        with pytest.raises(ModuleNotFoundError):
            importlib.import_module(f"ddim.{name}")
    for name in OBJECTS:
        assert isinstance(getattr(ddim, name), type)


def test_functions_stay_functions_whatever_is_imported():
    lines = "; ".join(f"import ddim.{folder}" for folder in FOLDERS)
    names = run(f"import ddim; {lines}; print(*(type(getattr(ddim, n)).__name__ for n in {FUNCTIONS!r}))")
    assert names == ["function"] * len(FUNCTIONS)


def test_importing_it_imports_no_torch():
    heavy = "[m for m in ('torch', 'numpy', 'PIL', 'diffusers', 'tyro') if m in sys.modules]"
    assert run(f"import ddim, sys; dir(ddim); print({heavy})") == ["[]"]
    assert run("import ddim, sys; ddim.Schedule; print('torch' in sys.modules)") == ["True"]


def test_unknown_names_are_attribute_errors():
    for name in ("warp", "Schedules", "invert"):
        with pytest.raises(AttributeError, match=f"module 'ddim' has no attribute '{name}'"):
            getattr(ddim, name)
    assert not hasattr(ddim, "update")
    with pytest.raises(ImportError):
        exec("from ddim import warp")
