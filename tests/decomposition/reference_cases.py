"""Videos, plans and printed numbers that several tests of the ledger share."""

import numpy as np
from numpy.typing import NDArray

from arvdm_theory import Plan, References, fifo, outpainting
from arvdm_theory.plan.references import causal_mask, parts_mask

Array = NDArray[np.float64]


# -- videos -------------------------------------------------------------------------------------------


def table_video(frames: int) -> Array:
    """The video of cases A to D: S ⊗ B in R², B of trace 2."""
    lag = np.abs(np.subtract.outer(np.arange(frames), np.arange(frames)))
    over_time = 0.5 * 0.8**lag + 0.4 * np.cos(2 * np.pi * lag / 7) + 0.1 * (lag == 0)
    in_frame = np.array([[1.0, 0.3], [0.3, 0.5]])
    return np.kron(over_time, in_frame * 2 / np.trace(in_frame))


def ar1(frames: int, correlation: float) -> Array:
    return correlation ** np.abs(np.subtract.outer(np.arange(frames), np.arange(frames))).astype(float)


def random_video(frames: int, d: int, seed: int) -> tuple[Array, Array]:
    """A random covariance with eigenvalues in about [0.3, 3], and a random mean: no structure to lean on."""
    rng = np.random.default_rng(seed)
    basis, _ = np.linalg.qr(rng.normal(size=(frames * d, frames * d)))
    return basis @ np.diag(np.exp(rng.uniform(-1.2, 1.1, frames * d))) @ basis.T, rng.normal(size=frames * d)


# -- printed tables -----------------------------------------------------------------------------------

CASES = {
    "A": (outpainting(references=References.last(1)), 5),
    "B": (outpainting(references=References.last(4)), 5),
    "C": (fifo(), 8),
    "D": (fifo(references=References.last(3)), 8),
}
# clean, trajectory, Girsanov, IE, Σ NIE_AR, Σ DE, Σ MB, last clip, as printed.
PRINTED = {
    "A": (4.182668, 14.365137, 16.40801, 0.182080, 0.005906, 11.783947, 2.393204, 0.228281),
    "B": (2.881588, 13.396108, 15.44109, 0.182080, 0.009338, 12.301950, 0.902739, 0.320901),
    "C": (4.337749, 8.547170, 11.95356, 0.001066, 0.000257, 3.934830, 4.611017, 0.007013),
    "D": (0.687925, 5.329993, 8.73801, 0.001066, 0.003166, 4.792754, 0.533006, 0.023243),
}
# Half a unit of the last printed digit, and room for float64 rounding beside it.
SIX_DIGITS = 0.5e-6 + 1e-9
FIVE_DIGITS = 0.5e-5 + 1e-9
FOUR_DIGITS = 0.5e-4 + 1e-9
THREE_DIGITS = 0.5e-3 + 1e-9
TWO_DIGITS = 0.5e-2 + 1e-9

# Case E, AR(1) with 0.95: reference level ρ, clean KL, clip KL of AR steps 1 and 12, MB_12.
DIAL = (
    (0.0, 6.446, 0.3874, 0.4409, 0.0000),
    (0.02, 6.836, 0.3839, 0.4169, 0.0736),
    (0.1, 7.944, 0.3803, 0.3900, 0.2300),
    (0.3, 9.635, 0.3776, 0.3771, 0.4279),
    (1.0, 13.260, 0.3745, 0.3735, 0.7799),
)


def dial_plan(level: float) -> Plan:
    """Case E: w = Δ = 2, the last three frames as references, noised afresh to ``level``."""
    return outpainting(references=References.last(3, level), reverse_steps=40, init_steps=40, horizon=8.0)


# Ideal AR kernels P(Output_k | R_k): one exact posterior draw, from a horizon so far that pure noise says
# nothing of the frames. What T = 20 leaves is NIE of order e^{-T} = 2e-9.
IDEAL = Plan((20.0, 20.0), 2, 20.0, 1, 1, references=References.last(3, 0.3))


# -- plans of every shape -----------------------------------------------------------------------------

# A schedule in which frames wait, the new one at T included.
STAY = ((2.0, 4.0, 4.0), (1.0, 4.0, 4.0), (0.0, 2.0, 4.0), (0.0, 2.0, 4.0))
PLANS = {
    "chunks without references": Plan((3.0, 3.0), 2, 3.0, 3, 3),
    "chunks with references": Plan((3.0, 3.0), 2, 3.0, 3, 3, references=References.last(1)),
    "chunks, noised references": Plan((3.0, 3.0), 2, 3.0, 3, 3, references=References.last(3, 0.3)),
    "chunks, mixed references, floor": Plan(
        (3.0, 3.0), 2, 3.0, 3, 3, references=References.last(2, 0.3) + References.first(1), floor=0.05
    ),
    "chunks, causal mask": Plan(
        (3.0, 3.0), 2, 3.0, 3, 3, references=References.last(2), visible=(causal_mask(2),)
    ),
    "rolling": Plan((1.0, 2.0, 3.0), 1, 3.0, 3, 3, references=References.last(2)),
    "rolling, noised references, floor": Plan(
        (1.0, 2.0, 3.0), 1, 3.0, 3, 3, references=References.last(2, 0.4), floor=0.1, spacing="geometric"
    ),
    "rolling, warmup": Plan((1.0, 2.0, 3.0), 1, 3.0, 3, 3, initialisation="warmup"),
    "rolling, two parts": Plan(
        (1.0, 1.0, 3.0, 3.0), 2, 3.0, 3, 3, references=References.last(1), visible=(parts_mask(4, 2),)
    ),
    "stride does not divide the window": Plan((2.0, 3.0, 3.0), 2, 3.0, 3, 3, references=References.every(2)),
    "frames that wait": Plan((2.0, 4.0, 4.0), 1, 4.0, 3, 3, output_levels=(0.0, 2.0, 4.0), ar_grid=STAY),
    "enters clean": Plan((0.0, 1.5, 3.0), 1, 3.0, 3, 3, references=References.first(1)),
}  # fmt: skip

# Columns: the window's two frames, then the references, the newest last.
_READS = (
    ((True, False, False, True), (True, True, False, False)),
    ((True, True, True, False), (False, True, True, True)),
    ((True, True, True, True), (True, True, True, True)),
)
MORE_PLANS = {
    "one frame, one step": Plan((2.0,), 1, 2.0, 1, 1, references=References.last(1)),
    "every second frame": Plan((3.0, 3.0), 2, 3.0, 3, 2, references=References.every(2)),
    "all frames noised, warmup": Plan(
        (0.5, 2.0), 1, 2.0, 2, 3, references=References.all(0.2), initialisation="warmup"
    ),
    "first clean, last noised": Plan(
        (3.0, 3.0), 2, 3.0, 3, 3, references=References.first(1) + References.last(2, 0.5)
    ),
    "geometric chunks": Plan(
        (3.0, 3.0), 2, 3.0, 4, 4, references=References.last(1), floor=0.02, spacing="geometric"
    ),
    "plateau": Plan((1.0, 1.0, 2.5, 2.5, 2.5), 2, 2.5, 2, 2, references=References.last(2, 0.1)),
    "stride of one less than the window": Plan((0.3, 2.0, 2.0, 2.0), 3, 2.0, 2, 3, floor=0.1),
    "a mask a step that reads references": Plan(
        (3.0, 3.0), 2, 3.0, 3, 3, references=References.last(2), visible=_READS
    ),
    "causal, rolling, noised": Plan(
        (1.0, 2.0, 3.0), 1, 3.0, 2, 2, references=References.last(2, 0.3), visible=(causal_mask(3),), floor=0.05
    ),
}  # fmt: skip
