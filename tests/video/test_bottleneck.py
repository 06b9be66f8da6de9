"""The bottleneck of clips three ways, on clips whose memory is planted."""

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from arvdm_theory.cli import main
from arvdm_theory.decomposition.immse import memory_bottleneck_along_clocks
from arvdm_theory.laws.fitted import FitError
from arvdm_theory.laws.gaussian import StationaryVideo
from arvdm_theory.laws.linear import var
from arvdm_theory.plan.methods import outpainting
from arvdm_theory.plan.references import References
from arvdm_theory.video.bottleneck import SEES, ClipBottleneck, NetworkSettings, clip_bottleneck

Array = NDArray[np.float64]

# Pictures of 2 x 2 grey pixels; modes are all four.
LAW = var([0.4 * np.eye(4), 0.45 * np.eye(4)], np.diag([1.0, 0.7, 0.5, 0.35]))
SMALL = NetworkSettings(steps=60, width=32, depth=1)
TINY = NetworkSettings(steps=5, width=8, depth=1)


def _pictures(values: Array) -> list[Array]:
    return [0.2 * clip.reshape(len(clip), 2, 2, 1) for clip in values]


@cache
def _linear() -> tuple[ClipBottleneck, list[Array]]:
    """8 clips of 80 frames of a second-order autoregression, whose second reference is worth knowing."""
    values = LAW.sample(8, 80, torch.Generator().manual_seed(0))[:, 0].numpy()
    clips = _pictures(values)
    return clip_bottleneck(clips, (1, 2), modes=4, memory=6, networks=SMALL, nulls=19, seed=1), clips


def test_second_order_memory_is_found_and_its_interval_holds_the_truth() -> None:
    found, _ = _linear()
    scale = 0.2 / found.video.scale
    true = StationaryVideo(lambda lags: scale**2 * LAW.autocovariance(lags), 4)
    rows = found.table[found.table.route == "second order"]
    assert len(rows) == 4
    for row in rows.itertuples():
        plan, larger = (outpainting(1, References.last(m), 16, 16) for m in (row.references, 6))
        exact = float(memory_bottleneck_along_clocks(true, plan, 6, stop=row.level, plan_with_past=larger))
        # 99.9 % of Student's t with 7 degrees of freedom, where the interval is of 95 %; and a tail's 0.03² a lag
        # and mode in place of a true 0.
        assert abs(row.value - exact) < 5.4 / 2.4 * (row.ci_high - row.value) + 0.005, row
    assert rows[rows.references == 1].ci_low.min() > 0.02


def test_networks_know_what_second_order_knows() -> None:
    """Mixed with the fitted Gaussian's score: the gap of losses on clips left out is the same information."""
    found, _ = _linear()
    one = found.table[(found.table.references == 1) & (found.table.level > 0)].set_index("route")
    assert one.loc["networks", "ci_low"] > 0
    assert one.loc["networks", "ci_low"] < one.loc["second order", "value"] < 1.5 * one.loc["networks", "ci_high"]
    assert "weight of the networks" in one.loc["networks", "notes"]


def test_a_linear_law_has_no_revisits() -> None:
    """The null's p-value is no smaller than 1/20 by chance in all of two numbers of references."""
    found, _ = _linear()
    rows = found.table[found.table.route == "revisits"]
    assert (rows.p_value > 1 / 20).any()
    assert set(found.table.route) == set(SEES)
    assert found.table.notna().drop(columns="p_value").all(axis=None)


@cache
def _returns(own: bool) -> ClipBottleneck:
    """Clips of white noise that replay a stretch of themselves (or of the next clip) at a lag of their own."""
    rng = np.random.default_rng(2)
    values = rng.normal(size=(8, 120, 4))
    source = values.copy()
    for i, clip in enumerate(values):
        start = int(rng.integers(0, 20))
        origin = source[i] if own else source[(i + 1) % 8]
        clip[60:100] = origin[start : start + 40] + 0.1 * rng.normal(size=(40, 4))
    return clip_bottleneck(_pictures(values), (1, 4), modes=4, memory=8, networks=None, nulls=19, seed=0)


def test_returns_at_no_fixed_lag_are_seen_by_revisits_alone() -> None:
    table = _returns(True).table
    revisits = table[table.route == "revisits"]
    assert (revisits.p_value == 1 / 20).all()
    assert (revisits.ci_low > 0.1).all()
    assert (table[table.route == "second order"].value < 0.05).all()
    assert any("revisits tell something beyond 1, 4 references" in line for line in _returns(True).words)


def test_the_null_keeps_what_other_clips_tell() -> None:
    """Stretches of another clip are replayed: no clip's own memory holds them, and nothing is seen."""
    table = _returns(False).table
    assert (table[table.route == "revisits"].p_value > 0.05).any()
    assert (table[table.route == "revisits"].ci_low < 0.1).all()


def test_the_same_seed_gives_the_same_table() -> None:
    _, clips = _linear()
    one, two = (
        clip_bottleneck(clips[:4], (1,), modes=2, memory=3, networks=TINY, nulls=2, seed=4) for _ in range(2)
    )
    assert one.table.equals(two.table)


def test_what_cannot_be_asked() -> None:
    _, clips = _linear()
    with pytest.raises(ValueError, match="from 1 to 3"):
        clip_bottleneck(clips, (4,), memory=4)
    with pytest.raises(ValueError, match="level"):
        clip_bottleneck(clips, (1,), memory=4, stop=0.0)
    with pytest.raises(FitError, match="at least 4 different ones, got 3"):
        clip_bottleneck([*clips[:3], clips[0]], (1,), modes=2, memory=4)
    with pytest.raises(FitError, match="clip 5 has fewer than 33 frames"):
        clip_bottleneck([*clips[:4], clips[5][:20]], (1,), modes=2, memory=4)


def test_at_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(clip_bottleneck.__kwdefaults__ or {}, "networks", TINY)
    monkeypatch.setitem(clip_bottleneck.__kwdefaults__ or {}, "nulls", 3)
    rng = np.random.default_rng(0)
    for i in range(5):
        walk = 128 + 12 * rng.normal(size=(60, 4, 4)).cumsum(0)
        np.save(tmp_path / f"{i}.npy", np.clip(walk, 0, 255).astype(np.uint8))
    words = ["fit", str(tmp_path), "--modes", "2", "--order", "1", "--out", str(tmp_path / "v.fitted")]
    assert main([*words, "--bottleneck", "1", "--json", str(tmp_path / "r.json")]) == 0
    shown = capsys.readouterr().out
    assert "memory bottleneck, nats a frame" in shown
    told = json.loads((tmp_path / "r.json").read_text())["bottleneck"]
    assert [row["route"] for row in told["rows"]] == ["second order", "second order", "revisits", "networks"]
    assert all(line in shown for line in told["words"])
    assert main([*words, "--bottleneck", "0"]) == 2
    assert "--bottleneck is numbers of references" in capsys.readouterr().err
