"""The side of the images, which no weight holds: read off the levels where a network has attention."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from ddim.refused import Refused


def levels_at(side: int, resolutions: Collection[int], count: int) -> list[bool]:
    """Of `count` levels, each half the side of the one before: which lie at one of the resolutions."""
    return [side % 2**i == 0 and side >> i in resolutions for i in range(count)]


def sides_of(attention: Sequence[bool], resolutions: Collection[int]) -> list[int]:
    """The sides at which attention at these resolutions is attention on these levels; none where there is none."""
    tried = {r << i for r in resolutions for i in range(len(attention))}
    return sorted(s for s in tried if any(attention) and levels_at(s, resolutions, len(attention)) == list(attention))


def refuse_misfit(side: int, attention: Sequence[bool], resolutions: Collection[int], name: str, where: str) -> None:
    """A given side must put attention where the weights have it.

    Args:
        name: the family's setting for the size, for the remedy.

    Raises:
        Refused: it does not; names the side that does, if there is one.
    """
    if levels_at(side, resolutions, len(attention)) == list(attention):
        return
    fitting = sides_of(attention, resolutions)
    remedy = f"; {name}={fitting[0]} fits" if len(fitting) == 1 else ""
    raise Refused(
        f"{where}: {name} = {side}, but attention at {listed(resolutions)} of {side} is not on the levels where the "
        f"weights have it{remedy}"
    )


def doubted(side: int, attention: Sequence[bool], published: Sequence[Collection[int]], notes: list[str]) -> None:
    """A note on a given side that nothing confirms, where attention would be where no published network has it."""
    guess = sides_of(attention, published[0])
    if len(guess) != 1 or any(levels_at(side, p, len(attention)) == list(attention) for p in published):
        return
    places, usual = listed([side >> i for i, here in enumerate(attention) if here]), listed(published[0])
    notes.append(
        f"with {side}x{side} images its attention is at {places}; published networks have it at {usual}, which "
        f"{guess[0]}x{guess[0]} images would give"
    )


def listed(resolutions: Collection[int]) -> str:
    """As a setting has them: 16,8."""
    return ",".join(map(str, resolutions))
