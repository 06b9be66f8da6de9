"""The memory bottleneck and the noise initialisation against other routes to the same information."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from reference_cases import PLANS, ar1, random_video, table_video
from torch import Tensor

from arvdm_theory import ArrayVideo, Plan, References, memory_bottleneck
from arvdm_theory.information.gaussian import conditional_mutual_information, kl_divergence
from arvdm_theory.laws.gaussian_window import WindowLaw
from arvdm_theory.laws.states import State

REFERENCES = {
    "none": References.none(),
    "last 1": References.last(1),
    "last 3": References.last(3),
    "last 3 + first": References.last(3) + References.first(1),
    "all": References.all(),
}


def bottleneck(plan: Plan, ar_step: int, covariance: np.ndarray | None = None, noised: bool = True) -> float:
    given = table_video(plan.total_frames(ar_step)) if covariance is None else covariance
    found = memory_bottleneck(
        ArrayVideo(given, 2 if covariance is None else 1), plan, ar_step, clean_references=not noised
    )
    assert found.is_exact
    return float(found)


def chunks(references: References, floor: float = 0.0) -> Plan:
    return Plan((6.0, 6.0), 2, 6.0, 2, 2, references=references, floor=floor)


# -- what memory does ---------------------------------------------------------------------------------


def test_more_references_leave_less_of_a_bottleneck() -> None:
    values = [bottleneck(chunks(references), 4) for references in REFERENCES.values()]
    assert all(low > high for low, high in pairwise(values))
    assert values[-1] == 0.0  # nothing is out that is not a reference


def test_a_markov_video_needs_one_reference() -> None:
    covariance = ar1(10, 0.9)
    assert bottleneck(chunks(References.last(1)), 4, covariance) == pytest.approx(0, abs=1e-15)
    assert bottleneck(chunks(References.none()), 4, covariance) == pytest.approx(
        -0.5 * np.log1p(-(0.9**2)), rel=1e-12
    )
    # Stopped at δ > 0 it is hidden-Markov, and one reference is not enough; nor is a noised one.
    assert bottleneck(chunks(References.last(1), floor=0.1), 4, covariance) > 1e-3
    assert bottleneck(chunks(References.last(1, 0.1)), 4, covariance) > 1e-3


def test_noise_on_references_hides_the_past_up_to_all_of_it() -> None:
    levels = (0.0, 0.01, 0.1, 0.5, 2.0, 8.0, 30.0)
    values = [bottleneck(chunks(References.last(3, level)), 4) for level in levels]
    assert all(low < high for low, high in pairwise(values))
    without = bottleneck(chunks(References.none()), 4)
    # What is left of a reference at level ρ has signal-to-noise e^{-ρ}: its information is of that order.
    assert values[-1] == pytest.approx(without, rel=1e-11)
    for level in levels:
        plan = chunks(References.last(3, level))
        assert bottleneck(plan, 4, noised=False) == pytest.approx(values[0], rel=1e-12)


def test_the_bottleneck_is_the_average_gain_in_the_score() -> None:
    """MB = I(X^T_new; Past | R) + ½ Σ_j ∫_0^T E‖s*_j(W | R, Past) - s*_j(W | R)‖² dt for chunks.

    The two scores' mean square distance is the difference of their traces of precision, because the one given
    more averages to the other; with Past among the references it is the score of another plan.
    """
    video = ArrayVideo(table_video(10), 2)
    some, all_of_it = (
        video.at(chunks(references).stage(4)).window for references in (References.last(1), References.all())
    )
    nodes, weights = np.polynomial.legendre.leggauss(60)
    # Levels t = e^y - c spread the nodes towards level 0, where the integrand has its poles at t = -λ.
    c = float(torch.linalg.eigvalsh(all_of_it.covariance).min())
    low, high = np.log(c), np.log(6 + c)
    y = (high - low) / 2 * (nodes + 1) + low
    levels = torch.from_numpy(np.exp(y) - c)[:, None].expand(-1, 2)

    def trace(law: WindowLaw) -> Tensor:
        precision = torch.linalg.inv(law.covariance_at(levels)[:, 0])
        return torch.diagonal(precision, dim1=-2, dim2=-1).sum(-1)

    gain = (trace(all_of_it) - trace(some)).numpy()
    integral = float(np.sum(weights * (high - low) / 2 * np.exp(y) * gain))
    _, joint = video.joint([State(8, 6.0), State(9, 6.0), *(State(f, 0.0) for f in range(8))])
    at_top = conditional_mutual_information(joint[0], range(4), range(4, 18), range(18, 20))
    assert bottleneck(chunks(References.last(1)), 4) == pytest.approx(float(at_top) + integral / 2, rel=1e-9)


# -- what counts as output ----------------------------------------------------------------------------


def joint_information(plan: Plan, ar_step: int, out: list[State], past: list[State], given: list[State]) -> float:
    covariance, mean = random_video(plan.total_frames(ar_step), 1, 0)
    _, joint = ArrayVideo(covariance, 1, mean).joint([*out, *past, *given])
    a, b = len(out), len(out) + len(past)
    return float(conditional_mutual_information(joint[0], range(a), range(a, b), range(b, b + len(given))))


def test_a_new_frame_that_waits_at_pure_noise_is_an_output() -> None:
    """It is not part of the input, so what it shares with the past counts, however little that is at T."""
    plan = PLANS["frames that wait"]
    covariance, _ = random_video(plan.total_frames(3), 1, 0)
    found = bottleneck(plan, 3, covariance)
    # Window frames 3, 4, 5 enter at 2, 4, 4 and leave at 0, 2, 4; frame 5 is new and does not move.
    given = [State(2, 2.0), State(3, 4.0)]
    past = [State(0, 0.0), State(1, 0.0)]
    both = joint_information(plan, 3, [State(2, 0.0), State(3, 2.0), State(4, 4.0)], past, given)
    moved = joint_information(plan, 3, [State(2, 0.0), State(3, 2.0)], past, given)
    assert found == pytest.approx(both, rel=1e-11)
    assert both - moved > 1e-5 * both


def test_an_old_frame_that_waits_is_no_output() -> None:
    """It is part of the input already: a frame cannot be on both sides."""
    plan = Plan(
        (0.0, 2.0, 4.0), 1, 4.0, 2, 2,
        output_levels=(0.0, 0.0, 2.0), ar_grid=((0.0, 2.0, 4.0), (0.0, 1.0, 3.0), (0.0, 0.0, 2.0)),
    )  # fmt: skip
    covariance, _ = random_video(plan.total_frames(3), 1, 0)
    given = [State(2, 0.0), State(3, 2.0)]
    past = [State(0, 0.0), State(1, 0.0)]
    expected = joint_information(plan, 3, [State(3, 0.0), State(4, 2.0)], past, given)
    assert bottleneck(plan, 3, covariance) == pytest.approx(expected, rel=1e-11)


@pytest.mark.parametrize("floor", [0.0, 0.05])
def test_freshly_noised_references_share_the_noise_of_their_frames_only_up_to_the_floor(floor: float) -> None:
    plan = chunks(References.last(2, 0.4), floor)
    covariance, _ = random_video(plan.total_frames(3), 1, 0)
    out = [State(6, floor), State(7, floor)]
    past = [State(frame, floor) for frame in range(6)]
    given = [State(frame, 0.4, path=1, parting=floor) for frame in (4, 5)]
    expected = joint_information(plan, 3, out, past, given)
    assert bottleneck(plan, 3, covariance) == pytest.approx(expected, rel=1e-11)


# -- noise initialisation -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["chunks, mixed references, floor", "rolling, noised references, floor", "enters clean"]
)
def test_noise_initialisation_is_information_and_a_divergence(name: str) -> None:
    """E KL(P(X^T_new | In) ‖ N(0, I)) = I(X^T_new; In) + KL(P(X^T_new) ‖ N(0, I))."""
    plan = PLANS[name]
    covariance, mean = random_video(plan.total_frames(3), 1, 1)
    video = ArrayVideo(covariance, 1, mean)
    found = float(video.at(plan.stage(3)).start_divergence())
    frames = list(plan.window_frames(3))
    kept, new = frames[: -plan.stride], frames[-plan.stride :]
    states = [State(frame, plan.horizon) for frame in new]
    states += [State(frame, plan.input_levels[j]) for j, frame in enumerate(kept)]
    for r in plan.references_at(3):
        fresh = r.level > plan.floor
        states.append(State(r.frame, r.level, path=1, parting=plan.floor) if fresh else State(r.frame, plan.floor))
    centre, joint = video.joint(states)
    n = len(new)
    zero, eye = torch.zeros(1, n, dtype=torch.float64), torch.eye(n, dtype=torch.float64)[None]
    divergence = kl_divergence(centre[:, :n], joint[:, :n, :n], zero, eye)
    information = conditional_mutual_information(joint, range(n), range(n, len(states)), [])
    assert found == pytest.approx(float(information + divergence), rel=1e-10)
