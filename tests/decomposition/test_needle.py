"""The needle in a haystack against brute force over all maps and paths, closed forms and played games."""

import itertools
import math
from collections import defaultdict

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from arvdm_theory import GridVideo, References, fifo, outpainting
from arvdm_theory.laws.gridworld import retrieval as needle
from arvdm_theory.laws.gridworld.retrieval import (
    NeedleError,
    TooManyCellsError,
    cell_entropies,
    expected_retrieval,
    fano_error,
    largest_frame_entropy,
    retrieval_along,
    retrieval_bounds,
    sampled_retrieval,
)
from arvdm_theory.laws.gridworld.view import View
from arvdm_theory.laws.gridworld.world import GridworldError, RandomWalk, maze, ring, torus, tour

COUNTS = ("total", "needles", "needle_hits", "revisits", "frame_hits", "lost")

# Sums of some hundred terms of order one, added in two orders.
ROUNDING = 1e-11


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


# -- brute force: pictures of every map, and nothing but their joint law


def entropy(law):
    return -sum(p * math.log(p) for p in law.values() if p > 0)


def marginal(videos, *frames):
    """Law of a tuple of pictures."""
    law = defaultdict(float)
    for probability, pictures in videos:
        law[tuple(pictures[frame] for frame in frames)] += probability
    return law


def information(videos, out, past, given):
    """I(Out; Past | Given) of pictures, from entropies of the enumerated law."""
    h = {
        key: entropy(marginal(videos, *frames))
        for key, frames in {
            "og": (*out, *given), "pg": (*past, *given), "opg": (*out, *past, *given), "g": given,
        }.items()
    }  # fmt: skip
    return h["og"] + h["pg"] - h["opg"] - h["g"]


def best_guess(videos, known, answer):
    """max over generators of the success probability: for each content of memory, the likeliest answer."""
    law = defaultdict(lambda: defaultdict(float))
    for index, (probability, pictures) in enumerate(videos):
        law[tuple(pictures[frame] for frame in known)][answer(index)] += probability
    return sum(max(answers.values()) for answers in law.values())


def determined(videos, known, answer):
    """Whether the known pictures leave one possible answer."""
    seen = defaultdict(set)
    for index, (_, pictures) in enumerate(videos):
        seen[tuple(pictures[frame] for frame in known)].add(answer(index))
    return all(len(answers) == 1 for answers in seen.values())


def enumerate_maps(video, path):
    """Every map's probability and the pictures it gives along the path; colours by position in the list."""
    maps = torch.tensor(list(itertools.product(range(video.colours), repeat=video.world.cells)))
    weights = video.prior[torch.arange(video.world.cells), maps].prod(-1).tolist()
    frames = video.render(maps, torch.tensor(path)[None].expand(len(maps), -1))
    pictures = [[frame.tobytes() for frame in row.numpy()] for row in frames]
    videos = [(weight, row) for weight, row in zip(weights, pictures, strict=True) if weight > 0]
    colours = [tuple(row) for row, weight in zip(maps.tolist(), weights, strict=True) if weight > 0]
    return videos, colours


def brute_force(video, plan, path, ar_steps):
    """The same numbers as :func:`retrieval_along`, from the joint law of the pictures alone."""
    videos, colours = enumerate_maps(video, path)
    sums = dict.fromkeys(COUNTS, 0.0)
    for k in range(1, ar_steps + 1):
        out, before = plan.window_frames(k), range(plan.frames_out(k))
        references = [reference.frame for reference in plan.references_at(k)]
        sums["total"] += information(videos, out, plan.past_frames(k), references)
        for t in out:
            frame = lambda index, t=t: videos[index][1][t]  # noqa: E731
            if determined(videos, before, frame):
                sums["revisits"] += 1
                sums["frame_hits"] += best_guess(videos, references, frame)
                sums["lost"] += information(videos, [t], before, references)
            for cell in range(video.world.cells):
                colour = lambda index, cell=cell: colours[index][cell]  # noqa: E731
                if determined(videos, [t], colour) and determined(videos, before, colour):
                    sums["needles"] += 1
                    sums["needle_hits"] += best_guess(videos, references, colour)
    return sums


PRIORS = {
    "even": [1 / 3] * 3,
    "uneven": [0.6, 0.3, 0.1],
    "own": np.random.default_rng(0).dirichlet(np.ones(3), 4),  # four cells, each with its own
}
VIEWS = [View("patch", 1), View("topdown", 4), View("firstperson", 4, reach=2.0)]
PLANS = [
    (1, References.none()),
    (1, References.last(1)),
    (1, References.last(3)),
    (1, References.first(1) + References.last(1)),
    (1, References.every(3)),
    (1, References.all()),
    (2, References.last(2)),
    (3, References.every(2)),
]


# Four cells each; no view sees all of them at once.
SMALL = list(zip([maze(2, 2, seed=3), ring(4), maze(2, 2, seed=3)], VIEWS, strict=True))


@pytest.mark.parametrize(("world", "view"), SMALL, ids=[view.kind for view in VIEWS])
@pytest.mark.parametrize(("window", "references"), PLANS)
@pytest.mark.parametrize("prior", PRIORS)
def test_one_path_against_the_enumerated_law(world, view, window, references, prior):
    video = GridVideo(world, view, prior=PRIORS[prior])
    plan = outpainting(window, references)
    steps = 5 // window + (window == 1)
    path = tour(world, plan.total_frames(steps))
    result, expected = retrieval_along(video, plan, path, steps), brute_force(video, plan, path, steps)
    for name in COUNTS:
        assert getattr(result, name) == pytest.approx(expected[name], abs=ROUNDING), name


def all_walks(video, frames):
    """Every walk of so many frames with its probability."""
    law = video.transition.toarray()
    walks = [((video.start,), 1.0)]
    for _ in range(frames - 1):
        walks = [
            ((*path, int(to)), p * law[path[-1], to]) for path, p in walks for to in np.flatnonzero(law[path[-1]])
        ]
    assert sum(p for _, p in walks) == pytest.approx(1, abs=1e-14)
    return walks


@pytest.mark.parametrize(
    ("world", "view", "window", "memory"),
    [
        (ring(3), VIEWS[0], 1, 1),
        (ring(3), VIEWS[0], 2, 1),
        (ring(4), VIEWS[1], 1, 1),
        (maze(2, 2, 1), VIEWS[2], 1, 1),
        (torus(2, 2), VIEWS[0], 1, 2),
    ],
    ids=lambda value: getattr(value, "name", getattr(value, "kind", str(value))),
)
def test_all_maps_and_all_paths(world, view, window, memory):
    """The dynamic programme against the joint law of map and walk, with actions known: an average over walks."""
    video = GridVideo(world, view, prior=[0.7, 0.3])
    steps = 2 if window == 2 else 3
    plan = outpainting(window, References.last(memory))
    sums = dict.fromkeys(COUNTS, 0.0)
    for path, probability in all_walks(video, plan.total_frames(steps)):
        for name, value in brute_force(video, plan, path, steps).items():
            sums[name] += probability * value
    (result,) = expected_retrieval(video, [memory], steps, window)
    for name in COUNTS:
        assert getattr(result, name) == pytest.approx(sums[name], abs=ROUNDING), name


@pytest.mark.parametrize(
    ("world", "view", "window", "stay", "guess"),
    [
        (ring(5), View(), 1, 0.2, "sample"),
        (ring(6), View("topdown"), 1, 0.0, "best"),
        (maze(2, 3, 1), View("firstperson"), 2, 0.0, "sample"),
        (ring(7), View("firstperson"), 3, 0.0, "best"),
        (torus(2, 3), View("firstperson", reach=1.5), 1, 0.0, "best"),
    ],
    ids=lambda value: getattr(value, "name", getattr(value, "kind", str(value))),
)
def test_the_dynamic_programme_against_all_paths(world, view, window, stay, guess):
    prior = np.random.default_rng(1).dirichlet(np.ones(3), world.cells)
    video = GridVideo(world, view, prior=prior, path=RandomWalk(1, stay))
    steps = {1: 4, 2: 2, 3: 2}[window]
    memories = (0, 1, 2, 3, 5, 20)
    results = expected_retrieval(video, memories, steps, window, guess)
    walks = all_walks(video, (steps + 1) * window)
    for memory, result in zip(memories, results, strict=True):
        plan = outpainting(window, References.last(memory))
        sums, bottleneck = dict.fromkeys(COUNTS, 0.0), np.zeros(steps)
        for path, probability in walks:
            along = retrieval_along(video, plan, path, steps, guess)
            bottleneck += probability * along.bottleneck
            for name in COUNTS:
                sums[name] += probability * getattr(along, name)
        assert np.allclose(result.bottleneck, bottleneck, rtol=0, atol=ROUNDING)
        for name in COUNTS:
            assert getattr(result, name) == pytest.approx(sums[name], abs=ROUNDING), (name, memory)


# -- no generator does better


@pytest.mark.parametrize("memory", [1, 2, 3])
def test_every_generator_on_a_small_map(memory):
    """All deterministic generators x(R), and many random ones Q(x | R), at a revisit of age 3."""
    video = GridVideo(ring(3), VIEWS[0], prior=[0.6, 0.4])
    path, plan = tour(ring(3), 4), outpainting(1, References.last(memory))
    videos, _ = enumerate_maps(video, path)
    contents = sorted({tuple(row[3 - memory : 3]) for _, row in videos})
    answers = sorted({row[3] for _, row in videos})
    joint = np.zeros((len(contents), len(answers)))
    for probability, row in videos:
        joint[contents.index(tuple(row[3 - memory : 3])), answers.index(row[3])] += probability

    result = retrieval_along(video, plan, path, 3)
    assert result.revisits == 1
    best = 1.0 if memory == 3 else 0.6
    assert result.frame_hits == pytest.approx(best, abs=1e-15)
    rates = [
        sum(joint[content, answer] for content, answer in enumerate(says))
        for says in itertools.product(range(len(answers)), repeat=len(contents))
    ]
    assert len(rates) == 2 ** len(contents) == 2**2**memory
    assert max(rates) == pytest.approx(best, abs=1e-15)
    kernels = np.random.default_rng(0).dirichlet(np.full(len(answers), 0.3), (2000, len(contents)))
    assert (kernels * joint).sum((1, 2)).max() <= best + 1e-15


def test_the_sampling_generator_is_the_true_conditional():
    """Q = P(x_t | R): its success rate, from the enumerated law, has Σ p² for every lost cell."""
    world = ring(4)
    video = GridVideo(world, VIEWS[1], prior=PRIORS["own"])
    path, plan = tour(world, 7), outpainting(1, References.last(1))
    videos, _ = enumerate_maps(video, path)
    expected = 0.0
    for k in range(1, 7):
        if not determined(videos, range(k), lambda index, k=k: videos[index][1][k]):
            continue
        pair, memory = marginal(videos, k - 1, k), marginal(videos, k - 1)
        expected += sum(p * p / memory[(content,)] for (content, _), p in pair.items())
    result = retrieval_along(video, plan, path, 6, "sample")
    assert result.revisits == 5  # from the third frame on, all four cells are known
    assert result.frame_hits == pytest.approx(expected, abs=ROUNDING)
    assert result.frame_hits < retrieval_along(video, plan, path, 6).frame_hits


# -- closed forms


def test_last_visits_of_a_walk_on_a_line():
    """On a ring too long to go round, a walk's last visit has the age of its first return in reversed time:
    P(age = 2j) = C_{j-1} 2^{1-2j}, the Catalan numbers. So MB_k = log C · Σ_{m < 2j ≤ n} of it."""
    steps, memories = 30, (0, 1, 2, 5, 10, 29)
    video = GridVideo(ring(64), colours=5)
    for memory, result in zip(memories, expected_retrieval(video, memories, steps), strict=True):
        for k in range(1, steps + 1):
            lost = sum(
                math.comb(2 * j - 2, j - 1) / j * 2.0 ** (1 - 2 * j) for j in range(memory // 2 + 1, k // 2 + 1)
            )
            assert result.bottleneck[k - 1] == pytest.approx(math.log(5) * lost, abs=1e-13)


@pytest.mark.parametrize("memory", [0, 1, 3, 10, 11, 12, 50])
def test_going_round_a_ring(memory):
    """Round and round a ring of 11 every frame from the 12th on is a revisit of age 11."""
    cells, colours, steps = 11, 3, 40
    video = GridVideo(ring(cells), colours=colours)
    result = retrieval_along(video, outpainting(1, References.last(memory)), tour(ring(cells), steps + 1), steps)
    kept = memory >= cells
    revisits = steps + 1 - cells
    assert result.revisits == result.needles == revisits
    assert result.total == pytest.approx(0.0 if kept else revisits * math.log(colours), rel=1e-14)
    assert result.frame_rate == pytest.approx(1.0 if kept else 1 / colours, rel=1e-14)


@pytest.mark.parametrize("world", [ring(9), torus(3, 4), maze(3, 4)], ids=lambda world: world.name)
def test_with_even_colours_and_one_cell_a_frame_the_bottleneck_is_the_error(world):
    """I = L log C and P_e = L (1 - 1/C), with L the share of needles lost."""
    video = GridVideo(world, colours=4)
    for result in expected_retrieval(video, (0, 1, 2, 4, 8), 40):
        lost = result.lost_per_revisit / math.log(4)
        assert result.frame_rate == pytest.approx(1 - 0.75 * lost, abs=1e-13)
        assert result.needle_rate == pytest.approx(result.frame_rate, abs=1e-13)
        assert result.lost == pytest.approx(result.total, rel=1e-13)


@pytest.mark.parametrize("view", [View(), View("topdown"), View("firstperson")], ids=lambda view: view.kind)
def test_more_memory_never_hurts_and_full_memory_suffices(view):
    video = GridVideo(maze(3, 3, 2), view, prior=[0.5, 0.3, 0.2])
    steps = 25
    results = expected_retrieval(video, range(steps + 1), steps)
    for less, more in itertools.pairwise(results):
        assert more.total <= less.total + 1e-12
        assert more.needle_rate >= less.needle_rate - 1e-14
        assert more.frame_rate >= less.frame_rate - 1e-14
    assert results[0].total > 1
    assert results[-1].total == 0
    assert results[-1].frame_rate == pytest.approx(1, abs=1e-13)
    assert results[-1].needle_rate == 1


# -- games


@pytest.mark.parametrize(
    ("world", "view", "path", "window"),
    [
        (torus(4, 5), View(), "random", 1),
        (torus(4, 4), View("topdown"), "random", 2),
        (maze(4, 4, 1), View("firstperson"), "random", 1),
        (maze(3, 4, 1), View("firstperson"), "tour", 4),
    ],
    ids=lambda value: getattr(value, "name", getattr(value, "kind", str(value))),
)
@pytest.mark.parametrize("guess", ["best", "sample"])
def test_played_games(world, view, path, window, guess):
    steps = 40 // window
    given = RandomWalk(2, 0.1) if path == "random" else tour(world, (steps + 1) * window)
    video = GridVideo(world, view, prior=[0.5, 0.3, 0.2], path=given)
    for memory in (0, 3, 10):
        plan = outpainting(window, References.last(memory))
        if path == "random":
            (exact,) = expected_retrieval(video, [memory], steps, window, guess)
        else:
            exact = retrieval_along(video, plan, given, steps, guess)
        games = sampled_retrieval(video, plan, steps, 600, generator(memory), guess)
        # Up to three numbers, three memories, eight cases: |z| > 5 has a chance of 6e-7 each, where the mean is
        # near normal. That of fewer than 100 hits in all the games is not, and is left out.
        checks = [
            (games.mean.total, games.total_error, exact.total),
            (games.mean.needle_rate, games.needle_rate_error, exact.needle_rate),
        ]
        if memory:
            assert 600 * exact.frame_hits > 100
        if 600 * exact.frame_hits > 100:
            checks.append((games.mean.frame_rate, games.frame_rate_error, exact.frame_rate))
        for value, error, truth in checks:
            assert error > 0
            assert abs(value - truth) < 5 * error


def test_the_standard_errors_are_those_of_repetition():
    """The spread of 100 repeated estimates against the errors they state; a ratio of variances of 100 is good to
    √(2/99), so within 5 of these."""
    # A long ring and memory: nearly all revisits are hits, but how many there are differs from walk to walk,
    # so the error of the rate is far below that of the hits.
    video = GridVideo(ring(30), colours=3)
    plan, random = outpainting(1, References.last(10)), generator(5)
    runs = [sampled_retrieval(video, plan, 20, 100, random) for _ in range(100)]
    for values, errors in (
        ([run.mean.total for run in runs], [run.total_error for run in runs]),
        ([run.mean.frame_rate for run in runs], [run.frame_rate_error for run in runs]),
        ([run.mean.needle_rate for run in runs], [run.needle_rate_error for run in runs]),
    ):
        assert abs(np.var(values, ddof=1) / np.mean(np.square(errors)) - 1) < 5 * math.sqrt(2 / 99)


def test_games_with_any_references():
    """First + last references on random walks, which the dynamic programme does not cover, against all paths."""
    video = GridVideo(ring(4), View("topdown", 4), prior=[0.6, 0.4])
    plan = outpainting(1, References.first(1) + References.last(1))
    walks = all_walks(video, 6)
    along = [(p, retrieval_along(video, plan, path, 5)) for path, p in walks]
    exact = {name: sum(p * getattr(result, name) for p, result in along) for name in COUNTS}
    games = sampled_retrieval(video, plan, 5, 4000, generator(8))
    assert abs(games.mean.total - exact["total"]) < 5 * games.total_error
    assert abs(games.mean.needle_rate - exact["needle_hits"] / exact["needles"]) < 5 * games.needle_rate_error
    assert abs(games.mean.frame_rate - exact["frame_hits"] / exact["revisits"]) < 5 * games.frame_rate_error


# -- Fano


@pytest.mark.parametrize("size", [2, 3, 10, 4**9])
@pytest.mark.parametrize("share", [1e-6, 0.01, 0.3, 0.9, 0.999999])
def test_fano_error_solves_its_equation(size, share):
    information = share * math.log(size)
    with mpmath.workdps(50):
        error = mpmath.mpf(fano_error(information, math.log(size)))
        right = -error * mpmath.log(error) - (1 - error) * mpmath.log(1 - error) + error * mpmath.log(size - 1)
        # The root is found to 1e-15, where the right side's slope is log((1 - P_e)(A - 1)/P_e).
        slope = abs(mpmath.log((1 - error) * (size - 1) / error))
        assert abs(right - information) < 4e-15 * (slope + 1 + information)
        assert 0 < error < 1 - mpmath.mpf(1) / size


def test_fano_error_at_its_ends():
    assert fano_error(0.0, math.log(5)) == 0
    assert fano_error(math.log(5), math.log(5)) == pytest.approx(0.8, abs=1e-15)


@settings(max_examples=200)
@given(st.integers(2, 5), st.integers(1, 4), st.integers(0, 10**6))
def test_retrieval_lies_between_its_bounds_for_any_law(values, contents, seed):
    """e^{-H(X|R)} ≤ Σ_r max_x P(x, r) ≤ 1 - Fano's error of H(X | R), for any joint law of X and R."""
    draw = np.random.default_rng(seed)
    joint = draw.dirichlet(np.full(values * contents, draw.choice([0.05, 0.3, 1.0, 5.0]))).reshape(
        values, contents
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        loss = float(np.where(joint > 0, joint * (np.log(joint.sum(0)) - np.log(joint)), 0).sum())
    low, high = retrieval_bounds(max(loss, 0.0), math.log(values))
    rate = joint.max(0).sum()
    assert low - 1e-12 <= rate <= high + 1e-12


@pytest.mark.parametrize("view", [View(), View("topdown"), View("firstperson")], ids=lambda view: view.kind)
@pytest.mark.parametrize("prior", [[0.25] * 4, [0.9, 0.05, 0.05], [0.5, 0.5, 0.0]])
@pytest.mark.parametrize("guess", ["best", "sample"])
def test_the_bottleneck_bounds_retrieval(view, prior, guess):
    video = GridVideo(maze(3, 4, 6), view, prior=prior)
    for result in expected_retrieval(video, (0, 1, 2, 3, 5, 9, 30), 30, guess=guess):
        low, high = retrieval_bounds(result.lost_per_revisit, largest_frame_entropy(video))
        assert low - 1e-12 <= result.frame_rate <= high + 1e-12


def test_fano_is_tight_for_an_even_cell_that_is_always_lost():
    video = GridVideo(ring(5), colours=6)
    (result,) = expected_retrieval(video, [0], 20)
    low, high = retrieval_bounds(result.lost_per_revisit, largest_frame_entropy(video))
    assert low == pytest.approx(1 / 6, abs=1e-13)
    assert result.frame_rate == pytest.approx(1 / 6, abs=1e-13)
    # The right side of Fano's inequality is flat at P_e = 1 - 1/A, where it falls by ½ (ΔP_e)² A²/(A - 1):
    # a rounding error of 1e-14 in I moves P_e by √(2e-14 · 5/36) < 6e-8.
    assert high == pytest.approx(1 / 6, abs=6e-8)


def test_entropies():
    video = GridVideo(ring(3), View("topdown"), prior=[[0.5, 0.5, 0.0], [1.0, 0.0, 0.0], [1 / 3] * 3])
    assert np.allclose(cell_entropies(video), [math.log(2), 0, math.log(3)], rtol=0, atol=1e-15)
    assert largest_frame_entropy(video) == pytest.approx(math.log(6), abs=1e-15)


# -- what is refused, and what is not defined


def test_no_revisit_has_no_rate():
    video = GridVideo(ring(9))
    result = retrieval_along(video, outpainting(1), tour(ring(9), 6), 5)
    assert result.revisits == result.needles == result.total == 0
    assert math.isnan(result.frame_rate)
    assert math.isnan(result.needle_rate)
    assert math.isnan(result.lost_per_revisit)


def test_whole_frames_may_be_left_out(monkeypatch):
    video = GridVideo(torus(3, 4), View("topdown"))
    whole = expected_retrieval(video, (0, 2), 8)
    monkeypatch.setattr(needle, "_MOST_WORK", 1000)
    with pytest.raises(TooManyCellsError, match=r"up to 9 cells need .* sums"):
        expected_retrieval(video, (0, 2), 8)
    cells = expected_retrieval(video, (0, 2), 8, whole_frames=False)
    for a, b in zip(whole, cells, strict=True):
        assert np.array_equal(a.bottleneck, b.bottleneck)
        assert (a.needles, a.needle_hits) == (b.needles, b.needle_hits)
        assert b.frame_hits is None
        assert math.isnan(b.frame_rate)


VIDEO = GridVideo(ring(4))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: retrieval_along(VIDEO, fifo(), tour(ring(4), 9), 3), "need w = Δ.*got w = 4, Δ = 1"),
        (
            lambda: retrieval_along(VIDEO, outpainting(1, References.last(1, 0.1)), tour(ring(4), 9), 3),
            "clean ref",
        ),
        (lambda: retrieval_along(VIDEO, outpainting(1), tour(ring(4), 3), 3), "path of 4 poses"),
        (lambda: retrieval_along(VIDEO, outpainting(1), tour(ring(4), 3), 0), "at least one AR step"),
        (
            lambda: retrieval_along(VIDEO, outpainting(1), tour(ring(4), 3), 2, "worst"),
            "'best' or 'sample', got 'worst'",
        ),
        (
            lambda: retrieval_along(GridVideo(ring(4), noise=0.1), outpainting(1), tour(ring(4), 3), 2),
            "noise is 0.1",
        ),
        (lambda: expected_retrieval(GridVideo(ring(4), noise=0.1), [1], 2), "noise is 0.1"),
        (lambda: expected_retrieval(VIDEO, [], 2), "memories ≥ 0"),
        (lambda: expected_retrieval(VIDEO, [-1], 2), "memories ≥ 0"),
        (lambda: expected_retrieval(VIDEO, [1], 2, window=0), "one frame a window"),
        (lambda: sampled_retrieval(VIDEO, outpainting(1), 2, walks=1), "at least 2 walks, got 1"),
        (lambda: fano_error(1.0, math.log(2)), r"must lie in \[0, log A"),
        (lambda: fano_error(-0.1, math.log(2)), "got -0.1"),
        (lambda: fano_error(math.nan, math.log(2)), "got nan"),
        (lambda: fano_error(0.0, 0.0), "at least 2 values"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(NeedleError, match=message):
        call()


def test_a_given_path_has_no_walks_to_average_over():
    with pytest.raises(GridworldError, match="a RandomWalk is needed"):
        expected_retrieval(GridVideo(ring(4), path=tour(ring(4), 9)), [1], 3)
