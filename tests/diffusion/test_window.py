"""The law of a stage's window, and its scores, against dense joint laws and the masked regression written out."""

import numpy as np
import pytest
import torch
from dense_reference import conditional, exact_score, true_laws, walk
from reference_cases import MORE_PLANS, PLANS, random_video
from torch import Tensor

from arvdm_theory import ArrayVideo, GaussianVideo, Plan, References
from arvdm_theory.information.gaussian import NotPositiveDefiniteError
from arvdm_theory.laws.gaussian_window import AffineMap, WindowLaw

EVERY_PLAN = {**PLANS, **MORE_PLANS}


def laws(plan: Plan, ar_steps: int, seed: int) -> tuple[WindowLaw, list[WindowLaw], np.ndarray, np.ndarray]:
    covariance, mean = random_video(plan.total_frames(ar_steps), 2, seed)
    video = ArrayVideo(covariance, 2, mean)
    init, *steps = [video.at(stage).window for stage in plan.stages(ar_steps)]
    return init, steps, covariance, mean


def close(found: Tensor, expected: np.ndarray) -> None:
    """Regressions and inverses of covariances of condition number below 1e3 keep twelve digits."""
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", EVERY_PLAN)
def test_laws_and_scores_are_those_of_the_joint_law(name: str) -> None:
    plan = EVERY_PLAN[name]
    init, steps, covariance, mean = laws(plan, 3, 0)
    tour = walk(plan, 3)
    p, p_init = true_laws(covariance, mean, 2, plan, tour)
    moves = [
        (init, p_init, tour.init_moves),
        *((law, p, ar.moves) for law, ar in zip(steps, tour.steps, strict=True)),
    ]
    for law, dense, stage in moves:
        assert law.steps == len(stage)
        assert tuple(law.stage.frames) == tuple(stage[0].frames)
        # A reference that is left as it came out stands at the plan's floor, not at 0.
        assert tuple(r.level for r in law.stage.references) == stage[0].reference_levels
        score, masked = law.raw(law.score), law.raw(law.masked_score)
        for m, move in enumerate(stage):
            _, _, cov = conditional(dense, move.before, move.references)
            close(law.covariance_at(law.levels[m])[0], cov)
            close(law.precision[m, 0], np.linalg.inv(cov))
            mask = None if move.stage == "init" else plan.visible_at(m, len(move.references))
            for found, expected in (
                (score, exact_score(dense, move.before, move.references)),
                (masked, exact_score(dense, move.before, move.references, mask)),
            ):
                on_window, on_refs, bias = (part[m, 0] for part in found)
                close(on_window, expected.window)
                close(on_refs, expected.references)
                close(bias, expected.offset)


def test_raw_and_centred_coordinates_are_inverse_to_each_other() -> None:
    plan = PLANS["chunks, mixed references, floor"]
    _, steps, _, _ = laws(plan, 3, 1)
    law = steps[-1]
    rng = np.random.default_rng(2)
    shape = (law.steps, 1, 4)
    given = [
        torch.from_numpy(rng.normal(size=size)) for size in ((*shape, 4), (*shape, law.gain.shape[-1]), shape)
    ]
    for found, expected in zip(law.raw(law.centred(*given)), given, strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-13)
    window, refs, bias = law.raw(law.identity)
    np.testing.assert_allclose(window[:, 0], np.broadcast_to(np.eye(4), (3, 4, 4)), atol=0)
    np.testing.assert_allclose(refs, 0, atol=1e-15)
    np.testing.assert_allclose(bias, 0, atol=1e-15)


def test_roots_give_second_moments_over_the_joint_law() -> None:
    """E f f^T = B B^T for f = E e + G r + b, against the joint covariance of (W, R) and the map in them."""
    plan = PLANS["rolling, noised references, floor"]
    _, steps, covariance, mean = laws(plan, 3, 3)
    law, tour = steps[-1], walk(plan, 3)
    p, _ = true_laws(covariance, mean, 2, plan, tour)
    rng = np.random.default_rng(4)
    n, r = 6, law.gain.shape[-1]
    parts = [torch.from_numpy(rng.normal(size=size)) for size in ((3, 1, n, n), (3, 1, n, r), (3, 1, n))]
    root = law.root(law.centred(*parts))
    for m, move in enumerate(tour.steps[-1].moves):
        given = (*move.before, *move.references)
        gain = np.hstack([parts[0][m, 0].numpy(), parts[1][m, 0].numpy()])
        average = gain @ p.mean(given) + parts[2][m, 0].numpy()
        expected = gain @ p.covariance(given) @ gain.T + np.outer(average, average)
        found = root[m, 0] @ root[m, 0].mT
        np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-11)


def test_the_score_averages_to_zero_and_pairs_with_the_state_to_minus_one() -> None:
    """E s* = 0 and E s* W^T = -I, for the exact score and, on the diagonal blocks, for a masked one."""
    plan = MORE_PLANS["a mask a step that reads references"]
    _, steps, _, _ = laws(plan, 3, 5)
    law = steps[-1]
    identity = law.root(law.identity)
    for affine, whole in ((law.score, True), (law.masked_score, False)):
        root = law.root(affine)
        np.testing.assert_allclose(root[..., -1], 0, atol=1e-12)
        product = (root @ identity.mT)[:, 0]
        expected = -torch.eye(4, dtype=torch.float64).expand(3, 4, 4)
        if not whole:
            blocks = torch.kron(torch.eye(2), torch.ones(2, 2)).to(product)
            product, expected = product * blocks, expected * blocks
        np.testing.assert_allclose(product, expected, rtol=0, atol=1e-11)


def test_without_a_mask_the_masked_score_is_the_score_itself() -> None:
    init, steps, _, _ = laws(PLANS["rolling"], 2, 6)
    for law in (init, *steps):
        assert law.masked_score is law.score
        assert isinstance(law.score, AffineMap)


def test_a_singular_reference_covariance_is_refused_by_name() -> None:
    class Still(GaussianVideo):
        """All frames alike."""

        frame_dim, multiplicity = 1, torch.ones(1, dtype=torch.float64)

        def mean(self, frames: int) -> Tensor:
            return torch.zeros(1, frames, dtype=torch.float64)

        def covariance(self, frames: int) -> Tensor:
            return torch.ones(1, frames, frames, dtype=torch.float64)

    plan = Plan((3.0,), 1, 3.0, 2, 2, references=References.last(2))
    with pytest.raises(NotPositiveDefiniteError, match=r"condition .* not positive definite: its smallest"):
        Still().at(plan.stage(2))
