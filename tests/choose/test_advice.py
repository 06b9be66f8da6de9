"""Advice: on videos whose best plan is planted it must be found, and what it says must be what the ledger says."""

from __future__ import annotations

import itertools
import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from arvdm_theory import (
    ArrayVideo,
    PerturbedScore,
    Plan,
    PlanError,
    References,
    ar1,
    ledger,
    load_plan,
    reference_video,
)
from arvdm_theory.choose import advice, tuning
from arvdm_theory.choose.advice import advise
from arvdm_theory.choose.candidates import Candidate, reference_rules, shapes
from arvdm_theory.choose.context_noise import DIAL
from arvdm_theory.choose.frame_kl import frame_kl
from arvdm_theory.choose.schedules import optimal_schedule
from arvdm_theory.cli import main
from arvdm_theory.cli.advise import _kept
from arvdm_theory.plan.lint import lint_plan

LAGS = np.abs(np.subtract.outer(np.arange(60), np.arange(60)))


def seasonal(period: int = 6, kept: float = 0.97) -> ArrayVideo:
    """X_t = kept X_{t - period} + noise: only the frame a period ago says anything."""
    return ArrayVideo(np.where(LAGS % period == 0, kept ** (LAGS // period), 0.0), 1, name="seasonal")


def blocks(size: int = 3) -> ArrayVideo:
    """Blocks of ``size`` frames that go together, and nothing between blocks: best made block by block."""
    index = np.arange(60)
    covariance = 0.9 * (index[:, None] // size == index // size) + 0.1 * np.eye(60)
    return ArrayVideo(covariance, 1, name="blocks")


def anchored() -> ArrayVideo:
    """X_t = 0.95 X_1 + noise: the first frame says all that there is to say."""
    covariance = np.full((60, 60), 0.95**2) + (1 - 0.95**2) * np.eye(60)
    covariance[0, 1:] = covariance[1:, 0] = 0.95
    covariance[0, 0] = 1.0
    return ArrayVideo(covariance, 1, name="anchored")


@pytest.fixture(autouse=True)
def small_search(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Most of the time of so small a choice would go into descents, and into noise on what is best clean."""
    monkeypatch.setattr(tuning, "_ITERATIONS", 10)
    if "noise" not in request.node.name:
        monkeypatch.setattr(tuning, "_PROFILES", 3)
        monkeypatch.setattr(advice, "DIAL", (0.0, 0.3))
        monkeypatch.setattr(tuning, "DIAL", (0.0, 0.3))


# Without discretisation error, so that memory alone decides.
QUICK: dict[str, Any] = {"strides": [1], "frames": 16, "errors": [], "step": "ancestral"}
SHORT = QUICK | {"frames": 10}

PLANTED: dict[str, tuple[Any, int, str]] = {
    "a period of 6 needs the frame 6 back, alone": (seasonal(), 6, "1 frame at a time, 6 back"),
    "a far lag within a budget of one": (seasonal(11), 1, "1 frame at a time, 11 back"),
    "out of reach nothing is of use": (seasonal(29), 2, "1 frame at a time, no references"),
    "Markov: the last one is enough": (ar1(0.9), 4, "1 frame at a time, last 1"),
    "independent frames need none": (ArrayVideo(np.eye(60), 1), 4, "1 frame at a time, no references"),
    "an anchor is held": (anchored(), 4, "first"),
}


@pytest.mark.parametrize("name", PLANTED)
def test_the_planted_plan_is_found(name: str) -> None:
    video, most, expected = PLANTED[name]
    found = advise(video, 1, most=most, **QUICK)
    assert expected in found.name
    assert found.recommended.name == found.name == found.table.name[0]
    assert lint_plan(found.recommended.to_dict()) == []


def test_the_planted_window_is_found() -> None:
    found = advise(blocks(), 1, strides=[1, 2, 3], most=2, frames=12, errors=[], step="ancestral")
    assert found.name == "3 frames at a time, no references"


def test_with_a_samplers_own_error_the_planted_plan_is_found() -> None:
    found = advise(seasonal(3), 3, most=4, strides=[1], frames=12, errors=[])
    assert found.name.startswith("1 frame at a time, 3 back")


def two_scales() -> ArrayVideo:
    """Entries of variance 20 that stay and of variance 1 that change, for one grid of levels to serve."""
    covariance = np.zeros((120, 120))
    covariance[::2, ::2], covariance[1::2, 1::2] = 20 * 0.999**LAGS, 0.5**LAGS
    return ArrayVideo(covariance, 2, name="two scales")


def test_a_planted_noise_profile_is_found_and_is_what_the_whole_sampler_says() -> None:
    """Two steps make a better video from a noised reference: by the ledger, and by a dense rollout."""
    video = two_scales()
    found = advise(video, 2, strides=[1], most=1, frames=12, errors=[])
    plan = found.recommended
    assert found.name == "1 frame at a time, last 1 noised to 0.3"
    assert any(reason.startswith("noise on references: in the last AR step") for reason in found.reasons)
    others = [
        reason.split("choice, ")[1].split(", changes")[0] for reason in found.reasons if "choice, " in reason
    ]
    assert others[-2:] == ["1 frame at a time, no references", "1 frame at a time, last 1 noised to 0.1"]
    levels, covariance = [row[0] for row in plan.ar_grid], video.covariance(found.frames)[0].numpy()
    first = [row[0] for row in plan.init_grid]
    dense = {level: _rolled_out(covariance, 2, first, levels, level) for level in DIAL}
    assert min(dense, key=dense.__getitem__) == 0.3
    assert dense[0.3] / found.frames == pytest.approx(found.table.kl[0], rel=1e-9)
    # With clean references it is worse on the levels that are best for those, too.
    assert found.table.kl[0] < 0.9 * found.table.kl[found.table.name == "1 frame at a time, last 1"].item()


def _rolled_out(p: Any, d: int, first: list[float], levels: list[float], noise: float) -> float:
    """KL(P ‖ Q) of frames made one by one with the last one, noised afresh, in view: one linear map of all noises.

    Posterior means come from the joint covariance, frame by frame; nothing of the ledger is used.
    """
    frames = len(p) // d
    made, free = np.zeros((frames * d, frames * d * (len(levels) + len(first)))), itertools.count()

    def noises() -> Any:
        rows = np.zeros((d, made.shape[1]))
        rows[range(d), [next(free) for _ in range(d)]] = 1.0
        return rows

    for k in range(frames):
        own, before = np.arange(k * d, (k + 1) * d), np.arange(max(k - 1, 0) * d, k * d)
        shown = np.exp(-noise / 2) * made[before]
        if k:
            shown = shown + np.sqrt(-np.expm1(-noise)) * noises()
        x = noises()
        for high, low in itertools.pairwise(levels if k else first):
            at = np.concatenate([own, before])
            scale = np.concatenate([np.full(d, np.exp(-high / 2)), np.full(len(before), np.exp(-noise / 2))])
            joint = np.outer(scale, scale) * p[np.ix_(at, at)] + np.diag(1 - scale**2)
            mean = np.linalg.solve(joint, scale[:, None] * p[np.ix_(at, own)]).T @ np.concatenate([x, shown])
            score = (np.exp(-high / 2) * mean - x) / -np.expm1(-high)
            step = high - low
            x = np.exp(step / 2) * x + 2 * np.expm1(step / 2) * score + np.sqrt(np.expm1(step)) * noises()
        made[own] = x
    ratio = np.linalg.solve(made @ made.T, p)
    return float(0.5 * (np.trace(ratio) - len(p) - np.linalg.slogdet(ratio)[1]))


@pytest.mark.parametrize(
    "rule", [References.none(), References.last(1), References.lags(1, 3), References.first(1)]
)
@pytest.mark.parametrize("stride", [1, 2])
def test_the_short_way_to_the_kl_is_the_ledger_s(rule: References, stride: int) -> None:
    levels = (6.0, 1.0, 0.2, 0.0)
    for video in (ar1(0.9), anchored(), reference_video()):
        plan = Candidate(stride, 1, rule).plan(levels)
        assert frame_kl(video, plan, 8, "exponential") == pytest.approx(ledger_kl(video, plan, 8), rel=1e-10)
    for plan in (Candidate(stride, 2, rule).plan((6.0, 2.0, 1.0, 0.3, 0.0)),
                 Candidate(stride, 1, References.last(2, 0.1)).plan(levels)):  # fmt: skip
        assert frame_kl(ar1(0.9), plan, 8, "exponential") == pytest.approx(ledger_kl(ar1(0.9), plan, 8), rel=1e-12)


def test_no_shape_with_grids_of_its_own_is_better() -> None:
    video, rule = ar1(0.95), References.last(1)
    found = advise(video, 2, strides=[1], most=1, frames=16, errors=[])
    least = min(
        ledger_kl(video, optimal_schedule(video, plan, 3, iterations=30, starts=["geometric"]).plan, 16)
        for plan in (Candidate(*shape, rule).plan((6.0, 1.0, 0.0)) for shape in shapes(2, [1]))
    )
    assert ledger_kl(video, found.recommended, 16) <= 1.02 * least


def ledger_kl(video: Any, plan: Plan, frames: int, error: float = 0.0) -> float:
    """KL of the first F frames a frame, as the ledger has it."""
    ar_steps = frames // plan.stride - (0 if plan.overlapping else 1)
    assert plan.clean_frames(ar_steps) == frames
    score = PerturbedScore(error) if error else None
    kl = ledger(video, plan, ar_steps, score=score, girsanov=False).totals["kl"]
    assert kl is not None
    return kl / frames


def test_the_table_says_what_the_ledger_says() -> None:
    video = ar1(0.9)
    found = advise(video, 2, strides=[2], most=2, frames=16, errors=[0.0, 0.1])
    table, plan, best = found.table, found.recommended, found.table.iloc[0]
    assert len(table) == len(set(table.name)) >= 2 * len(reference_rules(2))
    assert best.kl == pytest.approx(ledger_kl(video, plan, found.frames), rel=1e-12)
    ar_steps = found.frames // plan.stride - (0 if plan.overlapping else 1)
    result = ledger(video, plan, ar_steps, girsanov=False)
    clips, bottleneck = result.column("CLIP_KL"), result.column("MB")
    assert best.drift == pytest.approx((clips[-1] - clips[0]) / plan.stride, rel=1e-9, abs=1e-12)
    assert best.last_clip == pytest.approx(clips[-1] / plan.stride, rel=1e-9)
    assert best.mb == pytest.approx(bottleneck[-1] / plan.stride, abs=1e-12)
    # The cost is the budget, for every plan.
    assert (table.evaluations == 2).all()
    assert (table.reverse_steps * table.window / table.stride == 2).all()
    assert best.seen == (plan.window + len(plan.references_at(9))) * plan.reverse_steps / plan.stride
    # From the second on the table is ordered, but for plans as good as the best.
    beyond = table.kl[table.kl > 1.005 * table.kl.min()]
    assert beyond.is_monotonic_increasing
    # A plan on the front: none is as good in all, and better in one.
    points = table[["kl", "last_clip", "mb"]].round(10).to_numpy()
    for own, on in zip(points, table.front, strict=True):
        assert on == (not ((points <= own).all(1) & (points < own).any(1)).any())
    wrong = found.sensitivity[(found.sensitivity.error == 0.1) & (found.sensitivity.name == found.name)]
    assert wrong.kl.item() == pytest.approx(ledger_kl(video, plan, found.frames, 0.1), rel=1e-12)


def test_stability_counts_the_draws_in_which_it_stays() -> None:
    own = partial(seasonal, 4)
    draws = [own, anchored, own, partial(seasonal, 4, 0.9), partial(seasonal, 3)]
    found = advise(own(), 1, most=4, draws=draws, **SHORT)
    assert found.stability["draws"] == found.stability["asked"] == 5
    assert found.stability["stays"] == 3
    assert found.stability["share"] == 0.6
    # The memory is selected anew on every draw: of a period of 3 that of lag 3 is chosen, which nobody had tried.
    assert found.stability["winners"]["1 frame at a time, 3 back"] == 1
    assert sum(found.stability["winners"].values()) == 5
    assert found.stability["loss_median"] <= 0.005 < found.stability["loss_worst"]
    stopped = advise(own(), 1, most=4, draws=draws, enough=lambda: True, **SHORT)
    assert (stopped.stability["draws"], stopped.stability["share"]) == (0, None)


def test_levels_are_found_anew_on_a_draw() -> None:
    """Those of a video that hardly changes are of little use for one that does, where the same plan is best."""
    other = ar1(0.5)
    found = advise(ar1(0.97), 3, strides=[1], most=1, frames=8, errors=[], draws=[lambda: other])
    assert found.stability["share"] == 1
    as_found = ledger_kl(other, found.recommended, 8)
    anew = optimal_schedule(other, found.recommended, 2, "last-step", iterations=100, starts=["uniform"]).plan
    least = ledger_kl(other, anew, 8)
    assert least < 0.1 * as_found
    assert found.stability["loss_worst"] == pytest.approx(1 - least / as_found, rel=0.05)


def test_a_resumed_run_says_the_same(tmp_path: Path) -> None:
    asked: dict[str, Any] = {**SHORT, "most": 2, "draws": [lambda: ar1(0.8)]}
    whole = advise(ar1(0.9), 2, **asked).to_dict()
    calls = itertools.count()

    class StopError(Exception):
        pass

    def stopping() -> Any:
        raise StopError

    path = tmp_path / "progress.json"

    def interrupted(limit: int) -> None:
        done = itertools.count()
        with _kept(path, "key") as remember:

            def stops(name: str, compute: Any) -> Any:
                return remember(name, stopping if next(done) >= limit else compute)

            advise(ar1(0.9), 2, **asked, remember=stops)

    for limit in (3, 9):  # twice interrupted
        with pytest.raises(StopError):
            interrupted(limit)
    assert len(json.loads(path.read_text())["values"]) == 9
    with _kept(path, "key") as remember:
        again = advise(ar1(0.9), 2, **asked, remember=lambda name, compute: remember(
            name, lambda: (next(calls), compute())[1]
        )).to_dict()  # fmt: skip
    assert again == whole
    values = json.loads(path.read_text())["values"]
    assert next(calls) == len(values) - 9
    with _kept(path, "another run's key") as remember:
        assert remember("levels 1", lambda: 0) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"evaluations": 0}, "the cheapest plan takes 1 evaluation a frame, and the budget is 0"),
        ({"strides": []}, "at least one Δ"),
        ({"strides": [0]}, "at least one Δ"),
        ({"most": -1}, "at most a number from 0"),
    ],
)
def test_budgets_below_the_cheapest_plan_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        advise(ar1(0.9), arguments.pop("evaluations", 2), **arguments)


# -- clips ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Six clips of one pattern whose brightness repeats with period 3, a little changed."""
    folder = tmp_path_factory.mktemp("clips")
    rng = np.random.default_rng(0)
    pattern = rng.normal(size=(4, 4, 1))
    paths = []
    for number in range(6):
        course = np.empty(72)
        course[:3] = rng.normal(size=3)
        for t in range(3, 72):
            course[t] = 0.97 * course[t - 3] + np.sqrt(1 - 0.97**2) * rng.normal()
        frames = np.clip(
            127.5 + 25 * course[:, None, None, None] * pattern + rng.normal(size=(72, 4, 4, 1)), 0, 255
        )
        paths.append(str(folder / f"{number}.npy"))
        np.save(paths[-1], frames.round().astype(np.uint8).repeat(3, -1))
    return paths


OPTIONS = ["--modes=1", "--grey", "--evaluations=1", "--step=ancestral", "--strides=1", "--most-references=3",
           "--frames=9", "--draws=2"]  # fmt: skip


def test_clips_with_a_planted_plan(clips: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, folder = tmp_path / "out.json", tmp_path / "advice"
    words = ["advise", *clips, *OPTIONS, "--json", str(out), "--out", str(folder)]
    assert main(words) == 0
    shown = capsys.readouterr().out
    found = json.loads(out.read_text())
    assert found["name"] == "1 frame at a time, last 3"
    assert found["stability"]["share"] == 1.0
    assert "recommended: 1 frame at a time, last 3" in shown
    assert "of 2 bootstraps" in shown
    assert Plan.from_dict(found["recommended"]) == load_plan(folder / "recommended.json")
    written = "advice.json fitted.npz front.png progress.json recommended.json sensitivity.csv table.csv"
    assert {path.name for path in folder.iterdir()} == set(written.split())
    # Again, elsewhere: the same seed, the same answer. Its plan file is read by the ledger.
    assert main([*words[:-1], str(tmp_path / "again")]) == 0
    again = json.loads(out.read_text())
    assert {key: again[key] for key in again if key != "provenance"} == {
        key: found[key] for key in found if key != "provenance"
    }
    fitted = ["ledger", "--video", str(folder / "fitted.npz"), "--plan", str(folder / "recommended.json")]
    assert main([*fitted, "--step", "ancestral", "--ar-steps", "8", "--json", str(out)]) == 0
    assert json.loads(out.read_text())["kl"] / 9 == pytest.approx(found["table"][0]["kl"], rel=1e-9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--evaluations 0", "the cheapest plan takes 1 evaluation a frame, and the budget is 0"),
        ("--evaluations 2 --strides 1,x", "--strides: whole numbers"),
        ("--evaluations 2 --seconds 0", "--seconds must be positive"),
        ("--evaluations 2 --horizon inf", "--horizon must be positive and finite"),
        ("--evaluations 2 --modes 0", "--modes must be at least 1"),
        ("--evaluations 2 --step none", "a reverse step is one of"),
        ("--evaluations 1000000000", "GB of memory|hours"),
        ("--modes 2", "--evaluations"),
    ],
)
def test_bad_input_is_one_line(
    options: str, message: str, clips: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import re

    try:
        code: object = main(["advise", *clips[:2], *options.split(), "--out", str(tmp_path / "advice")])
    except SystemExit as stop:
        code = stop.code
    shown = capsys.readouterr()
    assert code == 2
    assert len(shown.err.splitlines()) == 1, shown.err
    assert re.search(message, shown.err), shown.err
    assert not (tmp_path / "advice").exists()
