"""A test of conditional independence whose null keeps the conditioning variable.

Shuffling X among *all* samples also destroys what X owes to Y, so such a null rejects where X and Z only share Y.
Here X first loses what Y explains of it (:func:`arvdm_theory.information.residual.residuals`), then moves only
among samples whose Y are alike: within cells of the Y space (Kim, Neykov, Balakrishnan and Wasserman 2022). Under
autocorrelation blocks of consecutive samples move, whole, among blocks whose Y are alike.

No test of conditional independence is valid for every law (Shah and Peters 2020). This one is as good as X and Y
are independent, after the regression, within a cell.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.distance import cdist
from scipy.special import digamma

from arvdm_theory.information.estimate import SampleError, paired_samples, require_neighbours
from arvdm_theory.information.knn import ksg_contributions
from arvdm_theory.information.residual import canonical_form, residuals
from arvdm_theory.information.uncertainty import Dependence, block_length

__all__ = ["IndependenceTest", "independence_test", "local_permutation"]

Array = NDArray[np.float64]
Statistic = Literal["both", "neighbours", "gaussian"]

# Up to so many samples a table of all distances is faster than trees.
_MOST_DENSE = 700
# 5! orders are enough for a p-value of 0.05.
_FEWEST_BLOCKS = 5
# Blocks that are left if they are made longer than the memory asks.
_BLOCKS_WANTED = 20
# Columns of X and of Z whose products are looked at for the block length.
_MOST_COLUMNS = 8


@dataclass(frozen=True)
class IndependenceTest:
    """Outcome of a test of I(X; Z | Y) = 0.

    Attributes:
        p_value: (1 + how many permutations reach the statistic) / (1 + permutations): never 0, and at most α with
            probability at most α under the null.
        statistic: of the samples, in nats.
        permutations: how many were drawn.
        block: samples that moved together; 1 for independent samples.
        n: samples used: under autocorrelation a last, incomplete block is left out.
    """

    p_value: float
    statistic: float
    permutations: int
    block: int
    n: int


def independence_test(
    x: ArrayLike,
    z: ArrayLike,
    y: ArrayLike | None = None,
    *,
    statistic: Statistic = "both",
    permutations: int = 199,
    cell: int = 5,
    k: int = 5,
    dependence: Dependence = "independent",
    seed: int = 0,
) -> IndependenceTest:
    """Tests whether X and Z are independent, given Y if there is one.

    The statistic is the Gaussian information of the residuals' normal scores (sees linear dependence best), their
    nearest-neighbour information given Y (sees any), or the sum of ``both``.

    Args:
        x: shape (n, d_x) or (n,); the side that is permuted.
        z: shape (n, d_z) or (n,).
        y: shape (n, d_y) or (n,), if there is a condition.
        statistic: ``"both"``, ``"neighbours"`` or ``"gaussian"``.
        permutations: how many; the smallest p-value is 1/(permutations + 1).
        cell: samples (or blocks) per cell of the Y space, up to twice as many; fewer keep more of Y
            and have less power.
        k: neighbours.
        dependence: ``"autocorrelated"`` moves blocks, of a length chosen from the data.
        seed: of the permutations.

    Raises:
        SampleError: for samples that do not fit together, NaN or infinite values, constant columns or too few
            samples.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> y = rng.normal(size=400)
        >>> x, z = y + 0.3 * rng.normal(size=400), y + 0.3 * rng.normal(size=400)
        >>> independence_test(x, z, y, permutations=99).p_value > 0.05 > independence_test(x, z).p_value
        True
    """
    if statistic not in ("both", "neighbours", "gaussian"):
        raise SampleError(f"the statistic is 'both', 'neighbours' or 'gaussian', got {statistic!r}")
    if permutations < 1 or cell < 2:
        raise SampleError(f"a test needs permutations ≥ 1 and cell ≥ 2, got {permutations} and {cell}")
    x_, z_, y_ = residuals(*paired_samples(x, z, y))
    n, d = len(x_), x_.shape[1] + z_.shape[1] + y_.shape[1]
    require_neighbours(n, k)
    if n <= d + 1:
        raise SampleError(f"a test in {d} dimensions needs at least {d + 2} samples, got n = {n}")
    left, right, given = canonical_form(x_, z_, y_)
    block = 1
    if dependence == "autocorrelated":
        products = left[:, :_MOST_COLUMNS, None] * right[:, None, :_MOST_COLUMNS]
        block = block_length(products.reshape(n, -1))
        # That length balances bias and noise of a variance; a level suffers from bias only, so blocks are longer.
        block = max(block, min(2 * block, n // _BLOCKS_WANTED))
        n = n // block * block
        if n // block < (2 * cell if given.shape[1] else _FEWEST_BLOCKS):
            raise SampleError(f"{len(x_)} samples with a memory of {block} are too few blocks for a test")
        left, right, given = left[:n], right[:n], given[:n]
    rng = np.random.default_rng(seed)
    cells = _cells(given, block, cell)
    measure = _Statistic(left, right, given, k, statistic)
    observed = measure(np.arange(n))
    reached = sum(measure(local_permutation(cells, block, rng)) >= observed for _ in range(permutations))
    return IndependenceTest((1 + reached) / (1 + permutations), observed, permutations, block, n)


def local_permutation(cells: NDArray[np.int64], block: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """A random permutation of samples that moves blocks only within their cells.

    Args:
        cells: the cell of every block, shape (n/block,).
        block: samples per block.
        rng: where chance comes from.

    Returns:
        the sample that goes to each place, shape (n,).
    """
    places = np.argsort(cells, kind="stable")
    moved = np.lexsort((rng.random(len(cells)), cells))
    source = np.empty(len(cells), dtype=np.int64)
    source[places] = moved
    return (source[:, None] * block + np.arange(block)).reshape(-1)


def _cells(given: Array, block: int, size: int) -> NDArray[np.int64]:
    """The leaf of a tree over Y (over its mean in every block) that each block lies in."""
    blocks = len(given) // block
    if not given.shape[1]:
        return np.zeros(blocks, dtype=np.int64)
    means = given.reshape(blocks, block, -1).mean(1)
    cells = np.empty(blocks, dtype=np.int64)
    # Halving along the widest side until fewer than two cells' worth are left.
    stack, leaf = [np.arange(blocks)], 0
    while stack:
        members = stack.pop()
        if len(members) < 2 * size:
            cells[members] = leaf
            leaf += 1
            continue
        side = int(np.ptp(means[members], axis=0).argmax())
        ranked = members[np.argsort(means[members, side], kind="stable")]
        stack += [ranked[: len(ranked) // 2], ranked[len(ranked) // 2 :]]
    return cells


class _Statistic:
    """The statistic as a function of the order of X; for few samples all distances are computed once."""

    def __init__(self, left: Array, right: Array, given: Array, k: int, statistic: Statistic) -> None:
        self.left, self.right, self.given, self.k, self.kind = left, right, given, k, statistic
        self.dense = len(left) <= _MOST_DENSE and statistic != "gaussian"
        if self.dense:
            self.of_x, self.of_z, self.of_y = (
                cdist(part, part, "chebyshev") if part.shape[1] else np.zeros((len(part), len(part)))
                for part in (left, right, given)
            )
            self.of_zy = np.maximum(self.of_z, self.of_y)

    def __call__(self, order: NDArray[np.int64]) -> float:
        total = 0.0
        if self.kind != "neighbours":
            correlations = np.linalg.svd(self.left[order].T @ self.right / len(order), compute_uv=False)
            total -= 0.5 * float(np.log1p(-(np.minimum(correlations, 1 - 1e-12) ** 2)).sum())
        if self.kind != "gaussian":
            total += self._dense(order) if self.dense else self._neighbours(order)
        return total

    def _neighbours(self, order: NDArray[np.int64]) -> float:
        return float(ksg_contributions(self.left[order], self.right, self.given, self.k).contributions.mean())

    def _dense(self, order: NDArray[np.int64]) -> float:
        """The same from all distances; counts include the sample itself, as ψ(n_s + 1) wants them."""
        n = len(order)
        of_xy = np.maximum(self.of_x[np.ix_(order, order)], self.of_y)
        radius = np.partition(np.maximum(of_xy, self.of_z), self.k, axis=1)[:, self.k, None]
        n_xy, n_zy = (np.maximum((table < radius).sum(1), 1) for table in (of_xy, self.of_zy))
        n_y = np.maximum((self.of_y < radius).sum(1), 1) if self.given.shape[1] else np.full(n, n)
        return float((digamma(self.k) - digamma(n_xy) - digamma(n_zy) + digamma(n_y)).mean())
