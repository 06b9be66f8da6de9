"""Borders found in made-up and real clips, verdicts against the authors' own, and clips that cannot be scored."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from arvdm_theory.data.clips import read_frames
from arvdm_theory.video.folders import Evaluation, evaluate_side_by_side, scored_clips
from arvdm_theory.video.metrics import MetricError, psnr
from arvdm_theory.video.side_by_side import (
    BORDER,
    Onset,
    agreed_onset,
    find_onset,
    halves,
    score_side_by_side,
)
from arvdm_theory.video.verdict import leave_one_out, paper_clips, paper_rule

PAPER_CLIPS = Path(__file__).parents[3] / "shared" / "data" / "paper_clips"

Array = NDArray[np.float64]


def _panorama(frames: int = 40, side: int = 48, seed: int = 0, speed: int = 7) -> NDArray[np.uint8]:
    """A camera that pans over a smooth random wall, from one end to the other and back."""
    rng = np.random.default_rng(seed)
    wall = rng.normal(size=(side + 8, side + speed * frames + 8, 3))
    for axis in (0, 1):
        wall = sum(np.roll(wall, shift, axis) for shift in range(8))
    wall = 127 + 90 * wall[8:, 8:] / np.abs(wall).max()
    there = np.abs(np.arange(frames) * 2 - frames) * speed // 2
    return np.stack([wall[:side, x : x + side] for x in there]).astype(np.uint8)


def _clip(
    first: int = 25,
    width: int = 1,
    colour: tuple[int, int, int] = (255, 255, 255),
    noise: float = 4,
    wrong: int = 0,
) -> NDArray[np.uint8]:
    """Truth beside a model's frames: noisy copies from frame ``first`` on, the last ``wrong`` of another view."""
    truth = _panorama()
    shown = truth.copy()
    if wrong:
        shown[-wrong:] = shown[20]
    rng = np.random.default_rng(1)
    shown[first:] = np.clip(shown[first:] + noise * rng.normal(size=shown[first:].shape), 0, 255)
    if width:
        bordered = np.full_like(shown, colour)
        bordered[:, width:-width, width:-width] = shown[:, width:-width, width:-width]
        shown[first:] = bordered[first:]
    return np.concatenate([truth, shown], 2)


def _through_a_codec(path: Path, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(10))
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv420p"
        for picture in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return read_frames(path)


@pytest.mark.parametrize("first", [1, 25, 39])
@pytest.mark.parametrize(("width", "colour"), [(1, (255, 255, 255)), (6, (255, 0, 0))])
def test_a_border_is_found_also_behind_a_codec(
    tmp_path: Path, first: int, width: int, colour: tuple[int, int, int]
) -> None:
    clip = _clip(first, width, colour)
    for frames in (clip, _through_a_codec(tmp_path / "clip.mp4", clip)):
        onset = find_onset(*halves(frames))
        assert onset is not None
        assert (onset.frame, onset.source) == (first, "border")
        assert onset.agreeing > 0.9


def test_a_border_that_some_frames_hide_is_found_all_the_same() -> None:
    clip = _clip(25)
    bright = [27, 30, 31, 38]
    clip[bright, :, 48:] = 255
    clip[bright, :, :48] = 255
    onset = find_onset(*halves(clip))
    assert onset is not None
    assert (onset.frame, onset.source) == (25, "border")
    assert onset.agreeing == pytest.approx(36 / 40)


def test_a_border_from_the_start_means_that_all_is_predicted() -> None:
    onset = find_onset(*halves(_clip(0)))
    assert onset is not None
    assert (onset.frame, onset.source) == (0, "border")


def test_without_a_border_the_picture_tells_or_nothing_does() -> None:
    onset = find_onset(*halves(_clip(25, width=0)))
    assert onset is not None
    assert (onset.frame, onset.source) == (25, "difference")
    assert find_onset(*halves(_clip(25, width=0, noise=0))) is None
    everywhere = _clip(0, width=0)
    assert find_onset(*halves(everywhere)) is None


def test_clips_lend_each_other_their_border_only_if_they_agree() -> None:
    border = [Onset(7, "border"), Onset(7, "border"), Onset(9, "difference")]
    assert agreed_onset(border) == Onset(7, "other clips")
    assert agreed_onset(border[1:]) is None
    assert agreed_onset([*border, Onset(8, "border")]) is None


def test_scores_are_those_of_the_predicted_frames_inside_the_border() -> None:
    clip = _clip(25, 6, (255, 0, 0))
    left, right = halves(clip)
    onset = find_onset(left, right)
    assert onset is not None
    score = score_side_by_side(left, right, onset)
    expected = psnr(clip[25:, 6:42, 6:42], clip[25:, 6:42, 54:90])
    np.testing.assert_array_equal(score.quality.psnr, expected)
    assert score.nearest_share == 1
    assert score.worst_margin_db > 0
    assert score.fewest_views > 0
    memory = clip[:25, 6:42, 6:42]
    np.testing.assert_array_equal(
        score.copy_last.psnr, psnr(clip[25:, 6:42, 6:42], np.repeat(memory[-1:], 15, axis=0))
    )
    best = [psnr(np.repeat(frame[None], 25, axis=0), memory).max() for frame in clip[25:, 6:42, 6:42]]
    # The nearest after the blur need not be the nearest without, only close to it.
    assert (score.copy_nearest.psnr <= best).all()
    assert score.copy_nearest.psnr.mean() > score.copy_last.psnr.mean()


def test_one_wrong_frame_is_no_retrieval_though_the_mean_psnr_is_high() -> None:
    left, right = halves(_clip(25, wrong=1))
    score = score_side_by_side(left, right, Onset(25, "given"))
    psnr = float(score.quality.psnr.mean())
    assert score.nearest_share == pytest.approx(14 / 15)
    assert score.worst_margin_db < 0
    assert paper_rule().verdict(score.worst_margin_db, psnr) == ("fail", "views")
    assert paper_rule().verdict(float("nan"), psnr) == ("success", "psnr")


def test_without_views_to_compare_with_there_is_no_lead() -> None:
    still = np.repeat(_clip(25)[:1], 20, axis=0)
    left, right = halves(still)
    score = score_side_by_side(left, right, Onset(10, "given"))
    assert score.fewest_views == 0
    assert np.isnan([score.nearest_share, score.worst_margin_db]).all()
    everything = score_side_by_side(left, right, Onset(0, "given"))
    assert everything.fewest_views == 0
    assert np.isnan(everything.copy_last.psnr).all()


def test_clips_that_cannot_be_scored_say_why() -> None:
    with pytest.raises(MetricError, match="twice as wide as high, got 30x48"):
        halves(np.zeros((3, 48, 30, 3), np.uint8))
    with pytest.raises(MetricError, match="at least 26 pixels"):
        halves(np.zeros((3, 8, 16, 3), np.uint8))
    left, right = halves(_clip())
    with pytest.raises(MetricError, match="got frame 40"):
        score_side_by_side(left, right, Onset(40, "given"))
    with pytest.raises(MetricError, match="leaves nothing"):
        score_side_by_side(left, right, Onset(25, "given"), crop=24)


def _save(folder: Path, **clips: NDArray[np.uint8]) -> Path:
    for name, clip in clips.items():
        np.savez(folder / f"{name}.npz", video=clip)
    return folder


def test_a_folder_skips_what_it_cannot_score_and_says_so(tmp_path: Path) -> None:
    _save(tmp_path, a=_clip(25), b=_clip(25, 6), c=_clip(25, 0, noise=0), d=_clip(25)[:, :, :50])
    (tmp_path / "e.mp4").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("no clip")
    result = evaluate_side_by_side(tmp_path)
    sources = {row["file"]: row["first_predicted_frame_from"] for row in result.rows}
    assert sources == {"a.npz": "border", "b.npz": "border", "c.npz": "other clips"}
    assert [row["first_predicted_frame"] for row in result.rows] == [25] * 3
    assert result.rows[2]["identical_frames"] == 15
    assert [name for name, _ in result.skipped] == ["d.npz", "e.mp4"]
    assert "twice as wide as high" in result.skipped[0][1]
    given = evaluate_side_by_side(tmp_path, first=30)
    assert {row["first_predicted_frame_from"] for row in given.rows} == {"given"}
    assert given.first_frame == {"a.npz": 30, "b.npz": 30, "c.npz": 30}


def test_a_folder_without_a_clip_to_score_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no clips"):
        evaluate_side_by_side(tmp_path)
    with pytest.raises(ValueError, match="no such folder"):
        evaluate_side_by_side(tmp_path / "nowhere")
    _save(tmp_path, c=_clip(25, 0, noise=0))
    with pytest.raises(ValueError, match=r"none of 1 clips can be scored; c\.npz: no border"):
        evaluate_side_by_side(tmp_path)


@pytest.fixture(scope="module")
def paper() -> Evaluation:
    if not PAPER_CLIPS.is_dir():
        pytest.skip("the real clips of the paper's project page are not there: ../shared/data/paper_clips")
    return evaluate_side_by_side(PAPER_CLIPS)


def test_prediction_begins_where_the_paper_s_clips_show_their_border(paper: Evaluation) -> None:
    assert not paper.skipped
    for row in paper.rows:
        assert row["first_predicted_frame"] == (48 if row["file"].startswith("dmlab") else 112)
        assert row["first_predicted_frame_from"] == "border"
        assert row["border_contrast"] > 0.5
        assert row["border_agreeing_frames"] > 0.9


def test_the_scores_that_the_rule_is_calibrated_on_are_those_of_the_clips(paper: Evaluation) -> None:
    """Those that are shipped; another decoder may round a pixel otherwise."""
    found = scored_clips(paper.rows)
    assert found[["file", "group", "authors"]].equals(paper_clips()[["file", "group", "authors"]])
    np.testing.assert_allclose(found[["views", "psnr"]], paper_clips()[["views", "psnr"]], atol=0.02)


def test_held_out_verdicts_are_right_on_minecraft_and_not_always_on_dmlab(paper: Evaluation) -> None:
    found = leave_one_out(scored_clips(paper.rows)).set_index(["score", "calibrated_on", "group"])
    minecraft, dmlab = (found.loc["rule", "all", group] for group in ("minecraft", "dmlab"))
    assert (minecraft.clips, minecraft.decided, minecraft.wrong, minecraft.always_wrong) == (11, 11, 0, 5)
    # The model hallucinates a sign on a wall of the right shape and colour: too few pixels for any squared error.
    # Where the signed wall is left out, the rule is no stricter than the other failures ask for.
    assert (dmlab.clips, dmlab.decided, dmlab.wrong, dmlab.always_wrong) == (9, 7, 2, 3)
    # Its own engine alone has too few failures to say anything at this level.
    assert found.loc["rule", "own group", "dmlab"].decided == 0
    scores = {row["file"]: (row["psnr"], row["ssim"]) for row in paper.rows if "minecraft" in row["file"]}
    for file, (decibel, similarity) in scores.items():
        # Measured independently: successes 28.3 to 30.8 dB and 0.78 to 0.90, failures 14.9 to 19.6 and 0.35 to
        # 0.56; another crop or window moves a mean by a few hundredths at most.
        low, high = ((28.2, 30.9), (0.75, 0.92)) if "_success_" in file else ((14.8, 19.7), (0.33, 0.6))
        assert low[0] < decibel < low[1]
        assert high[0] < similarity < high[1]


def test_copying_the_last_frame_is_never_enough_and_the_right_frame_was_often_there(paper: Evaluation) -> None:
    for row in paper.rows:
        assert row["copy_last"]["psnr"] < 18.5  # the worst success has 21.7
        assert row["copy_last"]["ssim"] < 0.5
    failed = [row for row in paper.rows if "minecraft_fail" in row["file"]]
    # The memory held what these rollouts missed: copying it would have been far better than generating.
    assert sum(row["copy_nearest"]["psnr"] > row["psnr"] + 10 for row in failed) >= 3


def test_the_moments_in_dmlab_s_file_names_are_not_positions_in_the_clip(paper: Evaluation) -> None:
    gaps = []
    for path in sorted(PAPER_CLIPS.glob("dmlab_*.mp4")):
        left, _ = halves(read_frames(path))
        inside = left[48:, BORDER:-BORDER, BORDER:-BORDER]
        steps = np.abs(np.diff(inside, axis=0)).mean((1, 2, 3)) * 127.5
        # Every predicted picture is held for five frames: 16 pictures after 48.
        held = np.arange(1, 80) % 5 != 0
        assert steps[held].max() < 1 < 3 < steps[~held].min()
        needle, query = (int(word) for word in path.stem.split("_")[-2:])
        gaps.append(query - needle)
    # Needle and query of these clips lie further apart than the 64 pictures that a clip shows.
    assert max(gaps) > 48 + 16
