"""Samples as people have them, and laws that fool estimators, each with its known information or divergence.

Rounded and byte columns, atoms (black pixels, rectified values), repeated rows, functions of one another,
clusters, links that oscillate faster than the samples, spreads that a condition sets, strong dependence, few
samples; and pairs of laws for divergences that a Gaussian fit does not describe. Truths are closed forms or
quadratures. Beside each stands what one would do who knew the kind of law: undo the map that hides a simple law,
and take the method that is made for what is left."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from arvdm_theory.information.estimators import Dependence

__all__ = ["DIVERGENCE_TASKS", "HARD_TASKS", "HardTask", "channel_information", "folded_information",
           "rectified_information", "rounded_information"]  # fmt: skip

Array = NDArray[np.float64]
Samples = tuple[Array, ...]
RHO = 0.6
GAUSSIAN = -0.5 * math.log1p(-(RHO**2))


@dataclass(frozen=True)
class HardTask:
    """Samples with a known information (or divergence), and which fault of estimators they stand for.

    Attributes:
        truth: in nats; may be infinite.
        n: samples.
        draw: (n, seed) → (x, z), (x, z, y) or (p, q).
        family: what tables group by.
        aware: the method of one who knows the kind of law; none where the divergence is infinite or shows nothing.
        undo: what that one does to the samples first: it changes no information.
        dependence: of the samples.
    """

    truth: float
    n: int
    draw: Callable[[int, int], Samples]
    family: str
    aware: str | None
    undo: Callable[..., Samples]
    dependence: Dependence = "independent"


_GRID = np.linspace(-8, 8, 4001)
_WEIGHTS = np.exp(-(_GRID**2) / 2) / np.exp(-(_GRID**2) / 2).sum()


def channel_information(signal: Callable[[Array], Array], noise: float) -> float:
    """I(X; g(X) + σN) for standard normal X and N: h(Z) - h(σN), by quadrature over X and Z."""
    values = signal(_GRID)
    z = np.arange(values.min() - 8 * noise, values.max() + 8 * noise, noise / 8)
    density = np.zeros(len(z))
    for chunk in np.array_split(np.arange(len(_GRID)), 20):
        kernel = np.exp(-(((z - values[chunk, None]) / noise) ** 2) / 2)
        density += _WEIGHTS[chunk] @ kernel / (noise * math.sqrt(2 * math.pi))
    inside = density > 1e-300
    entropy = -(density[inside] * np.log(density[inside])).sum() * (z[1] - z[0])
    return float(entropy) - 0.5 * math.log(2 * math.pi * math.e * noise**2)


def _cells(step: float, rho: float, at: Array) -> Array:
    """P(X rounds to j steps | Z = at) for all j within 9 standard deviations, (j, len(at))."""
    edges = (np.arange(-math.ceil(9 / step), math.ceil(9 / step) + 1) - 0.5) * step
    below = ndtr((edges[:, None] - rho * at) / math.sqrt(1 - rho**2))
    return np.asarray(np.diff(below, axis=0), dtype=np.float64)


@cache
def rounded_information(step: float, rho: float = RHO, step_z: float | None = None) -> float:
    """I of a correlated normal pair, X rounded to multiples of ``step`` and Z to those of ``step_z``, if given."""
    given = _cells(step, rho, _GRID)
    if step_z is None:
        table = given * _WEIGHTS
    else:
        label = np.rint(_GRID / step_z).astype(int)
        label -= label.min()
        table = np.zeros((len(given), label.max() + 1))
        np.add.at(table.T, label, (given * _WEIGHTS).T)
    product = table.sum(1, keepdims=True) * table.sum(0)
    seen = table > 1e-300
    return float((table[seen] * np.log(table[seen] / product[seen])).sum())


@cache
def rectified_information(rho: float, at: float = 0.0, both: bool = True) -> float:
    """I(max(X, c); max(Z, c)) of a correlated normal pair (Z as it is unless both), by quadrature."""
    step = _GRID[1] - _GRID[0]
    density = np.exp(-(_GRID**2) / 2) / math.sqrt(2 * math.pi)
    spread = math.sqrt(1 - rho**2)
    below = ndtr((at - rho * _GRID) / spread)
    mass = ndtr(at)
    total = 0.0
    for x, p in zip(_GRID[::4], density[::4], strict=True):
        if x < at - step:
            continue
        if x < at + step:
            p /= 2  # the trapezoid's end
        # X seen: the log ratio with every Z, those below c pooled.
        ratio = -0.5 * math.log1p(-(rho**2)) + (x**2 - ((_GRID - rho * x) / spread) ** 2 - x**2 + _GRID**2) / 2
        conditional = np.exp(-(((_GRID - rho * x) / spread) ** 2) / 2) / spread / math.sqrt(2 * math.pi)
        seen = at <= _GRID if both else np.ones(len(_GRID), dtype=bool)
        inner = float((conditional * ratio)[seen].sum() * step)
        if both:
            under = ndtr((at - rho * x) / spread)
            inner += under * math.log(max(under, 1e-300) / mass)
        total += p * inner * 4 * step
    # X below c.
    low = at <= _GRID if both else np.ones(len(_GRID), dtype=bool)
    total += float((density * below * np.log(np.maximum(below, 1e-300) / mass))[low].sum() * step)
    if both:
        corner = float((density * below)[at > _GRID].sum() * step)
        total += corner * math.log(corner / mass**2)
    return float(total)


def _pair(rng: np.random.Generator, n: int, rho: float = RHO, d: int = 1) -> tuple[Array, Array]:
    x, noise = rng.standard_normal((2, n, d))
    return x, rho * x + math.sqrt(1 - rho**2) * noise


def _as_it_is(*samples: Array) -> Samples:
    return samples


def _made(
    truth: float,
    n: int,
    family: str,
    draw: Callable[[np.random.Generator, int], Samples],
    aware: str | None = "gaussian",
    undo: Callable[..., Samples] = _as_it_is,
    dependence: Dependence = "independent",
) -> HardTask:
    return HardTask(
        truth, n, lambda n, seed: draw(np.random.default_rng(seed), n), family, aware, undo, dependence
    )


def _rounded(rng: np.random.Generator, n: int, rho: float, step: float, step_z: float | None) -> Samples:
    x, z = _pair(rng, n, rho)
    return np.rint(x / step) * step, z if step_z is None else np.rint(z / step_z) * step_z


def _bytes(rng: np.random.Generator, n: int, rho: float, both: bool) -> Samples:
    """Grey values: 32 a standard deviation around 128, clipped to 0...255 (4 standard deviations)."""
    x, z = (np.clip(np.rint(128 + 32 * part), 0, 255) for part in _pair(rng, n, rho))
    return x, z if both else _pair(rng, n, 0.0)[0] if rho == 0 else z + rng.uniform(-0.5, 0.5, z.shape)


def _given_rounded(rng: np.random.Generator, n: int, step: float) -> Samples:
    y = np.rint(rng.standard_normal((n, 1)) / step) * step
    return y + rng.standard_normal((n, 1)), y + rng.standard_normal((n, 1)), y


def _rectified(rng: np.random.Generator, n: int, rho: float, at: float, both: bool) -> Samples:
    x, z = _pair(rng, n, rho)
    return np.maximum(x, at), np.maximum(z, at) if both else z


def _black(rng: np.random.Generator, n: int, rho: float) -> Samples:
    """Bytes of which half are 0: 50 grey levels a standard deviation, which costs 10^-4 nats."""
    x, z = _rectified(rng, n, rho, 0.0, True)
    return np.clip(np.ceil(50 * x), 0, 255), np.clip(np.ceil(50 * z), 0, 255)


def _repeated(rng: np.random.Generator, n: int, times: int) -> Samples:
    x, z = _pair(rng, n // times)
    order = rng.permutation(n // times * times)
    return np.repeat(x, times, 0)[order], np.repeat(z, times, 0)[order]


def _clusters(rng: np.random.Generator, n: int, count: int, d: int, apart: float, given: bool) -> Samples:
    """Two sides linked by the cluster alone; with an irrelevant condition, if given."""
    label = rng.integers(count, size=n)
    centres = np.random.default_rng(count).standard_normal((2, count, d))
    for side in centres:  # no two are closer than apart
        side *= apart / min(float(np.linalg.norm(a - b)) for i, a in enumerate(side) for b in side[:i])
    sides = centres[:, label] + rng.standard_normal((2, n, d))
    return (sides[0], sides[1], rng.standard_normal((n, 1))) if given else (sides[0], sides[1])


def _link(signal: Callable[[Array], Array], noise: float) -> Callable[[np.random.Generator, int], Samples]:
    def draw(rng: np.random.Generator, n: int) -> Samples:
        x, rest = rng.standard_normal((2, n, 1))
        return x, signal(x) + noise * rest

    return draw


def _bent(signal: Callable[[Array], Array], x: Array, z: Array) -> Samples:
    return signal(x), z


def _folds(x: Array, count: int) -> Array:
    """A unit interval folded so often: up and down between 0 and 1."""
    return np.asarray(1 - np.abs((count * x) % 2 - 1), dtype=np.float64)


def _folded(rng: np.random.Generator, n: int, count: int, noise: float, d: int = 1) -> Samples:
    x = rng.random((n, d))
    return x, _folds(x, count) + noise * rng.standard_normal((n, d))


def folded_information(noise: float) -> float:
    """h(U + σN) - h(σN), U uniform on the unit interval, by quadrature: however often it is folded."""
    z = np.linspace(-8 * noise, 1 + 8 * noise, 200_001)
    density = ndtr(z / noise) - ndtr((z - 1) / noise)
    inside = density > 1e-300
    entropy = -(density[inside] * np.log(density[inside])).sum() * (z[1] - z[0])
    return float(entropy) - 0.5 * math.log(2 * math.pi * math.e * noise**2)


def _less_sine(x: Array, z: Array, y: Array, speed: float) -> Samples:
    return x - np.sin(speed * y), z - np.sin(speed * y)


def _evened(x: Array, z: Array, y: Array, power: float) -> Samples:
    return x * np.exp(-power * y), z * np.exp(-power * y)


def _once(x: Array, z: Array) -> Samples:
    rows = np.unique(np.hstack([x, z]), axis=0)
    return rows[:, :1], rows[:, 1:]


def _slanted(rng: np.random.Generator, n: int, count: int, noise: float) -> Samples:
    x = rng.standard_normal((n, 2))
    return x, _along(x, count) + noise * rng.standard_normal((n, 1))


def _along(x: Array, count: int) -> Array:
    """A unit interval, uniform along a slanted line of the plane, folded so often."""
    return _folds(np.asarray(ndtr(x @ np.array([[0.8], [0.6]]))), count)


def _categories(rng: np.random.Generator, n: int, levels: int) -> Samples:
    """Z is X, or by half chance."""
    x, other = rng.integers(levels, size=(2, n, 1)).astype(float)
    return x, np.where(rng.random((n, 1)) < 0.5, x, other)


def _categories_information(levels: int) -> float:
    own, others = 0.5 / levels + 0.5 / levels**2, 0.5 / levels**2
    return levels * own * math.log(own * levels**2) + levels * (levels - 1) * others * math.log(others * levels**2)


def _rounded_copies(rng: np.random.Generator, n: int, times: int, step: float) -> Samples:
    x, z = _rounded(rng, n // times, RHO, step, step)
    return np.repeat(x, times, 0), np.repeat(z, times, 0)


def _every(x: Array, z: Array, times: int) -> Samples:
    return x[::times], z[::times]


def _confounded(rng: np.random.Generator, n: int, speed: float) -> Samples:
    y, a, b = rng.standard_normal((3, n, 1))
    return np.sin(speed * y) + 0.3 * a, np.sin(speed * y) + 0.3 * b, y


def _scale_null(rng: np.random.Generator, n: int, power: float) -> Samples:
    y, a, b = rng.standard_normal((3, n, 1))
    return np.exp(power * y) * a, np.exp(power * y) * b, y


def _product(rng: np.random.Generator, n: int, noise: float) -> Samples:
    """Z = XY + noise, given Y."""
    x, y, rest = rng.standard_normal((3, n, 1))
    return x, x * y + noise * rest, y


def _product_information(noise: float) -> float:
    return float((_WEIGHTS * np.log1p((_GRID / noise) ** 2)).sum()) / 2


def _discrete_condition(rng: np.random.Generator, n: int, noise: float) -> Samples:
    y = rng.integers(0, 3, size=(n, 1)).astype(float)
    x, rest = rng.standard_normal((2, n, 1))
    return x, x * (1 + y) + noise * rest * (1 + y), y


def _turned(x: Array, speed: float) -> Array:
    """Turned by an angle that grows with the length."""
    angle = speed * np.hypot(x[:, 0], x[:, 1])
    turn = np.stack([np.cos(angle), np.sin(angle)])
    return np.stack([turn[0] * x[:, 0] - turn[1] * x[:, 1], turn[1] * x[:, 0] + turn[0] * x[:, 1]], 1)


def _swirl(rng: np.random.Generator, n: int, speed: float) -> Samples:
    x, z = _pair(rng, n, 0.9, 2)
    return _turned(x, speed), z


def _strong(rng: np.random.Generator, n: int, noise: float) -> Samples:
    x, rest = rng.standard_normal((2, n, 1))
    return x, x + noise * rest


def _strong_information(noise: float) -> float:
    return 0.5 * math.log1p(noise**-2)


def _small(rng: np.random.Generator, n: int) -> Samples:
    return _pair(rng, n)


def _function(map_: Callable[[Array], Array]) -> Callable[[np.random.Generator, int], Samples]:
    def draw(rng: np.random.Generator, n: int) -> Samples:
        x = rng.standard_normal((n, 1))
        return x, map_(x)

    return draw


def _walk_null(rng: np.random.Generator, n: int) -> Samples:
    x, z = rng.standard_normal((2, n, 1))
    for i in range(1, n):
        x[i] += 0.9 * x[i - 1]
        z[i] += 0.9 * z[i - 1]
    return x, z


def _hard_tasks() -> dict[str, HardTask]:
    tasks: dict[str, HardTask] = {}
    for n, step in ((8000, 1 / 14), (1000, 0.25), (2000, 1.0)):
        for rho in (0.0, RHO):
            tasks[f"one side rounded to {step:.2g}, rho {rho}, n {n}"] = _made(
                rounded_information(step, rho), n, "ties", partial(_rounded, rho=rho, step=step, step_z=None)
            )
    for n, step in ((4000, 1 / 32), (2000, 0.1), (1000, 0.5)):
        for rho in (0.0, RHO):
            tasks[f"both sides rounded to {step:.2g}, rho {rho}, n {n}"] = _made(
                rounded_information(step, rho, step), n, "ties", partial(_rounded, rho=rho, step=step, step_z=step)
            )
    for rho in (0.0, RHO):
        tasks[f"two byte columns, rho {rho}"] = _made(
            rounded_information(1 / 32, rho, 1 / 32), 4000, "ties", partial(_bytes, rho=rho, both=True)
        )
        tasks[f"a byte column, rho {rho}"] = _made(
            rounded_information(1 / 32, rho), 4000, "ties", partial(_bytes, rho=rho, both=False)
        )
    for step in (1 / 14, 0.5):
        tasks[f"given a column rounded to {step:.2g}"] = _made(
            0.0, 4000, "ties", partial(_given_rounded, step=step)
        )
    for rho, at, both in (
        (0.8, 0.0, True),
        (0.0, 0.0, True),
        (0.0, 0.84, False),
        (0.8, 0.84, False),
        (0.5, -0.5, True),
    ):
        name = f"{'both' if both else 'one'} rectified at {at}, rho {rho}"
        truth = rectified_information(rho, at, both) if rho else 0.0
        tasks[name] = _made(truth, 2000, "atoms", partial(_rectified, rho=rho, at=at, both=both), "mixed")
    for rho in (0.0, 0.8):
        name = f"black pixels (half), rho {rho}"
        truth = rectified_information(rho) if rho else 0.0
        tasks[name] = _made(truth, 3000, "atoms", partial(_black, rho=rho), "mixed")
    tasks["each row ten times"] = _made(GAUSSIAN, 4000, "repeats", partial(_repeated, times=10), undo=_once)
    tasks["each row twice"] = _made(GAUSSIAN, 1000, "repeats", partial(_repeated, times=2), undo=_once)
    functions: dict[str, Callable[[Array], Array]] = {
        "X with X": lambda x: x, "X with |X|": np.abs, "X with (sign X, X)": lambda x: np.hstack([np.sign(x), x]),
        "X with sin 3X": lambda x: np.sin(3 * x), "X with max(X, 0)": lambda x: np.maximum(x, 0),
    }  # fmt: skip
    for name, map_ in functions.items():
        tasks[name] = _made(math.inf, 1000, "infinite", _function(map_), None)
    tasks["X with sign X"] = _made(
        math.log(2), 1000, "finite function", _function(np.sign), "miller-madow", lambda x, z: (np.sign(x), z)
    )
    tasks["rounded rows, each ten times"] = _made(
        rounded_information(0.1, RHO, 0.1), 3000, "repeats", partial(_rounded_copies, times=10, step=0.1),
        undo=partial(_every, times=10),
    )  # fmt: skip
    for levels, n in ((4, 60), (8, 200), (16, 1000)):
        tasks[f"{levels} categories, n {n}"] = _made(
            _categories_information(levels), n, "ties", partial(_categories, levels=levels), "miller-madow"
        )
    for count, d, apart, n, given in (
        (16, 10, 20.0, 2000, False), (8, 5, 20.0, 1000, False), (8, 5, 20.0, 1000, True), (4, 2, 10.0, 500, False),
        (30, 5, 20.0, 1000, False),
    ):  # fmt: skip
        name = f"{count} clusters in {d} dimensions{' given noise' if given else ''}"
        draw = partial(_clusters, count=count, d=d, apart=apart, given=given)
        tasks[name] = _made(math.log(count), n, "clusters", draw, "ksg1")
    for speed, n in ((6.0, 200), (6.0, 1000), (3.0, 200), (20.0, 1000), (20.0, 200)):
        signal = partial(_sine, speed=speed)
        tasks[f"sin {speed:.0f}x, n {n}"] = _made(
            channel_information(signal, 0.2), n, "oscillating", _link(signal, 0.2), "ksg1", partial(_bent, signal)
        )
    for count, n in ((20, 1000), (5, 1000), (40, 1000), (80, 1000)):
        signal = partial(_folds, count=count)
        tasks[f"{count} folds of a unit interval"] = _made(
            folded_information(0.01), n, "oscillating", partial(_folded, count=count, noise=0.01), "ksg1",
            partial(_bent, signal),
        )  # fmt: skip
    for count in (5, 20):
        signal = partial(_folds, count=count)
        tasks[f"{count} folds of each of two columns"] = _made(
            2 * folded_information(0.1), 1000, "oscillating", partial(_folded, count=count, noise=0.1, d=2),
            "ksg1", partial(_bent, signal),
        )  # fmt: skip
    for count in (5, 10):
        signal = partial(_along, count=count)
        tasks[f"{count} folds along a slanted line"] = _made(
            folded_information(0.03), 1000, "oscillating", partial(_slanted, count=count, noise=0.03), "ksg1",
            partial(_bent, signal),
        )  # fmt: skip
    for n in (200, 1000):
        tasks[f"swirl, n {n}"] = _made(
            -math.log1p(-0.81),
            n,
            "oscillating",
            partial(_swirl, speed=3.0),
            undo=lambda x, z: (_turned(x, -3.0), z),
        )
        tasks[f"XY given Y, n {n}"] = _made(
            _product_information(0.3), n, "oscillating", partial(_product, noise=0.3), "ksg1",
            lambda x, z, y: (x * y, z, y),
        )  # fmt: skip
    for speed, n in ((8.0, 1000), (3.0, 500), (15.0, 1000)):
        tasks[f"sin {speed:.0f}y confounds, n {n}"] = _made(
            0.0, n, "confounded", partial(_confounded, speed=speed), undo=partial(_less_sine, speed=speed)
        )
    for power in (0.5, 1.5):
        tasks[f"spread exp({power} y), n 1000"] = _made(
            0.0, 1000, "confounded", partial(_scale_null, power=power), undo=partial(_evened, power=power)
        )
    for noise in (0.05, 0.01, 0.005):
        tasks[f"Z = X + {noise} noise"] = _made(
            _strong_information(noise), 1000, "strong", partial(_strong, noise=noise)
        )
    for noise in (0.5, 0.02):
        tasks[f"given a class, noise {noise}"] = _made(
            _strong_information(noise),
            1000,
            "strong" if noise < 0.1 else "ties",
            partial(_discrete_condition, noise=noise),
            undo=lambda x, z, y: (x, z / (1 + y)),
        )
    for n in (20, 60, 150):
        tasks[f"gaussian, n {n}"] = _made(GAUSSIAN, n, "small", _small)
    tasks["autocorrelated null"] = _made(0.0, 1000, "series", _walk_null, dependence="autocorrelated")
    tasks["autocorrelated null, taken for independent"] = _made(0.0, 1000, "series", _walk_null)
    return tasks


def _sine(x: Array, speed: float) -> Array:
    return np.asarray(np.sin(speed * x), dtype=np.float64)


HARD_TASKS: dict[str, HardTask] = _hard_tasks()
"""Every hard task of mutual information by name."""


# -- divergences --------------------------------------------------------------------------------------------------


def _bimodal(rng: np.random.Generator, n: int, d: int, spread: float) -> Array:
    return rng.choice([-2.0, 2.0], size=(n, d)) + spread * rng.standard_normal((n, d))


def _log_bimodal(x: Array, spread: float) -> Array:
    parts = np.logaddexp(-(((x - 2) / spread) ** 2) / 2, -(((x + 2) / spread) ** 2) / 2)
    return np.asarray(parts - math.log(2 * spread * math.sqrt(2 * math.pi)))


def _log_normal(x: Array, variance: float) -> Array:
    return np.asarray(-(x**2) / (2 * variance) - 0.5 * math.log(2 * math.pi * variance))


@cache
def _bimodal_divergence(spread: float, forward: bool) -> float:
    """KL(bimodal ‖ Gaussian of its moments), or the other way."""
    x = np.linspace(-30, 30, 200_001)
    first, second = _log_bimodal(x, spread), _log_normal(x, 4 + spread**2)
    p, q = (first, second) if forward else (second, first)
    return float((np.exp(p) * (p - q)).sum() * (x[1] - x[0]))


@cache
def _contamination(share: float, at: float) -> float:
    """KL((1 - s) N(0, 1) + s N(at, 0.5²) ‖ N(0, 1))."""
    x = np.linspace(-12, 12, 200_001)
    bump = math.log(share) - ((x - at) / 0.5) ** 2 / 2 - math.log(0.5 * math.sqrt(2 * math.pi))
    p = np.logaddexp(math.log1p(-share) + _log_normal(x, 1.0), bump)
    return float((np.exp(p) * (p - _log_normal(x, 1.0))).sum() * (x[1] - x[0]))


def _contaminated(rng: np.random.Generator, n: int, at: float) -> Array:
    bump = rng.random((n, 1)) < 0.05
    return np.where(bump, at + 0.5 * rng.standard_normal((n, 1)), rng.standard_normal((n, 1)))


def _scaled_up(rng: np.random.Generator, n: int, factor: float, law: str) -> Samples:
    draw = getattr(rng, law)
    return factor * draw(size=(n, 1)), draw(size=(n, 1))


def _against_moments(rng: np.random.Generator, n: int, d: int, forward: bool) -> Samples:
    """A product of bimodal columns, and the Gaussian of its moments."""
    two, one = _bimodal(rng, n, d, 0.4), math.sqrt(4.16) * rng.standard_normal((n, d))
    return (two, one) if forward else (one, two)


def _half_of_clusters(rng: np.random.Generator, n: int) -> Samples:
    centres = 6 * np.random.default_rng(8).standard_normal((8, 6))
    p, q = (centres[rng.integers(count, size=n)] + rng.standard_normal((n, 6)) for count in (4, 8))
    return p, q


def _against_normal(rng: np.random.Generator, n: int, d: int, scale: float) -> Samples:
    return scale * rng.standard_normal((n, d)), rng.standard_normal((n, d))


def _contaminated_against_clean(rng: np.random.Generator, n: int, at: float) -> Samples:
    return _contaminated(rng, n, at), rng.standard_normal((n, 1))


def _itself(rng: np.random.Generator, n: int) -> Samples:
    x = rng.standard_normal((n, 2))
    return x, x


def _byte_pair(rng: np.random.Generator, n: int) -> Samples:
    p, q = np.rint(128 + 16 * rng.standard_normal((2, n, 1)))
    return p, q


def _divergence_tasks() -> dict[str, HardTask]:
    tasks: dict[str, HardTask] = {}
    for n, factor in ((5000, 2.0), (5000, 3.0), (1000, 2.0), (200, 4.0)):
        truth = -math.log(factor) + factor - 1
        for law in ("exponential", "laplace"):
            draw = partial(_scaled_up, factor=factor, law=law)
            tasks[f"{law} {factor:.0f} to 1, n {n}"] = _made(truth, n, "wide", draw, "knn")
    for d, n in ((5, 1000), (1, 1000), (2, 2000)):
        draw = partial(_against_moments, d=d, forward=True)
        tasks[f"bimodal to gaussian, {d} columns"] = _made(
            d * _bimodal_divergence(0.4, True), n, "modes", draw, "knn of each column"
        )
    draw = partial(_against_moments, d=1, forward=False)
    tasks["gaussian to bimodal, 1 column"] = _made(_bimodal_divergence(0.4, False), 2000, "modes", draw, "knn")
    for at in (4.0, 6.0):
        tasks[f"5 % contamination at {at:.0f}"] = _made(
            _contamination(0.05, at), 1000, "modes", partial(_contaminated_against_clean, at=at), "knn"
        )
    tasks["4 of 8 clusters in 6 dimensions"] = _made(math.log(2), 1000, "modes", _half_of_clusters, "knn")
    for d, scale in ((1, 0.8), (3, 0.8), (8, 0.9)):
        truth = d * (-math.log(scale) + (scale**2 - 1) / 2)
        tasks[f"gaussian, narrower, {d} columns"] = _made(
            truth, 1000, "smooth", partial(_against_normal, d=d, scale=scale)
        )
    tasks["the same law"] = _made(0.0, 500, "smooth", partial(_against_normal, d=2, scale=1.0))
    tasks["a file against itself"] = _made(0.0, 500, "repeats", _itself, None)
    tasks["bytes against bytes"] = _made(0.0, 2000, "ties", _byte_pair)
    return tasks


DIVERGENCE_TASKS: dict[str, HardTask] = _divergence_tasks()
"""Every hard task of KL divergence by name."""
