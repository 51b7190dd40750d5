"""Ctrl-C, answered in one line at whatever moment it comes.

An import that is interrupted leaves modules half made, and torch turns the interrupt into errors of its own; so an
interrupt that comes during an import waits for its end, and a second one ends the process at once.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

WAIT = 0.05  # seconds until it is looked again whether the import is over
IMPORTING = "<frozen importlib._bootstrap>"


@contextlib.contextmanager
def patient() -> Iterator[None]:
    """Inside, SIGINT raises KeyboardInterrupt where no import is under way, and what fails after it is one too."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return
    asked = 0

    def again(number: int, frame: FrameType | None) -> None:
        if _importing(frame):
            signal.setitimer(signal.ITIMER_REAL, WAIT)
        else:
            raise KeyboardInterrupt

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        asked += 1
        if asked > 1 and _importing(frame):
            print("ddim: interrupted", file=sys.stderr, flush=True)
            os._exit(130)
        again(number, frame)

    def lost(found: sys.UnraisableHookArgs) -> None:
        """An interrupt that fell into the removal of an object would be told and forgotten."""
        if isinstance(found.exc_value, KeyboardInterrupt):
            signal.setitimer(signal.ITIMER_REAL, WAIT)
        else:
            hook(found)

    hook, sys.unraisablehook = sys.unraisablehook, lost
    before = {s: signal.signal(s, h) for s, h in ((signal.SIGINT, note), (signal.SIGALRM, again))}
    try:
        yield
    except Exception as error:
        if asked:  # compiled code made of the interrupt what it makes of any failure
            raise KeyboardInterrupt from error
        raise
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        sys.unraisablehook = hook
        for number, handler in before.items():
            signal.signal(number, handler)


def _importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename == IMPORTING:
            return True
        frame = frame.f_back
    return False
