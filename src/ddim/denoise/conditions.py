"""What a network is told beside x_t and t: which tensors have one row an image is said once, when they are made."""

from __future__ import annotations

import hashlib
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ddim.refused import Refused


@dataclass(frozen=True, eq=False)
class Conditions:
    """Arguments of the network by name.

    Args:
        per_image: tensors with one row an image, (B, ..): classes int64 (B,), weights of classes float (B, K), ...
        shared: what all images have in common: tensors of any shape, numbers, words.

    Raises:
        Refused: a per-image value that is no tensor, tensors of different length, a name in both.
    """

    per_image: Mapping[str, Tensor] = field(default_factory=dict)
    shared: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, value in self.per_image.items():
            if not isinstance(value, Tensor) or value.ndim == 0:
                raise Refused(f"condition {name!r} is per image: it must be a tensor with one row an image")
        lengths = {name: len(value) for name, value in self.per_image.items()}
        if len(set(lengths.values())) > 1:
            raise Refused(f"per-image conditions must have one row an image, but their lengths are {lengths}")
        both = sorted({*self.per_image} & {*self.shared})
        if both:
            raise Refused(f"condition {both[0]!r} is given per image and as shared: it can be only one of them")

    def __bool__(self) -> bool:
        return bool(self.per_image or self.shared)

    def __or__(self, other: Conditions) -> Conditions:
        """Both, the other's where a name is in both."""
        per_image = {k: v for k, v in self.per_image.items() if k not in other.shared} | dict(other.per_image)
        shared = {k: v for k, v in self.shared.items() if k not in other.per_image} | dict(other.shared)
        return Conditions(per_image, shared)

    @property
    def arguments(self) -> dict[str, Any]:
        """All of them, as the network takes them."""
        return {**self.per_image, **self.shared}

    def check(self, batch: int) -> None:
        """Refuse a batch of another size than the conditions have rows."""
        for name, value in self.per_image.items():
            if len(value) != batch:
                raise Refused(f"condition {name!r} has {len(value)} rows for {batch} images")

    def rows(self, index: Tensor | slice) -> Conditions:
        """Those of these images: an index (R,) or a slice of the batch."""
        if not self.per_image:
            return self
        return Conditions({k: v[_on(index, v)] for k, v in self.per_image.items()}, self.shared)

    def with_null(self, null: Mapping[str, int | Tensor]) -> Conditions:
        """For 2B images: these, and once more with `null[name]` in place of the named ones' values.

            A tensor (*) stands for every image; of a number, classes int64 become that class, and weights over classes
            float (B, K) become that class alone.

        Raises:
            Refused: a null for a condition that is not per image; one of another shape.
        """
        missing = sorted(set(null) - set(self.per_image))
        if missing:
            raise Refused(f"guidance replaces the condition {missing[0]!r}, which was not given with one row an image")
        twice = {}
        for name, value in self.per_image.items():
            other = _nothing(value, null[name]) if name in null else value
            twice[name] = torch.cat([value, other])
        return Conditions(twice, self.shared)

    def to(self, device: torch.device | str) -> Conditions:
        """The same with every tensor on that device."""
        return Conditions(
            {name: value.to(device) for name, value in self.per_image.items()},
            {name: value.to(device) if isinstance(value, Tensor) else value for name, value in self.shared.items()},
        )

    def __repr__(self) -> str:
        told = {**{f"{k} per image": v for k, v in self.per_image.items()}, **self.shared}
        return f"Conditions({', '.join(f'{name}: {_short(value)}' for name, value in told.items()) or 'none'})"

    def as_json(self) -> dict[str, Any]:
        """As JSON values. A list has one entry an image: classes, rows or their hashes; all else is no list."""
        own = {name: _json(value) for name, value in self.per_image.items()}
        return own | {name: _shared_json(value) for name, value in self.shared.items()}


NONE = Conditions()


def labels(label: Tensor | None) -> Conditions:
    """One class an image, int64 (B,), or weights over classes, float (B, K); None for no condition."""
    return NONE if label is None else Conditions({"label": label})


def _on(index: Tensor | slice, value: Tensor) -> Tensor | slice:
    return index if isinstance(index, slice) else index.to(value.device)


def _nothing(value: Tensor, null: int | Tensor) -> Tensor:
    if isinstance(null, Tensor):
        if null.shape != value.shape[1:]:
            shapes = f"{tuple(null.shape)}, the rows have {tuple(value.shape[1:])}"
            raise Refused(f"a null must have the shape of one row: it has {shapes}")
        return null.to(value).expand_as(value)
    if not value.is_floating_point():
        return torch.full_like(value, null)
    weights = torch.zeros_like(value)
    weights[:, null] = 1.0
    return weights


def _json(value: Tensor) -> list[Any]:
    short = value.ndim == 1 or value[0].numel() <= 4096  # of a row, so that batches of any size can be joined
    return value.tolist() if short else [f"tensor {_digest(row)}" for row in value]


def _shared_json(value: Any) -> Any:
    if isinstance(value, Tensor):
        return f"tensor {_digest(value)}"
    return {"shared": list(value)} if isinstance(value, (list, tuple)) else value


def _short(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
    return reprlib.repr(value)


def _digest(value: Tensor) -> str:
    return hashlib.blake2b(value.detach().cpu().double().numpy().tobytes(), digest_size=8).hexdigest()
