"""Neural estimates of KL divergence and of (conditional) mutual information, in nats.

A critic f is trained to tell P from Q, and a bound on KL(P ‖ Q) is then evaluated with it on samples that it has
never seen (cross-fitting: every sample is evaluated once, by the critic of its fold). Which bounds there are, how
they err and what critics are trained by:
:mod:`~arvdm_theory.information.estimators.variational`. Mutual information also has

- ``infonce``: E [f(x_i, z_i) - log (1/B) Σ_j e^{f(x_i, z_j)}] over batches of B pairs (van den Oord et al. 2018),
  a lower bound like the others, with the hard ceiling log B and the least noise.

A standard error is that of the held-out means, and the interval covers their spread. It does not cover what the
critics have missed, which makes every bound low and shrinks as samples are added.

Every column is first bent to a normal margin, so that strictly rising functions of single columns change nothing,
and critics hold a quadratic form beside the network, so that Gaussian dependence costs few samples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from arvdm_theory.information.estimators.critics import (
    Critic,
    Folds,
    PairCritic,
    Training,
    fit,
    normal_scores,
    split,
)
from arvdm_theory.information.estimators.result import conclude
from arvdm_theory.information.estimators.samples import (
    SampleError,
    paired_samples,
    two_samples,
    warn_of_deterministic_relations,
)
from arvdm_theory.information.estimators.uncertainty import Dependence, conclude_mean, contribution_error
from arvdm_theory.information.estimators.variational import (
    NEAR_CEILING,
    Bound,
    Evaluation,
    Objective,
    checked_evaluation,
    log_mean_exp,
    method_name,
    second_part,
    warn_of_weights,
)
from arvdm_theory.number import LEVEL, Number, half_width

__all__ = [
    "Training",
    "neural_divergence",
    "neural_information",
]

Array = NDArray[np.float64]

# Pairings of each held-out sample with others that stand for the product of the margins.
_PAIRINGS = 16
# Rows that meet each other in one held-out InfoNCE batch.
_LARGEST_BATCH = 1024
# Fewer rows a fold than this, and a held-out mean is hardly an estimate.
_SMALLEST_FOLD = 50


@dataclass(frozen=True)
class _HeldOut:
    """Contributions of held-out samples, whose mean is the bound, and what to warn of."""

    contributions: Array
    notes: list[str]


def neural_divergence(
    p: ArrayLike,
    q: ArrayLike,
    *,
    objective: Objective = "classifier",
    evaluation: Evaluation | None = None,
    training: Training | None = None,
    dependence: Dependence = "independent",
    level: float = LEVEL,
    seed: int = 0,
    device: torch.device | str = "cpu",
    progress: bool = False,
) -> Number:
    """KL(P ‖ Q) from samples of each, by a density ratio that a network learns.

    Args:
        p: samples of P, (n, d) or (n,).
        q: samples of Q, (m, d) or (m,).
        objective: what the critic is trained by.
        evaluation: how it is evaluated on held-out samples; left out, ``nwj`` for critics trained by it, else
            ``dv``.
        training: of the critics.
        dependence: autocorrelated samples are cut into stretches, and their standard error is taken in blocks.
        level: of the confidence interval, which covers the spread of the held-out samples, not what the
            critic has missed.
        seed: of the folds, the initial parameters and the batches, all drawn on the CPU.
        device: where the networks are trained.
        progress: show a progress bar over the epochs.

    Raises:
        SampleError: for samples that are not finite, too few or of different dimensions, or an unknown option.
    """
    of_p, of_q = two_samples(p, q)
    training = Training() if training is None else training
    evaluation = checked_evaluation(objective, evaluation)
    rng = np.random.default_rng(seed)
    generator = torch.Generator().manual_seed(seed)
    folds = [split(len(array), training, dependence, rng) for array in (of_p, of_q)]
    pooled = Folds(
        folds[0].train, folds[0].validation,
        tuple(np.concatenate([a, b + len(of_p)]) for a, b in zip(folds[0].test, folds[1].test, strict=True)),
    )  # fmt: skip
    scores = normal_scores(np.vstack([of_p, of_q]), pooled).to(device)
    both = scores[:, : len(of_p)], scores[:, len(of_p) :]
    bound = Bound(objective, training.folds, folds[1].train.shape[1], device)

    def values(critic: Critic, rows: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        on_p, on_q = (critic(_rows(array, row)) for array, row in zip(both, rows, strict=True))
        return on_p, on_q

    critic, finished = fit(
        Critic(training.folds, of_p.shape[1], training, generator, bound.most).to(device),
        lambda critic, rows: bound.step(*values(critic, rows)),
        lambda critic: bound.loss(*values(critic, [fold.validation for fold in folds])),
        [fold.train for fold in folds], training, generator, progress,
    )  # fmt: skip
    on_p, on_q, weights = np.empty(len(of_p)), np.empty(len(of_q)), np.empty(len(of_q))
    for k, rows in enumerate(zip(*(fold.test for fold in folds), strict=True)):
        f_p, f_q = (_on(critic, array[k, row], k) for array, row in zip(both, rows, strict=True))
        on_p[rows[0]], weights[rows[1]] = f_p, np.exp(f_q)
        on_q[rows[1]] = second_part(weights[rows[1]], evaluation)
    value = float(on_p.mean() + on_q.mean())
    errors = [contribution_error(part, dependence) for part in (on_p, on_q)]
    stderr = math.hypot(errors[0][0], errors[1][0])
    notes = [
        *_warn_of_training(folds, training, finished),
        *warn_of_weights(value, weights, evaluation),
        *(note for _, _, more in errors for note in more),
    ]
    freedom = min(errors[0][1], errors[1][1])
    return conclude(
        value, stderr, half_width(stderr, freedom, level),
        method=method_name(objective, evaluation), n=len(of_p), notes=notes,
    )  # fmt: skip


def neural_information(
    x: ArrayLike,
    z: ArrayLike,
    y: ArrayLike | None = None,
    *,
    objective: Literal["classifier", "dv", "nwj", "infonce"] = "classifier",
    evaluation: Evaluation | None = None,
    training: Training | None = None,
    dependence: Dependence = "independent",
    level: float = LEVEL,
    seed: int = 0,
    device: torch.device | str = "cpu",
    progress: bool = False,
) -> Number:
    """I(X; Z), or I(X; Z | Y), by critics that tell joint samples from re-paired ones.

    I(X; Z) is KL(P_XZ ‖ P_X ⊗ P_Z), and samples of the product pair each x with the z of other samples. With Y the
    value is the difference I(X; (Z, Y)) - I(X; Y) of two such estimates on the same folds. Each errs low by what
    its critic has missed, so the difference errs either way: low by what the larger critic missed, high by what
    the smaller one did. It needs no samples of P(Z | Y), but both terms must stay clear of their ceilings: where Y
    tells most of X, take its regression out of X and Z first.

    Args:
        x: (n, d_x) or (n,).
        z: (n, d_z) or (n,).
        y: (n, d_y) or (n,), if there is a condition.
        objective: what the critics are trained by; after ``infonce`` they are evaluated by it too, on batches of
            up to 1024 held-out samples.
        evaluation: as :func:`neural_divergence`; None for InfoNCE.
        training: of the critics.
        dependence: autocorrelated samples are cut into stretches, re-paired at a distance, and their standard
            error is taken in blocks.
        level: of the confidence interval, see :func:`neural_divergence`.
        seed: of the folds, the initial parameters and the batches, all drawn on the CPU.
        device: where the networks are trained.
        progress: show a progress bar over the epochs.

    Raises:
        SampleError: for samples that do not fit together, are not finite or too few, or an unknown option.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> x = rng.normal(size=600)
        >>> training = Training(folds=3, hidden=(16,), learning_rate=1e-2)
        >>> estimate = neural_information(x, 0.6 * x + 0.8 * rng.normal(size=600), training=training)
        >>> estimate.ci_low < 0.2231 < estimate.ci_high
        True
    """
    arrays = paired_samples(x, z, y)
    training = Training() if training is None else training
    if objective == "infonce":
        if evaluation is not None:
            raise SampleError(f"InfoNCE is evaluated by itself, not by {evaluation!r}")
    else:
        evaluation = checked_evaluation(objective, evaluation)
    folds = split(len(arrays[0]), training, dependence, np.random.default_rng(seed))
    generator = torch.Generator().manual_seed(seed)
    bent = [normal_scores(array, folds).to(device) for array in arrays]

    def against_x(other: Tensor) -> _HeldOut:
        if objective == "infonce" or evaluation is None:
            return _infonce(bent[0], other, folds, training, generator, progress)
        return _joint_against_product(bent[0], other, folds, training, generator, objective, evaluation, progress)

    found = against_x(torch.cat([bent[1], bent[2]], -1))
    contributions, notes = found.contributions, [*found.notes, *warn_of_deterministic_relations(np.hstack(arrays))]
    if arrays[2].shape[1]:
        less = against_x(bent[2])
        contributions = contributions - less.contributions
        notes = [*notes, *(note for note in less.notes if note not in notes)]
    method = "neural-infonce" if evaluation is None else method_name(objective, evaluation)
    return conclude_mean(contributions, method=method, notes=notes, dependence=dependence, level=level)


def _joint_against_product(
    x: Tensor,
    z: Tensor,
    folds: Folds,
    training: Training,
    generator: torch.Generator,
    objective: Objective,
    evaluation: Evaluation,
    progress: bool,
) -> _HeldOut:
    """I(X; Z) by a critic of (x, z); inputs (folds, n, d)."""
    bound = Bound(objective, training.folds, folds.train.shape[1], x.device)

    def values(critic: Critic, rows: Tensor, pairings: int) -> tuple[Tensor, Tensor]:
        left, right = _rows(x, rows), _rows(z, rows)
        others = [right.roll(shift, 1) for shift in _shifts(rows.shape[1], pairings)]
        stacked = torch.cat([right, *others], 1)
        found: Tensor = critic(torch.cat([left.repeat(1, 1 + len(others), 1), stacked], -1))
        return found[:, : rows.shape[1]], found[:, rows.shape[1] :]

    critic, finished = fit(
        Critic(
            training.folds, x.shape[-1] + z.shape[-1], training, generator, bound.most
        ).to(x.device),
        lambda critic, rows: bound.step(*values(critic, rows[0], training.negatives)),
        lambda critic: bound.loss(*values(critic, folds.validation, _PAIRINGS)),
        [folds.train], training, generator, progress,
    )  # fmt: skip
    contributions, weights = np.empty(x.shape[1]), np.empty(x.shape[1])
    for k, rows in enumerate(folds.test):
        left, right = x[k, rows], z[k, rows]
        on_p = _on(critic, torch.cat([left, right], -1), k)
        of_x, of_z = np.zeros(len(rows)), np.zeros(len(rows))
        shifts = _shifts(len(rows), _PAIRINGS)
        for shift in shifts:
            ratio = np.exp(_on(critic, torch.cat([left, right.roll(shift, 0)], -1), k))
            of_x += ratio / len(shifts)
            of_z += np.roll(ratio, -shift) / len(shifts)
        # A sample weighs on the mean over pairs twice: as an x and as a z.
        weights[rows] = of_x
        contributions[rows] = on_p + second_part(of_x, evaluation, of_z)
    value = float(contributions.mean())
    notes = [*_warn_of_training([folds], training, finished), *warn_of_weights(value, weights, evaluation)]
    return _HeldOut(contributions, notes)


def _infonce(
    x: Tensor, z: Tensor, folds: Folds, training: Training, generator: torch.Generator, progress: bool
) -> _HeldOut:
    """I(X; Z) by InfoNCE; inputs (folds, n, d)."""

    def loss(critic: PairCritic, rows: Tensor) -> Tensor:
        found: Tensor = critic(_rows(x, rows), _rows(z, rows))
        return -(found.diagonal(dim1=1, dim2=2) - log_mean_exp(found)).mean(-1)

    def validation_loss(critic: PairCritic) -> Tensor:
        # In batches of one size, or the ceiling of the last would be lower.
        size = min(training.batch, folds.validation.shape[1])
        whole = folds.validation.shape[1] // size * size
        batches = [folds.validation[:, start : start + size] for start in range(0, whole, size)]
        return torch.stack([loss(critic, batch) for batch in batches]).mean(0)

    critic, finished = fit(
        PairCritic(training.folds, (x.shape[-1], z.shape[-1]), training, generator).to(x.device),
        lambda critic, rows: loss(critic, rows[0]), validation_loss, [folds.train], training, generator, progress,
    )  # fmt: skip
    contributions = np.empty(x.shape[1])
    smallest = x.shape[1]
    for k, fold in enumerate(folds.test):
        for rows in np.array_split(fold, math.ceil(len(fold) / _LARGEST_BATCH)):
            with torch.no_grad():
                found = critic(x[k : k + 1, rows], z[k : k + 1, rows], slice(k, k + 1))[0].double()
            # The derivative of the bound by the sample's weight: its own term, and what it is in the others' sums.
            share = torch.softmax(found, -1).sum(0)
            own = found.diagonal() - log_mean_exp(found)
            contributions[rows] = (own - share + 1).cpu().numpy()
            smallest = min(smallest, len(rows))
    value = float(contributions.mean())
    notes = _warn_of_training([folds], training, finished)
    if value > NEAR_CEILING * math.log(smallest):
        notes.append(
            f"{value:.2f} nats are near log {smallest} = {math.log(smallest):.2f}, the most that InfoNCE can "
            f"return for held-out batches of {smallest}: read it as a lower bound, or use more samples."
        )
    return _HeldOut(contributions, notes)


def _rows(values: Tensor, rows: Tensor) -> Tensor:
    """Rows (folds, m) of values (folds, n, d)."""
    at = rows.to(values.device)
    return values.gather(1, at.unsqueeze(-1).expand(-1, -1, values.shape[-1]))


def _on(critic: Critic, values: Tensor, fold: int) -> Array:
    """Critic ``fold`` at values (m, d), without gradients."""
    with torch.no_grad():
        found: Array = critic(values.unsqueeze(0), slice(fold, fold + 1))[0].double().cpu().numpy()
    return found


def _shifts(n: int, pairings: int) -> list[int]:
    """Cyclic shifts, far from each other and from 0: dependence along the samples does not reach across them."""
    count = min(pairings, n - 1)
    return [round(s * n / (count + 1)) for s in range(1, count + 1)]


def _warn_of_training(folds: Sequence[Folds], training: Training, finished: bool) -> list[str]:
    notes: list[str] = []
    fewest = min(len(rows) for fold in folds for rows in fold.test)
    if fewest < _SMALLEST_FOLD:
        notes.append(f"{fewest} held-out samples a fold are few for a network: use more samples.")
    if not finished:
        notes.append(
            f"training was still improving after {training.epochs} epochs, so the estimate is likely low: "
            "allow more epochs."
        )
    return notes
