"""The log of a training run: one JSON line an interval in log.jsonl, the same numbers and previews in TensorBoard."""

from __future__ import annotations

import contextlib
import json
import math
import threading
from pathlib import Path
from typing import Any

import numpy as np

from ddim.files import write_text
from ddim.jobs.train.loop import Progress
from ddim.refused import Refused
from ddim.stored import NUMBER, Rule, checked, counted, object_from_json

LOG, BOARD = "log.jsonl", "tensorboard"


def refuse_unnamed(run: Path) -> None:
    """Before a run begins.

    Raises:
        Refused: a name that is no text: TensorBoard cannot write there.
    """
    try:
        str(run).encode()
    except UnicodeEncodeError:
        raise Refused("the name of `out` is no UTF-8 text, which TensorBoard needs; choose another `out`") from None


class Log:
    """log.jsonl and TensorBoard. After a crash, lines beyond the checkpoint that is resumed are dropped."""

    def __init__(self, folder: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.folder, path = folder, folder / LOG
        kept = [line for line in lines(path) if line["step"] <= step]
        write_text(path, "".join(json.dumps(line) + "\n" for line in kept))
        self.file = path.open("a", encoding="utf-8")
        self.hook, threading.excepthook = threading.excepthook, self._heard
        self.board = SummaryWriter(str(folder / BOARD), purge_step=step + 1)  # type: ignore[no-untyped-call]

    def write(self, p: Progress, **more: float) -> None:
        """A line, with whatever else there is to tell."""
        numbers = {k: float(f"{v:.6g}") if math.isfinite(v) else None for k, v in p._asdict().items()}
        try:
            self.file.write(json.dumps({**numbers, "step": p.step, **more}) + "\n")
            self.file.flush()
            for name, value in (p._asdict() | more).items():
                if name != "step":
                    self.board.add_scalar(f"train/{name}", value, p.step)  # type: ignore[no-untyped-call]
        except OSError as error:  # neither writer says where
            raise OSError(error.errno, error.strerror or str(error), str(self.folder)) from None

    def picture(self, image: Any, step: int) -> None:
        pixels = np.asarray(image.convert("RGB"))
        self.board.add_image("previews", pixels, step, dataformats="HWC")  # type: ignore[no-untyped-call]

    def close(self) -> None:
        with contextlib.suppress(OSError):  # whatever could not be written was said by `write`
            self.file.close()
        with contextlib.suppress(OSError):
            self.board.close()  # type: ignore[no-untyped-call]
        threading.excepthook = self.hook

    def _heard(self, args: threading.ExceptHookArgs) -> None:
        """TensorBoard's thread hands a failure to the next `write`, and prints a traceback beside it."""
        if not (isinstance(args.exc_value, OSError) and type(args.thread).__name__ == "_AsyncWriterThread"):
            self.hook(args)


FIELDS: dict[str, Rule] = {"step": counted(0)} | dict.fromkeys(Progress._fields[1:], NUMBER)


def note(folder: Path, step: int, **words: float) -> None:
    """Write down what happened at a step, in place of all that was logged beyond it."""
    kept = [line for line in lines(folder / LOG) if line["step"] <= step]
    write_text(folder / LOG, "".join(json.dumps(line) + "\n" for line in [*kept, {"step": step, **words}]))


def lines(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a log; a line cut by a crash, or damaged, is left out."""
    found = []
    for text in path.read_bytes().splitlines() if path.is_file() else ():
        try:
            line = checked(object_from_json(text, "a line of the log"), FIELDS, "a line of the log")
        except Refused:
            continue
        if line.get("step") is not None:
            found.append(line)
    return found
