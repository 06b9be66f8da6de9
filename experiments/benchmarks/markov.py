"""Seconds that exact computations on finite-state videos take, and how they grow.

    python experiments/benchmarks/markov.py [--states 50] [--window 16] [--batch 1000] [--frames 1000]

Prints a table: the job, its size, seconds (the best of three runs), and the ratio to the same job's row before.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator

import torch

from arvdm_theory import Codebook, FiniteStateVideo, MarkovChain, Plan, References, moving_sprite, random_walk
from arvdm_theory.information.transfer import entropy, kl_divergence, memory_bottlenecks
from arvdm_theory.laws.chains import random_chain
from arvdm_theory.laws.evidence import Evidence
from arvdm_theory.laws.inference import infer, log_density
from arvdm_theory.laws.sampled_information import observe, sampled_information
from arvdm_theory.laws.states import State

RULES = {
    "no references": References.none(),
    "first frame": References.first(1),
    "last frame": References.last(1),
    "every 7th": References.every(7),
    "all": References.all(),
}

Row = tuple[str, str, float]


def seconds(job: Callable[[], object], runs: int = 3) -> float:
    best = float("inf")
    for _ in range(runs):
        start = time.perf_counter()
        job()
        best = min(best, time.perf_counter() - start)
    return best


def outpainting(rule: References) -> Plan:
    return Plan(input_levels=(6.0,), stride=1, horizon=6.0, reverse_steps=4, references=rule)


def window_problem(
    chain: MarkovChain, window: int, batch: int, level: float, dim: int
) -> tuple[FiniteStateVideo, Evidence, Evidence]:
    """A window at one level after two clean references, with a gap."""
    generator = torch.Generator().manual_seed(0)
    pictures = torch.rand(chain.states, dim, dtype=torch.float64, generator=generator)
    video = FiniteStateVideo(chain, Codebook(pictures))
    sample = video.sample(batch, window + 4, generator)
    seen = observe(video, sample, [State(4 + i, level) for i in range(window)], generator)
    return video, seen, Evidence.clean([0, 3], sample.symbols[:, [0, 3]])


def ring(states: int) -> MarkovChain:
    steps = torch.eye(states).roll(1, 0) + torch.eye(states).roll(-1, 0)
    return random_walk(steps, stay=0.5)


def chains(states: int, frames: int) -> Iterator[Row]:
    generator = torch.Generator().manual_seed(0)
    p, q = random_chain(states, 1, generator), random_chain(states, 1, generator)
    yield "entropy", f"S={states} N={frames}", seconds(lambda: entropy(p, frames))
    yield "KL", f"S={states} N={frames}", seconds(lambda: kl_divergence(p, q, frames))
    for name, rule in RULES.items():
        plan = outpainting(rule)
        taken = seconds(lambda plan=plan: memory_bottlenecks(p, plan, frames - 1))  # type: ignore[misc]
        yield f"all MB_k, {name}", f"S={states} N={frames}", taken


def growth_of_chains(states: int, frames: int) -> Iterator[Row]:
    plan = outpainting(RULES["first frame"])
    for n in (frames // 4, frames // 2, frames):
        p = random_chain(states, 1, torch.Generator().manual_seed(0))
        yield "MB_k, first frame, N", f"N={n}", seconds(lambda n=n, p=p: memory_bottlenecks(p, plan, n - 1))  # type: ignore[misc]
    for s in (states // 2, states, 2 * states):
        p = random_chain(s, 1, torch.Generator().manual_seed(0))
        yield "MB_k, first frame, S", f"S={s}", seconds(lambda p=p: memory_bottlenecks(p, plan, frames - 1))  # type: ignore[misc]


def windows(states: int, window: int, batch: int, dim: int) -> Iterator[Row]:
    for name, chain in (
        ("dense chain", random_chain(states, 1, torch.Generator().manual_seed(0))),
        ("ring", ring(states)),
    ):
        for level in (1.0, 0.05, 1e-6):
            video, seen, given = window_problem(chain, window, batch, level, dim)
            size = f"S={states} w={window} B={batch} d={dim} level={level:g}"
            yield f"log-density, {name}", size, seconds(lambda v=video, s=seen, g=given: log_density(v, s, g))  # type: ignore[misc]
            yield f"posterior, {name}", size, seconds(lambda v=video, s=seen, g=given: infer(v, s, g))  # type: ignore[misc]


def growth_of_windows(states: int, window: int, batch: int, dim: int) -> Iterator[Row]:
    def posterior(s: int, w: int, b: int, order: int = 1) -> float:
        chain = random_chain(s, order, torch.Generator().manual_seed(0))
        video, seen, given = window_problem(chain, w, b, 0.3, dim)
        return seconds(lambda: infer(video, seen, given))

    for s in (states // 2, states, 2 * states, 4 * states):
        yield "posterior, S", f"S={s}", posterior(s, window, batch)
    for w in (window // 2, window, 2 * window, 4 * window):
        yield "posterior, w", f"w={w}", posterior(states, w, batch)
    for b in (batch // 4, batch // 2, batch):
        yield "posterior, batch", f"B={b}", posterior(states, window, b)
    for order in (1, 2, 3):
        yield (
            "posterior, order",
            f"S={max(2, states // 10)} p={order}",
            posterior(max(2, states // 10), window, batch, order),
        )


def pictures_and_samples(batch: int) -> Iterator[Row]:
    video = moving_sprite((7, 7), (64, 64))
    generator = torch.Generator().manual_seed(0)
    small = max(2, batch // 10)
    sample = video.sample(small, 8, generator)
    seen = observe(video, sample, [State(i, 0.5) for i in range(8)], generator)
    yield "posterior, sprite 64 x 64", f"S=49 w=8 B={small} d=4096", seconds(lambda: infer(video, seen))
    noisy = FiniteStateVideo(random_chain(10, 1, generator), Codebook(torch.rand(10, 3), variance=0.1))
    out, past = [State(i, 0.3) for i in (16, 17)], [State(i, 0.0) for i in range(14)]
    known = [State(i, 0.0) for i in (14, 15)]
    taken = seconds(lambda: sampled_information(noisy, out, past, known, batch, generator), runs=1)
    yield "sampled MB", f"S=10 N=18 videos={batch}", taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--states", type=int, default=50)
    parser.add_argument("--window", type=int, default=16)
    parser.add_argument("--batch", type=int, default=1000)
    parser.add_argument("--frames", type=int, default=1000)
    parser.add_argument("--dim", type=int, default=48)
    a = parser.parse_args()
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}")
    print(f"{'job':32} {'size':38} {'seconds':>9} {'ratio':>7}")
    for rows in (
        chains(a.states, a.frames),
        growth_of_chains(a.states, a.frames),
        windows(a.states, a.window, a.batch, a.dim),
        growth_of_windows(a.states, a.window, a.batch, a.dim),
        pictures_and_samples(a.batch),
    ):
        before: dict[str, float] = {}
        for job, size, taken in rows:
            ratio = f"{taken / before[job]:7.2f}" if job in before else ""
            print(f"{job:32} {size:38} {taken:9.4f} {ratio}")
            before[job] = taken


if __name__ == "__main__":
    main()
