"""One thing that is wrong: the rule, where it is broken, what it means and how it is mended."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

__all__ = ["FAINT", "Finding", "left_at"]

FAINT = 0.004
"""The share of a frame's variance that may be left where pure noise is taken in; latent diffusion's linear betas
leave 0.0047, which is the flaw that Lin et al. 2024 (2305.08891) mend by zero terminal SNR."""


@dataclass(frozen=True)
class Finding:
    """One finding.

    Attributes:
        severity: ``error`` (frames are lost, a requirement is broken) or ``warning`` (it runs, and not as told).
        rule: what is broken: ``format``, ``coverage``, ``monotonicity``, ``circularity``, ``0-T boundary``,
            ``levels``, ``references``, ``visibility``, ``off by one`` or ``zero terminal SNR``.
        message: what stands there and what it does.
        fix: what to write instead.
        line: of the file, from 1; None if it has no lines.
        row: of a matrix or grid, from 1.
        frame: the frame (column), from 1.
    """

    severity: Literal["error", "warning"]
    rule: str
    message: str
    fix: str
    line: int | None = None
    row: int | None = None
    frame: int | None = None

    @property
    def where(self) -> str:
        """Line, row and frame in words."""
        named = {"line": self.line, "row": self.row, "frame": self.frame}
        return ", ".join(f"{name} {number}" for name, number in named.items() if number is not None)

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        return f"{place}{self.severity}: {self.rule}: {self.message}. Fix: {self.fix}"

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


def left_at(horizon: float) -> str | None:
    """What is left of a frame at the level T at which pure noise is taken in, if that is much; else None."""
    left = math.exp(-horizon)
    if left <= FAINT:
        return None
    return f"{left:.2%} of a frame's variance are left at T = {horizon:.4g}, where pure noise is taken in"
