"""Transfer matrices against the enumerated joint law of all sequences, and against 50-digit arithmetic."""

from __future__ import annotations

import itertools
import math

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from arvdm_theory.information.transfer import (
    TableSizeError,
    entropy,
    first_frames,
    kl_divergence,
    memory_bottleneck,
    memory_bottlenecks,
)
from arvdm_theory.laws.chains import MarkovChain, periodic_chain, random_chain, random_walk, sticky_chain
from arvdm_theory.plan.plan import Plan
from arvdm_theory.plan.references import References

# Enumerated tables have at most 3^9 entries; sums of so many rounded p log p are right to about 1e-13.
EXACT = 1e-12


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def sparse_chain(states: int, order: int, seed: int) -> MarkovChain:
    """A chain with impossible transitions and impossible starts."""
    generator = seeded(seed)
    chain = random_chain(states, order, generator)
    keep = torch.rand(chain.transition.shape, generator=generator) < 0.6
    keep[..., 0] = True
    start = chain.initial * (torch.rand(chain.initial.shape, generator=generator) < 0.7)
    start.view(-1)[0] += 0.1
    rows = chain.transition * keep
    return MarkovChain(rows / rows.sum(-1, keepdim=True), start / start.sum())


def enumerated(chain: MarkovChain, frames: int) -> np.ndarray:
    """P of every state sequence, from the definition: one product a sequence."""
    start, step = chain.initial.numpy(), chain.transition.numpy()
    order = start.ndim
    length = max(frames, order)
    table = np.zeros((chain.states,) * length)
    for path in itertools.product(range(chain.states), repeat=length):
        value = start[path[:order]]
        for i in range(order, length):
            value = value * step[path[i - order : i + 1]]
        table[path] = value
    return table.sum(tuple(range(frames, length)))


def table_entropy(table: np.ndarray, frames: set[int]) -> float:
    other = tuple(i for i in range(table.ndim) if i not in frames)
    p = table.sum(other).reshape(-1)
    p = p[p > 0]
    return float(-(p * np.log(p)).sum())


def table_information(table: np.ndarray, out: set[int], past: set[int], known: set[int]) -> float:
    def h(frames: set[int]) -> float:
        return table_entropy(table, frames)

    return h(out | known) + h(past | known) - h(out | past | known) - h(known)


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("frames", [1, 2, 3, 6])
def test_entropy_and_joint_law(order: int, frames: int) -> None:
    for chain in (random_chain(3, order, seeded(order)), sparse_chain(3, order, order)):
        table = enumerated(chain, frames)
        np.testing.assert_allclose(first_frames(chain, frames).numpy(), table, rtol=0, atol=1e-15)
        assert float(entropy(chain, frames)) == pytest.approx(table_entropy(table, set(range(frames))), abs=EXACT)


@pytest.mark.parametrize(("order_p", "order_q"), [(1, 1), (1, 2), (2, 1), (3, 1), (2, 3)])
def test_kl_against_enumeration(order_p: int, order_q: int) -> None:
    p, q = sparse_chain(2, order_p, 5), random_chain(2, order_q, seeded(7))
    for frames in (1, 2, 4, 8):
        a, b = enumerated(p, frames).reshape(-1), enumerated(q, frames).reshape(-1)
        seen = a > 0
        expected = float((a[seen] * np.log(a[seen] / b[seen])).sum())
        assert float(kl_divergence(p, q, frames)) == pytest.approx(expected, abs=EXACT)


def test_kl_is_infinite_exactly_when_something_impossible_is_reached() -> None:
    # From state 0 the chain reaches state 2 at frame 2 at the earliest; Q forbids leaving 2 for 0.
    p = MarkovChain([[0.5, 0.5, 0], [0, 0.5, 0.5], [0.5, 0, 0.5]], [1.0, 0, 0])
    q = MarkovChain([[0.5, 0.5, 0], [0, 0.5, 0.5], [0, 0, 1.0]], [1.0, 0, 0])
    assert float(kl_divergence(p, q, 3)) == 0
    assert float(kl_divergence(p, q, 4)) == math.inf
    assert float(kl_divergence(q, p, 4)) < math.inf
    start = MarkovChain(q.transition, [0.0, 1, 0])
    assert float(kl_divergence(p, start, 1)) == math.inf
    with pytest.raises(ValueError, match="chains of 3 and of 2 states"):
        kl_divergence(p, sticky_chain(2, 0.5), 3)


def test_an_infinite_divergence_survives_underflow() -> None:
    # State k + 1 is reached from k with probability 1e-40: frame 9 at the end of the line has probability 1e-360.
    size, tiny = 10, 1e-40
    rows = torch.eye(size, dtype=torch.float64) * (1 - tiny)
    rows[torch.arange(size - 1), torch.arange(1, size)] = tiny
    rows[-1] = 0
    rows[-1, -1] = rows[-1, 0] = 0.5
    closed = rows.clone()
    closed[-1] = torch.eye(size)[-1]
    start = torch.eye(size, dtype=torch.float64)[0]
    p, q = MarkovChain(rows, start), MarkovChain(closed, start)
    assert float(kl_divergence(p, q, size)) == 0
    assert float(kl_divergence(p, q, size + 1)) == math.inf


def mp_kl(p: MarkovChain, q: MarkovChain, frames: int) -> mpmath.mpf:
    law = [mpmath.mpf(float(x)) for x in p.initial]
    total = mpmath.mpf(0)
    for i, x in enumerate(law):
        total += x * mpmath.log(x / float(q.initial[i]))
    rows_p, rows_q = p.transition.tolist(), q.transition.tolist()
    for _ in range(frames - 1):
        for i, x in enumerate(law):
            total += x * sum(
                mpmath.mpf(a) * mpmath.log(mpmath.mpf(a) / b) for a, b in zip(rows_p[i], rows_q[i], strict=True)
            )
        law = [sum(x * rows_p[i][j] for i, x in enumerate(law)) for j in range(len(law))]
    return total


def test_kl_of_nearly_equal_chains_keeps_its_digits() -> None:
    # Entries are dyadic, so that rows sum to 1 without rounding and the 50-digit value is of the same two laws.
    for power in (8, 20, 24):
        shift = 2.0**-power
        p = MarkovChain([[0.25, 0.75], [0.5, 0.5]], [0.5, 0.5])
        q = MarkovChain([[0.25 + shift, 0.75 - shift], [0.5 - shift, 0.5 + shift]], [0.5, 0.5])
        with mpmath.workdps(50):
            expected = float(mp_kl(p, q, 12))
        assert float(kl_divergence(p, q, 12)) == pytest.approx(expected, rel=1e-13)
        assert expected < 40 * shift**2


CASES = [
    (1, 3, 1, 4),
    (1, 3, 3, 4),
    (2, 3, 1, 4),
    (2, 2, 3, 5),
    (3, 2, 2, 5),
    (3, 2, 4, 5),
]


@pytest.mark.parametrize(("order", "states", "width", "out"), CASES)
@pytest.mark.parametrize("make", ["dense", "sparse"])
def test_memory_bottleneck_against_enumeration(order: int, states: int, width: int, out: int, make: str) -> None:
    chain = random_chain(states, order, seeded(3)) if make == "dense" else sparse_chain(states, order, 4)
    table = enumerated(chain, out + width)
    for chosen in itertools.chain.from_iterable(itertools.combinations(range(out), n) for n in range(out + 1)):
        frames = set(range(out, out + width))
        expected = table_information(table, frames, set(range(out)) - set(chosen), set(chosen))
        value = float(memory_bottleneck(chain, range(out, out + width), chosen))
        assert value == pytest.approx(expected, abs=EXACT), chosen


@pytest.mark.parametrize("order", [2, 3])
def test_memory_bottleneck_before_the_first_p_frames_are_out(order: int) -> None:
    chain = random_chain(3, order, seeded(8))
    for out in range(1, order):
        for width in (1, 2, 4):
            table = enumerated(chain, out + width)
            for chosen in ((), (0,), (out - 1,)):
                frames = set(range(out, out + width))
                expected = table_information(table, frames, set(range(out)) - set(chosen), set(chosen))
                value = float(memory_bottleneck(chain, range(out, out + width), chosen))
                assert value == pytest.approx(expected, abs=EXACT)


RULES = {
    "none": References.none(),
    "last 1": References.last(1),
    "last 3": References.last(3),
    "first": References.first(1),
    "first and last": References.first(2) + References.last(1),
    "every 2": References.every(2),
    "every 3": References.every(3),
    "all": References.all(),
}


def outpainting(stride: int, rule: References) -> Plan:
    return Plan(input_levels=(6.0,) * stride, stride=stride, horizon=6.0, reverse_steps=4, references=rule)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(("order", "stride"), [(1, 1), (1, 3), (2, 1), (2, 2), (3, 2)])
def test_bottlenecks_of_a_plan_against_enumeration(rule: str, order: int, stride: int) -> None:
    """What steps reuse of each other is right: every step of a run is compared with its own table."""
    chain = random_chain(2, order, seeded(order))
    plan = outpainting(stride, RULES[rule])
    steps = 9 // stride - 1
    table = enumerated(chain, plan.clean_frames(steps))
    expected = []
    for k in range(1, steps + 1):
        known = {r.frame for r in plan.references_at(k)}
        expected.append(table_information(table, set(plan.window_frames(k)), set(plan.past_frames(k)), known))
    values = memory_bottlenecks(chain, plan, steps)
    np.testing.assert_allclose(values.numpy(), expected, rtol=0, atol=EXACT)


@settings(max_examples=40, deadline=None)
@given(
    order=st.integers(1, 3),
    width=st.integers(1, 3),
    out=st.integers(1, 6),
    data=st.data(),
)
def test_any_references_and_more_of_them_never_hurt(order: int, width: int, out: int, data: st.DataObject) -> None:
    chain = sparse_chain(2, order, data.draw(st.integers(0, 50)))
    some = data.draw(st.sets(st.integers(0, out - 1)))
    more = some | data.draw(st.sets(st.integers(0, out - 1)))
    frames = range(out, out + width)
    table = enumerated(chain, out + width)
    expected = table_information(table, set(frames), set(range(out)) - some, some)
    value = float(memory_bottleneck(chain, frames, some))
    assert value == pytest.approx(expected, abs=EXACT)
    assert float(memory_bottleneck(chain, frames, more)) <= value + EXACT


def test_the_last_frame_screens_off_the_past() -> None:
    chain = random_chain(5, 1, seeded(1))
    assert float(memory_bottleneck(chain, range(7, 9), [6])) == 0
    assert float(memory_bottleneck(chain, range(7, 9), [5])) > 0
    second = random_chain(3, 2, seeded(1))
    assert float(memory_bottleneck(second, range(7, 9), [5, 6])) == 0
    assert float(memory_bottleneck(second, range(7, 9), [6])) > 0


def test_a_periodic_chain_remembers_its_phase_and_nothing_else() -> None:
    chain = periodic_chain(6)
    assert float(memory_bottleneck(chain, range(40, 41), [])) == pytest.approx(math.log(6), abs=1e-14)
    assert float(memory_bottleneck(chain, range(40, 41), [3])) == pytest.approx(0, abs=1e-15)


def test_long_runs_against_entropies() -> None:
    """Without references MB_k = H(Out_k) + H(past) - H(past, Out_k), each by the chain rule of entropy."""
    start = random_chain(4, 1, seeded(2))
    chain = MarkovChain.stationary(start.transition)
    plan = outpainting(3, References.none())
    values = memory_bottlenecks(chain, plan, 300)
    for step in (1, 10, 300):
        out = plan.frames_out(step)
        expected = entropy(chain, 3) + entropy(chain, out) - entropy(chain, out + 3)
        # A sum of 900 frames' entropies, about 1000 nats, is right to 1e-12.
        assert float(values[step - 1]) == pytest.approx(float(expected), abs=1e-11)
    second = MarkovChain.stationary(random_chain(2, 2, seeded(2)).transition)
    values = memory_bottlenecks(second, outpainting(1, References.none()), 200)
    expected = entropy(second, 1) + entropy(second, 200) - entropy(second, 201)
    assert float(values[-1]) == pytest.approx(float(expected), abs=1e-11)


def test_a_small_bottleneck_keeps_its_digits() -> None:
    """States that are nearly independent: I ~ 1e-13, where a difference of entropies has three digits."""
    shift = 2.0**-22
    chain = MarkovChain([[0.5 + shift, 0.5 - shift], [0.25, 0.75]], [0.5, 0.5])
    close = MarkovChain([[0.25 + shift, 0.75 - shift], [0.25, 0.75]], [0.5, 0.5])
    for law in (chain, close):
        with mpmath.workdps(50):
            step = [[mpmath.mpf(x) for x in row] for row in law.transition.tolist()]
            joint = [[mpmath.mpf(0.5) * step[a][b] for b in range(2)] for a in range(2)]
            after = [sum(joint[a][b] for a in range(2)) for b in range(2)]
            expected = sum(joint[a][b] * mpmath.log(step[a][b] / after[b]) for a in range(2) for b in range(2))
        assert float(memory_bottleneck(law, range(1, 2), [])) == pytest.approx(float(expected), rel=1e-9)
    assert float(expected) < 1e-13


def test_a_walk_on_a_graph_from_its_first_frame() -> None:
    """Chains with many zeros, a reference far away: against the law of three frames by matrix powers."""
    size = 7
    ring = torch.zeros(size, size)
    for i in range(size):
        ring[i, (i + 1) % size] = ring[i, (i - 1) % size] = 1
    chain = random_walk(ring, stay=0.1)
    step = chain.transition.numpy()
    far = np.linalg.matrix_power(step, 19)
    joint = chain.initial.numpy()[:, None, None] * far[:, :, None] * step[None]
    expected = table_information(joint, {2}, {1}, {0})
    assert float(memory_bottleneck(chain, range(20, 24), [0])) == pytest.approx(expected, abs=EXACT)


def test_what_is_refused() -> None:
    second = random_chain(4, 2, seeded(0))
    with pytest.raises(TableSizeError, match="references that no 2 consecutive ones screen off"):
        memory_bottleneck(second, range(60, 61), range(0, 60, 2))
    with pytest.raises(TableSizeError, match=r"4\^40 entries"):
        first_frames(second, 40)
    chain = sticky_chain(2, 0.9)
    with pytest.raises(ValueError, match="before frame 3, got 0 to 3"):
        memory_bottleneck(chain, range(3, 4), [0, 3])
    with pytest.raises(ValueError, match="range of consecutive frames"):
        memory_bottleneck(chain, range(3, 9, 2), [0])
    with pytest.raises(ValueError, match="at least one frame"):
        entropy(chain, 0)
    fifo = Plan(input_levels=(3.0, 6.0), stride=1, horizon=6.0, reverse_steps=4)
    with pytest.raises(ValueError, match="w = Δ and the floor 0"):
        memory_bottlenecks(chain, fifo, 2)
    with pytest.raises(ValueError, match=r"AR step 1 refers to frame 0 at level 0\.3"):
        memory_bottlenecks(chain, outpainting(1, References.last(1, level=0.3)), 2)
