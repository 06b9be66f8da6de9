"""The rounding that a ledger says of itself, where the sampler's covariance is nearly singular."""

import math
from itertools import pairwise

import mpmath as mp  # type: ignore[import-untyped]
import numpy as np
import pytest
from reference_cases import CASES, PLANS, Array, random_video, table_video

from arvdm_theory import ArrayVideo, Plan, References, ledger, outpainting

Row = dict[int, mp.mpf]


def combined(*parts: tuple[mp.mpf, Row]) -> Row:
    """Σ c row, rows over unit normals."""
    found: Row = {}
    for factor, row in parts:
        for place, entry in row.items():
            found[place] = found.get(place, mp.mpf(0)) + factor * entry
    return found


def deterministic_kl(covariance: Array, plan: Plan, ar_steps: int) -> float:
    """KL of the clean frames of DDIM with the exact score in fifty digits; w = Δ, scalar frames, δ = 0, mean 0.

    Every frame is a row over the unit normals that it starts from, and both laws are dense.
    """
    with mp.workdps(50):
        clean = mp.matrix(covariance.tolist())
        made: dict[int, Row] = {}
        drawn = 0
        for stage in (plan.stage(k) for k in range(ar_steps + 1)):
            rows = [{drawn + j: mp.mpf(1)} for j in range(plan.window)]
            drawn += plan.window
            frames = [*stage.frames, *stage.reference_frames]
            for high, low in zip(stage.grid[:-1], stage.grid[1:], strict=True):
                at = [mp.mpf(t) for t in (*high, *(0.0 for _ in stage.references))]
                joint = mp.matrix(len(frames))
                for i, j in np.ndindex(len(frames), len(frames)):
                    joint[i, j] = mp.exp(-(at[i] + at[j]) / 2) * clean[frames[i], frames[j]]
                    joint[i, j] -= mp.expm1(-at[i]) if i == j else 0
                precision = joint**-1
                every = rows + [made[frame] for frame in stage.reference_frames]
                moved = []
                for j in range(plan.window):
                    ratio = mp.exp((at[j] - mp.mpf(low[j])) / 2)
                    noise, left = (mp.sqrt(-mp.expm1(-t)) for t in (at[j], mp.mpf(low[j])))
                    push = ratio * noise**2 - left * noise
                    score = [(-push * precision[j, i], row) for i, row in enumerate(every)]
                    moved.append(combined((ratio, rows[j]), *score))
                rows = moved
            made.update(zip(stage.frames, rows, strict=True))
        n = plan.clean_frames(ar_steps)
        own = mp.matrix(n)
        for i, j in np.ndindex(n, n):
            own[i, j] = mp.fsum(entry * made[j].get(place, 0) for place, entry in made[i].items())
        true = clean[:n, :n]
        product = own**-1 * true
        trace = mp.fsum(product[i, i] for i in range(n))
        return float((trace - n + mp.log(mp.det(own)) - mp.log(mp.det(true))) / 2)


def test_the_estimate_holds_the_real_error_and_is_not_much_larger() -> None:
    """DDIM on C(t) = cos(2πt/7) + ε [t = 0], two frequencies and next to nothing."""
    ratios = []
    for small in (1e-2, 1e-3, 1e-4, 1e-5, 1e-6):
        for references in (References.last(1), References.last(3)):
            for steps, ar_steps in ((3, 2), (10, 2), (3, 4)):
                plan = outpainting(2, references, reverse_steps=steps, init_steps=steps)
                n = plan.total_frames(ar_steps)
                lag = np.subtract.outer(np.arange(n), np.arange(n))
                covariance = np.cos(2 * np.pi * lag / 7) + small * (lag == 0)
                result = ledger(ArrayVideo(covariance, 1), plan, ar_steps, step="ddim", girsanov=False)
                kl, rounding = result.totals["kl"], result.terms.rounding
                assert kl is not None
                error = abs(kl - deterministic_kl(covariance, plan, ar_steps))
                assert error <= rounding, (small, steps, ar_steps)
                # Told is what leaves fewer than nine digits.
                assert ("rounding" in result.notes) == (rounding > 1e-9 * kl)
                assert ("rounding" in result.notes) or small > 1e-4
                if "rounding" in result.notes:
                    assert f"{rounding:.1g} nats (an estimate, not a bound)" in result.notes["rounding"]
                ratios.append(rounding / error)
    # One error may be small by chance, not the half of them.
    assert np.median(ratios) < 300


def test_well_conditioned_ledgers_carry_no_note() -> None:
    results = [
        ledger(ArrayVideo(table_video(plan.total_frames(steps)), 2), plan, steps, girsanov=False)
        for plan, steps in CASES.values()
    ]
    for plan in PLANS.values():
        covariance, mean = random_video(plan.total_frames(3), 2, 0)
        for step in ("exponential", "ddim"):
            results.append(ledger(ArrayVideo(covariance, 2, mean), plan, 3, step=step, girsanov=False))
    for result in results:
        assert "rounding" not in result.notes
        assert 0 < result.terms.rounding < 1e-9 * (result.totals["kl"] or math.nan)


@pytest.mark.parametrize("reverse_steps", [1, 3])
def test_the_reference_itself_on_white_frames(reverse_steps: int) -> None:
    """DDIM's step of N(0, 1) is W' = (α_s α_t + σ_s σ_t) W: a product of cosines, as α = cos θ and σ = sin θ."""
    plan = outpainting(1, References.last(1), reverse_steps=reverse_steps, init_steps=reverse_steps)
    angles = [math.acos(math.exp(-t / 2)) for (t,) in plan.ar_grid]
    variance = math.prod(math.cos(a - b) ** 2 for a, b in pairwise(angles))
    expected = 3 * (1 / variance - 1 + math.log(variance)) / 2
    assert deterministic_kl(np.eye(3), plan, 2) == pytest.approx(expected, rel=1e-12)
