"""Neural critics and their training, one critic a fold and all folds at once.

A critic f approximates a log density ratio log dP/dQ. Critic k never sees fold k, on which it is evaluated; of the
other samples a part decides when its training was best (early stopping). Every parameter has a leading fold axis,
so that all folds are trained in one pass, each as if alone: Adam works entry by entry, gradients are clipped and
the best parameters kept a fold each.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from arvdm_theory.information.estimators.samples import SampleError
from arvdm_theory.information.estimators.uncertainty import Dependence

__all__ = ["Critic", "Folds", "PairCritic", "Training", "fit", "normal_scores", "split"]

Array = NDArray[np.float64]

Module = TypeVar("Module", bound=nn.Module)

ALL = slice(None)
"""All folds."""

# Share of the running mean of the parameters that a step keeps.
_MEMORY = 0.98
# Nats by which a validation loss must fall to count as progress, well below an estimate's standard error.
_PROGRESS = 1e-3
# Distance in normal scores between the knots at which a margin is read off the samples.
_KNOT_SPACING = 0.25


@dataclass(frozen=True)
class Training:
    """How critics are built and trained.

    Attributes:
        folds: parts of the samples; each is evaluated by a critic trained without it.
        validation: share of a critic's samples that decides when to stop.
        hidden: widths of the hidden layers.
        learning_rate: of Adam.
        weight_decay: pulls the parameters to 0, decoupled from Adam's step.
        batch: samples a step (fewer, if there are fewer).
        negatives: samples of Q for each sample of P in a step, where Q is made by pairing afresh.
        epochs: passes over the samples at most.
        patience: passes after which training ends if in no fold the validation loss fell by 1e-3 nats meanwhile.

    Raises:
        SampleError: for a number that makes no training.
    """

    folds: int = 5
    validation: float = 0.2
    hidden: tuple[int, ...] = (64, 64)
    learning_rate: float = 5e-3
    weight_decay: float = 0.3
    batch: int = 256
    negatives: int = 4
    epochs: int = 200
    patience: int = 20

    def __post_init__(self) -> None:
        counts = {name: getattr(self, name) for name in ("batch", "negatives", "epochs", "patience")}
        for name, value in {**counts, "width of a hidden layer": min(self.hidden, default=1)}.items():
            if value < 1:
                raise SampleError(f"training needs at least 1 as {name}, got {value}")
        if self.folds < 2:
            raise SampleError(f"cross-fitting needs at least 2 folds, got {self.folds}")
        if not 0 < self.validation < 1:
            raise SampleError(f"the validation share lies between 0 and 1, got {self.validation}")
        if not (self.learning_rate > 0 and self.weight_decay >= 0):
            raise SampleError(
                f"the learning rate must be positive and the weight decay not negative, got {self.learning_rate} "
                f"and {self.weight_decay}"
            )


@dataclass(frozen=True)
class Folds:
    """Which rows each fold's critic learns from, and on which it is evaluated.

    Attributes:
        train: rows it learns from, (folds, n_train).
        validation: rows that decide when it stops, (folds, n_validation).
        test: rows that it has nothing to do with, one array a fold; together all rows.
    """

    train: Tensor
    validation: Tensor
    test: tuple[NDArray[np.int64], ...]


def split(n: int, training: Training, dependence: Dependence, rng: np.random.Generator) -> Folds:
    """Folds of n rows: at random, or in stretches of consecutive rows where these depend on each other.

    Raises:
        SampleError: if a fold would have fewer than 2 rows, or a critic fewer than 2 to learn from or to stop.
    """
    order = rng.permutation(n) if dependence == "independent" else np.arange(n)
    test = tuple(np.array_split(order, training.folds))
    known = n - len(test[0])
    kept = round(training.validation * known)
    if len(test[-1]) < 2 or kept < 2 or known - kept < 2:
        raise SampleError(f"{n} samples are too few for {training.folds} folds with a validation part each")
    train, validation = [], []
    for rows in test:
        rest = np.setdiff1d(np.arange(n), rows)
        if dependence == "independent":
            rest = rng.permutation(rest)
        train.append(rest[: known - kept])
        validation.append(rest[len(rest) - kept :])
    return Folds(torch.from_numpy(np.stack(train)), torch.from_numpy(np.stack(validation)), test)


def normal_scores(values: Array, folds: Folds) -> Tensor:
    """Every column bent to a standard normal margin, by what each fold's critic may know: (folds, n, d), float32.

    Piecewise linear between quantiles a quarter of a normal score apart, and constant outside the known range.
    Any fixed map of the columns will do for a critic; this one is the same, to rounding, whatever strictly rising
    function the columns were put through, and leaves no heavy tails.
    """
    scores = np.empty((len(folds.test), *values.shape), dtype=np.float32)
    for k, rows in enumerate(folds.test):
        known = np.delete(values, rows, axis=0)
        most = float(ndtri(1 - 0.5 / len(known)))
        score = np.linspace(-most, most, 1 + 2 * math.ceil(most / _KNOT_SPACING))
        knots = np.quantile(known, ndtr(score), axis=0)
        for column in range(values.shape[1]):
            # Where a value is repeated its knots coincide: it is given the mean of their scores.
            at, which, count = np.unique(knots[:, column], return_inverse=True, return_counts=True)
            scores[k, :, column] = np.interp(values[:, column], at, np.bincount(which, score) / count)
    return torch.from_numpy(scores)


class _Perceptron(nn.Module):
    """A multi-layer perceptron a fold; its last layer starts at 0 unless told otherwise."""

    def __init__(self, folds: int, widths: tuple[int, ...], generator: torch.Generator, zero: bool) -> None:
        super().__init__()
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for place, (inputs, outputs) in enumerate(itertools.pairwise(widths), 2):
            bound = 0.0 if zero and place == len(widths) else 1 / math.sqrt(inputs)
            for group, shape in ((self.weights, (folds, inputs, outputs)), (self.biases, (folds, 1, outputs))):
                group.append(nn.Parameter(torch.empty(shape).uniform_(-bound, bound, generator=generator)))

    def forward(self, values: Tensor, part: slice) -> Tensor:
        for place, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True), 1):
            values = torch.baddbmm(bias[part], values, weight[part])
            if place < len(self.weights):
                values = functional.silu(values)
        return values


class Critic(nn.Module):
    """f(u) = c + bᵀu + uᵀA u + perceptron(u), which is 0 before training.

    The quadratic part is the log density ratio of Gaussians; the perceptron learns what is left.

    Args:
        folds: how many critics.
        inputs: entries of u.
        training: widths of the hidden layers.
        generator: of the initial parameters.
        most: m, with which the critic is m tanh(f/m) instead: never above m.
    """

    def __init__(
        self,
        folds: int,
        inputs: int,
        training: Training,
        generator: torch.Generator,
        most: float = math.inf,
    ) -> None:
        super().__init__()
        self.most = most
        self.linear = nn.Parameter(torch.zeros(folds, inputs, 1))
        self.quadratic = nn.Parameter(torch.zeros(folds, inputs, inputs))
        self.rest = _Perceptron(folds, (inputs, *training.hidden, 1), generator, zero=True)

    def forward(self, values: Tensor, part: slice = ALL) -> Tensor:
        """(folds, n, inputs) → (folds, n); ``part`` picks folds."""
        simple = values @ self.linear[part] + ((values @ self.quadratic[part]) * values).sum(-1, keepdim=True)
        result: Tensor = (simple + self.rest(values, part)).squeeze(-1)
        return result if math.isinf(self.most) else self.most * torch.tanh(result / self.most)


class PairCritic(nn.Module):
    """f(x, z) = φ(x)ᵀ M ψ(z) + g(z) of all pairs: cheap where every x meets every z; 0 before training.

    φ(x) and ψ(z) hold the entries themselves and a perceptron's outputs; g is a :class:`Critic`.

    Args:
        folds: how many critics.
        inputs: entries of x and of z.
        training: widths of the hidden layers, the last of which is the number of learned features.
        generator: of the initial parameters.
    """

    def __init__(
        self, folds: int, inputs: tuple[int, int], training: Training, generator: torch.Generator
    ) -> None:
        super().__init__()
        widths = training.hidden or (1,)
        self.left = _Perceptron(folds, (inputs[0], *widths), generator, zero=False)
        self.right = _Perceptron(folds, (inputs[1], *widths), generator, zero=False)
        self.meet = nn.Parameter(torch.zeros(folds, inputs[0] + widths[-1], inputs[1] + widths[-1]))
        self.alone = Critic(folds, inputs[1], training, generator)

    def forward(self, x: Tensor, z: Tensor, part: slice = ALL) -> Tensor:
        """x (folds, n, d_x), z (folds, m, d_z) → (folds, n, m)."""
        left = torch.cat([x, self.left(x, part)], -1) @ self.meet[part]
        right = torch.cat([z, self.right(z, part)], -1)
        result: Tensor = left @ right.mT + self.alone(z, part).unsqueeze(-2)
        return result


def fit(
    critic: Module,
    loss: Callable[[Module, Sequence[Tensor]], Tensor],
    validation_loss: Callable[[Module], Tensor],
    rows: Sequence[Tensor],
    training: Training,
    generator: torch.Generator,
    progress: bool = False,
) -> tuple[Module, bool]:
    """Trains critics, and returns those with the least validation loss, a fold each.

    What is validated and returned is a running mean of the parameters, which averages the steps' noise out. The
    first candidate is the critic as it is handed over, so that no fold ends up worse than it was.

    Args:
        critic: with a leading fold axis in every parameter.
        loss: (critic, rows of a step) ↦ (folds,); rows has an entry (folds, batch) for each of ``rows``.
        validation_loss: critic ↦ (folds,).
        rows: the training rows of each group of samples, (folds, n_group).
        training: the settings.
        generator: of the order of the rows, on the CPU.
        progress: show a progress bar over the epochs.

    Returns:
        the critics, and whether training ended by itself, before the last epoch.
    """
    optimizer = torch.optim.AdamW(critic.parameters(), training.learning_rate, weight_decay=training.weight_decay)
    mean = copy.deepcopy(critic)
    best = copy.deepcopy(critic)
    with torch.no_grad():
        least = mark = validation_loss(best)
    sizes = [min(training.batch, group.shape[1]) for group in rows]
    steps = max(math.ceil(group.shape[1] / size) for group, size in zip(rows, sizes, strict=True))
    stale = taken = 0
    for _ in tqdm(range(training.epochs), "training", disable=not progress or None, leave=False):
        shuffled = [group.gather(1, torch.rand(group.shape, generator=generator).argsort(1)) for group in rows]
        for step in range(steps):
            picked = [
                group[:, (torch.arange(size) + step * size) % group.shape[1]]
                for group, size in zip(shuffled, sizes, strict=True)
            ]
            optimizer.zero_grad()
            # Each fold's parameters appear in its own loss only, so one sum trains them all.
            loss(critic, picked).sum().backward()  # type: ignore[no-untyped-call]
            _clip_a_fold_each(critic)
            optimizer.step()
            with torch.no_grad():
                taken += 1
                share = max(1 - _MEMORY, 2 / (2 + taken))  # so that the first steps are soon forgotten
                for slow, fast in zip(mean.parameters(), critic.parameters(), strict=True):
                    slow.lerp_(fast, share)
        with torch.no_grad():
            now = validation_loss(mean)
            better = now < least  # False for NaN
            progressed = now < mark - _PROGRESS
            mark = torch.where(progressed, now, mark)
            least = torch.where(better, now, least)
            for kept, candidate in zip(best.parameters(), mean.parameters(), strict=True):
                kept.copy_(torch.where(better.reshape(-1, *[1] * (kept.ndim - 1)), candidate, kept))
        stale = 0 if bool(progressed.any()) else stale + 1
        if stale >= training.patience:
            return best, True
    return best, False


def _clip_a_fold_each(critic: nn.Module) -> None:
    """Scales each fold's gradient to norm 1 at most; a gradient that overflowed is no step."""
    gradients = [p.grad for p in critic.parameters() if p.grad is not None]
    square = torch.stack([(g**2).flatten(1).sum(1) for g in gradients]).sum(0)
    scale = torch.where(torch.isfinite(square), 1 / square.sqrt().clamp(min=1), 0.0)
    for g in gradients:
        g.nan_to_num_(0.0, 0.0, 0.0).mul_(scale.reshape(-1, *[1] * (g.ndim - 1)))
