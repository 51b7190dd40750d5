"""The rules of tests/test_house.py see what they are for: each is broken on purpose, in a small house of its own."""

import house
import pytest
from house import House

from test_house import (  # fmt: skip
    MOST_ENTRIES,
    RULES,
    arrows,
    circles,
    faces,
    names,
    notation,
    outsiders,
    randomness,
    sizes,
    top_level,
    words_to_people,
)

SOUND = {
    "__init__.py": '_HOMES = {"solve": ("DDIM",), "cli": ("main_menu",)}\n_FOLDERS = ("cli", "solve")\n',
    "refused.py": "class Refused(ValueError): ...\n",
    "process/__init__.py": "from ddim.process.level import Level\n",
    "process/level.py": "import math\nimport torch\nfrom ddim.refused import Refused\n\nclass Level: ...\n",
    "denoise/__init__.py": "from ddim.denoise.protocol import Denoiser\n",
    "denoise/protocol.py": "from ddim.process import Level\n\nclass Denoiser: ...\n",
    "solve/__init__.py": "from ddim.solve.first import DDIM\n",
    "solve/base.py": "from ddim.denoise import Denoiser\n\nclass Solver: ...\n",
    "solve/first.py": "from ddim.solve.base import Solver\nfrom ddim.process import Level\n\nclass DDIM(Solver): ...\n",
    "checkpoints/__init__.py": "from ddim.checkpoints.families import READERS\n",
    "checkpoints/facts.py": "import diffusers\n",
    "checkpoints/families/__init__.py": "from ddim.checkpoints.families import peer\nREADERS = {'peer': peer}\n",
    "checkpoints/families/peer/__init__.py": "from ddim.checkpoints.families.peer.reader import read_peer\n",
    "checkpoints/families/peer/reader.py": "from ddim.checkpoints.facts import diffusers\n",
    "cli/__init__.py": "from ddim.cli.menu import main_menu\n",
    "cli/menu.py": "import tyro\nfrom ddim.solve import DDIM\n\ndef main_menu():\n    print('--help')\n",
}


def built(folder, changes) -> House:
    """The sound house with these files written over or beside it."""
    for name, text in {**SOUND, **changes}.items():
        path = folder / "ddim" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return house.read(folder / "ddim")


BROKEN = {
    # who imports whom
    "an import upwards": (arrows, {"solve/base.py": "from ddim.cli import main_menu\n"}),
    "one inside a function": (arrows, {"solve/base.py": "def f():\n    from ddim.cli import main_menu\n"}),
    "one for the type checker": (arrows, {"solve/base.py": "if TYPE_CHECKING:\n    from ddim.cli import main_menu\n"}),
    "one of a name ddim hands on": (arrows, {"process/level.py": "from ddim import DDIM\n"}),
    "one of a folder": (arrows, {"process/level.py": "from ddim import solve\n"}),
    "import ddim, then a folder": (arrows, {"process/level.py": "import ddim\nddim.cli.main_menu()\n"}),
    "import ddim, then a name": (arrows, {"process/level.py": "import ddim\n\ndef f(x: 'int' = ddim.DDIM): ...\n"}),
    "import ddim by another name": (arrows, {"process/level.py": "import ddim as d\nd.solve.DDIM\n"}),
    "import of a folder by its path": (arrows, {"process/level.py": "import ddim.solve\n"}),
    "an import by its name as text": (arrows, {"solve/base.py": "importlib.import_module('ddim.cli')\n"}),
    "one whose name is put together": (arrows, {"solve/base.py": "import_module(f'ddim.cli.{name}')\n"}),
    "a folder nobody gave a row": (arrows, {"attic/__init__.py": ""}),
    "a file at the top nobody gave a row": (arrows, {"attic.py": ""}),
    # through the face
    "a module behind the face of another folder": (faces, {"cli/menu.py": "from ddim.solve.first import DDIM\n"}),
    "the same as a name": (faces, {"cli/menu.py": "from ddim.solve import first\n"}),
    "the same as an attribute": (faces, {"cli/menu.py": "import ddim\nddim.solve.first.DDIM\n"}),
    "the same below a folder": (faces, {"cli/menu.py": "from ddim import solve\nsolve.first.DDIM\n"}),
    "a module behind the face of a folder inside": (
        faces, {"checkpoints/facts.py": "from ddim.checkpoints.families.peer import read_peer\n"}),
    "a relative import": (faces, {"solve/first.py": "from .base import Solver\n"}),
    # circles
    "two modules": (circles, {"solve/base.py": "def f():\n    from ddim.solve.first import DDIM\n"}),
    "a module and its face": (circles, {"solve/base.py": "from ddim.solve import DDIM\n"}),
    "a module and the face two above": (
        circles, {"checkpoints/families/peer/reader.py": "from ddim.checkpoints import READERS\n"}),
    "a module and one whose name is put together": (
        circles,
        {"cli/menu.py": "import_module(f'ddim.cli.words.{name}')\n", "cli/words/a.py": "import ddim.cli.menu\n"}),
    # the top
    "too many entries": (top_level, {f"extra{i}.txt": "" for i in range(MOST_ENTRIES)}),
    # from outside
    "a package the core does without": (outsiders, {"solve/base.py": "import safetensors.torch\n"}),
    "the same inside a function": (outsiders, {"process/level.py": "def f():\n    from PIL import Image\n"}),
    "accelerate beside jobs": (outsiders, {"checkpoints/facts.py": "from accelerate import Accelerator\n"}),
    "diffusers beside checkpoints": (outsiders, {"cli/menu.py": "import diffusers\n"}),
    "tyro beside cli": (outsiders, {"checkpoints/facts.py": "import tyro\n"}),
    # words to people
    "printing": (words_to_people, {"checkpoints/facts.py": "print('found')\n"}),
    "a flag in a message": (words_to_people, {"checkpoints/facts.py": "raise Refused('give --family')\n"}),
    "a flag in an f-string": (words_to_people, {"checkpoints/facts.py": "raise Refused(f'{x}: lower --batch-size')\n"}),
    "a flag in a docstring": (words_to_people, {"solve/base.py": '"""See --solver."""\n'}),
    # names
    "a module called like its function": (names, {"solve/walk.py": "def walk(): ...\n"}),
    "a face that hides a module": (
        names, {"solve/__init__.py": "from ddim.solve.first import base\n", "solve/first.py": "base = 1\n"}),
    "two types of one name": (names, {"denoise/protocol.py": "class Solver: ...\n"}),
    "two aliases of one name": (names, {"denoise/a.py": "Rule = int\n", "solve/b.py": "Rule = str\n"}),
    "two folders that offer one name": (
        names, {"denoise/__init__.py": "from ddim.denoise.a import DDIM\n", "denoise/a.py": "DDIM = 1\n"}),
    # sizes
    "a long file": (sizes, {"solve/base.py": "x = 1\n" * 251}),
    "a long function": (sizes, {"solve/base.py": "def f():\n" + "    x = 1\n" * 40}),
    "a long method": (sizes, {"solve/base.py": "class A:\n    def f(self):\n" + "        x = 1\n" * 40}),
    # randomness, notation
    "noise of the global stream": (randomness, {"solve/base.py": "z = torch.randn_like(x)\n"}),
    "a device wired in": (randomness, {"cli/menu.py": 'x = x.to("cuda")\n'}),
    "a banned name": (notation, {"process/level.py": "alpha = 1\n"}),
    "a banned argument": (notation, {"solve/base.py": "def f(prev): ...\n"}),
    "a banned attribute": (notation, {"uses/edit.py": "x = schedule.final_alpha\n"}),
}  # fmt: skip


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_a_sound_house_is_left_in_peace(rule, tmp_path):
    assert list(rule(built(tmp_path, {}))) == []


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_rule_is_seen(case, tmp_path):
    rule, changes = BROKEN[case]
    broken = list(rule(built(tmp_path, changes)))
    where = next(iter(changes)).removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    assert broken
    assert rule is top_level or any(where in line for line in broken), broken


def test_every_rule_is_broken_here():
    assert {rule for rule, _ in BROKEN.values()} == set(RULES)


ALLOWED = {
    "a type of a lower folder": {"solve/base.py": "if TYPE_CHECKING:\n    from ddim.process import Level\n"},
    "a neighbour": {"solve/walk.py": "from ddim.solve.first import DDIM\n"},
    "the face of a folder inside": {"checkpoints/opening.py": "from ddim.checkpoints.families import READERS\n"},
    "a module two above": {"checkpoints/families/peer/more.py": "from ddim.checkpoints.facts import diffusers\n"},
    "ddim itself, from above": {"cli/more.py": "import ddim\nddim.solve.DDIM\nddim.DDIM\n"},
    "an attribute of something else": {"process/more.py": "import torch\ntorch.solve.first\n"},
    "a dash in prose": {"solve/more.py": '"""Two -- dashes, well-known--or not, and x --y."""\n'.replace("x --y", "")},
    "a long docstring": {"solve/more.py": 'def f():\n    """' + "a\n" * 60 + '    """\n'},
}


@pytest.mark.parametrize("case", ALLOWED)
def test_what_is_allowed_stays_so(case, tmp_path):
    here = built(tmp_path, ALLOWED[case])
    assert [line for rule in RULES for line in rule(here)] == []


def test_floors_are_the_longest_way_down():
    assert house.floors({"a": [], "b": ["a"], "c": ["a", "b"], "d": ["a"]}) == {"a": 0, "b": 1, "c": 2, "d": 1}
    with pytest.raises(ValueError, match="a -> b -> a"):
        house.floors({"a": ["b"], "b": ["a"]})
