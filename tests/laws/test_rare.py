"""What a finite-state video rarely does: the law of the weighted samples, and intervals that hold the truth.

Statements about averages hold within Z = 4.5 standard errors; seeds were fixed before the first run.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.stats import binom, chi2

from arvdm_theory import (
    ArrayVideo,
    Codebook,
    FiniteStateVideo,
    MarkovChain,
    Number,
    PerturbedScore,
    Plan,
    References,
    decoded_ledger,
    ledger,
    memory_bottleneck,
    sticky_chain,
)
from arvdm_theory.laws.rare import RareEvents
from arvdm_theory.laws.sampled_information import sampled_information
from arvdm_theory.laws.states import State

Z = 4.5
LEVEL = 0.1


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# -- the law of the samples --------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("hidden", [False, True])
def test_weighted_samples_have_the_law_of_the_video(order: int, hidden: bool) -> None:
    rng, frames, draws = np.random.default_rng([5, order]), 4, 100_000
    step = rng.dirichlet([0.05] * 3, (3,) * order) + 1e-4
    step /= step.sum(-1, keepdims=True)
    start = rng.dirichlet([0.3] * 3**order).reshape((3,) * order)
    shows = np.array([[0.999, 0.001], [0.3, 0.7], [0.0005, 0.9995]]) if hidden else np.eye(3)
    pictures = Codebook([[-1.0], [1.0]] if hidden else [[-1.0], [0.0], [1.0]])
    emission = torch.from_numpy(shows) if hidden else None
    video = FiniteStateVideo(MarkovChain(torch.from_numpy(step), torch.from_numpy(start)), pictures, emission)
    rare = RareEvents.of(video, 2000, frames)
    assert rare is not None
    states, symbols, weights = (part.numpy() for part in rare.sample(draws, frames, seeded(order)))
    assert weights.max() <= 1 / (1 - rare.share) + 1e-12
    number, scores = states @ 3 ** np.arange(frames)[::-1], []
    for path in itertools.product(range(3), repeat=frames):
        p = start[path[:order]] * math.prod(step[path[i - order : i + 1]] for i in range(order, frames))
        own = weights * (number == np.array(path) @ 3 ** np.arange(frames)[::-1])
        if (own > 0).sum() > 30:  # so that the mean is near normal
            scores.append((own.mean() - p) / (own.std() / math.sqrt(draws)))
        else:  # a weight is at most 1/(1 - λ)
            assert own.mean() <= 50 * weights.max() / draws
            assert p <= 100 / draws
    assert len(scores) > 20
    assert sum(z**2 for z in scores) <= chi2.ppf(1 - 1e-3, len(scores))
    for frame in range(frames):
        for symbol in range(shows.shape[1]):
            truth = float(video.chain.law(frame).numpy() @ shows[:, symbol])
            own = weights * (symbols[:, frame] == symbol)
            assert abs(own.mean() - truth) <= Z * own.std() / math.sqrt(draws)
    # Every rare run is drawn as often as the others, and then as often as it comes by itself.
    visits = [(states[:, s : s + order + 1] @ 3 ** np.arange(order + 1)[::-1] == run).sum()
              for s, run in rare.runs.nonzero().tolist()]  # fmt: skip
    mean = draws * rare.share / len(rare.probabilities)
    assert min(visits) >= mean - Z * math.sqrt(mean)


def test_where_nothing_is_rare_nothing_changes() -> None:
    video = FiniteStateVideo(sticky_chain(2, 0.9), Codebook([[-1.0], [1.0]]))
    assert RareEvents.of(video, 2048, 4) is None
    assert video.rare(2048, 4) is None
    assert ArrayVideo(np.eye(4), 1).rare(2, 4) is None
    plan = Plan((3.0,), 1, 3.0, 2, 2, floor=LEVEL)
    assert "rare" not in ledger(video, plan, 1).notes
    # What is impossible is not rare, and a walk whose rare steps are all alike loses nothing by the weights.
    stuck = FiniteStateVideo(MarkovChain([[1.0, 0.0], [0.0, 1.0]], [0.5, 0.5]), Codebook([[-1.0], [1.0]]))
    assert RareEvents.of(stuck, 2048, 4) is None
    alike = FiniteStateVideo(sticky_chain(30, 1 / 30), Codebook(torch.arange(30.0)[:, None]))
    rare = RareEvents.of(alike, 2000, 3)
    assert rare is not None
    assert np.allclose(rare.sample(500, 3, seeded(0))[2].numpy(), 1, rtol=0, atol=1e-12)
    text = alike.rare(2000, 3)
    assert text is not None
    assert "1800 runs" in text
    assert "too many to visit each" in text


# -- intervals ---------------------------------------------------------------------------------------------

RARE = 4e-4
CHAIN = MarkovChain(
    [[1 - RARE, RARE / 2, RARE / 2], [0.1, 0.9, 0.0], [0.1, 0.0, 0.9]], [1 - RARE, RARE / 2, RARE / 2]
)
VIDEO = FiniteStateVideo(CHAIN, Codebook([[0.0], [3.0], [-3.0]]), name="rare states")


def bottleneck() -> float:
    """I(X_1; X_0) of frames at the level, by quadrature: what the next frame remembers is nearly all rare."""
    x, h = np.linspace(-6, 6, 1201, retstep=True)
    spread = -math.expm1(-LEVEL)
    density = np.exp(-((x[:, None] - math.exp(-LEVEL / 2) * np.array([0.0, 3.0, -3.0])) ** 2) / (2 * spread))
    density /= math.sqrt(2 * math.pi * spread)
    joint = density @ (CHAIN.initial[:, None] * CHAIN.transition).numpy() @ density.T
    apart = np.outer(joint.sum(1), joint.sum(0)) * h**2
    seen = joint > 0
    return float((joint[seen] * np.log(joint[seen] / apart[seen])).sum() * h**2)


def covers(found: Number, truth: float) -> bool:
    low, high = found.ends()
    return bool(low <= truth <= high)


def test_the_interval_holds_a_bottleneck_that_a_rare_state_carries() -> None:
    """States of probability 2e-4 among 2048 samples: plain averages held the truth in about half of all runs."""
    truth, runs = bottleneck(), 100
    plan = Plan((3.0,), 1, 3.0, 1, 1, floor=LEVEL, references=References.none())
    sampled = [
        sampled_information(VIDEO, [State(1, LEVEL)], [State(0, LEVEL)], [], 2048, seeded(seed))
        for seed in range(runs)
    ]
    own = [memory_bottleneck(VIDEO, plan, 1, seed=seed) for seed in range(runs)]
    for found in (sampled, own):
        # 95 % nominal, and 93 % at the least as the counts of rare events are small: level 1e-3.
        assert sum(covers(number, truth) for number in found) >= binom.ppf(1e-3, runs, 0.93)
        values, errors = ([float(getattr(number, name)) for number in found] for name in ("value", "stderr"))
        assert abs(np.mean(values) - truth) <= Z * np.std(values, ddof=1) / math.sqrt(runs)
        assert max(errors) < truth / 3  # honest, and no worse for it
        assert all("expected fewer than 5 times among 2048 samples" in number.warnings[0] for number in found)


def test_ledgers_say_what_is_rare_and_their_terms_hold() -> None:
    plan = Plan((3.0,), 1, 3.0, 2, 2, floor=LEVEL, references=References.last(1))
    result = ledger(VIDEO, plan, 2, score=PerturbedScore(0.1), samples=2000, seed=3)
    assert "the rarest has the probability 2e-05" in result.notes["rare"]
    terms = result.terms
    gap = (terms.of("direct") - terms.of("de") - terms.of("see") - terms.of("cross")).sum()
    assert abs(gap.value) <= Z * gap.stderr
    # SEE of the first AR step's first reverse step, in closed form: ½ (c_s e)² E‖W‖²/q.
    large = ledger(VIDEO, plan, 1, score=PerturbedScore(0.1), samples=20000, seed=4)
    level, target = plan.ar_grid[0][0], plan.ar_grid[1][0]
    square = math.exp(-level) * float(9 * (1 - CHAIN.law(1)[0])) - math.expm1(-level)
    c, q = 2 * math.expm1((level - target) / 2), math.expm1(level - target)
    see = terms.ar[0].see[0]
    for number in (see, large.terms.ar[0].see[0]):
        assert abs(number.value - 0.5 * (0.1 * c) ** 2 * square / q) <= Z * number.stderr
    decoded = decoded_ledger(VIDEO, plan, 1, samples=500, rollouts=80)
    assert "among 500 samples" in decoded.notes["rare"]
