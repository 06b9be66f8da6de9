"""Hypothesis strategies of reference rules and of valid Meta-ARVDM plans."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import strategies as st

from arvdm_theory.plan.plan import Plan
from arvdm_theory.plan.references import KINDS, Pick, References, causal_mask, parts_mask

__all__ = ["plans", "references"]

# Where between two levels a third may lie: close to the lower one, in the middle, at the upper one.
_BETWEEN = (1e-3, 0.05, 0.25, 0.4, 0.5, 0.75, 0.9, 1.0)


@st.composite
def references(
    draw: st.DrawFn, max_count: int = 3, level: float = 0.0, horizon: float = 6.0, noised: bool | None = None
) -> References:
    """Reference rules: none, the last, the first, a lag, every n-th, all frames, and unions of two.

    Args:
        draw: given by Hypothesis.
        max_count: the largest count of frames, or distance between them.
        level: the least level of a noised reference, 0 or the plan's floor.
        horizon: T, the highest.
        noised: whether some pick is noised afresh (True), none is (False), or either (None).
    """
    clean = st.just(0.0)
    noisy = st.sampled_from(_BETWEEN).map(lambda share: level + share * (horizon - level))
    number = draw(st.integers(1 if noised else 0, 2), label="reference rules")
    picks = []
    for k in range(number):
        levels = noisy if noised and k == 0 else clean if noised is False else clean | noisy
        picks.append(Pick(draw(st.sampled_from(KINDS)), draw(st.integers(1, max_count)), draw(levels)))
    return References(tuple(draw(st.permutations(picks)) if number > 1 else picks))


@st.composite
def plans(
    draw: st.DrawFn,
    max_window: int = 4,
    max_steps: int = 3,
    max_references: int = 3,
    overlapping: bool | None = None,
    noised: bool | None = None,
    early_stop: bool | None = None,
    warmup: bool | None = None,
    entering_clean: bool = True,
    own_grids: bool = True,
    masks: bool = False,
) -> Plan:
    """Valid plans: w = Δ and w > Δ, every stride, levels far from uniform, plateaus of equal levels.

    Horizons from 1 to 8; references of every rule, clean and noised; floors δ = 0 and δ > 0, with uniform or
    geometric spacing; both initialisations; grids of their own, in which frames of the window move in
    different steps and some rest.

    Args:
        draw: given by Hypothesis.
        max_window: the largest w.
        max_steps: the largest M_AR and M_init.
        max_references: the largest count in a reference rule.
        overlapping: w > Δ (True), w = Δ (False), or either (None).
        noised: whether some reference is noised afresh, none is, or either.
        early_stop: δ > 0, δ = 0, or either.
        warmup: initialisation by ``warmup``, by ``renoise``, or either.
        entering_clean: whether a frame may enter an AR step already at level δ.
        own_grids: whether some plans bring their own grids.
        masks: whether some plans mask what window frames see.

    They shrink to one frame, one step, no references.
    """
    window = draw(st.integers(2 if overlapping else 1, max_window), label="window")
    if overlapping is False:
        stride = window
    else:
        stride = draw(st.integers(1, window - 1 if overlapping else window), label="stride")
    horizon = draw(st.sampled_from([6.0, 1.0, 3.0, 8.0]), label="horizon")
    floors = st.sampled_from([0.01, 0.1, 0.5])
    stops = st.just(0.0) if early_stop is False else floors if early_stop else st.just(0.0) | floors
    floor = draw(stops, label="floor")

    shares = st.sampled_from(((0.0,) if entering_clean else ()) + _BETWEEN)
    kept = window - stride
    entering = sorted(draw(st.lists(shares, min_size=kept, max_size=kept), label="levels as shares of T"))
    levels = tuple(floor + share * (horizon - floor) for share in entering) + (horizon,) * stride
    steps = draw(st.integers(1, max_steps), label="reverse steps")
    init_steps = draw(st.integers(1, max_steps), label="initialisation steps")
    warm = draw(st.booleans(), label="warmup") if warmup is None else warmup
    plan = Plan(
        input_levels=levels,
        stride=stride,
        horizon=horizon,
        reverse_steps=steps,
        init_steps=init_steps,
        references=draw(references(max_references, floor, horizon, noised)),
        floor=floor,
        spacing=draw(st.sampled_from(["uniform", "geometric"]), label="spacing") if floor else "uniform",
        initialisation="warmup" if warm else "renoise",
        visible=draw(_masks(window, steps)) if masks else None,
    )
    if not (own_grids and draw(st.booleans(), label="own grids")):
        return plan
    return replace(
        plan,
        ar_grid=draw(_grids(plan.ar_grid[0], plan.ar_grid[-1], steps)),
        init_grid=draw(_grids(plan.init_grid[0], plan.init_grid[-1], init_steps)),
    )


@st.composite
def _grids(
    draw: st.DrawFn, start: tuple[float, ...], end: tuple[float, ...], steps: int
) -> tuple[tuple[float, ...], ...]:
    """Rows of levels that fall from start to end, each frame at its own pace; in some steps it may rest."""
    columns = []
    for high, low in zip(start, end, strict=True):
        shares = draw(
            st.lists(st.sampled_from((0.0, *_BETWEEN)), min_size=steps - 1, max_size=steps - 1), label="pace"
        )
        inner = [low + share * (high - low) for share in sorted(shares, reverse=True)]
        columns.append((high, *(min(level, high) for level in inner), low))
    return tuple(zip(*columns, strict=True))


@st.composite
def _masks(draw: st.DrawFn, window: int, steps: int) -> tuple[tuple[tuple[bool, ...], ...], ...] | None:
    """None; a causal mask; parts of the window; any mask in which each frame sees itself; one a step."""
    parts = [n for n in range(1, window + 1) if window % n == 0]
    any_mask = st.lists(
        st.lists(st.booleans(), min_size=window, max_size=window), min_size=window, max_size=window
    ).map(lambda rows: tuple(tuple(cell or i == j for j, cell in enumerate(row)) for i, row in enumerate(rows)))
    one = st.one_of(
        st.just(causal_mask(window)), st.sampled_from(parts).map(lambda n: parts_mask(window, n)), any_mask
    )
    each = st.lists(one, min_size=steps, max_size=steps).map(tuple)
    return draw(st.none() | one.map(lambda mask: (mask,)) | each, label="visible")
