"""The command line: `ddim COMMAND ...`. Each command is a frozen dataclass `Command` in a module of its own.

Modules are imported only when their command is called, and torch only when it runs, so that `--help` answers at once.
Exit codes: 0 success, 2 a user's mistake (one line on stderr), 130 interrupted. A bug keeps its traceback.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
from typing import Any

from ddim.cli import terminal
from ddim.cli.interrupts import patient
from ddim.cli.typed import flag_of
from ddim.refused import Refused

COMMANDS: dict[str, str] = {
    "train": "train a network on your own images",
    "train-autoencoder": "train an autoencoder on your own images, for a network in its latents",
    "ema": "after training, average the weights over another length, or the best of several",
    "distil": "make a student of one to four calls from a trained model",
    "sample": "make images",
    "schedule": "show the exact times, levels and sigmas that will be walked",
    "info": "show what a model is, how it was read and what was assumed",
    "import": "turn a foreign checkpoint into a model folder",
    "export": "write a model as a diffusers folder",
    "encode": "images to latents",
    "decode": "latents to images",
    "reconstruct": "encode and decode real images: the paper's Table 2, with PSNR",
    "consistency": "the same latents at different numbers of steps",
    "interpolate": "walk between two or more images or seeds",
    "edit": "change an image by strength, mask, label or direction",
    "evaluate": "quality against steps, eta and solver: a report",
    "measure": "the quality of images that exist already, by the measures of evaluate",
    "likelihood": "how likely real images are under a model, in bits a dimension, with its errors",
    "tune": "find the best times for this model under a budget of calls",
    "bench": "what each engine switch buys on this machine",
    "demo": "the bundled models at 5, 10, 20, 50 steps beside DDPM, in one picture",
}


MODULES = {"import": "import_", "train-autoencoder": "train_autoencoder"}  # words that cannot be a module's name


def main(argv: list[str] | None = None) -> None:
    """Run one command; always ends by SystemExit with the exit code that tells the truth."""
    args = list(sys.argv[1:] if argv is None else argv)
    if not args or args[0] in ("-h", "--help"):
        print(_overview())
        sys.exit(0 if args else 2)
    if args[0] == "--version":
        from ddim import __version__

        print(f"ddim {__version__}")
        sys.exit(0)
    name, rest = args[0], args[1:]
    if name not in COMMANDS:
        _fail(f"there is no command {name!r}; choose one of {', '.join(COMMANDS)}")
    command: type[Any] | None = None
    try:
        with patient():
            from ddim.cli.parse import command_from

            command = command_of(name)
            made = command_from(name, command, rest)
            with terminal.streams(), terminal.notes():
                made.run()
    except (Refused, OSError) as mistake:
        if os.environ.get("DDIM_TRACEBACK"):
            raise
        _fail(in_flags(str(mistake), command) if isinstance(mistake, Refused) else str(mistake))
    except MemoryError:
        _fail("out of memory; ask for less at once (a smaller batch, fewer or smaller images)")
    except KeyboardInterrupt:
        _fail("interrupted", 130)
    sys.exit(0)


def command_of(name: str) -> type[Any]:
    """The options and the body of a command."""
    command: type[Any] = importlib.import_module(f"ddim.cli.commands.{MODULES.get(name, name)}").Command
    return command


ELSEWHERE = {"set": "ddim import SOURCE OUT --set"}  # options of one command that refusals of many point to


def in_flags(message: str, command: type[Any] | None) -> str:
    """The library names a parameter in backticks, as Python has it; where it is an option, people type its flag."""
    options: dict[str, Any] = getattr(command, "__dataclass_fields__", {})

    def flag(found: re.Match[str]) -> str:
        name = found[1]
        if name not in options:
            return ELSEWHERE.get(name, found[0])
        return name if "Positional" in str(options[name].type) else flag_of(name)

    return re.sub(r"`(\w+)`", flag, message)


def _overview() -> str:
    width = max(map(len, COMMANDS))
    rows = "\n".join(f"  {name:<{width}}  {text}" for name, text in COMMANDS.items())
    return f"usage: ddim COMMAND [options]      ddim COMMAND --help for its options\n\ncommands:\n{rows}"


def _fail(message: str, code: int = 2) -> None:
    print(f"ddim: {terminal.one_line(message)}", file=sys.stderr)
    sys.exit(code)
