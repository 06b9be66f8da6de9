"""E_k of networks: the error of a whole AR step, from one AR step that is generated from true inputs.

A network's Q(Output | Input) has no closed density, so

    E_k = E KL(P(Output_k | Input_k) ‖ Q(Output_k | Input_k)) = KL(P of (Input, Output) ‖ P of Input times Q)

needs samples of Q: true inputs, and what the sampler makes of each in *one* AR step. Nothing is fed back, so
this is no rollout. Two ways from there:

- ``moments``: Q is replaced by the Gaussian of its moments (an affine mean, a constant covariance; see
  :mod:`arvdm_theory.information.estimators.known`), P by its own. That is a *moment-matched* E_k. It is E_k
  itself for an affine network on a Gaussian video; for any other an uncontrolled estimate, neither an upper nor
  a lower bound, whose error shows only in the sampling noise and not in what is left out.
- a divergence estimator by name (:data:`arvdm_theory.information.estimators.DIVERGENCES`, or one with a trained
  critic): that is E_k, with the estimator's own interval and warnings. In many dimensions it wants many samples.

The sum NIE_AR + Σ (DE + SEE + CROSS) of the step bounds E_k, and costs no generation. IE is found the same way
from the initialisation stage, which has no input.

Source: arXiv 2503.10704, Theorem 1, for the chain rule; the AR step as one kernel as in
:mod:`arvdm_theory.laws.gaussian_stage`.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from arvdm_theory.decomposition.question import require_densities, sample_count
from arvdm_theory.diffusion.sampler import reverse_stage
from arvdm_theory.diffusion.scores import as_score
from arvdm_theory.diffusion.steps import ReverseStep, reverse_step
from arvdm_theory.information.estimators import DIVERGENCES, NEURAL_DIVERGENCES, estimate_divergence
from arvdm_theory.information.estimators.known import conditional_divergence_from_known
from arvdm_theory.laws.law import VideoLaw
from arvdm_theory.laws.stage_law import TrueVideos
from arvdm_theory.laws.states import State, frame_indices, noisy_covariance, parting_level
from arvdm_theory.noise import alpha, noised, standard_normal
from arvdm_theory.number import Number
from arvdm_theory.plan.plan import Plan
from arvdm_theory.plan.stage import Stage

__all__ = ["generated_error", "generated_step"]

Array = NDArray[np.float64]
MOMENTS = "moments"


def generated_step(truth: TrueVideos, stage: Stage, score: Any, step: ReverseStep) -> Tensor:
    """The window that one stage leaves when it starts from true inputs, (videos, w, d).

    Args:
        truth: true videos of one mode, with the states that the stage needs.
        stage: the initialisation, whose window enters as pure noise, or an AR step.
        score: the network's.
        step: the reverse step.
    """
    like, n = truth.frames, truth.videos
    dim = like.shape[-1]

    def noise(count: int) -> Tensor:
        return standard_normal((n, 1, count, dim), truth.generator).to(like)

    frames = tuple(stage.frames)[: stage.kept]
    kept = truth.window(frames, stage.grid[0][: stage.kept]) if frames else like.new_zeros(n, 0, dim)
    window = torch.cat([kept[:, None], noise(stage.fresh)], 2)
    return reverse_stage(stage, score, step, window, truth.references(stage)[1], noise)[:, 0]


def generated_error(
    video: VideoLaw,
    plan: Plan,
    ar_step: int,
    score: Any,
    *,
    method: str = MOMENTS,
    step: str | ReverseStep = "exponential",
    samples: int = 2048,
    seed: int = 0,
) -> Number:
    """E_k of AR step k = ``ar_step``, or IE for 0, from one stage generated from true inputs; in nats.

    Args:
        video: its true law, of one mode.
        plan: the plan.
        ar_step: k.
        score: the network's; see :mod:`arvdm_theory.diffusion.scores`.
        method: ``moments``, or a divergence estimator; see the module. The number's ``method`` says which.
        step: the reverse step; not ``ancestral``, whose noise is not the network's to know.
        samples: generated windows, and as many true ones for a divergence estimator.
        seed: of all that is drawn.

    Raises:
        ValueError: for several modes, too few frames, frames without a density, an unknown method, a step
            without a noise variance, moments that are not known, or actions with ``moments``.
        SampleError: for fewer samples than the estimator needs.

    Example:
        >>> from arvdm_theory import References, ledger, outpainting, reference_video
        >>> plan = outpainting(2, References.last(1), 5, 5)
        >>> found = generated_error(reference_video(), plan, 1, lambda w, t, r: -w, samples=500)
        >>> exact = ledger(reference_video(), plan, 1, score=lambda w, t, r: -w).column("AR_STEP")[0]
        >>> found.method, abs(found.value - exact) < 3 * found.stderr
        ('moment-matched', True)
    """
    own, chosen = as_score(score, video, affine=False), reverse_step(step)
    if method not in (MOMENTS, *DIVERGENCES, *NEURAL_DIVERGENCES):
        known = ", ".join((MOMENTS, *DIVERGENCES, *NEURAL_DIVERGENCES))
        raise ValueError(f"E_k of a network is found by one of {known}, got {method!r}")
    if video.modes != 1:
        raise ValueError(f"AR steps are generated for videos of one mode, got {video.modes}")
    if method == MOMENTS and video.action_dim:
        raise ValueError("moments are matched for videos without actions: name a divergence estimator")
    if ar_step < 0:
        raise ValueError(f"AR steps are counted from 1, and 0 is the initialisation; got {ar_step}")
    stage = plan.stage(ar_step)
    video.require(stage.frames.stop)
    require_densities(video, plan)
    n = sample_count(samples)
    with torch.no_grad():
        truth = _truth(video, plan, stage, n, torch.Generator().manual_seed(seed))
        made = generated_step(truth, stage, own, chosen)
        states, put_out = _states(plan, stage)
        given = _inputs(truth, stage)
        out = _left(made, plan, stage, truth.generator)
        if method == MOMENTS:
            mean, covariance = _moments(video, [*states, *put_out])
            return conditional_divergence_from_known(mean, covariance, given, _flat(out))
        # Another draw of true videos, so that the two samples are independent.
        other = _truth(video, plan, stage, n, torch.Generator().manual_seed(seed + 1_000_003))
        true = np.hstack([_inputs(other, stage), _flat(_true_output(other, plan, stage))])
        with warnings.catch_warnings(), torch.enable_grad():  # warnings stay with the number; critics learn
            warnings.simplefilter("ignore")
            return estimate_divergence(true, np.hstack([given, _flat(out)]), method=method, seed=seed)


def _truth(video: VideoLaw, plan: Plan, stage: Stage, n: int, generator: torch.Generator) -> TrueVideos:
    drawn = video.draw(n, stage.frames.stop, generator)
    truth = TrueVideos(video, n, generator, drawn.frames.to(video.device, torch.float64), drawn.actions)
    truth.add_states(plan, stage.ar_step)
    return truth


def _entering(plan: Plan, stage: Stage) -> tuple[float, ...]:
    """The levels at which the stage's output is compared: for the initialisation those of Input_1."""
    if stage.ar_step == 0 and plan.overlapping:
        return plan.input_levels[: plan.init_frames]
    return stage.grid[-1]


def _states(plan: Plan, stage: Stage) -> tuple[list[State], list[State]]:
    """Input and output as states."""
    frames, levels = tuple(stage.frames), _entering(plan, stage)
    given = [State(frames[j], stage.grid[0][j]) for j in range(stage.kept)]
    for r in stage.references:
        fresh = r.level > stage.floor
        given.append(State(r.frame, r.level, stage.ar_step, stage.floor) if fresh else State(r.frame, stage.floor))
    out = stage.output if stage.ar_step else range(stage.window)
    return given, [State(frames[j], levels[j]) for j in out]


def _inputs(truth: TrueVideos, stage: Stage) -> Array:
    """Input_k and, in a video that has them, the actions, (n, p)."""
    frames = tuple(stage.frames)[: stage.kept]
    parts = [truth.window(frames, stage.grid[0][: stage.kept])] if frames else []
    shown = truth.references(stage)[1]
    parts += [shown.values] + ([] if shown.history is None else [shown.history.to(shown.values)])
    return np.hstack([_flat(part) for part in parts])


def _left(made: Tensor, plan: Plan, stage: Stage, generator: torch.Generator) -> Tensor:
    """What the stage puts out, of the whole window; Input_1 where the plan noises the initialisation afresh."""
    if stage.ar_step:
        return made[:, list(stage.output)]
    low = torch.tensor(stage.grid[-1], dtype=torch.float64)
    return noised(made, torch.tensor(_entering(plan, stage), dtype=torch.float64), low, generator)


def _true_output(truth: TrueVideos, plan: Plan, stage: Stage) -> Tensor:
    states = _states(plan, stage)[1]
    return truth.window([state.frame for state in states], [state.level for state in states])


def _moments(video: VideoLaw, states: list[State]) -> tuple[Array, Array]:
    """Mean and covariance of noisy states of a video whose clean moments are known."""
    frames = max(state.frame for state in states) + 1
    known = video.known_moments(frames)
    if known is None:
        raise ValueError(f"the moments of {video.name!r} are not known: name a divergence estimator")
    index = frame_indices([state.frame for state in states], video.frame_dim).to(video.device)
    levels = torch.tensor([state.level for state in states], dtype=torch.float64, device=video.device)
    ancestor = torch.tensor([[parting_level(a, b) for b in states] for a in states], dtype=torch.float64)
    number = torch.tensor([state.frame for state in states], device=video.device)
    clean = known[1][0][index[:, None], index]
    covariance = noisy_covariance(clean, levels, ancestor.to(levels), number[:, None] == number)
    mean = alpha(levels).repeat_interleave(video.frame_dim) * known[0][0][index]
    return mean.cpu().numpy(), covariance.cpu().numpy()


def _flat(values: Tensor) -> Array:
    return values.flatten(1).to(torch.float64).cpu().numpy()
