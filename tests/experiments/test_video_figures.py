"""Figures of a sweep: they show the table's own numbers, and leave out what a sweep has no networks for."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.container import ErrorbarContainer

from arvdm_theory.experiments import drawn_from
from arvdm_theory.experiments.video import figures as video
from arvdm_theory.experiments.video.decay_figure import decay
from arvdm_theory.experiments.video.families_figure import COLOURS, NothingToDraw, alike, main_setting
from arvdm_theory.experiments.video.figures import draw_sweep
from arvdm_theory.experiments.video.memory_figure import compression, length
from arvdm_theory.experiments.video.pareto_figure import pareto, price, variants
from arvdm_theory.experiments.video.prediction_figure import prediction
from arvdm_theory.experiments.video.retrieval_figure import RETRIEVAL, retrieval
from arvdm_theory.experiments.video.run import film_table
from arvdm_theory.report.style import draw_all
from arvdm_theory.tables import write_table
from arvdm_theory.video.decay import rank_agreement
from arvdm_theory.video.rollouts import PROXIES
from arvdm_theory.video.samples import Samples
from arvdm_theory.video.windows import Window

GENERATED, NEEDLE, LAST = "generated", "copy of the right memory frame", "copy of the last frame"
USUAL = {
    "data": "dmlab", "preset": "cpu", "memory": "cross", "memory_frames": 8, "compress": 1,
    "compression": "spatial", "plan": "outpainting", "architecture": "transformer", "told": "poses", "seed": 0,
    "worlds": 0, "steps": 800,
}  # fmt: skip


def network(memory: str, **fields: Any) -> dict[str, Any]:
    frames = 0 if memory == "none" else fields.pop("memory_frames", 8)
    return {**USUAL, "memory": memory, "memory_frames": frames, **fields}


SEEDS = [network(memory, seed=seed) for seed in (0, 1) for memory in ("none", "prepend", "cross")]
SHORTER = [network("cross", memory_frames=frames) for frames in (2, 4)]
PACKED = [
    network("cross", compress=4),
    network("cross", compress=16),
    network("cross", compress=2, compression="temporal"),
]
FIFO = [network(memory, plan="fifo") for memory in ("none", "prepend", "cross", "concat")]
OTHERS = [network("none", architecture="unet"), network("cross", told="actions")]
WALKING = [network("none", preset="cpu-walk"), network("cross", preset="cpu-walk", memory_frames=24)]
EVERYTHING = [*SEEDS, *SHORTER, *PACKED, *FIFO, *OTHERS, *WALKING]


def named(networks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"network": f"network-{number}", **fields} for number, fields in enumerate(networks)]


def retrieved(networks: list[dict[str, Any]]) -> pd.DataFrame:
    """``video``: any numbers, no two alike, the two copies the same for all."""
    rng = np.random.default_rng(0)
    rows = []
    for fields in named(networks):
        for ahead in range(3):
            own = {"rate": rng.uniform(0.3, 0.9), "psnr": rng.uniform(14, 25), "ssim": rng.uniform(0.2, 0.9)}
            for source, values in (
                (GENERATED, own),
                (NEEDLE, {"rate": 1.0, "psnr": np.inf, "ssim": 1.0}),
                (LAST, {"rate": 0.2, "psnr": 13.0, "ssim": 0.1}),
            ):
                ends = {f"{name}_low": value - rng.uniform(0.01, 0.05) for name, value in values.items()}
                ends |= {f"{name}_high": value + rng.uniform(0.01, 0.05) for name, value in values.items()}
                rows.append({**fields, "source": source, "ahead": ahead, "chance": 1 / 16, **values, **ends})
    return pd.DataFrame(rows)


def rolled_out(networks: list[dict[str, Any]]) -> pd.DataFrame:
    """``video-rollouts``."""
    rng = np.random.default_rng(1)
    rows = []
    for fields in named(networks):
        for source in (GENERATED, LAST):
            for ahead in range(1, 6):
                psnr, ssim = rng.uniform(10, 25), rng.uniform(0.2, 0.8)
                row = {**fields, "source": source, "ahead": ahead, "psnr": psnr, "ssim": ssim}
                row |= {"ssim_low": ssim - rng.uniform(0, 0.1), "ssim_high": ssim + rng.uniform(0, 0.1)}
                if source == GENERATED:
                    row["predicted_linear_response"] = rng.uniform(10, 25)
                rows.append(row)
    return pd.DataFrame(rows)


def summarised(networks: list[dict[str, Any]]) -> pd.DataFrame:
    """``video-summary``."""
    rng = np.random.default_rng(2)
    table = pd.DataFrame(named(networks))
    for name in ("rate", "psnr", "slope", "nats", *(f"slope_{proxy}" for proxy in PROXIES)):
        table[name] = rng.uniform(0.1, 0.9, len(table))
        table[f"{name}_low"] = table[name] - rng.uniform(0.01, 0.05, len(table))
        table[f"{name}_high"] = table[name] + rng.uniform(0.01, 0.05, len(table))
    table["slope_constant"] = np.nan
    for name in ("cpu_ratio", "call_ratio", "peak_ratio"):
        table[name] = rng.uniform(1, 4, len(table))
    for name in ("end", *(f"end_{proxy}" for proxy in PROXIES)):
        table[name] = rng.uniform(10, 25, len(table))
    for axis in ("rate", "nats"):
        table[f"front_{axis}"], table["front_price"] = False, False
        for _, group in table.groupby(["data", "preset", "worlds"]):
            for at, row in group.iterrows():
                better = (group[axis] >= row[axis]) & (group["slope"] >= row["slope"])
                table.loc[at, f"front_{axis}"] = better.sum() == 1
                cheaper = (group["rate"] >= row["rate"]) & (group["cpu_ratio"] <= row["cpu_ratio"])
                table.loc[at, "front_price"] = cheaper.sum() == 1
    return table


def films() -> pd.DataFrame:
    rng = np.random.default_rng(3)
    clips = {name: rng.integers(0, 256, (1, 4, 16, 16, 3), dtype=np.uint8) for name in ("truth", "none", "cross")}
    windows = (Window(0, 0, ((0, 3),)),)
    return film_table(
        {name: Samples(windows, ("a",), clips["truth"], clips[name], 2) for name in ("none", "cross")}
    )


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    plt.close("all")


def points(panel: Axes) -> pd.DataFrame:
    """What error bars show: value, interval and colour of each."""
    rows = []
    for drawn in panel.containers:
        assert isinstance(drawn, ErrorbarContainer)
        line, _, bars = drawn
        upright = bars[-1].get_segments()
        for x, y, segment in zip(line.get_xdata(), line.get_ydata(), upright, strict=True):
            low, high = segment[:, 1]
            rows.append((x, y, low, high, to_hex(line.get_color()), line.get_marker()))
    return pd.DataFrame(rows, columns=["x", "y", "low", "high", "colour", "marker"])


def plain_points(panel: Axes) -> pd.DataFrame:
    """What points without intervals show."""
    rows = [
        (x, y, line.get_marker())
        for line in panel.lines
        if line.get_marker() != "None"
        for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True)
    ]
    return pd.DataFrame(rows, columns=["x", "y", "marker"])


def dashes(panel: Axes, style: str) -> list[Any]:
    return [line for line in panel.lines if line.get_linestyle() == style]


def test_usual_networks_differ_in_memory_and_seed_alone() -> None:
    table = pd.DataFrame(named(EVERYTHING))
    chosen = [f"network-{EVERYTHING.index(fields)}" for fields in (*SEEDS, *WALKING)]
    assert alike(table)["network"].tolist() == chosen
    assert set(alike(table, "plan")["network"]) - set(chosen) == {
        f"network-{EVERYTHING.index(fields)}" for fields in FIFO
    }
    assert len(alike(table, "memory_frames")) == len(chosen) + len(SHORTER)
    assert set(main_setting(table)["preset"]) == {"cpu"}


def test_a_sweep_without_the_usual_plan_shows_the_plan_that_it_has() -> None:
    table = pd.DataFrame(named([network("none", plan="fifo"), network("cross", plan="fifo", compress=4)]))
    assert len(alike(table)) == 2


def test_the_retrieval_figure_shows_the_networks_of_every_setting_with_their_intervals() -> None:
    table = retrieved(EVERYTHING)
    figure = retrieval(table)
    axes = np.array(figure.axes).reshape(2, 4)
    named = [[text.get_text() for text in row[0].texts] for row in axes]
    assert named == [["DMLab mazes, turning"], ["DMLab mazes, walking"]]
    for row, shown in zip(axes, (SEEDS, WALKING), strict=True):
        for panel, name in zip(row, ("rate", "psnr", "ssim"), strict=False):
            drawn = points(panel).sort_values("y", ignore_index=True)
            numbers = [f"network-{EVERYTHING.index(fields)}" for fields in shown]
            own = table[(table["source"] == GENERATED) & (table["ahead"] == 0) & table["network"].isin(numbers)]
            own = own.sort_values(name, ignore_index=True)
            columns = [name, f"{name}_low", f"{name}_high"]
            np.testing.assert_allclose(drawn[["y", "low", "high"]], own[columns], rtol=1e-12)
            assert drawn["colour"].tolist() == [COLOURS[memory] for memory in own["memory"]]
    # The copy of the remembered frame is exact: its PSNR has no place on the axis.
    assert [len(dashes(panel, "--")) for panel in axes[0]] == [1, 0, 1, 0]
    assert [line.get_ydata()[0] for line in dashes(axes[0, 1], ":")] == [13.0]
    assert dashes(axes[0, 0], "-.")[0].get_ydata()[0] == 1 / 16


def test_the_rate_by_place_is_the_mean_of_seeds_and_of_their_intervals() -> None:
    table = retrieved(SEEDS)
    drawn = points(retrieval(table).axes[3])
    own = table[(table["source"] == GENERATED) & (table["ahead"] > 0)]
    for memory in ("none", "prepend", "cross"):
        shown = drawn[drawn["colour"] == COLOURS[memory]]
        for column, name in (("y", "rate"), ("low", "rate_low"), ("high", "rate_high")):
            first, second = (
                own.loc[(own["memory"] == memory) & (own["seed"] == seed), name].to_numpy() for seed in (0, 1)
            )
            np.testing.assert_allclose(shown[column], (first + second) / 2, rtol=1e-12)


def test_without_rates_the_qualities_are_shown_alone() -> None:
    table = retrieved(SEEDS).drop(columns=["rate", "rate_low", "rate_high", "chance"])
    table = table[table["source"] == GENERATED]
    assert [panel.get_ylabel() for panel in retrieval(table).axes] == ["PSNR (dB)", "SSIM"]


def test_the_length_figure_goes_from_no_memory_at_zero_to_the_whole() -> None:
    table = retrieved(EVERYTHING)
    rates, _ = length(table).axes
    own = table[(table["source"] == GENERATED) & (table["ahead"] == 0)].set_index("network")
    drawn = points(rates)
    numbers = [f"network-{EVERYTHING.index(fields)}" for fields in (*SEEDS, *SHORTER)]
    np.testing.assert_allclose(sorted(drawn["y"]), sorted(own.loc[numbers, "rate"]), rtol=1e-12)
    assert (drawn.loc[drawn["colour"] == COLOURS["none"], "x"] == 0).all()
    assert set(drawn.loc[drawn["colour"] == COLOURS["cross"], "x"].round()) == {2, 4, 8}
    # A structure of one length is a point, and no line.
    (line,) = dashes(rates, "-")
    assert to_hex(line.get_color()) == COLOURS["cross"]
    usual = own.loc[[f"network-{EVERYTHING.index(fields)}" for fields in SEEDS]]
    two, four = (own.loc[f"network-{EVERYTHING.index(fields)}", "rate"] for fields in SHORTER)
    means = usual.groupby("memory")["rate"].mean()
    np.testing.assert_allclose(line.get_ydata(), [means["none"], two, four, means["cross"]], rtol=1e-12)


def test_the_compression_figure_has_a_line_for_every_kind() -> None:
    table = retrieved(EVERYTHING)
    _, quality = compression(table).axes
    own = table[(table["source"] == GENERATED) & (table["ahead"] == 0)].set_index("network")
    drawn = points(quality)
    spatial, temporal = drawn[drawn["marker"] == "s"], drawn[drawn["marker"] == "^"]
    values = [own.loc[f"network-{EVERYTHING.index(fields)}", "psnr"] for fields in PACKED]
    np.testing.assert_allclose([*spatial["y"], *temporal["y"]], values, rtol=1e-12)
    # Side by side, each stays nearest to its own factor.
    np.testing.assert_allclose(np.log2([*spatial["x"], *temporal["x"]]), [2, 4, 1], atol=0.25)
    whole = own.loc[[f"network-{EVERYTHING.index(fields)}" for fields in SEEDS]].groupby("memory")["psnr"].mean()
    (line,) = dashes(quality, "--")
    np.testing.assert_allclose(line.get_ydata(), [whole["cross"], *values[:2]], rtol=1e-12)
    assert line.get_xdata()[0] == 1
    (without,) = dashes(quality, "-")
    assert without.get_ydata()[0] == pytest.approx(whole["none"], rel=1e-12)


def test_the_decay_figure_has_a_row_a_plan_and_means_over_seeds() -> None:
    table = rolled_out(EVERYTHING)
    figure = decay(table)
    assert [panel.get_title() for panel in figure.axes] == ["outpainting"] * 2 + ["FIFO"] * 2
    numbers = [f"network-{EVERYTHING.index(fields)}" for fields in SEEDS]
    usual = table[table["network"].isin(numbers)]
    for panel, name in zip(figure.axes, ("psnr", "ssim"), strict=False):
        for memory in ("none", "prepend", "cross"):
            own = usual[(usual["memory"] == memory) & (usual["source"] == GENERATED)]
            first, second = (own.loc[own["seed"] == seed, name].to_numpy() for seed in (0, 1))
            shown = [line for line in dashes(panel, "-") if to_hex(line.get_color()) == COLOURS[memory]]
            for line, values in zip(shown, (first, second, (first + second) / 2), strict=True):
                np.testing.assert_allclose(line.get_ydata(), values, rtol=1e-12)
        (held,) = dashes(panel, ":")
        copies = table[(table["network"] == "network-0") & (table["source"] == LAST)]
        assert held.get_ydata().tolist() == copies[name].tolist()
    # Three structures are predicted; only the SSIM has intervals, and so bands.
    assert [len(dashes(panel, "--")) for panel in figure.axes] == [3, 0, 4, 0]
    assert [len(panel.collections) for panel in figure.axes] == [0, 3, 0, 4]


def test_a_prediction_that_no_picture_can_have_leaves_the_axis_as_it_is() -> None:
    table = rolled_out([*SEEDS, *FIFO])
    table.loc[table["plan"] == "fifo", "predicted_linear_response"] -= 200
    for panel in decay(table).axes[::2]:
        assert panel.get_ylim()[0] == 0
        assert panel.get_ylim()[1] < 30


def test_predicted_and_measured_decay_stand_with_the_rank_correlation_of_each_plan() -> None:
    table = summarised(EVERYTHING)
    part = table[table["preset"] == "cpu"]
    axes = np.array(prediction(table).axes).reshape(3, 2).T
    assert [panel.axison for panel in axes.flat] == [True, True, False, True, True, True]
    for row, measure in zip(axes, ("slope", "end"), strict=True):
        for panel, proxy in zip(row, PROXIES, strict=True):
            if not panel.axison:
                continue
            name = f"{measure}_{proxy}"
            drawn = points(panel).sort_values("y") if measure == "slope" else plain_points(panel).sort_values("y")
            own = part.sort_values(measure)
            columns = [name, measure, *([f"{measure}_low", f"{measure}_high"] if measure == "slope" else [])]
            np.testing.assert_allclose(drawn[drawn.columns[: len(columns)]], own[columns], rtol=1e-12)
            assert drawn["marker"].tolist() == ["^" if plan == "fifo" else "o" for plan in own["plan"]]
            _, *titles = panel.get_title().splitlines()
            plans = (("outpainting", "outpainting"), ("FIFO", "fifo"))
            for title, (shown, plan) in zip(titles, plans, strict=True):
                group = part[part["plan"] == plan]
                found = rank_agreement(group[name], group[measure], seed=0)
                rho = found.correlation
                interval = f" [{rho.ci_low:.2f}, {rho.ci_high:.2f}]" if np.isfinite(rho.ci_low) else ""
                assert title == f"{shown}: {rho.value:.2f}{interval}"
                assert (f"[{rho.ci_low:.2f}, {rho.ci_high:.2f}]" in title) == np.isfinite(rho.ci_low)


def test_the_trade_is_drawn_with_nothing_beyond_its_front() -> None:
    table = summarised(EVERYTHING)
    figure = pareto(table)
    part = table[table["preset"] == "cpu"].reset_index(drop=True)
    for panel, name in zip(figure.axes, ("rate", "nats"), strict=True):
        drawn = points(panel)
        # The rate is shown as what is forgotten.
        sign, offset = (-1, 1) if name == "rate" else (1, 0)
        np.testing.assert_allclose(drawn["x"], offset + sign * part[name], rtol=1e-12)
        np.testing.assert_allclose(
            drawn[["y", "low", "high"]], part[["slope", "slope_low", "slope_high"]], rtol=1e-12
        )
        for bars, (_, row) in zip(panel.containers, part.iterrows(), strict=True):
            across = bars[2][0].get_segments()[0][:, 0]
            ends = sorted(offset + sign * row[f"{name}{end}"] for end in ("_low", "_high"))
            np.testing.assert_allclose(across, ends, rtol=1e-12)
        (front,) = dashes(panel, "--")
        x, y = np.asarray(front.get_xdata()), np.asarray(front.get_ydata())
        assert len(x) == part[f"front_{name}"].sum() > 1
        assert (np.diff(y) > 0).all()
        gain = sign * (x - offset)
        assert (np.diff(gain) < 0).all()
        # Height is kept until the next one of the front, so that no network lies beyond the staircase.
        assert front.get_drawstyle() == "steps-post"
        for value, slope in zip(part[name], part["slope"], strict=True):
            assert ((gain >= value - 1e-12) & (y >= slope)).any()
        assert panel.xaxis_inverted() == (name == "nats")


def test_prices_are_those_of_the_condition_whose_compressed_memory_is_longest() -> None:
    longer = [network(m, preset="cpu-farthest", memory_frames=112) for m in ("none", "cross")]
    longer += [
        network("cross", preset="cpu-farthest", memory_frames=112, compress=factor, compression="temporal")
        for factor in (2, 4)
    ]
    table = summarised([*EVERYTHING, *longer])
    part = table[table["preset"] == "cpu-farthest"]
    panels = price(table).axes
    for panel, name in zip(panels, ("cpu_ratio", "call_ratio", "peak_ratio"), strict=True):
        drawn = points(panel)
        np.testing.assert_allclose(drawn[["x", "y", "low"]], part[[name, "rate", "rate_low"]], rtol=1e-12)
        assert drawn["marker"].tolist() == ["o", "o", "v", "v"]
        assert [text.get_text() for text in panel.texts] == ["2:1", "4:1"]
        (stairs,) = dashes(panel, "--")
        x, y = np.asarray(stairs.get_xdata()), np.asarray(stairs.get_ydata())
        # Nobody beyond the stairs, and nobody on them but those that none beats.
        each = list(zip(part[name], part["rate"], strict=True))
        beaten = [((part[name] <= cost) & (part["rate"] >= rate)).sum() > 1 for cost, rate in each]
        assert len(x) == beaten.count(False) >= 1
        assert all(((x <= cost) & (y >= rate)).any() for cost, rate in each)
    with pytest.raises(NothingToDraw, match="compressed memory"):
        price(summarised(SEEDS))


def test_lengths_are_compared_among_networks_of_as_many_updates() -> None:
    """The longest trained are of one length here; lines go through those of which there are most."""
    early = [{**fields, "steps": 100} for fields in (SEEDS[0], SEEDS[2], *SHORTER)]
    table = retrieved([*early, SEEDS[0], SEEDS[2]])
    rates, _ = length(table).axes
    own = table[(table["source"] == GENERATED) & (table["ahead"] == 0) & (table["steps"] == 100)]
    np.testing.assert_allclose(sorted(points(rates)["y"]), sorted(own["rate"]), rtol=1e-12)
    assert set(alike(table)["steps"]) == {800}


def test_what_sets_a_network_apart_is_named() -> None:
    named_so = variants(pd.DataFrame([*SEEDS, *SHORTER, *PACKED, *FIFO, *OTHERS]))
    assert named_so.tolist() == [
        *["usual"] * 6, *["shorter memory"] * 2, "places merged", "places merged", "frames merged", *["FIFO"] * 4,
        "another architecture", "actions told",
    ]  # fmt: skip


def test_a_figure_without_its_networks_says_which_are_missing() -> None:
    with pytest.raises(NothingToDraw, match="remember more or fewer frames"):
        length(retrieved(SEEDS))
    for networks in (SEEDS, [network("none")]):
        with pytest.raises(NothingToDraw, match="compressed memory"):
            compression(retrieved(networks))
    with pytest.raises(NothingToDraw, match="four networks of one plan"):
        prediction(summarised(SEEDS[:3]))
    with pytest.raises(NothingToDraw, match="two networks"):
        pareto(summarised(SEEDS[:1]))


def written(folder: Path, networks: list[dict[str, Any]], rollouts: bool = True) -> Path:
    folder.mkdir()
    write_table(retrieved(networks), folder / "video.csv")
    write_table(films(), folder / "video-film.csv")
    if rollouts:
        write_table(rolled_out(networks), folder / "video-rollouts.csv")
        write_table(summarised(networks), folder / "video-summary.csv")
        write_table(films(), folder / "video-rollout-film.csv")
    return folder


def test_a_sweep_is_drawn_as_far_as_its_networks_go(tmp_path: Path) -> None:
    whole = draw_sweep(written(tmp_path / "whole", EVERYTHING))
    assert [path.name for path in whole] == [
        "video-retrieval.png", "video-length.png", "video-compression.png", "video-film-strips.png",
        "video-decay.png", "video-prediction.png", "video-pareto.png", "video-price.png", "video-grid.mp4",
        "video-rollout-grid.mp4",
    ]  # fmt: skip
    assert all(path.stat().st_size > 0 for path in whole)
    two = draw_sweep(written(tmp_path / "two", [SEEDS[0], SEEDS[2]]))
    assert [path.stem for path in two] == [
        "video-retrieval", "video-film-strips", "video-decay", "video-pareto", "video-grid", "video-rollout-grid",
    ]  # fmt: skip
    short = draw_sweep(written(tmp_path / "short", [*SEEDS, *SHORTER], rollouts=False))
    assert [path.stem for path in short] == ["video-retrieval", "video-length", "video-film-strips", "video-grid"]


def test_the_figures_of_a_folder_are_found_and_drawn_again(tmp_path: Path) -> None:
    two = [SEEDS[0], SEEDS[2]]
    name, whole = drawn_from(written(tmp_path / "whole", two))
    assert (name, list(whole)) == ("video", list(video.FIGURES))
    assert set(drawn_from(written(tmp_path / "short", two, rollouts=False))[1]) == set(RETRIEVAL)
    # What there is nothing to draw of says so in its picture.
    assert [path.stem for path in draw_all(tmp_path / "short", video.FIGURES)] == [
        "video-retrieval", "video-length", "video-compression", "video-film-strips",
    ]  # fmt: skip
    _, draw_length = video.FIGURES["video-length"]
    (sentence,) = draw_length(retrieved(two)).texts
    assert "more or fewer frames are missing" in sentence.get_text()
