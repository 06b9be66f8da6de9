"""References by rule: which earlier frames an AR step may look at, and how noisy; and what sees what in the
window."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

__all__ = [
    "KINDS",
    "KINDS_IN_WORDS",
    "Kind",
    "Mask",
    "NoReferences",
    "Noise",
    "Pick",
    "PlanError",
    "Reference",
    "References",
    "causal_mask",
    "parts_mask",
]

Mask = tuple[tuple[bool, ...], ...]
Kind = Literal["last", "first", "lag", "every", "all"]
KINDS: tuple[Kind, ...] = get_args(Kind)
KINDS_IN_WORDS = "'last', 'first', 'lag', 'every' or 'all'"
Noise = Literal["fresh", "once", "own", "matched"]
_NOISES = ("fresh", "once", "own", "matched")


class PlanError(ValueError):
    """A plan breaks a requirement of Meta-ARVDM; the message names it, the frame and the two numbers."""


@dataclass(frozen=True)
class Reference:
    """One referenced frame: its index in the video (from 0), the level it stands at, and whose noise it has."""

    frame: int
    level: float
    noise: Noise = "fresh"


@dataclass(frozen=True)
class Pick:
    """One rule that picks references from the c frames that are out.

    Attributes:
        kind: ``last`` (the last ``count``), ``first`` (the first ``count``), ``lag`` (the one frame that came out
            ``count`` frames ago, 1 being the newest, as soon as there is one), ``every`` (frames 1, 1 + count,
            1 + 2 count, ...) or ``all``.
        count: how many (``last``, ``first``), the lag, or the distance (``every``); ignored by ``all``.
        level: the level ρ ≥ 0 at which the picked frames are shown; 0 leaves them as they came out.
        noise: ``fresh``, drawn anew at every AR step; ``once``, drawn when the frame has come out, and kept;
            ``own``, the frame's own state at that level, on its way out (a noisy key-value cache); ``matched``,
            its own state after the same reverse step of its AR step, so that references stand at the level that
            the step reaches (HiAR, arXiv 2603.08703), and there is no level to give.
    """

    kind: Kind
    count: int = 1
    level: float = 0.0
    noise: Noise = "fresh"

    def __post_init__(self) -> None:
        if self.noise not in _NOISES:
            raise PlanError(f"references: the noise is {', '.join(_NOISES)}, got {self.noise!r}")
        if self.kind not in KINDS:
            raise PlanError(f"references: a rule is {KINDS_IN_WORDS}, got {self.kind!r}")
        if self.kind != "all" and self.count < 1:
            raise PlanError(f"references: '{self.kind}' needs a count of at least 1, got {self.count}")
        if not (math.isfinite(self.level) and self.level >= 0):
            raise PlanError(f"references: the level must be finite and not negative, got {self.level}")
        if self.noise in ("once", "own") and self.level == 0:
            raise PlanError(f"references: noise {self.noise!r} needs a level above 0; at 0 there is none to keep")
        if self.noise == "matched" and self.level > 0:
            raise PlanError(
                f"references: noise 'matched' stands at the level of every reverse step, and at none of its own, "
                f"got {self.level}"
            )

    def frames(self, out: int) -> range:
        """Indices picked when ``out`` frames are out."""
        if self.kind == "all":
            return range(out)
        if self.kind == "every":
            return range(0, out, self.count)
        if self.kind == "first":
            return range(min(self.count, out))
        if self.kind == "lag":
            return range(out - self.count, out - self.count + 1) if self.count <= out else range(0)
        return range(max(out - self.count, 0), out)

    @property
    def most(self) -> int | None:
        """The largest number of frames it ever picks; None if it grows without end."""
        return {"last": self.count, "first": self.count, "lag": 1}.get(self.kind)


@dataclass(frozen=True)
class References:
    """The reference rule R_k: the union of its picks; a frame named twice follows the first pick naming it.

    Example:
        >>> rule = References.last(2) + References.first(1, level=0.1)
        >>> [(r.frame, r.level) for r in rule.at(5)]
        [(0, 0.1), (3, 0.0), (4, 0.0)]
    """

    picks: tuple[Pick, ...] = ()

    @classmethod
    def none(cls) -> References:
        """No references: the window is all that a step sees."""
        return cls()

    @classmethod
    def last(cls, count: int, level: float = 0.0, noise: Noise = "fresh") -> References:
        """The last ``count`` frames that are out (all there are, while there are fewer)."""
        return cls((Pick("last", count, level, noise),)) if count != 0 else cls()

    @classmethod
    def first(cls, count: int, level: float = 0.0, noise: Noise = "fresh") -> References:
        """The first ``count`` frames of the video (an attention sink, an anchor)."""
        return cls((Pick("first", count, level, noise),))

    @classmethod
    def lags(cls, *lags: int, level: float = 0.0, noise: Noise = "fresh") -> References:
        """The frames that came out so many frames ago, 1 being the newest, as far as there are such.

        Example:
            >>> [r.frame for r in References.lags(1, 4).at(6)], [r.frame for r in References.lags(1, 4).at(3)]
            ([2, 5], [2])
        """
        return cls(tuple(Pick("lag", lag, level, noise) for lag in lags))

    @classmethod
    def every(cls, distance: int, level: float = 0.0, noise: Noise = "fresh") -> References:
        """Every ``distance``-th frame that is out, the first frame included."""
        return cls((Pick("every", distance, level, noise),))

    @classmethod
    def all(cls, level: float = 0.0, noise: Noise = "fresh") -> References:
        """Every frame that is out."""
        return cls((Pick("all", 1, level, noise),))

    def __add__(self, other: References) -> References:
        return References(self.picks + other.picks)

    def at(self, out: int) -> tuple[Reference, ...]:
        """The references, in order of frame, when ``out`` frames are out."""
        named: dict[int, Reference] = {}
        for pick in self.picks:
            for frame in pick.frames(out):
                named.setdefault(frame, Reference(frame, pick.level, pick.noise))
        return tuple(named[frame] for frame in sorted(named))

    @property
    def most(self) -> int | None:
        """An upper bound on how many there ever are; None if there is none."""
        counts = [pick.most for pick in self.picks]
        return None if None in counts else sum(count for count in counts if count is not None)

    @property
    def reach(self) -> tuple[int, int] | None:
        """(f, m) if every reference is one of the first f or of the last m frames that are out; None if not."""
        if any(pick.kind in ("every", "all") for pick in self.picks):
            return None
        first, last = (
            max((pick.count for pick in self.picks if pick.kind in kinds), default=0)
            for kinds in (("first",), ("last", "lag"))
        )
        return first, last

    @property
    def reused(self) -> bool:
        """Whether any reference has noise that is shown more than once, or that is the frame's own."""
        return any(pick.noise != "fresh" for pick in self.picks)

    @property
    def matched(self) -> bool:
        """Whether any reference follows the level of the reverse step."""
        return any(pick.noise == "matched" for pick in self.picks)

    @property
    def noised(self) -> bool:
        """Whether any reference is noised."""
        return any(pick.level > 0 or pick.noise != "fresh" for pick in self.picks)


NoReferences = References()


def causal_mask(window: int) -> Mask:
    """visible[i][j] = (j ≤ i): window frame i sees itself and the earlier window frames."""
    return tuple(tuple(j <= i for j in range(window)) for i in range(window))


def parts_mask(window: int, parts: int) -> Mask:
    """Window frames see only their own one of ``parts`` equal parts (FIFO-Diffusion's latent partitioning)."""
    if window % parts:
        raise PlanError(f"visibility: {parts} parts do not divide a window of {window} frames")
    size = window // parts
    return tuple(tuple(i // size == j // size for j in range(window)) for i in range(window))
