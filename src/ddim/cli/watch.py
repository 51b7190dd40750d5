"""What one sees of a run: a bar where somebody watches, else a line a minute, and how long it will take."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

from tqdm import tqdm

from ddim.cli.show import duration
from ddim.jobs import HOPELESS, Clock, Progress

EVERY = 60.0  # seconds between lines


class Watch:
    """A bar, or lines, of one process of a run.

    advice: what to say of a run that takes so many seconds, which is too long.
    """

    def __init__(
        self, batch_size: int, begun: int, max_steps: int, *, main: bool, advice: Callable[[float], str],
        now: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self.batch_size, self.max_steps, self.main, self.now = batch_size, max_steps, main, now
        self.advice = advice
        self.clock, self.told, self.estimated = Clock(max_steps, now), now(), False
        self.live = main and sys.stderr.isatty()
        self.bar: Any = tqdm(total=max_steps, initial=begun, unit=" step", file=sys.stderr, disable=not self.live)

    def __enter__(self) -> Watch:
        self.bar.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.__exit__(kind, error, trace)

    def step(self, p: Progress) -> None:
        """After every step."""
        self.clock.tick(p.step)
        self.bar.set_postfix_str(f"loss {p.smooth_loss:.4f}, {p.images_per_second:.0f} images/s", refresh=False)
        self.bar.update(p.step - self.bar.n)  # less, where a run has gone back
        if not self.main:
            return
        if not self.estimated and self.clock.seconds is not None:
            self.estimated = True
            self._estimate(p.step)
        if not self.live and self.now() - self.told >= EVERY:
            self.told = self.now()
            self.say(f"step {p.step} of {self.max_steps}: loss {p.smooth_loss:.4f}, {self._speed()}")

    def say(self, line: str) -> None:
        """A line above the bar, of the first process."""
        if not self.main:
            return
        self.bar.write(line, file=sys.stderr)

    def _speed(self) -> str:
        if not self.clock.seconds or self.clock.left is None:
            return "time left not known yet"
        return f"{self.batch_size / self.clock.seconds:.3g} images/s, {duration(self.clock.left)} left"

    def _estimate(self, step: int) -> None:
        """Once, after the first steps."""
        seconds, left = self.clock.seconds or 0.0, self.clock.left or 0.0
        steps = self.max_steps - step
        if steps and left >= EVERY:
            self.say(f"{steps} steps to go take about {duration(left)} on this machine ({self._speed()})")
        if left < HOPELESS:
            return
        self.say(f"warning: {self.advice(left)}--max-steps {max(1, int(86400 / max(seconds, 1e-9)))} are done in a day")
