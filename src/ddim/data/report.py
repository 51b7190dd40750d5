"""What the data check found, told in a few lines, and what of it training cannot begin with, told in one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from ddim.data.sources import Source, told_unread
from ddim.refused import Refused

ROUND, USUAL = 8, 64  # every network here halves sides that are multiples of 8; beyond 64 training takes days


@dataclass
class Report:
    """What the data check found, as it is told to the user before step 0."""

    source: str
    count: int = 0
    shape: tuple[int, int, int] = (0, 0, 0)  # (C, H, W) after fitting
    sizes: dict[str, int] = field(default_factory=dict)  # "WxH" of the files -> how many
    modes: dict[str, int] = field(default_factory=dict)  # Pillow's mode of the files -> how many
    classes: dict[str, int] | None = None
    unreadable: list[str] = field(default_factory=list)
    duplicates: int = 0
    unread: list[str] = field(default_factory=list)  # in a format that is not read; never part of the cache
    sha256: str = ""  # of pixels and labels: what training really sees

    def lines(self) -> list[str]:
        """The report in a few lines of text."""
        c, h, w = self.shape
        text = [f"{self.count} images from {self.source}, used as {h}x{w} {'grey' if c == 1 else 'RGB'}"]
        text.append(f"sizes (width x height): {most(self.sizes)}; modes: {most(self.modes)}")
        if self.classes is not None:
            text.append(f"{len(self.classes)} classes: {most(self.classes, 20)}")
        if self.duplicates:
            text.append(f"{self.duplicates} images are exact duplicates of others")
        if self.unreadable:
            text.append(f"{len(self.unreadable)} unreadable, left out: {', '.join(self.unreadable[:20])}")
        if self.unread:
            text.append(told_unread(self.unread))
        return text


def most(counts: Mapping[str, int], n: int = 5) -> str:
    """The most frequent of them with their numbers."""
    shown = [f"{k} ({v})" for k, v in (list(counts.items()) if n > 5 else Counter(counts).most_common())[:n]]
    return ", ".join(shown) + (f" and {len(counts) - n} more" if len(counts) > n else "")


def refuse_unfit(report: Report, source: Source, sizes: Mapping[str, int], skip: bool) -> None:
    """All that is wrong with a data set, at once.

    Args:
        sizes: "WxH" -> how many, where no size was asked for.
        skip: whether files that cannot be read are left out.

    Raises:
        Refused: images beside class folders, unreadable ones (by name), several sizes (with one to take), fewer than
            two images.
    """
    wrong = [source.unfit] if source.unfit else []
    if report.unreadable and not skip:
        more = f" and {len(report.unreadable) - 10} more" if len(report.unreadable) > 10 else ""
        wrong.append(
            f"{len(report.unreadable)} of {source.count} images cannot be read: "
            f"{'; '.join(report.unreadable[:10])}{more}; repair or remove them, or give `skip_unreadable`"
        )
    if len(sizes) > 1:
        wrong.append(
            f"the images of {source.name} have {len(sizes)} different sizes ({most(sizes)}): {proposed(sizes)}; "
            "each is scaled and cut to its middle, or gets borders with `fit` pad"
        )
    if len(wrong) == bool(source.unfit) and report.count < 2:
        wrong.append(f"{source.name} holds {report.count} readable image(s); training needs at least 2")
    if wrong:
        raise Refused("; and ".join([*wrong, *([told_unread(source.unread)] if source.unread else [])]))


def proposed(sizes: Mapping[str, int]) -> str:
    """The size that suits most: the median of the shorter sides, rounded down to what every network takes."""
    sides = sorted(_shorter(sizes).elements())
    median = sides[(len(sides) - 1) // 2]
    if median > USUAL:
        return f"give `size` {USUAL} (their median is {median}; beyond {USUAL} a network takes days to train)"
    side = max(ROUND, median // ROUND * ROUND)
    return f"give `size` {side} (the median{'' if side == median else f', {median}, in multiples of {ROUND}'})"


def _shorter(sizes: Mapping[str, int]) -> Counter[int]:
    sides = Counter[int]()
    for size, n in sizes.items():
        sides[min(int(side) for side in size.split("x"))] += n
    return sides
