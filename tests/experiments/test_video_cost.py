"""What a memory costs: bytes known by hand, seconds of a clock that is ours, and the table and figure of a run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from arvdm_theory.diffusion.sampler import generate
from arvdm_theory.experiments.video_cost import figures as figure_of_cost
from arvdm_theory.experiments.video_cost import run as study
from arvdm_theory.experiments.video_cost.peak_memory import peak_bytes
from arvdm_theory.experiments.video_cost.run import (
    CostConfig,
    CostError,
    Seconds,
    alternating_seconds,
    frame_seconds,
    step_inputs,
)
from arvdm_theory.interfaces import ReferenceBatch
from arvdm_theory.networks.config import ModelError
from arvdm_theory.report.style import draw_all
from arvdm_theory.tables import read_table
from arvdm_theory.video.runs import VideoRun
from arvdm_theory.video.windows import POSE_DIM

CPU = torch.device("cpu")
SMOKE = CostConfig(preset="smoke", memory_frames=(2,), videos=2, repeats=1, device="cpu")

X, SQUARE = torch.zeros(1000), torch.zeros(20, 50)


def _freed_between() -> Tensor:
    first = X + 1
    second = first * 2
    del first
    return torch.cat([second, second])


def _kept_by_a_view() -> Tensor:
    # A view of ten numbers holds the storage of all 3000.
    part = X.repeat(3)[:10]
    return part + X[:10]


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda: X.view(20, 50).T[3:], 0),
        (lambda: X.add_(1).mul_(2), 0),
        (lambda: X + 1, 4000),
        (lambda: X.to(torch.float64), 8000),
        (lambda: ((X + 1) * 2) + 3, 8000),
        (lambda: SQUARE.T.contiguous(), 4000),
        (lambda: SQUARE @ SQUARE.T, 4 * 20 * 20),
        (lambda: SQUARE.max(1), 20 * (4 + 8)),
        (_freed_between, 4000 + 8000),
        (_kept_by_a_view, 12_000 + 40),
    ],
)
def test_the_peak_of_known_operations_is_the_one_counted_by_hand(call: Callable[[], Any], expected: int) -> None:
    with torch.no_grad():
        assert peak_bytes(call, CPU) == expected


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_the_peak_on_cuda_is_counted_in_blocks_of_512_bytes() -> None:
    device = torch.device("cuda")
    x = torch.zeros(1000, device=device)
    with torch.no_grad():
        assert peak_bytes(lambda: ((x + 1) * 2) + 3, device) == 2 * 4096
        assert peak_bytes(lambda: x.add_(1), device) == 0


def _allocated(call: Callable[[], Any], folder: Path) -> int:
    """The highest sum of what PyTorch's CPU allocator gave out and took back, as its profiler writes it down."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        call()
    profiler.export_chrome_trace(str(folder / "trace.json"))
    events = json.loads((folder / "trace.json").read_text())["traceEvents"]
    changes = [event["args"] for event in events if event.get("name") == "[memory]"]
    now = peak = 0
    for change in sorted(changes, key=lambda change: change["Ev Idx"]):
        now += change["Bytes"]
        peak = max(peak, now)
    return peak


def _two_steps(run: VideoRun) -> Callable[[], Tensor]:
    network = study._network(run, CPU, 0)
    return study._two_steps(network, step_inputs(run.windows, network.config, 1, CPU))


@pytest.mark.parametrize(
    "fields",
    [
        {"memory": "none"},
        {"memory": "prepend"},
        {"memory": "concat"},
        {"memory": "cross"},
        {"memory": "concat", "compress": 4, "compression": "temporal"},
        {"memory": "prepend", "compress": 4, "compression": "tokens"},
        {"memory": "cross", "compress": 4, "compression": "spatial"},
        {"memory": "cross", "compress": 4, "compression": "tokens"},
    ],
)
def test_the_peak_of_a_network_is_what_the_allocator_gave_out(fields: dict[str, Any], tmp_path: Path) -> None:
    call = _two_steps(VideoRun(preset="smoke", memory_frames=6, **fields))
    with torch.no_grad():
        counted, given_out = peak_bytes(call, CPU), _allocated(call, tmp_path)
        assert peak_bytes(call, CPU) == counted
    # The allocator also sees Python's numbers in arithmetic: a tensor of 8 bytes each, and its cast to 4.
    assert 0 <= given_out - counted <= 16
    assert counted > 0


def test_memory_grows_by_the_same_bytes_for_every_prepended_frame_and_not_at_all_without_memory() -> None:
    """Every layer works on frames one by one, or place by place over frames without a table of all pairs."""
    peaks: dict[str, list[int]] = {}
    for memory in ("none", "prepend"):
        for frames in (8, 16, 24):
            run = VideoRun(preset="smoke", memory=memory, memory_frames=frames)  # type: ignore[arg-type]
            with torch.no_grad():
                peaks.setdefault(memory, []).append(peak_bytes(_two_steps(run), CPU))
    assert len(set(peaks["none"])) == 1
    first, second, third = peaks["prepend"]
    assert third - second == second - first > 0


@pytest.mark.parametrize("plan", ["outpainting", "fifo"])
def test_inputs_and_calls_a_frame_are_those_of_a_rollout(plan: Any) -> None:
    run = VideoRun(preset="smoke", memory_frames=6, plan=plan)
    windows, network, videos = run.windows, run.network(3, POSE_DIM, 0.0, 1.0), 3
    plan, k = windows.plan, windows.last
    calls: list[tuple[Tensor, Tensor, ReferenceBatch]] = []

    def score(window: Tensor, levels: Tensor, references: ReferenceBatch) -> Tensor:
        calls.append((window, levels, references))
        return -window

    generate(
        score, plan, k, videos, network.frame_dim, step="ddim", dtype=torch.float32,
        prompt=torch.zeros(videos, windows.prompt, network.frame_dim),
        actions=torch.zeros(videos, windows.total_frames, POSE_DIM),
    )  # fmt: skip
    last = [call for call in calls if call[2].window_frames == tuple(plan.window_frames(k))]
    new = plan.clean_frames(k) - plan.clean_frames(k - 1)
    # A first call of 1 second on the wall and later ones of 1 s: all calls; the processor's tell the first apart.
    a_frame = frame_seconds(plan, Seconds(1.0, 1.0), Seconds(1.0, 0.0))
    assert len(last) == round(a_frame.wall * new) > 0
    assert a_frame.cpu * new == pytest.approx(1)
    theirs, ours = last[0], step_inputs(windows, network, videos, CPU)
    for index in (0, 1):
        assert ours[index].shape == theirs[index].shape
        assert ours[index].dtype == theirs[index].dtype
    torch.testing.assert_close(ours[1], theirs[1], rtol=0, atol=0)
    mine, told = ours[2], theirs[2]
    assert (mine.frames, mine.window_frames) == (told.frames, told.window_frames)
    torch.testing.assert_close(mine.levels, told.levels, rtol=0, atol=0)
    for name in ("values", "actions", "window_actions"):
        assert getattr(mine, name).shape == getattr(told, name).shape
        assert getattr(mine, name).dtype == getattr(told, name).dtype


def test_seconds_are_medians_of_calls_that_take_turns_after_one_to_warm_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = {"wall": 0.0, "cpu": 0.0}
    clock = SimpleNamespace(perf_counter=lambda: now["wall"], process_time=lambda: now["cpu"])
    monkeypatch.setattr(study, "time", clock)
    order: list[str] = []
    # The first is the warm-up; one call in three meets a busy machine.
    taken = {"a": iter([900.0, 1.0, 50.0, 2.0]), "b": iter([900.0, 8.0, 7.0, 70.0])}

    def call(name: str) -> None:
        order.append(name)
        seconds = next(taken[name])
        now["wall"] += seconds
        now["cpu"] += seconds / 2

    found = alternating_seconds({"a": lambda: call("a"), "b": lambda: call("b")}, 3, CPU)
    assert found == {"a": Seconds(2.0, 1.0), "b": Seconds(8.0, 4.0)}
    assert order == list("baabbaab")


def test_a_run_goes_on_where_it_stopped_and_draws_its_figure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def timed(calls: dict[Any, Callable[[], Tensor]], repeats: int, device: torch.device) -> dict[Any, Seconds]:
        # The window of every network is of two videos, as the config says.
        assert all(len(call()) == SMOKE.videos for call in calls.values())
        return {
            ("own", "first"): Seconds(5.0, 4.0), ("own", "later"): Seconds(2.0, 1.0),
            ("base", "first"): Seconds(2.5, 0.5), ("base", "later"): Seconds(1.0, 0.5),
        }  # fmt: skip

    monkeypatch.setattr(study, "alternating_seconds", timed)
    table = study.video_cost(SMOKE, tmp_path, progress=False)
    pd.testing.assert_frame_equal(read_table(tmp_path / "video-cost.csv"), table)
    assert (tmp_path / "video-cost.provenance.json").exists()
    kinds = list(zip(table["memory"], table["compression"], table["compress"], strict=True))
    assert kinds == [("none", "none", 1)] + [
        (memory, name, 1 if name == "none" else 4)
        for memory in ("prepend", "concat", "cross")
        for name in ("none", "spatial", "temporal", "tokens")
    ]
    # 3 reverse steps, a first and two later ones, of a window of 4 frames and 2 videos.
    assert (table["seconds_frame"] == 9.0 / 4 / 2).all()
    assert (table["cpu_seconds_frame"] == 6.0 / 4 / 2).all()
    assert (table["baseline_seconds_frame"] == 4.5 / 4 / 2).all()
    assert (table["ratio"] == 2.0).all()
    assert (table["cpu_ratio"] == 4.0).all()
    assert (table["call_ratio"] == 8.0).all()
    # Two remembered frames and two of context, which is all that the network without memory is shown.
    assert table.set_index("memory").groupby("memory")["references"].unique().map(list).to_dict() == {
        "none": [2], "prepend": [4], "concat": [4], "cross": [4],
    }  # fmt: skip
    peaks = table[table["compression"] == "none"].set_index("memory")["peak_mib"]
    assert peaks["prepend"] > peaks["cross"] > peaks["none"] > 0

    def never(*_: object, **__: object) -> None:
        raise AssertionError("a finished cell was measured again")

    monkeypatch.setattr(study, "network_cost", never)
    pd.testing.assert_frame_equal(study.video_cost(SMOKE, tmp_path, progress=False), table)
    assert [path.name for path in draw_all(tmp_path, figure_of_cost.FIGURES)] == ["video-cost.png"]

    figure = figure_of_cost.cost(table)
    assert [len(axes.lines) for axes in figure.axes] == [len(table) + 1, len(table)]
    assert {axes.get_xscale() for axes in figure.axes} | {axes.get_yscale() for axes in figure.axes} == {"log"}
    with pytest.raises(ValueError, match="one preset"):
        figure_of_cost.cost(pd.concat([table, table.assign(preset="cpu")]))


def test_a_compression_that_the_network_refuses_is_left_out_and_a_structure_never() -> None:
    # Squares of 3 x 3 places do not divide the 4 x 4 of a 16 x 16 picture in patches of 4.
    cells = study._cells(CostConfig(preset="smoke", memory_frames=(2,), compress=9), CPU)
    assert {cell["compression"] for cell in cells} == {"none", "temporal", "tokens"}
    assert len(cells) == 1 + 3 * 3


def test_a_network_without_compression_that_cannot_be_built_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(cell: Any) -> None:
        raise ModelError("no such network")

    monkeypatch.setattr(study, "_run", refuse)
    with pytest.raises(ModelError, match="no such network"):
        study._cells(SMOKE, CPU)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"memory_frames": ()}, "memory_frames"),
        ({"memory_frames": (4, 4)}, "memory_frames"),
        ({"compress": 1}, "compress is at least 2, got 1"),
        ({"videos": 0}, "videos is at least 1, got 0"),
        ({"repeats": 0}, "repeats is at least 1, got 0"),
    ],
)
def test_a_config_that_measures_nothing_is_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(CostError, match=said):
        CostConfig(**fields)


def test_an_unknown_preset_or_memory_is_named(tmp_path: Path) -> None:
    for fields, said in (({"preset": "huge"}, "huge"), ({"memory_frames": (0,)}, "memory_frames is at least 1")):
        with pytest.raises(ValueError, match=said):
            study.video_cost(CostConfig(**fields), tmp_path, progress=False)  # type: ignore[arg-type]
