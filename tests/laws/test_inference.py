"""Forward-backward against the enumeration of every state sequence, with dense joint Gaussians written out."""

from __future__ import annotations

import itertools
import math
import re
from functools import cache

import mpmath
import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from torch import Tensor

from arvdm_theory import Codebook, FiniteStateVideo, MarkovChain, sticky_chain
from arvdm_theory.information.transfer import TableSizeError
from arvdm_theory.laws.chains import random_chain
from arvdm_theory.laws.emission import GaussianRegimes
from arvdm_theory.laws.forward_backward import Kernel, Lattice, log_product
from arvdm_theory.laws.inference import Evidence, EvidenceError, infer, log_density, sample_posterior
from arvdm_theory.laws.sampled_information import observe
from arvdm_theory.laws.states import State

# Log-densities here are of size 1 to 100 and conditions of order 10: both sides are right to about 1e-13.
EXACT = 1e-10


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def moments(video: FiniteStateVideo) -> tuple[np.ndarray, np.ndarray]:
    """Mean (Y, d) and covariance (Y, d, d) of a clean frame of every symbol."""
    rendering = video.rendering
    if isinstance(rendering, GaussianRegimes):
        return rendering.means.numpy(), rendering.covariances.numpy()
    assert isinstance(rendering, Codebook)
    eye = np.eye(rendering.frame_dim)
    return rendering.pictures.numpy(), np.stack([rendering.variance * eye] * rendering.symbols)


def shared_level(a: State, b: State) -> float:
    """Two states of a frame share noise up to their lower level, or to where one of them left path 0."""
    levels = [a.level, b.level]
    if a.path != b.path:
        levels += [s.parting for s in (a, b) if s.path != 0]
    return min(levels)


def dense_laws(
    states: tuple[State, ...], symbols: np.ndarray, mean: np.ndarray, cov: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Mean (n, ·) and covariance of all noisy states given each of n symbol sequences, frame-major."""
    d = mean.shape[1]
    centre = np.concatenate([math.exp(-s.level / 2) * mean[symbols[:, s.frame]] for s in states], 1)
    matrix = np.zeros((len(symbols), len(states) * d, len(states) * d))
    for i, a in enumerate(states):
        for j, b in enumerate(states):
            if a.frame == b.frame:
                both = math.exp(-(a.level + b.level) / 2)
                noise = both * math.expm1(shared_level(a, b)) * np.eye(d)
                block = both * cov[symbols[:, a.frame]] + noise
                matrix[:, i * d : i * d + d, j * d : j * d + d] = block
    return centre, matrix


@cache
def sequences(video: FiniteStateVideo, frames: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All state paths (h, frames), all symbol sequences (y, frames) and their joint probabilities (h, y)."""
    chain = video.chain
    start, step = chain.initial.numpy(), chain.transition.numpy()
    emission = np.eye(chain.states) if video.emission is None else video.emission.numpy()
    length = max(frames, chain.order)
    paths = np.array(list(itertools.product(range(chain.states), repeat=length)))
    shown = np.array(list(itertools.product(range(emission.shape[1]), repeat=frames)))
    chance = start[tuple(paths[:, : chain.order].T)]
    for i in range(chain.order, length):
        chance = chance * step[tuple(paths[:, i - chain.order : i + 1].T)]
    joint = np.repeat(chance[:, None], len(shown), 1)
    for i in range(frames):
        joint *= emission[paths[:, i][:, None], shown[:, i]]
    return paths[:, :frames], shown, joint


def brute_force(video: FiniteStateVideo, evidence: Evidence, frames: int) -> list[dict[str, np.ndarray]]:
    """log p, posteriors, denoiser and score of the evidence, by enumeration, for each video of the batch."""
    paths, shown, joint = sequences(video, frames)
    weight = joint.sum(0)
    mean, cov = moments(video)
    d, n = video.frame_dim, len(evidence.states)
    if n:
        centre, matrix = dense_laws(evidence.states, shown, mean, cov)
        log_det = np.linalg.slogdet(2 * np.pi * matrix)[1]
        assert evidence.values is not None
        gaps = evidence.values.flatten(1).numpy().T - centre[..., None]  # (sequences, entries, batch)
        all_solved = np.linalg.solve(matrix, gaps)
    results = []
    for row in range(evidence.batch):
        possible = weight > 0
        for i, frame in enumerate(evidence.frames):
            assert evidence.symbols is not None
            possible &= shown[:, frame] == int(evidence.symbols[row, i])
        logs = np.log(np.where(possible, weight, 1.0))
        clean, slope = mean[shown], np.zeros((len(shown), 0))
        if n:
            solved = all_solved[..., row]
            logs = logs - 0.5 * (gaps[..., row] * solved).sum(1) - 0.5 * log_det
            slope = -solved
            for i, s in enumerate(evidence.states):  # E[X | states] = μ + Σ_i α_i Σ (K^{-1}(x - m))_i
                part = np.einsum("nij,nj->ni", cov[shown[:, s.frame]], solved[:, i * d : i * d + d])
                clean[:, s.frame] += math.exp(-s.level / 2) * part
        logs = np.where(possible, logs, -np.inf)
        total = logsumexp(logs)
        share = np.exp(logs - total)
        of_paths = joint @ (share / np.where(weight > 0, weight, 1.0))
        results.append(
            {
                "log": total,
                "score": (share @ slope).reshape(n, d),
                "denoised": np.einsum("n,nfd->fd", share, clean),
                "symbols": np.stack([np.bincount(y, share, video.rendering.symbols) for y in shown.T]),
                "states": np.stack([np.bincount(h, of_paths, video.chain.states) for h in paths.T]),
            }
        )
    return results


def videos() -> dict[str, FiniteStateVideo]:
    g = seeded(21)
    pictures = torch.randn(4, 2, dtype=torch.float64, generator=g)
    factor = 0.6 * torch.randn(3, 2, 2, dtype=torch.float64, generator=g)
    regimes = GaussianRegimes(
        torch.randn(3, 2, dtype=torch.float64, generator=g),
        factor @ factor.mT + 0.1 * torch.eye(2, dtype=torch.float64),
    )
    emission = torch.tensor([[0.5, 0.5, 0, 0], [0, 0.2, 0.5, 0.3], [0.1, 0, 0, 0.9]], dtype=torch.float64)
    zero = random_chain(4, 1, g).transition * torch.tensor(
        [[1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1], [1, 0, 0, 1.0]]
    )
    walk = MarkovChain.stationary(zero / zero.sum(-1, keepdim=True))
    return {
        "Markov": FiniteStateVideo(random_chain(4, 1, g), Codebook(pictures)),
        "impossible steps": FiniteStateVideo(walk, Codebook(pictures)),
        "noisy": FiniteStateVideo(random_chain(4, 1, g), Codebook(pictures, variance=0.2)),
        "order 2": FiniteStateVideo(random_chain(3, 2, g), Codebook(pictures[:3])),
        "order 3, noisy": FiniteStateVideo(random_chain(2, 3, g), Codebook(pictures[:2], variance=0.3)),
        "hidden": FiniteStateVideo(random_chain(3, 1, g), Codebook(pictures), emission),
        "hidden, noisy, order 2": FiniteStateVideo(
            random_chain(3, 2, g), Codebook(pictures, variance=0.1), emission
        ),
        "switching": FiniteStateVideo(random_chain(3, 1, g), regimes),
        "switching, order 2": FiniteStateVideo(random_chain(3, 2, g), regimes),
    }


VIDEOS = videos()

# Windows and references of six frames: (window states, reference states, reference frames with known symbols).
SITUATIONS: dict[str, tuple[list[State], list[State], list[int]]] = {
    "all alone": ([State(i, 0.3 * i + 0.05) for i in range(6)], [], []),
    "clean references with gaps": ([State(4, 0.5), State(5, 1.5)], [], [0, 2]),
    "noisy references with gaps": ([State(4, 0.5), State(5, 1.5)], [State(0, 0.3, 1), State(2, 0.02, 1)], []),
    "mixed, a gap before the window": ([State(5, 0.7)], [State(1, 0.3, 1)], [2]),
    "a frame's own path": ([State(3, 0.2), State(4, 0.9)], [State(3, 0.7), State(4, 1.8), State(2, 0.1)], []),
    "a reference of a window frame": ([State(3, 0.4), State(4, 0.9)], [State(3, 0.6, 1), State(1, 0.1, 1)], []),
    "noised from a stopped sampler": (
        [State(4, 0.5), State(5, 1.5)],
        [State(2, 0.05), State(2, 0.3, 7, parting=0.05), State(2, 0.4, 8, parting=0.05)],
        [],
    ),
    "later frames known": ([State(1, 0.4), State(3, 0.9)], [State(5, 0.1)], [2]),
}


def setting(video: FiniteStateVideo, name: str, batch: int = 3) -> tuple[Evidence, Evidence]:
    window, noisy, clean = SITUATIONS[name]
    g = seeded(len(name))
    sample = video.sample(batch, 6, g)
    both = observe(video, sample, [*window, *noisy], g)
    assert both.values is not None
    given = Evidence(
        tuple(noisy),
        both.values[:, len(window) :] if noisy else None,
        tuple(clean),
        sample.symbols[:, clean] if clean else None,
    )
    return Evidence(tuple(window), both.values[:, : len(window)]), given


@pytest.mark.parametrize("kind", VIDEOS)
@pytest.mark.parametrize("situation", SITUATIONS)
def test_inference_against_enumeration(kind: str, situation: str) -> None:
    video = VIDEOS[kind]
    window, given = setting(video, situation)
    every = tuple(range(6))
    result = infer(video, window, given, frames=every)
    both = brute_force(video, window + given, 6)
    for row, expected in enumerate(both):
        assert float(result.log_joint[row]) == pytest.approx(expected["log"], rel=EXACT, abs=EXACT)
        np.testing.assert_allclose(result.states[row].numpy(), expected["states"], atol=EXACT)
        np.testing.assert_allclose(result.symbols[row].numpy(), expected["symbols"], atol=EXACT)
        np.testing.assert_allclose(result.denoised[row].numpy(), expected["denoised"], atol=EXACT)
        score = expected["score"][: len(window.states)]
        np.testing.assert_allclose(
            result.score[row].numpy(), score, atol=EXACT * max(1, float(np.abs(score).max()))
        )
    if given.known_frames:
        alone = brute_force(video, given, 6)
        expected_density = [a["log"] - b["log"] for a, b in zip(both, alone, strict=True)]
        np.testing.assert_allclose(result.log_density.numpy(), expected_density, rtol=EXACT, atol=EXACT)
    torch.testing.assert_close(log_density(video, window, given), result.log_density, rtol=1e-14, atol=0)


@pytest.mark.parametrize("kind", VIDEOS)
@pytest.mark.parametrize(
    "situation", ["all alone", "mixed, a gap before the window", "a reference of a window frame"]
)
def test_score_is_the_gradient(kind: str, situation: str) -> None:
    video = VIDEOS[kind]
    window, given = setting(video, situation)
    assert window.values is not None
    values = window.values.clone().requires_grad_()
    log_density(video, Evidence(window.states, values), given).sum().backward()
    score = infer(video, window, given).score
    assert values.grad is not None
    torch.testing.assert_close(values.grad, score, rtol=EXACT, atol=EXACT)


def test_a_clean_frame_of_a_noisy_video_is_an_observation() -> None:
    """Level 0 with observation noise, Markov and switching: log N(x; c_y, Σ_y) itself."""
    for kind in ("noisy", "switching", "hidden, noisy, order 2"):
        video = VIDEOS[kind]
        sample = video.sample(2, 3, seeded(4))
        states = (State(0, 0.0), State(2, 0.0), State(2, 0.8))
        evidence = observe(video, sample, states, seeded(5))
        result = infer(video, evidence, frames=(0, 1, 2))
        for row, expected in enumerate(brute_force(video, evidence, 3)):
            assert float(result.log_density[row]) == pytest.approx(expected["log"], rel=EXACT)
            np.testing.assert_allclose(result.score[row].numpy(), expected["score"], rtol=EXACT, atol=1e-9)
            # What was seen at level 0 is the frame.
            np.testing.assert_allclose(
                result.denoised[row, [0, 2]].numpy(), sample.frames[row, [0, 2]].numpy(), atol=1e-12
            )


def test_regimes_with_white_covariance_are_a_noisy_codebook() -> None:
    video = VIDEOS["noisy"]
    assert isinstance(video.rendering, Codebook)
    white = 0.2 * torch.eye(2, dtype=torch.float64).expand(4, 2, 2)
    same = FiniteStateVideo(video.chain, GaussianRegimes(video.rendering.pictures, white))
    for situation in SITUATIONS:
        window, given = setting(video, situation)
        a, b = infer(video, window, given), infer(same, window, given)
        for name in ("log_density", "states", "denoised", "score"):
            torch.testing.assert_close(getattr(a, name), getattr(b, name), rtol=1e-11, atol=1e-11)


def test_a_less_noisy_state_makes_noisier_ones_irrelevant() -> None:
    for video in VIDEOS.values():
        sample = video.sample(3, 4, seeded(9))
        path = [State(2, 0.1), State(2, 0.6), State(2, 2.0)]
        evidence = observe(video, sample, path, seeded(1))
        assert evidence.values is not None
        alone = Evidence((path[0],), evidence.values[:, :1])
        few, many = infer(video, alone, frames=(1, 2, 3)), infer(video, evidence, frames=(1, 2, 3))
        torch.testing.assert_close(few.symbols, many.symbols, rtol=0, atol=1e-12)
        torch.testing.assert_close(few.denoised, many.denoised, rtol=0, atol=1e-12)


def mp_two_frames(
    chain: MarkovChain, pictures: list[float], level: float, x: list[float]
) -> tuple[float, list[float]]:
    """log p and the score of two scalar frames at one level, in 50 digits."""
    with mpmath.workdps(50):
        scale, var = mpmath.exp(-mpmath.mpf(level) / 2), -mpmath.expm1(-mpmath.mpf(level))
        total, slope = mpmath.mpf(0), [mpmath.mpf(0)] * 2
        for a, b in itertools.product(range(len(pictures)), repeat=2):
            term = mpmath.mpf(float(chain.initial[a])) * mpmath.mpf(float(chain.transition[a, b]))
            gap = [mpmath.mpf(x[i]) - scale * mpmath.mpf(pictures[s]) for i, s in enumerate((a, b))]
            term *= mpmath.exp(-(gap[0] ** 2 + gap[1] ** 2) / (2 * var)) / (2 * mpmath.pi * var)
            total += term
            slope = [s - term * g / var for s, g in zip(slope, gap, strict=True)]
        return float(mpmath.log(total)), [float(s / total) for s in slope]


@pytest.mark.parametrize("level", [1e-6, 1e-3, 0.5])
@pytest.mark.parametrize("shift", [0.0, 1e-3, 0.5, 40.0])
def test_tiny_levels_and_far_observations(level: float, shift: float) -> None:
    """Forty units off at σ = 1e-3 is a log-density of -1e9; next to a picture, posteriors of 1e-100000."""
    chain = random_chain(3, 1, seeded(0))
    pictures = [-1.0, 0.25, 1.0]
    video = FiniteStateVideo(chain, Codebook([[p] for p in pictures]))
    x = [-1.0 + shift, 0.25 - shift]
    evidence = Evidence.noisy([0, 1], [level, level], torch.tensor([[[x[0]], [x[1]]]], dtype=torch.float64))
    expected, slope = mp_two_frames(chain, pictures, level, x)
    result = infer(video, evidence)
    assert float(result.log_density) == pytest.approx(expected, rel=EXACT)
    # α(t) c is rounded once, by 1e-16, which moves a score by 1e-16/σ².
    blur = 4e-16 / level
    assert result.score[0, :, 0].tolist() == pytest.approx(slope, rel=EXACT, abs=max(1e-12, blur))


def test_no_state_is_lost_to_underflow() -> None:
    """The chain never leaves its state; frame 0 says 0 by a million nats, frame 1 says 1 by two million."""
    stay = MarkovChain(torch.eye(2), [0.5, 0.5])
    video = FiniteStateVideo(stay, Codebook([[0.0], [1.0]]))
    level = math.log1p(5e-7)  # of variance σ²/α² = 5e-7 on the unscaled frame
    alpha = math.exp(-level / 2)
    values = alpha * torch.tensor([[[0.0], [1.5], [0.5]]], dtype=torch.float64)
    evidence = Evidence.noisy([0, 1, 40], [level] * 3, values)
    result = infer(video, evidence, frames=(0, 20))
    var = 5e-7 * alpha**2
    logs = [
        -((alpha * (0 - c)) ** 2 + (alpha * (1.5 - c)) ** 2 + (alpha * (0.5 - c)) ** 2) / (2 * var) for c in (0, 1)
    ]
    # 2.5e6 nats against 1.5e6: the second state wins, although the first message gave it e^{-1e6}.
    expected = logs[1] + math.log(0.5) - 1.5 * math.log(2 * math.pi * var)
    assert logs[1] - logs[0] == pytest.approx(1e6, rel=1e-9)
    assert float(result.log_density) == pytest.approx(expected, rel=1e-12)
    assert result.states[0, :, 1].tolist() == [1.0, 1.0]


def test_log_product_against_the_sum_of_exponentials() -> None:
    g = seeded(3)
    for spread in (1.0, 300.0, 1e6):
        message = spread * torch.randn(5, 6, 2, dtype=torch.float64, generator=g)
        kernel = spread * torch.randn(6, 2, 4, dtype=torch.float64, generator=g)
        kernel = kernel - kernel.amax()
        message[torch.rand(message.shape, generator=g) < 0.3] = -math.inf
        kernel[torch.rand(kernel.shape, generator=g) < 0.3] = -math.inf
        message[0] = -math.inf
        kernel[:, 1, 2] = -math.inf
        result = log_product(message, Kernel(kernel))
        expected = torch.logsumexp(message[:, :, :, None] + kernel, 1)
        torch.testing.assert_close(result, expected, rtol=1e-13, atol=1e-13)
        finite = message[1:].clone().requires_grad_()
        product = log_product(finite, Kernel(kernel))
        product[product > -math.inf].sum().backward()
        share = torch.exp(message[1:, :, :, None] + kernel - expected[1:, None])
        by_hand = torch.where(expected[1:, None] > -math.inf, share, 0.0).sum(-1)
        assert finite.grad is not None
        torch.testing.assert_close(finite.grad, by_hand, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_gaps_are_bridged_alike_by_powers_and_by_steps(order: int) -> None:
    lattice = Lattice.of(random_chain(3, order, seeded(6)))
    message = torch.randn(4, 3**order, dtype=torch.float64, generator=seeded(7))
    forth, back = message, message
    for frames in range(1, 12):
        forth, back = lattice._apply(forth, lattice.step), lattice._apply_back(back, lattice.step)
        power = lattice.power(frames)
        torch.testing.assert_close(lattice._apply(message, power), forth, rtol=1e-13, atol=1e-13)
        torch.testing.assert_close(lattice._apply_back(message, power), back, rtol=1e-13, atol=1e-13)
        torch.testing.assert_close(lattice.carry(message, frames), forth, rtol=1e-13, atol=1e-13)
        torch.testing.assert_close(lattice.carry_back(message, frames), back, rtol=1e-13, atol=1e-13)
    fresh = Lattice.of(random_chain(3, order, seeded(6)))
    torch.testing.assert_close(fresh.carry(message, 11), forth, rtol=1e-13, atol=1e-13)


def test_a_long_video() -> None:
    """1000 frames at once: the probability of known symbols by counting, and posteriors far from underflow."""
    chain = sticky_chain(3, 0.8)
    video = FiniteStateVideo(chain, Codebook([[-1.0], [0.0], [1.0]]))
    sample = video.sample(4, 1000, seeded(0))
    known = log_density(video, Evidence.clean(range(1000), sample.symbols))
    stays = (sample.states[:, 1:] == sample.states[:, :-1]).sum(-1).double()
    expected = math.log(1 / 3) + stays * math.log(0.8) + (999 - stays) * math.log(0.1)
    torch.testing.assert_close(known, expected, rtol=1e-12, atol=0)
    noisy = observe(video, sample, [State(i, 1e-4) for i in range(1000)], seeded(1))
    posterior = infer(video, noisy)
    # Neighbouring pictures are 100 standard deviations apart: the posterior is the truth, to e^{-1000}.
    assert torch.equal(posterior.symbols.argmax(-1), sample.symbols)
    assert posterior.log_density.shape == (4,)


def test_impossible_evidence() -> None:
    video = VIDEOS["impossible steps"]  # from 0 one can go to 0 and 1 only
    clean = Evidence.clean([2, 3], torch.tensor([[0, 1], [0, 2]]))
    window = Evidence.noisy([5], [0.5], torch.zeros(2, 1, 2, dtype=torch.float64))
    with pytest.raises(EvidenceError, match=r"references of video 1 of the batch cannot occur: .* up to frame 3"):
        log_density(video, window, clean)
    with pytest.raises(EvidenceError, match="evidence of video 1 of the batch cannot occur"):
        infer(video, clean)
    # Asked for the probability of the impossible, the answer is 0, not an error.
    first, second = Evidence.clean([2], torch.tensor([[0]])), Evidence.clean([3], torch.tensor([[1], [2]]))
    values = log_density(video, second, first)
    assert float(values[0]) == pytest.approx(math.log(float(video.chain.transition[0, 1])))
    assert float(values[1]) == -math.inf
    assert log_density(video, Evidence.clean([2, 3], torch.tensor([[0, 2]]))).tolist() == [-math.inf]


def test_what_is_refused() -> None:
    video, noisy = VIDEOS["Markov"], VIDEOS["noisy"]
    x = torch.zeros(2, 1, 2, dtype=torch.float64)
    refused = {
        "frame 3 at level 0 has no density": lambda: infer(video, Evidence.noisy([3], [0.0], x)),
        "noisy states have 3 entries, frames 2": lambda: infer(
            video, Evidence.noisy([3], [0.1], torch.zeros(2, 1, 3, dtype=torch.float64))
        ),
        "noisy states must be float64": lambda: Evidence.noisy([3], [0.1], x.float()),
        "noisy states must be finite": lambda: Evidence.noisy([3], [0.1], x + math.nan),
        "1 states need values of shape (batch, n, d), got (2, 2)": lambda: Evidence.noisy([3], [0.1], x[:, 0]),
        "symbols must be whole numbers": lambda: Evidence.clean([0], torch.zeros(2, 1)),
        "frame 0: symbols are 0..3, got 4": lambda: infer(video, Evidence.clean([0], torch.tensor([[0], [4]]))),
        "frame 3 is given twice at level 0.1 of path 0": lambda: (
            Evidence.noisy([3], [0.1], x) + Evidence.noisy([3], [0.1], x)
        ),
        "a frame's symbol is given twice": lambda: Evidence.clean([1, 1], torch.zeros(2, 2).long()),
        "frame 3: 0 ≤ parting ≤ level": lambda: Evidence.noisy([3], [-0.1], x),
        "the parting 0.1 belongs to the other path": lambda: Evidence((State(3, 0.2, parting=0.1),), x),
        "path 1 cannot leave path 0 both at 0.1 and at 0.2": lambda: Evidence(
            (State(3, 0.2, 1, 0.1), State(3, 0.3, 1, 0.2)), x.expand(2, 2, 2)
        ),
        "batches of [2, 3] videos do not go together": lambda: (
            Evidence.noisy([3], [0.1], x) + Evidence.noisy([4], [0.1], x[:1].expand(3, 1, 2))
        ),
        "frames are counted from 0, got -1": lambda: infer(video, Evidence.noisy([3], [0.1], x), frames=[-1]),
    }
    for message, call in refused.items():
        with pytest.raises(EvidenceError, match=re.escape(message)):
            call()
    assert infer(noisy, Evidence.noisy([3], [0.0], x)).score.shape == (2, 1, 2)
    chain = random_chain(17, 3, seeded(0))
    with pytest.raises(TableSizeError, match="S = 17 and p = 3 make 4913, above the limit of 4096"):
        infer(FiniteStateVideo(chain, Codebook(torch.zeros(17, 1))), Evidence())


def test_nothing_known_gives_the_prior() -> None:
    video = VIDEOS["order 2"]
    result = infer(video, Evidence(), frames=(0, 1, 7))
    for column, frame in enumerate((0, 1, 7)):
        torch.testing.assert_close(result.states[0, column], video.chain.law(frame), rtol=1e-13, atol=0)
    assert result.log_density.tolist() == [0.0]
    assert result.score.shape == (1, 0, 2)


def test_references_shared_by_the_batch() -> None:
    video = VIDEOS["Markov"]
    window, given = setting(video, "clean references with gaps")
    assert given.symbols is not None
    one = Evidence.clean(given.frames, given.symbols[:1])
    many = Evidence.clean(given.frames, given.symbols[:1].expand(3, -1))
    torch.testing.assert_close(log_density(video, window, one), log_density(video, window, many))


@pytest.mark.parametrize("kind", ["Markov", "order 2", "hidden", "hidden, noisy, order 2", "switching"])
def test_posterior_samples_against_enumeration(kind: str) -> None:
    video, draws = VIDEOS[kind], 8000
    window, given = setting(video, "mixed, a gap before the window", batch=1)
    evidence = window + given
    assert evidence.values is not None
    assert evidence.symbols is not None
    many = Evidence(
        evidence.states,
        evidence.values.expand(draws, -1, -1),
        evidence.frames,
        evidence.symbols.expand(draws, -1),
    )
    frames = (0, 1, 4, 5)
    states, symbols = sample_posterior(video, many, frames, seeded(2))
    size, shown = video.chain.states, video.rendering.symbols
    place = torch.arange(3, -1, -1)
    count = torch.bincount((symbols * shown**place).sum(-1), minlength=shown**4).double() / draws
    law = joint_posterior(video, evidence, frames).reshape(-1)
    assert float(law.sum()) == pytest.approx(1, abs=1e-12)
    assert float(count[law == 0].sum()) == 0
    # Outcomes expected fewer than 10 times are counted together: 5 standard errors mean nothing for each.
    rare = law * draws < 10
    count = torch.cat([count[~rare], count[rare].sum()[None]])
    law = torch.cat([law[~rare], law[rare].sum()[None]])
    error = torch.sqrt(law * (1 - law) / draws)
    assert bool(((count - law).abs() <= 5 * error + 1e-12).all())
    marginal = infer(video, evidence, frames=frames).states[0]
    for column in range(4):
        seen = torch.bincount(states[:, column], minlength=size).double() / draws
        error = torch.sqrt(marginal[column] * (1 - marginal[column]) / draws)
        assert bool(((seen - marginal[column]).abs() <= 5 * error + 1e-12).all())


def joint_posterior(video: FiniteStateVideo, evidence: Evidence, frames: tuple[int, ...]) -> Tensor:
    """P(symbols of ``frames`` | evidence) as a table, from log-densities of known symbols (checked above)."""
    shown = video.rendering.symbols
    free = [f for f in frames if f not in evidence.frames]
    table = torch.zeros((shown,) * len(frames), dtype=torch.float64)
    alone = float(log_density(video, evidence))
    for values in itertools.product(range(shown), repeat=len(free)):
        known = dict(zip(free, values, strict=True))
        joint = evidence + Evidence.clean(free, torch.tensor([values]))
        place = tuple(
            known[f] if f in known else int(evidence.symbols[0, evidence.frames.index(f)])  # type: ignore[index]
            for f in frames
        )
        table[place] = math.exp(float(log_density(video, joint)) - alone)
    return table
