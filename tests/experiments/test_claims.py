"""Verdicts on claims: what they are made of is right, and their command writes what it prints."""

import itertools
import json
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from arvdm_theory import Plan, References, ar1
from arvdm_theory.cli import main
from arvdm_theory.decomposition.recursion import rates
from arvdm_theory.experiments.claims import networks, schedulers
from arvdm_theory.experiments.claims.accumulation import same_level_plan
from arvdm_theory.experiments.claims.decide import CLAIMS, run
from arvdm_theory.experiments.claims.page import page
from arvdm_theory.experiments.networks import Preset, Setting
from arvdm_theory.experiments.record import Cell
from arvdm_theory.noise import time_grid
from arvdm_theory.number import Number

QUICK = ("decomposition", "impossibility", "blind-metrics", "accumulation")


def test_the_command_writes_the_verdicts_it_prints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, written = tmp_path / "claims.json", tmp_path / "claims.md"
    assert main(["claims", *QUICK, "--json", str(out), "--page", str(written)]) == 0
    found = {each["id"]: each for each in json.loads(out.read_text())}
    assert list(found) == list(QUICK)
    shown = capsys.readouterr().out
    for name, each in found.items():
        assert f"{name}: {each['verdict']}" in shown
        assert each["statement"] in written.read_text()


def test_numbers_of_the_theory_page() -> None:
    """Reference numbers: AR(1), outpainting w = 2, one clean reference, 24 AR steps of the exact score."""
    found = {each.id: each for each in run(QUICK, progress=False)}
    growth = found["accumulation"].numbers
    assert growth["AR(1) 0.8: KL of clip 1, 12, 24"][-1] == pytest.approx(0.13952, abs=5e-6)
    assert growth["AR(1) 0.8: the saturating bound at 24"] >= growth["AR(1) 0.8: KL of clip 1, 12, 24"][-1]
    assert growth["AR(1) 0.99: KL of clip 1, 12, 24"][-1] < growth["AR(1) 0.99: the saturating bound at 24"]
    assert found["decomposition"].verdict == "confirmed exactly"
    assert max(found["decomposition"].numbers.values()) < 1e-9
    floor = found["impossibility"].numbers["Σ MB, which no sampler of the plan beats"]
    for name, value in found["impossibility"].numbers.items():
        if name.startswith("KL(clean)"):
            assert value >= floor


def frame_by_frame(phi: float, levels: tuple[float, ...], frames: int) -> list[float]:
    """KL of 1, 2, .. frames of AR(1), denoised one after the other with context at the level that is moved to.

    For every level in turn and every frame in turn: x_j moves from t to s, told x_{j-1} at s, with the score of
    the pair's exact law and the exponential integrator: one dense linear map of all that is drawn, no plan.
    """
    steps = len(levels) - 1
    draws = frames * (steps + 1)
    state = np.zeros((frames, draws))
    state[:, :frames] = np.eye(frames)
    fresh = iter(range(frames, draws))
    for t, s in itertools.pairwise(levels):
        h = t - s
        for j in range(frames):
            at = [t] if j == 0 else [t, s]
            scale = np.exp(-np.array(at) / 2)
            own = scale[:, None] * scale * np.array([[1.0, phi], [phi, 1.0]])[: len(at), : len(at)]
            own += np.diag(1 - scale**2)
            seen = state[[j] if j == 0 else [j, j - 1]]
            score = -np.linalg.solve(own, seen)[0]
            state[j] = math.exp(h / 2) * state[j] + 2 * math.expm1(h / 2) * score
            state[j, next(fresh)] += math.sqrt(math.expm1(h))
    found = []
    for n in range(1, frames + 1):
        lags = np.abs(np.subtract.outer(np.arange(n), np.arange(n)))
        ratio = np.linalg.solve(state[:n] @ state[:n].T, phi**lags)
        found.append((np.trace(ratio) - n - np.linalg.slogdet(ratio)[1]) / 2)
    return found


@pytest.mark.parametrize("steps", [4, 10])
def test_the_plan_of_context_at_the_same_level_is_what_it_says(steps: int) -> None:
    """Its rate against the growth of the KL of frames that are denoised level by level, frame by frame."""
    plan = same_level_plan(steps)
    own = frame_by_frame(0.8, time_grid(6.0, 0.0, steps), 60)
    assert float(rates(ar1(0.8), plan).kl) == pytest.approx(own[-1] - own[-2], rel=1e-9)
    # Against a clean reference the same frames are another video.
    other = Plan((6.0,), 1, 6.0, steps, steps, references=References.last(1))
    assert abs(float(rates(ar1(0.8), other).kl) - (own[-1] - own[-2])) > 1e-3


def test_context_at_the_same_level_costs_what_no_reverse_steps_take_away() -> None:
    found = run(["clean-context"], progress=False)[0]
    assert found.verdict.startswith("false of the video")
    assert "true of single frames" in found.verdict
    clean, same = found.numbers["M = 40: nats a frame, clean context and at the same level"]
    assert same > 10 * clean


def test_the_per_step_sum_ranks_only_where_an_error_of_the_noise_dominates() -> None:
    found = run(["per-step-sums-erring"], progress=False)[0]
    assert found.verdict.startswith("holds only for errors of the predicted noise")
    pairs = list(found.numbers.values())
    assert min(ar_step for _, ar_step in pairs) > 0.95
    assert min(per_step for per_step, _ in pairs) < 0 < 0.8 < max(per_step for per_step, _ in pairs)


@pytest.mark.parametrize(
    ("endless", "few", "verdict"),
    [
        (((1, 2, 3), 0.1), ((1, 2, 3), 10.0), "confirmed"),
        (((3, 2, 1), 0.1), ((1, 2, 3), 10.0), "holds only where score estimation dominates"),
        (((3, 2, 1), 0.1), ((3, 2, 1), 10.0), "false in a regime"),
    ],
)
def test_the_verdict_on_networks_is_made_of_its_numbers(
    endless: tuple[tuple[int, ...], float],
    few: tuple[tuple[int, ...], float],
    verdict: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Networks whose sums are planted: the per-step sum falls or rises with the KL, Σ E_k always rises."""

    def planted(preset: Preset, cell: Cell, setting: Setting) -> Iterator[tuple[str, str, Number]]:
        sums, see = few if "16 videos" in cell["training"] else endless
        for grid, kl, per_step in zip("abc", (1, 2, 3), sums, strict=True):
            values = {"kl": kl, "last_clip": kl, "ar_step": kl, "response": kl, "girsanov": per_step}
            for name, value in (values | {"per_step": per_step, "de": 1.0, "see": see}).items():
                yield grid, name, Number.exact(float(value))

    monkeypatch.setattr(schedulers, "trained_sums", planted)
    found = run(["per-step-sums-networks"], progress=False)[0]
    assert found.verdict.startswith(verdict)
    assert len(found.numbers) == 6


def test_every_claim_has_one_name_a_statement_and_a_source() -> None:
    assert len({claim.id for claim in CLAIMS}) == len(CLAIMS)
    for claim in CLAIMS:
        assert claim.statement.endswith(".")
        assert claim.source
    assert "# Claims" in page([])


def test_an_unknown_claim_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["claims", "perpetual-motion"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "perpetual-motion" in said
    assert "decomposition" in said


def test_claims_on_networks_follow_the_published_findings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("memories-retrieve", "compression-pays", "forgetting-degrades")
    place = tmp_path / "video-findings.csv"
    monkeypatch.setattr(networks, "_VIDEO", place)
    monkeypatch.setattr(networks, "_COMPRESSION", place)
    assert all(each.verdict.startswith("not decided here") for each in run(names, progress=False))
    packed = "dmlab, far, worlds 1: cross, temporal 4 in 1, 112 frames"
    rows = [
        ("memories above best without a map: dmlab", 2, 0.1, 0.9, 3),
        ("memories above best without a map: doom", 3, 0.1, 0.9, 3),
        ("memories above nearest by dead reckoning: dmlab", 0, 0.1, 0.9, 3),
        ("memories above nearest by dead reckoning: doom", 1, 0.1, 0.9, 3),
        (f"rate lost by compression: {packed}", 0.04, -0.1, 0.1, math.nan),
        (f"processor's time beside uncompressed: {packed}", 0.5, *[math.nan] * 3),
        (f"peak memory beside uncompressed: {packed}", 0.9, *[math.nan] * 3),
        ("rank correlation: 1 - rate and dB lost: dmlab", -0.5, -0.7, -0.2, 40),
        ("rank correlation: 1 - rate and dB lost: few", 0.9, 0.8, 0.95, 4),
        ("the same at equal first frames: 1 - rate and dB lost: dmlab", 0.4, 0.1, 0.6, 40),
    ]
    columns = ["finding", "value", "low", "high", "of"]
    pd.DataFrame(rows, columns=columns).to_csv(place, index=False)
    retrieve, pays, degrades = run(names, progress=False)
    assert retrieve.verdict.startswith("mostly so on stand-ins: 5 of 6 networks")
    assert retrieve.verdict.endswith("1 of 6 retrieve more")
    assert pays.verdict.startswith("so of 1 of 1 compressed networks")
    assert pays.numbers == {f"rate lost, time, memory: {packed}": [0.04, 0.5, 0.9]}
    assert degrades.verdict.endswith("those that forget more degrade less; at equal quality more")
    assert degrades.numbers["rank correlation: 1 - rate and dB lost, 40 networks"] == [-0.5, -0.7, -0.2]
    rows[4] = (rows[4][0], 0.06, *rows[4][2:])
    rows.append(("rank correlation: 1 - rate and drift: dmlab", 0.5, 0.2, 0.7, 40))
    pd.DataFrame(rows, columns=columns).to_csv(place, index=False)
    pays, degrades = run(names[1:], progress=False)
    assert pays.verdict.startswith("so of none of 1")
    assert pays.verdict.endswith("1 save half of the time or memory, the least of which loses 0.06")
    assert "degrade more by one measure and less by another; at equal quality more" in degrades.verdict
