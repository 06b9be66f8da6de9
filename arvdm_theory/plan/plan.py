"""The Meta-ARVDM plan: which frames stand at which noise levels in which order, and what they may look at.

Source: arXiv 2503.10704, section 3 and Algorithm 1 (Meta-ARVDM) with its three requirements.
"""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from torch import Tensor

from arvdm_theory.noise import time_grid
from arvdm_theory.plan.references import Mask, NoReferences, PlanError, Reference, References
from arvdm_theory.plan.stage import Stage

__all__ = ["Plan"]

Grid = tuple[tuple[float, ...], ...]

# Levels that a caller computed twice, along two formulas, may differ by rounding; beyond this they differ.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Plan:
    """A Meta-ARVDM plan. All levels are OU levels; frames of the window are counted from 1 in messages.

    Attributes:
        input_levels: t^I_1..t^I_w.
        stride: Δ, the frames that come out of one AR step.
        horizon: T, the level of pure noise.
        reverse_steps: M_AR, reverse steps of one AR step.
        init_steps: M_init, reverse steps of the initialisation stage.
        output_levels: t^O_1..t^O_w; left out, they follow from circularity and the 0-T boundary.
        references: the reference rule R_k.
        floor: δ ≥ 0, the level at which frames count as clean (0 unless the sampler stops early).
        spacing: how levels are spaced inside a step where no grid is given: a name that
            :func:`arvdm_theory.noise.time_grid` knows.
        ar_grid: τ_j^m as M_AR + 1 rows of w levels, if not that spacing.
        init_grid: the same for the initialisation stage: M_init + 1 rows.
        visible: what each window frame sees: rows of w booleans (the window frames; all references are seen),
            or of w + m (then the last column is the newest reference, m the most there can be). One such
            table, or one a reverse step. None: everything.
        initialisation: ``renoise`` (denoise w - Δ frames to the floor, then noise them afresh to the input
            levels, as in the paper) or ``warmup`` (denoise them from T straight to the input levels). Plans
            with w = Δ denoise the first Δ frames either way.
        name: what tables and figures call it.

    Raises:
        PlanError: naming the requirement that fails, the frame and the two numbers:

            - monotonicity: t^I and t^O do not fall along the window, and t^O_j ≤ t^I_j;
            - circularity: t^O_{j+Δ} = t^I_j for j = 1..w-Δ;
            - 0-T boundary: t^O_j = δ for j ≤ Δ, and t^I_j = T for j > w - Δ.

    Example:
        >>> fifo = Plan(input_levels=(1.5, 3.0, 4.5, 6.0), stride=1, horizon=6.0, reverse_steps=10)
        >>> fifo.output_levels
        (0.0, 1.5, 3.0, 4.5)
        >>> Plan(input_levels=(2.0, 1.0, 6.0), stride=1, horizon=6.0, reverse_steps=10)
        Traceback (most recent call last):
        ...
        arvdm_theory.plan.references.PlanError: monotonicity: the input level of window frame 2 (1.0) is below that
        of frame 1 (2.0)
    """

    input_levels: tuple[float, ...]
    stride: int
    horizon: float
    reverse_steps: int
    init_steps: int = 20
    output_levels: tuple[float, ...] = ()
    references: References = NoReferences
    floor: float = 0.0
    spacing: str = "uniform"
    ar_grid: Grid = ()
    init_grid: Grid = ()
    visible: tuple[Mask, ...] | None = None
    initialisation: Literal["renoise", "warmup"] = "renoise"
    name: str = field(default="plan", compare=False)

    def __post_init__(self) -> None:
        put = object.__setattr__  # the class is frozen; this is where it is filled
        put(self, "input_levels", tuple(float(level) for level in self.input_levels))
        self._check_sizes()
        put(self, "horizon", float(self.horizon))
        put(self, "floor", float(self.floor))
        if not self.output_levels:
            follow = (self.floor,) * self.stride + self.input_levels[: self.window - self.stride]
            put(self, "output_levels", follow)
        put(self, "output_levels", tuple(float(level) for level in self.output_levels))
        put(self, "output_levels", self._check_requirements())
        ar_ends = (self.input_levels, self.output_levels)
        init_ends = ((self.horizon,) * self.init_frames, self._init_output)
        put(self, "ar_grid", self._grid(self.ar_grid, *ar_ends, self.reverse_steps, "AR"))
        put(self, "init_grid", self._grid(self.init_grid, *init_ends, self.init_steps, "initialisation"))
        put(self, "visible", self._check_mask())
        self._check_reuse()

    # -- as a file -----------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """The plan as the content of a plan file (:mod:`arvdm_theory.plan.file`), to the last digit."""
        from arvdm_theory.plan.file import plan_to_dict

        return plan_to_dict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Plan:
        """The plan of a plan file's content.

        Raises:
            PlanError: for a key that is unknown, missing or of another kind than is expected, or for a plan that
                breaks a requirement.
        """
        from arvdm_theory.plan.file import plan_from_dict

        return plan_from_dict(content)

    # -- the plan in numbers -------------------------------------------------------------------------

    @property
    def window(self) -> int:
        """W, the frames that one AR step works on."""
        return len(self.input_levels)

    @property
    def overlapping(self) -> bool:
        """Whether noisy frames stay in the window from one AR step to the next (w > Δ)."""
        return self.window > self.stride

    @property
    def init_frames(self) -> int:
        """How many frames the initialisation stage denoises: w - Δ, or Δ when w = Δ."""
        return self.window - self.stride if self.overlapping else self.stride

    def frames_out(self, ar_step: int) -> int:
        """c_k, the frames that are out before AR step k = ``ar_step`` (counted from 1)."""
        return (ar_step - 1) * self.stride if self.overlapping else ar_step * self.stride

    def window_frames(self, ar_step: int) -> range:
        """Indices (from 0) of the frames in the window of AR step k; the first Δ of them come out clean."""
        start = self.frames_out(ar_step)
        return range(start, start + self.window)

    def references_at(self, ar_step: int) -> tuple[Reference, ...]:
        """R_k: the references of AR step k; one that follows the reverse step's level has none of its own (0)."""
        found = self.references.at(self.frames_out(ar_step))
        if not self.references.reused:
            return found
        return tuple(replace(r, level=self._own_row(r)[1]) if r.noise == "own" else r for r in found)

    def _own_row(self, reference: Reference) -> tuple[int, float]:
        """The row of its own stage's grid where a frame stands at the level of its reference, and that level."""
        grid = self.init_grid if reference.frame < self.stride else self.ar_grid
        column = [row[reference.frame % self.stride] for row in grid]
        row = min(range(len(column)), key=lambda m: abs(column[m] - reference.level))
        return row, column[row]

    @property
    def repeats_from(self) -> int | None:
        """The AR step from which on every step has the same references, counted from its window; None if none is.

        From there on a frame stands between the first frames that are referred to and the last ones.
        """
        if (reach := self.references.reach) is None:
            return None
        # The first k ≥ 2 with more frames out than are referred to.
        return max(2, sum(reach) // self.stride + (2 if self.overlapping else 1))

    def past_frames(self, ar_step: int) -> tuple[int, ...]:
        """Past_k: the frames that are out and not in R_k; noised references hide nothing from it."""
        return self._past(ar_step, self.references_at(ar_step))

    def _past(self, ar_step: int, references: Iterable[Reference]) -> tuple[int, ...]:
        known = {r.frame for r in references if r.level <= self.floor and r.noise == "fresh"}
        return tuple(frame for frame in range(self.frames_out(ar_step)) if frame not in known)

    def stage(self, ar_step: int, levels: Tensor | None = None) -> Stage:
        """The initialisation (``ar_step`` = 0) or AR step k as one object, for ledger, sampler and training alike.

        Args:
            ar_step: k.
            levels: float64 (M + 1, frames) in place of the plan's grid; they may require gradients. The caller
                keeps them within the plan's requirements; frames that move must be those of the plan.

        Raises:
            ValueError: for a negative AR step, or levels of another shape or dtype.
            PlanError: if references follow the level of each reverse step, so that no one stage shows them all:
                :meth:`segments` do.
        """
        if ar_step and self.references.matched:
            raise PlanError(
                f"references: the plan {self.name!r} shows frames at the level of each reverse step; this is for "
                "plans that show the same references throughout an AR step"
            )
        return self._stage(ar_step, levels)

    def _stage(self, ar_step: int, levels: Tensor | None = None) -> Stage:
        if ar_step < 0:
            raise ValueError(f"AR steps are counted from 1, and 0 is the initialisation; got {ar_step}")
        references = self.references_at(ar_step) if ar_step else ()
        steps = self.reverse_steps if ar_step else self.init_steps
        return Stage(
            ar_step=ar_step,
            frames=self.window_frames(ar_step) if ar_step else range(self.init_frames),
            references=tuple(replace(r, level=max(r.level, self.floor)) for r in references),
            past=self.past_frames(ar_step) if ar_step else (),
            fresh=self.stride if ar_step else self.init_frames,
            grid=self.ar_grid if ar_step else self.init_grid,
            visible=tuple(self.visible_at(m, len(references)) if ar_step else None for m in range(steps)),
            floor=self.floor,
            horizon=self.horizon,
            given_levels=levels,
        )

    def segments(self, ar_step: int) -> tuple[Stage, ...]:
        """The same as runs of reverse steps that see the same references, and end where a state is kept.

        One, unless references are a frame's own states. With ``matched`` ones every reverse step is a run of its
        own, whose references stand where it ends.
        """
        whole = self._stage(ar_step)
        kept: set[int] = set()
        if self.references.matched:
            kept = set(range(whole.steps))
        for pick in self.references.picks:
            if pick.noise == "own":
                first = 0 if ar_step == 0 else self.stride
                kept |= {self._own_row(Reference(first + j, pick.level, "own"))[0] for j in range(self.stride)}
        ends = sorted(kept | {0, whole.steps})
        found = []
        for start, end in itertools.pairwise(ends):
            shown = tuple(
                replace(r, level=max(whole.grid[end][r.frame % self.stride], self.floor))
                if r.noise == "matched"
                else r
                for r in whole.references
            )
            part = replace(
                whole,
                references=shown,
                past=tuple(f for f in whole.past if all(r.frame != f or r.level > self.floor for r in shown)),
                fresh=whole.fresh if start == 0 else 0,
                grid=whole.grid[start : end + 1],
                visible=whole.visible[start:end],
            )
            found.append(part)
        return tuple(found)

    def require_fresh(self, what: str) -> None:
        """Raises PlanError, naming ``what`` is for references that are clean or noised afresh, for any other."""
        if self.references.reused:
            raise PlanError(
                f"references: {what} is for plans whose references are clean or noised afresh at every AR step, "
                f"but those of {self.name!r} keep their noise"
            )

    def stages(self, ar_steps: int) -> Iterator[Stage]:
        """The initialisation, then AR steps 1..K = ``ar_steps``."""
        return (self.stage(k) for k in range(ar_steps + 1))

    def clip_frames(self, ar_step: int) -> range:
        """The clean frames that AR step k puts out."""
        clean = self.clean_frames(ar_step)
        return range(clean - self.stride, clean)

    def clean_frames(self, ar_steps: int) -> int:
        """How many frames are clean after ``ar_steps`` AR steps."""
        return self.frames_out(ar_steps + 1)

    def total_frames(self, ar_steps: int) -> int:
        """How many frames of the video ``ar_steps`` AR steps touch."""
        return self.window_frames(ar_steps).stop

    def visible_at(self, reverse_step: int, references: int) -> Mask | None:
        """The mask of reverse step m (from 0) over (window, ``references``) columns; None: all is visible."""
        if self.visible is None:
            return None
        table = self.visible[reverse_step if len(self.visible) > 1 else 0]
        width = len(table[0])
        if width == self.window:
            return tuple(row + (True,) * references for row in table)
        return tuple(row[: self.window] + row[width - references :] if references else row[: self.window]
                     for row in table)  # fmt: skip

    # -- checks --------------------------------------------------------------------------------------

    @property
    def _init_output(self) -> tuple[float, ...]:
        if self.overlapping and self.initialisation == "warmup":
            return self.input_levels[: self.init_frames]
        return (self.floor,) * self.init_frames

    def _check_sizes(self) -> None:
        for what in ("stride", "reverse_steps", "init_steps"):
            value = getattr(self, what)
            try:
                object.__setattr__(self, what, operator.index(value))
            except TypeError:
                raise PlanError(f"steps: {what} must be a whole number, got {value!r}") from None
        if self.initialisation not in ("renoise", "warmup"):
            raise PlanError(f"initialisation: 'renoise' or 'warmup', got {self.initialisation!r}")
        if not 1 <= self.stride <= self.window:
            raise PlanError(f"stride: it must lie in 1..w = {self.window}, got {self.stride}")
        for what, steps in (("reverse", self.reverse_steps), ("initialisation", self.init_steps)):
            if steps < 1:
                raise PlanError(f"steps: at least one {what} step is needed, got {steps}")
        if not (math.isfinite(self.horizon) and self.horizon > self.floor >= 0):
            raise PlanError(f"0-T boundary: 0 ≤ δ < T < ∞ is needed, got δ = {self.floor}, T = {self.horizon}")
        if self.output_levels and len(self.output_levels) != self.window:
            raise PlanError(
                f"levels: {self.window} input levels but {len(self.output_levels)} output levels; both need one a "
                "window frame"
            )
        for pick in self.references.picks:
            if 0 < pick.level < self.floor:
                raise PlanError(
                    f"references: level {pick.level} lies below the level {self.floor} at which frames come out"
                )

    def _check_reuse(self) -> None:
        """Whether a frame's own states, where references are such, are ones that it passes through."""
        for pick in self.references.picks:
            if pick.noise not in ("own", "matched"):
                continue
            if self.overlapping:
                raise PlanError(
                    f"references: a frame's own states ({pick.noise!r}) are kept where w = Δ, but w = "
                    f"{self.window} and Δ = {self.stride}: its way out takes several AR steps"
                )
            if pick.noise == "matched" and self.init_grid != self.ar_grid:
                raise PlanError(
                    "references: with noise 'matched' the first Δ frames go through the levels of an AR step too: "
                    f"give the initialisation its {self.reverse_steps} reverse steps and their levels"
                )
            for stage, first in (("initialisation", 0), ("AR", self.stride)) if pick.noise == "own" else ():
                for j in range(self.stride):
                    nearest = self._own_row(Reference(first + j, pick.level, "own"))[1]
                    if abs(nearest - pick.level) > _ROUNDING * self.horizon:
                        raise PlanError(
                            f"references: window frame {j + 1} never stands at level {pick.level} in the {stage} "
                            f"grid, so that it has no state of its own there; the nearest is {nearest}"
                        )

    def _check_requirements(self) -> tuple[float, ...]:
        """Checks the three requirements; returns t^O with what circularity equates made the same float."""
        t_in, t_out, w, stride = self.input_levels, self.output_levels, self.window, self.stride
        near = _ROUNDING * self.horizon
        for kind, levels in (("input", t_in), ("output", t_out)):
            for j, level in enumerate(levels):
                if not (math.isfinite(level) and level >= 0):
                    raise PlanError(
                        f"levels: the {kind} level of window frame {j + 1} must be finite and not negative, got "
                        f"{level}"
                    )
                if j and level < levels[j - 1] - near:
                    raise PlanError(
                        f"monotonicity: the {kind} level of window frame {j + 1} ({level}) is below that of frame "
                        f"{j} ({levels[j - 1]})"
                    )
        for j in range(w):
            if t_out[j] > t_in[j] + near:
                raise PlanError(
                    f"monotonicity: window frame {j + 1} leaves at level {t_out[j]}, above the {t_in[j]} it came "
                    "in with"
                )
        for j in range(w - stride):
            if abs(t_out[j + stride] - t_in[j]) > near:
                raise PlanError(
                    f"circularity: window frame {j + stride + 1} leaves at level {t_out[j + stride]}, but the "
                    f"next AR step takes it as frame {j + 1} at {t_in[j]}"
                )
        for j in range(stride):
            if abs(t_out[j] - self.floor) > near:
                raise PlanError(
                    f"0-T boundary: window frame {j + 1} must come out at level {self.floor}, not {t_out[j]}"
                )
        for j in range(w - stride, w):
            if abs(t_in[j] - self.horizon) > near:
                raise PlanError(
                    f"0-T boundary: window frame {j + 1} must enter at T = {self.horizon}, not {t_in[j]}"
                )
        # Rounding may have left levels a hair out of order; from here on the requirements hold exactly.
        level, ordered = self.floor, []
        for given in t_in[: w - stride]:
            level = min(max(level, given), self.horizon)
            ordered.append(level)
        snapped = (*ordered, *(self.horizon,) * stride)
        object.__setattr__(self, "input_levels", snapped)
        return (self.floor,) * stride + snapped[: w - stride]

    def _grid(self, given: Grid, start: tuple[float, ...], end: tuple[float, ...], steps: int, stage: str) -> Grid:
        if not given:
            columns = [
                time_grid(a, b, steps, self.spacing) if a > b else (a,) * (steps + 1)
                for a, b in zip(start, end, strict=True)
            ]
            return tuple(zip(*columns, strict=True))
        rows = [tuple(float(level) for level in row) for row in given]
        if len(rows) != steps + 1 or any(len(row) != len(start) for row in rows):
            raise PlanError(
                f"levels: the {stage} grid needs {steps + 1} rows of {len(start)} levels, got {len(rows)} of "
                f"{sorted({len(row) for row in rows})}"
            )
        near = _ROUNDING * self.horizon
        for j in range(len(start)):
            for row, level, which in ((rows[0], start[j], "starts"), (rows[-1], end[j], "ends")):
                if not abs(row[j] - level) <= near:
                    raise PlanError(
                        f"levels: the {stage} grid {which} window frame {j + 1} at {row[j]}, not {level}"
                    )
            for m in range(steps):
                if not rows[m + 1][j] <= rows[m][j] + near:
                    raise PlanError(
                        f"monotonicity: the {stage} grid raises window frame {j + 1} from {rows[m][j]} to "
                        f"{rows[m + 1][j]} in reverse step {m + 1}"
                    )
        # As above: no column rises, not even by rounding, and none falls below its end.
        inner, above = [], start
        for row in rows[1:-1]:
            above = tuple(min(a, max(level, b)) for a, level, b in zip(above, row, end, strict=True))
            inner.append(above)
        return (start, *inner, end)

    def _check_mask(self) -> tuple[Mask, ...] | None:
        if self.visible is None:
            return None
        given: Sequence[Any] = self.visible
        if len(given) == 0 or len(given[0]) == 0:
            raise PlanError("visibility: a mask needs rows, got none")
        per_step = hasattr(given[0][0], "__len__")
        tables: Sequence[Any] = given if per_step else [given]
        masks = tuple(tuple(tuple(bool(cell) for cell in row) for row in table) for table in tables)
        if len(masks) not in (1, self.reverse_steps):
            raise PlanError(
                f"visibility: one mask, or one for each of {self.reverse_steps} reverse steps, not {len(masks)}"
            )
        widths = {self.window}
        if self.references.most is not None:
            widths.add(self.window + self.references.most)
        for mask in masks:
            if len(mask) != self.window or any(len(row) not in widths for row in mask):
                raise PlanError(
                    f"visibility: a mask has {self.window} rows of {' or '.join(map(str, sorted(widths)))} columns"
                )
            for j, row in enumerate(mask):
                if not row[j]:
                    raise PlanError(f"visibility: window frame {j + 1} does not see itself")
        return masks
