"""All stages of a plan on a state space: those before its references are filled, and the repeating ones."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from arvdm_theory.decomposition.question import Question
from arvdm_theory.decomposition.recursion.pattern import Local, Pattern
from arvdm_theory.decomposition.recursion.rollout import SamplerFilter
from arvdm_theory.decomposition.terms import StageErrors, stage_errors
from arvdm_theory.diffusion.scores import ExactScore, PerturbedScore
from arvdm_theory.information.gaussian import NotPositiveDefiniteError
from arvdm_theory.laws.gaussian_kernel import Kernel
from arvdm_theory.laws.gaussian_sampler import SamplerLaw
from arvdm_theory.laws.gaussian_stage import GaussianStage
from arvdm_theory.laws.law import VideoLaw
from arvdm_theory.laws.state_space import StateSpace
from arvdm_theory.plan.plan import Plan

__all__ = ["RecursiveStages", "recursive_form"]

# A score is taken to move with the video if its map is the same, to this part of it, these many AR steps later.
_SAME_MAP = 1e-9
_LATER = (1, 2, 3, 5, 16, 61)


def recursive_form(video: VideoLaw, plan: Plan) -> StateSpace | str:
    """The state space on which the ledger of the plan is a recursion, or why there is none."""
    form = video.state_space_form()
    if form is None:
        return f"the video {video.name!r} is not known to be a linear state space"
    if plan.references.reused:
        return "references that keep their noise are states of their own"
    if plan.references.reach is None:
        return "'every' and 'all' refer to ever more frames"
    try:
        form.at_level(plan.floor).block(plan.stride).riccati()
    except NotPositiveDefiniteError:
        return f"the state of the video {video.name!r} determines the next frame"
    return form


@dataclass(frozen=True, eq=False)
class RecursiveStages:
    """All stages of a plan on a state space: those before the pattern, and the local ones.

    Attributes:
        question: with a score that is not bound to the video, so that local videos may be asked for it.
        pattern: the plan on the video.
        before: the laws of the initialisation and of the AR steps before the pattern.
        locals_: what each different AR step in the pattern sees; later ones are as the last one.
        stages: the laws of these.
        scores: as these call the score.
    """

    question: Question
    pattern: Pattern
    before: list[GaussianStage]
    locals_: list[Local]
    stages: list[GaussianStage]
    scores: list[Any]

    @classmethod
    def of(cls, question: Question, form: StateSpace, count: int) -> RecursiveStages | str:
        """The stages of ``count`` AR steps of the pattern, or why there are none."""
        score = _unbound(question.score, question.video)
        question = dataclasses.replace(question, score=score)
        video: Any = question.video
        pattern = Pattern(video, form, question.plan, question.ar_grid)
        before: list[Any] = [question.law(k) for k in range(pattern.begin)]
        no_law = "the score is not affine in (window, references): its rollout has no closed-form law"
        if any(stage.affine_map(score) is None for stage in before):
            return no_law
        locals_, stages, scores = [], [], []
        for later, local in zip(range(count), pattern.laws(), strict=False):
            locals_.append(local)
            stages.append(local.video.at(pattern.stage))
            scores.append(pattern.score(score, later))
            if stages[-1].affine_map(scores[-1]) is None:
                return no_law
        found = cls(question, pattern, before, locals_, stages, scores)
        return found if found._moves_along(score, count) else "the score is not the same at every AR step"

    def _moves_along(self, score: Any, count: int) -> bool:
        """Whether a callable has the last stage's map in later AR steps too, as far as some of them tell."""
        last, begin = self.stages[-1], len(self.stages) - 1
        own = last.affine_map(self.scores[-1])
        assert own is not None
        if hasattr(score, "affine"):
            return True
        with torch.no_grad():
            for later in [begin + n for n in _LATER if begin + n < count]:
                other = last.affine_map(self.pattern.score(score, later))
                if other is None:
                    return False
                for mine, theirs in ((own.window, other.window), (own.known, other.known), (own.bias, other.bias)):
                    if mine.numel() and not _near(mine, theirs):
                        return False
        last.affine_map(self.scores[-1])
        return True

    def errors(self) -> tuple[list[StageErrors], list[StageErrors]]:
        """The errors of the stages before the pattern, and of the local ones."""
        truths = list(self.question.truths())
        local = [
            stage_errors(dataclasses.replace(self.question, score=own, progress=False), [stage], truths)[0]
            for stage, own in zip(self.stages, self.scores, strict=True)
        ]
        return stage_errors(self.question, self.before, truths), local

    def sampler(self) -> tuple[SamplerFilter, list[Kernel]]:
        """The sampler before the pattern, and its kernels in it."""
        plan, asked = self.pattern.plan, self.question

        def kernel(law: GaussianStage, own: Any) -> Kernel:
            found = law.kernel(own, asked.reverse)
            assert found is not None
            return found

        first = kernel(self.before[0], asked.score)
        law = SamplerLaw.initial(plan, first, self.pattern.video.frame_dim, levels=asked.entry)
        for stage in self.before[1:]:
            law = law.advance(plan, stage.stage, kernel(stage, asked.score))
        kernels = [kernel(stage, own) for stage, own in zip(self.stages, self.scores, strict=True)]
        return SamplerFilter(self.pattern, law), kernels


def _near(first: Tensor, second: Tensor) -> bool:
    return float((first - second).abs().max()) <= _SAME_MAP * float(first.abs().max())


def _unbound(score: Any, video: Any) -> Any:
    """The exact or perturbed score of this very video, as one of whatever law it is asked about."""
    if isinstance(score, PerturbedScore):
        return dataclasses.replace(score, base=_unbound(score.base, video))
    if isinstance(score, ExactScore) and score.video is video:
        return dataclasses.replace(score, video=None)
    return score
