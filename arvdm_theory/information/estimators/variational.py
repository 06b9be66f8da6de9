r"""Variational lower bounds on KL(P ‖ Q) for a critic f: what it is trained by, and what it is worth, in nats.

With r = dP/dQ:

- ``dv``: E_P f - log E_Q e^f  (Donsker and Varadhan 1983);
- ``nwj``: E_P f - E_Q e^f + 1  (Nguyen, Wainwright and Jordan 2010, here for f = log r);
- ``ratio``: E_P f, the log density ratio itself; no bound.

For a fixed f the first two are at most KL(P ‖ Q), and flat at f = log r: an error ε in f costs about ½ E_P ε² of
the value, always downwards, while ``ratio`` moves by E_P ε either way. So evaluated on samples that the critic has
not seen, ``dv`` and ``nwj`` err low by what it has not learned (and ``dv`` by Var_Q(e^f)/(2n (E_Q e^f)²) the other
way, as the logarithm of a mean of n does). Their price is e^f: its mean over Q is made by few samples once KL
nears log n, which no lower bound from n samples exceeds by much (McAllester and Stratos 2020).

A critic is trained by one of

- ``classifier``: the logistic loss of telling P from Q, least for f = log r; the steadiest;
- ``dv``: the bound itself, with the running mean of E_Q e^f in the gradient's denominator, without which the
  gradient of a batch is biased (MINE; Belghazi et al. 2018, section 3.2);
- ``nwj``: the bound itself, whose gradient has no such bias.

Source: Poole et al. 2019, On variational bounds of mutual information, for the comparison.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from arvdm_theory.information.estimators.samples import SampleError

__all__ = [
    "NEAR_CEILING",
    "Bound",
    "Evaluation",
    "Objective",
    "checked_evaluation",
    "log_mean_exp",
    "method_name",
    "second_part",
    "warn_of_weights",
]

Array = NDArray[np.float64]
Evaluation = Literal["dv", "nwj", "ratio"]
Objective = Literal["classifier", "dv", "nwj"]

NEAR_CEILING = 0.75
"""Share of a ceiling from which on an estimate says little more than that the truth is large."""

# What a step adds to the running mean of E_Q e^f.
_FORGETTING = 0.05
# Below this many effective samples the mean of e^f is not normal, and its spread is not known either.
_EFFECTIVE_SAMPLES = 30


class Bound:
    """The loss that critics are trained by, a fold each, from their values on samples of P and of Q.

    Args:
        objective: which loss.
        folds: how many critics.
        samples: of Q that each learns from.
        device: where the critics are.

    Attributes:
        most: the largest value that a critic should be able to take. Where P has samples and Q has none the
            gradient of a bound, unlike that of the logistic loss, raises f without end, and one held-out sample of
            Q there would cost all; but no density ratio above n can be told from n samples: log n is the limit.
    """

    def __init__(self, objective: Objective, folds: int, samples: int, device: torch.device | str) -> None:
        self.objective = objective
        self.most = math.inf if objective == "classifier" else math.log(samples)
        # log of the running mean of E_Q e^f, which is 1 before training
        self.log_mean = torch.zeros(folds, device=device)

    def step(self, on_p: Tensor, on_q: Tensor) -> Tensor:
        """What a training step lowers, (folds,)."""
        if self.objective != "dv":
            return self.loss(on_p, on_q)
        batch = log_mean_exp(on_q.detach())
        kept = self.log_mean + math.log1p(-_FORGETTING)
        self.log_mean = torch.logaddexp(kept, torch.nan_to_num(batch) + math.log(_FORGETTING))
        return torch.exp(on_q - self.log_mean.unsqueeze(-1)).mean(-1) - on_p.mean(-1)

    def loss(self, on_p: Tensor, on_q: Tensor) -> Tensor:
        """The loss itself, (folds,)."""
        if self.objective == "classifier":
            return functional.softplus(-on_p).mean(-1) + functional.softplus(on_q).mean(-1)
        if self.objective == "nwj":
            return torch.exp(on_q).mean(-1) - on_p.mean(-1) - 1
        return log_mean_exp(on_q) - on_p.mean(-1)


def second_part(weights: Array, evaluation: Evaluation, as_other: Array | None = None) -> Array:
    """Contributions of E_Q e^f of one fold, so that their mean is what the bound adds to E_P f.

    Their spread is that of the bound's derivative by each sample's weight: of 1 - e^f for NWJ, and of
    -e^f/E_Q e^f for Donsker-Varadhan.

    Args:
        weights: e^f at the samples of Q, (m,), or its mean over the pairs in which a sample is the x.
        evaluation: the bound.
        as_other: the same over those in which it is the z.
    """
    if evaluation == "ratio":
        return np.zeros_like(weights)
    mean = weights.mean()
    both = weights if as_other is None else weights + as_other - mean
    if evaluation == "nwj":
        return 1 - both
    result: Array = 1 - both / mean - np.log(mean)
    return result


def log_mean_exp(values: Tensor) -> Tensor:
    """Log of the mean of e^v over the last axis."""
    return torch.logsumexp(values, -1) - math.log(values.shape[-1])


def checked_evaluation(objective: str, evaluation: Evaluation | None) -> Evaluation:
    """How a critic is evaluated; left out, ``nwj`` for critics trained by it, else ``dv``.

    Raises:
        SampleError: for an objective or an evaluation that there is not.
    """
    if objective not in ("classifier", "dv", "nwj"):
        raise SampleError(f"a critic is trained by 'classifier', 'dv' or 'nwj', got {objective!r}")
    if evaluation is None:
        return "nwj" if objective == "nwj" else "dv"
    if evaluation not in ("dv", "nwj", "ratio"):
        raise SampleError(f"a critic is evaluated by 'dv', 'nwj' or 'ratio', got {evaluation!r}")
    return evaluation


def method_name(objective: str, evaluation: str) -> str:
    """What an estimate by this training and evaluation is called."""
    return f"neural-{objective}" if objective == evaluation else f"neural-{objective}-{evaluation}"


def warn_of_weights(value: float, weights: Array, evaluation: Evaluation) -> list[str]:
    """Warnings if few samples of Q carry the mean of e^f, or a bound of this ``value`` is near log n."""
    if evaluation == "ratio":
        return []
    notes: list[str] = []
    effective = weights.sum() ** 2 / (weights**2).sum()
    if not effective > _EFFECTIVE_SAMPLES:
        notes.append(
            f"the exponential average rests on the weight of {effective:.1f} of {len(weights)} samples, so "
            "value and standard error are unsure: evaluate by 'ratio', or use InfoNCE or more samples."
        )
    if value > NEAR_CEILING * math.log(len(weights)):
        notes.append(
            f"a bound of {value:.2f} nats is near log n = {math.log(len(weights)):.2f}, beyond which no lower "
            f"bound from {len(weights)} samples is sure: evaluate by 'ratio', or use more samples."
        )
    return notes
