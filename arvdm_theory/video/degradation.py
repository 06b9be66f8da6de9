"""How fast a video network's rollout decays, predicted from its teacher-forced outputs: nothing is rolled out.

Clips have no known law, so no KL is claimed. Three *named proxies* of the squared error of every generated frame:

- ``linear_response``: on true references an AR step errs by ε = Y - X, and wrong references move its output.
  Output frame j is regressed on the r references, and the errors of a rollout follow

      e_f = Σ_i A_{j,i} e_{ref i} + ε_j,      e of a given frame = 0.

- ``error_gain``: squared errors in place of errors, mse_f = Σ_i g_{j,i} mse_{ref i} + m_j, with gains from errors
  that are put into the references on purpose (:func:`error_gain`, :func:`predicted_by_gain`).
- ``constant``: A = 0. Every AR step errs as it does on true references; nothing accumulates.

None is a bound. What linear response takes for granted:

- ε is independent of the errors of the references. No one controls that: ε depends on the true references, and so
  do earlier errors. It holds where E[Y - X | C] is free of C, as for a network that only errs by a bias and noise.
  A network that shrinks what it is shown is underrated: on AR(1) frames of correlation 0.9 and variance 1, one
  with half the right slope ends at an error of 1, the rollout having faded, and is predicted to end at 0.49.
- The response to an error is the slope along which outputs follow *true* references. Errors point elsewhere; along
  directions in which true frames hardly vary, ridge regression puts the response near 0.
- Errors live in q principal components of true frames. What lies outside neither responds nor passes on: it is the
  teacher-forced residual's, the same at every AR step.
- For a pipelined schedule (w > Δ) only references and the Δ frames that come out are followed. Errors of the noisy
  window, which stays from step to step, are not tracked, though they too add up.
- No pixel's range is known: where errors expand, the prediction grows past what pictures can show.

None of these has an interval, and none knows when it fails; one that does, for videos without actions, is
:func:`arvdm_theory.rollout.decay.predicted_decay`. So judge it by how it ranks runs beside their measured decay
(:mod:`arvdm_theory.video.decay`). Its relative for videos of a known law is :mod:`arvdm_theory.rollout.predict`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh
from scipy.optimize import nnls

from arvdm_theory.diffusion.sampler import first_ar_step
from arvdm_theory.plan.plan import Plan

__all__ = [
    "STRENGTHS",
    "PredictedDegradation",
    "Proxy",
    "RidgeFit",
    "StepResponse",
    "error_gain",
    "leading_components",
    "predicted_by_gain",
    "predicted_degradation",
    "ridge",
    "step_response",
]

Array = NDArray[np.float64]
Proxy = Literal["linear_response", "constant"]

STRENGTHS = tuple(float(strength) for strength in np.logspace(-6, 3, 28))
"""Ridge strengths that are tried, in units of the mean squared singular value of the centred regressors."""


@dataclass(frozen=True)
class RidgeFit:
    """A ridge regression, its strength chosen by leave-one-out.

    Attributes:
        slope: B, shape (p, m).
        strength: the chosen one.
        scores: mean squared leave-one-out error of every strength tried, summed over the m outputs, (strengths,).
    """

    slope: Array
    strength: float
    scores: Array


def ridge(shown: Array, said: Array, strengths: Sequence[float] = STRENGTHS) -> RidgeFit:
    """Ridge regression with a free intercept, its strength by leave-one-out in closed form (PRESS).

    B = (C'C + λI)^{-1} C'Y with centred rows, λ = strength · mean squared singular value of C. With the hat matrix
    H = 11'/n + C (C'C + λI)^{-1} C', the error at row i of the fit to all other rows, same λ, is the residual of
    the fit to all rows over 1 - H_ii (Allen 1974). All outputs share one λ, that of the least mean squared error.

    Args:
        shown: C, shape (n, p).
        said: Y, shape (n, m).
        strengths: positive.

    Raises:
        ValueError: if shapes do not fit, numbers are not finite, a strength is not positive, the rows of C
            are all equal, or a row has leverage 1 at a strength, so that leaving it out leaves nothing to go by.
    """
    x, y = _rows(shown, "regressors", 2), _rows(said, "outputs", 2)
    n = len(x)
    if len(y) != n or n < 3:
        raise ValueError(f"as many outputs as regressors, and 3 or more, are needed, got {len(y)} and {n}")
    tried = tuple(float(strength) for strength in strengths)
    if not tried or not all(math.isfinite(strength) and strength > 0 for strength in tried):
        raise ValueError(f"ridge strengths are finite and positive, got {tried}")
    # Rows that are equal differ by their mean's rounding.
    if not (x != x[0]).any():
        raise ValueError("what the network is shown does not vary, so nothing can be regressed on it")
    y = y - y.mean(0)
    left, values, right = np.linalg.svd(x - x.mean(0), full_matrices=False)
    rotated, unit = left.T @ y, float((values**2).mean())
    scores = []
    for strength in tried:
        kept = values**2 / (values**2 + strength * unit)
        free = 1 - 1 / n - left**2 @ kept
        # Below this, 1 - H_ii has lost half of its digits.
        if free.min() < 1e-8:
            raise ValueError(
                f"row {int(free.argmin())} of {n} cannot be left out at ridge strength {strength:.3g}: its "
                "leverage is 1; more rows or larger strengths are needed"
            )
        missed = (y - left @ (kept[:, None] * rotated)) / free[:, None]
        scores.append(float((missed**2).sum()) / n)
    best = int(np.argmin(scores))
    slope: Array = right.T @ ((values / (values**2 + tried[best] * unit))[:, None] * rotated)
    return RidgeFit(slope, tried[best], np.array(scores))


def leading_components(frames: Array, components: int) -> Array:
    """The q leading principal components of true frames: an orthonormal basis (d, q).

    Args:
        frames: shape (..., d).
        components: q, at most the rank of the frames' covariance.

    Raises:
        ValueError: for frames without an axis, numbers that are not finite, or a q beyond the frames' rank.
    """
    rows = np.asarray(frames, dtype=np.float64)
    if rows.ndim < 2 or not np.isfinite(rows).all():
        raise ValueError(f"frames are finite numbers of shape (..., d), got shape {rows.shape}")
    rows = rows.reshape(-1, rows.shape[-1])
    most = min(len(rows) - 1, rows.shape[1])
    if not 1 <= components <= most:
        raise ValueError(
            f"{len(rows)} frames of {rows.shape[1]} numbers have 1 to {most} principal components, but "
            f"{components} are asked for"
        )
    rows = rows - rows.mean(0)
    wide = len(rows) < rows.shape[1]
    gram = rows @ rows.T if wide else rows.T @ rows
    values, vectors = eigh(gram, subset_by_index=(len(gram) - components, len(gram) - 1))
    # An eigenvalue is off by some roundings of the trace.
    if values[0] <= len(gram) * np.finfo(np.float64).eps * gram.trace():
        raise ValueError(f"the {len(rows)} frames vary along fewer than {components} directions")
    vectors = vectors[:, ::-1]
    # Combinations of frames are as orthogonal as the Gram matrix's condition allows; their span is right.
    basis: Array = np.linalg.qr(rows.T @ vectors if wide else vectors)[0]
    return basis


@dataclass(frozen=True)
class StepResponse:
    """One AR step as teacher-forced outputs show it: r references in, the Δ frames that come out.

    Attributes:
        basis: of the subspace, orthonormal, (d, q).
        response: A, shape (Δ, r, q, q): how output frame j moves with an error of reference i.
        bias: mean of the teacher-forced error ε in the subspace, (Δ, q).
        covariance: of ε, jointly over the frames that come out, frame-major, (Δq, Δq).
        outside: mean squared error outside the subspace, over all d pixels, (Δ,).
    """

    basis: Array
    response: Array
    bias: Array
    covariance: Array
    outside: Array

    def __post_init__(self) -> None:
        for name in ("basis", "response", "bias", "covariance", "outside"):
            value = np.asarray(getattr(self, name), dtype=np.float64)
            if not np.isfinite(value).all():
                raise ValueError(f"the {name} of an AR step is NaN or infinite")
            object.__setattr__(self, name, value)
        _check_basis(self.basis)
        q, out = self.basis.shape[1], len(self.response)
        references = self.response.shape[1] if self.response.ndim == 4 else 0
        wanted = {
            "response": (out, references, q, q), "bias": (out, q), "covariance": (out * q, out * q),
            "outside": (out,),
        }  # fmt: skip
        for name, shape in wanted.items():
            if getattr(self, name).shape != shape:
                raise ValueError(f"the {name} has shape {getattr(self, name).shape}, not {shape}")

    @property
    def teacher_forced(self) -> Array:
        """Mean squared error of each output frame on true references, over all d pixels, (Δ,)."""
        inside = (self.bias**2).sum(1) + np.diag(self.covariance).reshape(self.bias.shape).sum(1)
        total: Array = inside / len(self.basis) + self.outside
        return total


def step_response(
    references: Array,
    truth: Array,
    outputs: Array,
    basis: Array,
    strengths: Sequence[float] = STRENGTHS,
) -> StepResponse:
    """An AR step's error on true references and its linear response to wrong ones, from teacher-forced outputs.

    Outputs are regressed on all references together, both in the subspace, by :func:`ridge`. Moments of the error
    are divided by n, so ``teacher_forced`` is exactly the mean squared error of the outputs.

    Args:
        references: C, true frames, (n, r, d), in the order of ``plan.references_at``; clean, also where the plan
            noises them afresh (that is part of the response). n windows, independent of each other: windows of one
            video make leave-one-out too sure of itself.
        truth: X, the frames to come, (n, Δ, d).
        outputs: Y, what the network puts out for them, (n, Δ, d).
        basis: orthonormal, (d, q): :func:`leading_components` of true frames.
        strengths: as :func:`ridge`.

    Raises:
        ValueError: if shapes do not fit, numbers are not finite, nothing is referenced or the basis is not
            orthonormal, and as :func:`ridge`.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> references = rng.normal(size=(200, 1, 5))
        >>> truth = 0.9 * references + 0.1 * rng.normal(size=(200, 1, 5))
        >>> step = step_response(references, truth, 0.8 * references, np.eye(5))
        >>> bool(np.allclose(step.response[0, 0], 0.8 * np.eye(5), atol=1e-4))
        True
        >>> bool(np.isclose(step.teacher_forced[0], ((0.8 * references - truth) ** 2).mean()))
        True
    """
    given, true, said = _rows(references, "references", 3), _rows(truth, "truth", 3), _rows(outputs, "outputs", 3)
    if true.shape != said.shape or given.shape[::2] != true.shape[::2]:
        raise ValueError(
            f"references (n, r, d), truth and outputs (n, frames, d), got shapes {given.shape}, {true.shape} and "
            f"{said.shape}"
        )
    if 0 in given.shape or 0 in true.shape:
        raise ValueError(f"at least one reference and output is needed, got {given.shape} and {true.shape}")
    directions = np.asarray(basis, dtype=np.float64)
    _check_basis(directions)
    if len(directions) != true.shape[-1]:
        raise ValueError(f"the basis is for frames of {len(directions)} numbers, not {true.shape[-1]}")
    (n, out), q = true.shape[:2], directions.shape[1]
    response = _slopes(given, said, directions, strengths)
    error = said - true
    inside = error @ directions
    outside = ((error - inside @ directions.T) ** 2).mean((0, 2))
    bias = inside.mean(0)
    centred = (inside - bias).reshape(n, out * q)
    return StepResponse(directions, response, bias, centred.T @ centred / n, outside)


def error_gain(shift: Array, moved: Array) -> Array:
    """How much of a reference's squared error an AR step passes on to each frame that it puts out, (Δ, r).

    Outputs are made twice from the same noise, shown the references C and C + ``shift``. What they differ by,
    ``moved``, is fitted by ‖moved_j‖² ≈ Σ_i g_ji ‖shift_i‖², g ≥ 0, with least squares over windows. Where a
    network looks up one remembered frame, and which one differs from window to window, its mean response to each
    is small, but the energy that it passes on is not. Shifts are best drawn as the step errs itself, and put into
    a random half of the references of each window. It is still one AR step, and nothing is rolled out.

    Args:
        shift: put into the references, (n, r, d).
        moved: by so much the outputs differ, (n, Δ, d).

    Raises:
        ValueError: if shapes do not fit, numbers are not finite, or there are fewer windows than references.

    Example:
        >>> shift = np.random.default_rng(0).normal(size=(200, 2, 5)) * [[[1.0], [2.0]]]
        >>> error_gain(shift, 0.5 * shift[:, 1:]).round(6).tolist()
        [[0.0, 0.25]]
    """
    put, answer = _rows(shift, "shifts", 3), _rows(moved, "differences", 3)
    n, r, d = put.shape
    if answer.shape[::2] != (n, d) or 0 in put.shape or 0 in answer.shape:
        raise ValueError(f"shifts (n, r, d) and differences (n, Δ, d), got {put.shape} and {answer.shape}")
    if n < r:
        raise ValueError(f"{r} references need as many windows or more, got {n}")
    energy, passed = (put**2).sum(2), (answer**2).sum(2)
    return np.stack([nnls(energy, part)[0] for part in passed.T])


def predicted_by_gain(gain: Array, teacher_forced: Array, plan: Plan, prompt: int, last: int) -> Array:
    """Squared errors of the generated frames, passed on from references to frames, (F,).

    mse_f = m_j + Σ_i g_ji mse_{ref i}, and 0 for given frames: as if the errors of the references and the step's
    own, of mean square m, had nothing to do with one another.

    Args:
        gain: g, (Δ, r): :func:`error_gain`.
        teacher_forced: m, of an AR step on true references, (Δ,).
        plan: the plan.
        prompt: how many frames are given.
        last: K, the last AR step.

    Raises:
        ValueError: if an AR step has other numbers of references or frames, none is left, or none starts after the
            prompt.

    Example:
        >>> from arvdm_theory.plan.methods import outpainting
        >>> from arvdm_theory.plan.references import References
        >>> plan = outpainting(window=1, references=References.last(1))
        >>> predicted_by_gain(np.array([[0.5]]), np.ones(1), plan, prompt=1, last=3).tolist()
        [1.0, 1.5, 1.75]
    """
    first = first_ar_step(plan, prompt)
    if first > last:
        raise ValueError(f"AR step {first} follows the {prompt} given frames, but {last} is the last")
    start = plan.frames_out(first)
    mse = np.zeros(plan.clean_frames(last) - start)
    for k in range(first, last + 1):
        references = plan.references_at(k)
        if gain.shape != (plan.stride, len(references)) or teacher_forced.shape != (plan.stride,):
            raise ValueError(
                f"AR step {k} puts out {plan.stride} frames and is shown {len(references)} references, but the "
                f"gain has shape {gain.shape} and the teacher-forced errors {teacher_forced.shape}"
            )
        wrong = np.array([mse[r.frame - start] if r.frame >= start else 0.0 for r in references])
        out = plan.frames_out(k) - start
        mse[out : out + plan.stride] = teacher_forced + gain @ wrong
    return mse[prompt - start :]


def _slopes(shown: Array, said: Array, basis: Array, strengths: Sequence[float]) -> Array:
    """The response (Δ, r, q, q) of frames (n, Δ, d) to frames (n, r, d), in the subspace."""
    (n, r), out, q = shown.shape[:2], said.shape[1], basis.shape[1]
    fit = ridge((shown @ basis).reshape(n, r * q), (said @ basis).reshape(n, out * q), strengths)
    return fit.slope.reshape(r, q, out, q).transpose(2, 0, 3, 1)


@dataclass(frozen=True)
class PredictedDegradation:
    """The predicted error of every generated frame.

    Attributes:
        proxy: which prediction it is.
        mse: mean squared error over all d pixels, of the F generated frames, (F,).
        mean: mean error in the subspace, (F, q).
        covariance: of the errors in the subspace, frame-major, (Fq, Fq).
    """

    proxy: Proxy
    mse: Array
    mean: Array
    covariance: Array


def predicted_degradation(
    responses: StepResponse | Sequence[StepResponse],
    plan: Plan,
    prompt: int,
    last: int,
    proxy: Proxy = "linear_response",
) -> PredictedDegradation:
    """Propagates teacher-forced errors through the references of a plan: exact mean and covariance of all errors.

    With L the responses of AR step k to all frames that came out before it, and (m, V) their errors' law, the new
    frames have mean L m + b, covariance L V L' + S, and cross-covariance L V with the old. So a reference that two
    frames share, at any distance, correlates them as it should.

    AR steps run from the first one after the prompt. Frames that are out by then are given, and right. For a
    pipelined schedule the last w - Δ frames of the prompt are noised and put out again: they get errors, which are
    passed on, but are no part of the answer.

    Args:
        responses: of every AR step from the first to the last, in one subspace; or one for all of them.
        plan: the plan.
        prompt: how many frames are given.
        last: K, the last AR step.
        proxy: ``linear_response``, or ``constant`` for no accumulation.

    Raises:
        ValueError: if no AR step is left, there are not as many responses as AR steps, subspaces differ, or
            a response has other numbers of references or frames than its AR step.
        ValueError: if no AR step starts after the prompt.

    Example:
        >>> from arvdm_theory.plan.methods import outpainting
        >>> from arvdm_theory.plan.references import References
        >>> plan = outpainting(window=1, references=References.last(1))
        >>> half = StepResponse(np.eye(1), np.full((1, 1, 1, 1), 0.5), np.zeros((1, 1)), np.eye(1), np.zeros(1))
        >>> predicted_degradation(half, plan, prompt=1, last=3).mse.tolist()
        [1.0, 1.25, 1.3125]
    """
    if proxy not in get_args(Proxy):
        raise ValueError(f"a proxy is {' or '.join(get_args(Proxy))}, got {proxy!r}")
    first = first_ar_step(plan, prompt)
    if first > last:
        raise ValueError(f"AR step {first} follows the {prompt} given frames, but {last} is the last")
    each = [responses] * (last - first + 1) if isinstance(responses, StepResponse) else list(responses)
    if len(each) != last - first + 1:
        raise ValueError(f"AR steps {first} to {last} need {last - first + 1} responses, got {len(each)}")
    basis = each[0].basis
    d, q = basis.shape
    start, stop = plan.frames_out(first), plan.clean_frames(last)
    mean, covariance = np.zeros((stop - start) * q), np.zeros(((stop - start) * q,) * 2)
    outside = np.zeros(stop - start)
    for k, own in zip(range(first, last + 1), each, strict=True):
        references = plan.references_at(k)
        if own.response.shape[:2] != (plan.stride, len(references)):
            raise ValueError(
                f"AR step {k} puts out {plan.stride} frames and is shown {len(references)} references, but its "
                f"response has {own.response.shape[0]} and {own.response.shape[1]}"
            )
        if own is not each[0] and not np.array_equal(own.basis, basis):
            raise ValueError(f"the responses of AR steps {first} and {k} are in different subspaces")
        out = plan.frames_out(k) - start
        old, new = slice(out * q), slice(out * q, (out + plan.stride) * q)
        load = np.zeros((plan.stride, q, out, q))
        if proxy == "linear_response":
            for i, reference in enumerate(references):
                if reference.frame >= start:
                    load[:, :, reference.frame - start] = own.response[:, i]
        flat = load.reshape(plan.stride * q, out * q)
        cross = flat @ covariance[old, old]
        mean[new] = flat @ mean[old] + own.bias.ravel()
        covariance[new, old], covariance[old, new] = cross, cross.T
        covariance[new, new] = cross @ flat.T + own.covariance
        outside[out : out + plan.stride] = own.outside
    skip = prompt - start
    mean, covariance = mean[skip * q :].reshape(-1, q), covariance[skip * q :, skip * q :]
    inside = (mean**2).sum(1) + np.diag(covariance).reshape(mean.shape).sum(1)
    return PredictedDegradation(proxy, inside / d + outside[skip:], mean, covariance)


def _rows(values: Array, what: str, axes: int) -> Array:
    rows = np.asarray(values, dtype=np.float64)
    if rows.ndim != axes or not np.isfinite(rows).all():
        raise ValueError(f"the {what} are finite numbers with {axes} axes, got shape {rows.shape}")
    return rows


def _check_basis(basis: Array) -> None:
    # Rounding leaves some 1e-13; a basis that was never made orthonormal is off by far more.
    if basis.ndim != 2 or 0 in basis.shape or np.abs(basis.T @ basis - np.eye(basis.shape[1])).max() > 1e-8:
        raise ValueError(f"a basis has orthonormal columns, (d, q), got shape {basis.shape}")
