"""Calls on a Ray cluster: handed out as workers become free, made again where one is lost, given back in order."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ddim.refused import Refused

Over = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]
"""Like `map`: a function over items, its values in their order."""

AHEAD = 2  # calls a worker that are handed out at once: one at work, one waiting
_made: dict[Any, Any] = {}  # in a worker: the function it was sent last, kept as it holds the weights of a network


def on_ray(address: str, *, gpu: bool = False) -> Over:
    """`map` on a cluster: on a local one that is begun for it ("ray"), or on the one at "ray://host:port".

    Machines may join and leave: whatever a lost worker had is made again by another one.

    Args:
        gpu: a call takes an accelerator of its own, not a core.

    Raises:
        Refused: another address; Ray is not installed, or no cluster answers.
    """
    if address != "ray" and not address.startswith("ray://"):
        raise Refused(f"`on` is ray, or ray://host:port, got {address!r}")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is told to anybody
    try:
        import ray
    except ImportError:
        raise Refused("`on` ray needs Ray, which is not installed: pip install 'ddim[ray]'") from None
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "ignore_reinit_error": True}
    try:
        ray.init(**({"include_dashboard": False} if address == "ray" else {"address": address}), **quiet)
    except (ConnectionError, TimeoutError) as error:
        why = (str(error).splitlines() or ["no answer"])[0]
        raise Refused(f"no Ray cluster answers at {address} ({why}); start one with ray start, or give ray") from None
    kind = "GPU" if gpu else "CPU"
    call = ray.remote(num_cpus=0 if gpu else 1, num_gpus=1 if gpu else 0, max_retries=-1)(_called)

    def over(make: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
        held, waiting = [ray.put(make)], deque[Any]()  # in a list: a worker fetches it once, not with every call
        for item in items:
            waiting.append(call.remote(held, item))
            if len(waiting) >= AHEAD * max(1, int(ray.cluster_resources().get(kind, 1))):
                yield _value(ray, waiting.popleft())
        while waiting:
            yield _value(ray, waiting.popleft())

    return over


def _called(held: list[Any], item: Any) -> Any:
    """In a worker."""
    import ray

    (make,) = held
    if make not in _made:
        _made.clear()
        _made[make] = ray.get(make)
    return _made[make](item)


def _value(ray: Any, call: Any) -> Any:
    """What a call gave; what it raised, as it would have been raised here."""
    try:
        return ray.get(call)
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        if isinstance(cause, (Refused, OSError)):
            raise cause from None
        raise
