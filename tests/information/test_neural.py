"""Neural estimates against closed forms, and against the same bounds evaluated with the true density ratio."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from arvdm_theory.information.estimators import EstimationWarning, SampleError
from arvdm_theory.information.estimators.critics import Critic, PairCritic, fit, normal_scores, split
from arvdm_theory.information.estimators.neural import (
    Training,
    neural_divergence,
    neural_information,
)
from arvdm_theory.information.estimators.variational import (
    Bound,
    second_part,
    warn_of_weights,
)
from arvdm_theory.number import Number

Array = NDArray[np.float64]

# Small trainings are stopped early on purpose; where the warning is the point, pytest.warns sees it all the same.
pytestmark = pytest.mark.filterwarnings("ignore::arvdm_theory.information.estimators.EstimationWarning")

SMALL = Training(folds=3, hidden=(16,), learning_rate=1e-2, epochs=80, patience=10, negatives=2)


def pair(n: int, seed: int, correlation: float = 0.6) -> tuple[Array, Array]:
    x, noise = np.random.default_rng(seed).normal(size=(2, n))
    return x, correlation * x + math.sqrt(1 - correlation**2) * noise


def log_ratio(x: Array, z: Array, correlation: float = 0.6) -> Array:
    """log p(x, z)/(p(x) p(z)) of two standard normal variables."""
    rest = 1 - correlation**2
    return -0.5 * math.log(rest) - (correlation**2 * (x**2 + z**2) - 2 * correlation * x * z) / (2 * rest)


PAIR_TRUTH = -0.5 * math.log(1 - 0.36)


def wide(n: int, seed: int) -> tuple[Array, Array]:
    """Samples of N(0.3, 1.2² I) and of N(0, I) in the plane."""
    rng = np.random.default_rng(seed)
    return 0.3 + 1.2 * rng.normal(size=(n, 2)), rng.normal(size=(n, 2))


def wide_log_ratio(u: Array) -> Array:
    result: Array = (-math.log(1.2) - (u - 0.3) ** 2 / (2 * 1.44) + u**2 / 2).sum(1)
    return result


WIDE_TRUTH = 2 * 0.5 * (1.44 + 0.09 - 1 - math.log(1.44))


# -- against the closed form ----------------------------------------------------------------------------


@pytest.mark.parametrize("objective", ["classifier", "dv", "nwj", "infonce"])
def test_information_within_its_error_of_the_truth(objective: str) -> None:
    """What a critic misses of 0.22 nats on 640 samples, about 0.01 (see below), is half a standard error here."""
    x, z = pair(1200, 5)
    found = neural_information(x, z, objective=objective, training=SMALL)
    assert found.n == 1200
    assert abs(found.value - PAIR_TRUTH) < 4 * found.stderr
    assert 0.01 < found.stderr < 0.03
    assert found.ci_high - found.value == pytest.approx(1.96 * found.stderr, rel=1e-3)
    assert found.method == f"neural-{objective}" + ("-dv" if objective == "classifier" else "")


@pytest.mark.parametrize("objective", ["classifier", "dv", "nwj"])
def test_divergence_within_its_error_of_the_truth(objective: str) -> None:
    p, q = wide(1200, 1)
    found = neural_divergence(p, q, objective=objective, training=SMALL)
    assert abs(found.value - WIDE_TRUTH) < 4 * found.stderr
    assert 0.01 < found.stderr < 0.05


def test_ten_seeds_follow_the_true_ratio_and_cover_the_truth() -> None:
    """On the same samples the held-out bound with the true log ratio is what a perfect critic would give.

    A critic with k parameters that matter loses about k/(2 n_train) nats (half its squared error): 5 for a
    quadratic form of two variables and as many again for a network make 10/(2 · 427) = 0.012.
    """
    gaps, scores = [], []
    for seed in range(10):
        x, z = pair(800, seed)
        found = neural_information(x, z, training=SMALL, seed=seed)
        shifted = [log_ratio(x, np.roll(z, s)) for s in range(50, 800, 50)]
        oracle = log_ratio(x, z).mean() - math.log(np.exp(shifted).mean())
        gaps.append(found.value - oracle)
        scores.append((found.value - PAIR_TRUTH) / found.stderr)
    assert -0.025 < np.mean(gaps) < 0.01
    # Σ z² of ten normal scores is below 35.6 but for 1e-4; 0.012 nats of bias are half a standard error of 0.024,
    # which adds 10/4.
    assert float(np.square(scores).sum()) < 38.1


def test_independent_samples_give_nothing() -> None:
    x, z = np.random.default_rng(2).normal(size=(2, 900, 2))
    found = neural_information(x, z, training=SMALL)
    assert abs(found.value) < 4 * max(found.stderr, 0.003)
    p, q = np.random.default_rng(3).normal(size=(2, 900, 1))
    assert abs(neural_divergence(p, q, training=SMALL).value) < 0.012


def test_a_dependence_without_correlation() -> None:
    """X normal, Z = B X + 0.3 N with a fair sign B, which no quadratic form knows; I = h(Z) - h(Z | X)."""
    rng = np.random.default_rng(0)
    n = 1500
    x = rng.normal(size=n)
    z = rng.choice([-1.0, 1.0], size=n) * x + 0.3 * rng.normal(size=n)
    grid = np.linspace(-8, 8, 1601)
    step = grid[1] - grid[0]

    def entropy(density: Array) -> Array:
        return -step * (density * np.log(np.maximum(density, 1e-300))).sum(-1)

    def normal(mean: Array | float, variance: float) -> Array:
        result: Array = np.exp(-((grid - mean) ** 2) / (2 * variance)) / math.sqrt(2 * math.pi * variance)
        return result

    given = (normal(grid[:, None], 0.09) + normal(-grid[:, None], 0.09)) / 2
    truth = float(entropy(normal(0.0, 1.09)) - step * (normal(0.0, 1.0) * entropy(given)).sum())
    found = neural_information(x, z, training=Training(folds=3, hidden=(32, 32), learning_rate=1e-2))
    # A network of 1200 parameters misses more than a quadratic form: up to a tenth of the value is allowed for.
    assert -0.1 * truth - 3 * found.stderr < found.value - truth < 3 * found.stderr
    assert truth > 0.5


def test_conditional_information_of_a_chain_and_of_a_common_cause() -> None:
    """X → Y → Z: I(X; Z | Y) = 0 though I(X; Z) is not. X + Z = Y but for noise: I(X; Z | Y) > 0 = I(X; Z)."""
    rng = np.random.default_rng(1)
    n = 1000
    x, a, b = rng.normal(size=(3, n))
    y = 0.8 * x + 0.6 * a
    chain = neural_information(x, 0.8 * y + 0.6 * b, y, training=SMALL)
    # Each critic misses 10/(2 · 533) = 0.01 nats (see above), about as much of either term.
    assert abs(chain.value) < 4 * chain.stderr + 0.01
    y = x + a + 0.5 * b
    # Cov(X, A | Y) by the Schur complement: variances 1 - 1/2.25, covariance -1/2.25.
    rho = (1 / 2.25) / (1 - 1 / 2.25)
    found = neural_information(x, a, y, training=SMALL)
    assert abs(found.value + 0.5 * math.log(1 - rho**2)) < 4 * found.stderr + 0.01


def test_rising_functions_of_the_columns_change_nothing() -> None:
    """Quantiles move with the columns; only the pieces between them bend, which moves the value little."""
    x, z = pair(900, 4, 0.8)
    plain = neural_information(x, z, training=SMALL)
    bent = neural_information(x**3, np.sinh(2 * z), training=SMALL)
    assert abs(bent.value - plain.value) < plain.stderr / 2


def test_autocorrelated_samples_have_larger_errors() -> None:
    """X and the noise of Z are AR(1) with 0.9: the same joint law, from far fewer independent samples."""
    rng = np.random.default_rng(0)
    n = 2000
    noise = rng.normal(size=(n, 2)) * math.sqrt(1 - 0.81)
    state = np.empty((n, 2))
    state[0] = rng.normal(size=2)
    for i in range(1, n):
        state[i] = 0.9 * state[i - 1] + noise[i]
    x, z = state[:, 0], 0.6 * state[:, 0] + 0.8 * state[:, 1]
    training = Training(folds=3, hidden=(16,), learning_rate=1e-2, epochs=40, negatives=2)
    naive = neural_information(x, z, training=training)
    blocks = neural_information(x, z, training=training, dependence="autocorrelated")
    assert blocks.stderr > 1.5 * naive.stderr
    assert abs(blocks.value - PAIR_TRUTH) < 4 * blocks.stderr


# -- the parts ------------------------------------------------------------------------------------------


def test_held_out_contributions_average_to_the_bounds() -> None:
    weights = np.random.default_rng(0).exponential(size=(40, 40))
    np.fill_diagonal(weights, 0)
    of_x, of_z, mean = weights.mean(1), weights.mean(0), weights.mean()
    assert second_part(of_x, "nwj", of_z).mean() == pytest.approx(1 - mean, rel=1e-12)
    assert second_part(of_x, "dv", of_z).mean() == pytest.approx(-math.log(mean), rel=1e-12)
    assert (second_part(of_x, "ratio", of_z) == 0).all()
    # The derivative by a sample's weight, against finite differences of the weighted bound.
    step, share = 1e-6, np.full(40, 1 / 40)
    for evaluation, bound in (("dv", lambda m: -math.log(m)), ("nwj", lambda m: 1 - m)):
        parts = second_part(of_x, evaluation, of_z)
        for i in (0, 17):
            moved = share * (1 - step)
            moved[i] += step
            slope = (bound(moved @ weights @ moved) - bound(share @ weights @ share)) / step
            assert parts[i] - parts.mean() == pytest.approx(slope, abs=1e-4)


def test_infonce_contributions_average_to_the_bound_and_stay_below_its_ceiling() -> None:
    rows = [pair(300, seed, 0.98) for seed in range(4)]
    x, z = (np.stack([row[side] for row in rows], 1) for side in (0, 1))
    training = Training(folds=3, hidden=(16,), learning_rate=1e-2, batch=64)
    with pytest.warns(EstimationWarning, match="the most that InfoNCE can return for held-out batches of 100"):
        found = neural_information(x, z, objective="infonce", training=training)
    assert 0.75 * math.log(100) < found.value < math.log(100) < -2 * math.log(1 - 0.98**2)


def test_every_row_is_held_out_once_and_never_seen_by_its_critic() -> None:
    for dependence in ("independent", "autocorrelated"):
        folds = split(103, Training(folds=4), dependence, np.random.default_rng(0))
        assert sorted(np.concatenate(folds.test).tolist()) == list(range(103))
        for k, rows in enumerate(folds.test):
            used = [*folds.train[k].tolist(), *folds.validation[k].tolist()]
            assert len(set(used)) == len(used)
            assert not set(used) & set(rows.tolist())
        if dependence == "autocorrelated":
            assert all((np.diff(rows) == 1).all() for rows in folds.test)


def test_a_sample_cannot_change_its_own_critic() -> None:
    """Changing the rows of one fold leaves the other rows' role in the scores of that fold untouched."""
    values = np.random.default_rng(0).normal(size=(90, 2))
    folds = split(90, Training(folds=3), "independent", np.random.default_rng(0))
    changed = values.copy()
    changed[folds.test[1]] += 100
    before, after = normal_scores(values, folds), normal_scores(changed, folds)
    rest = np.setdiff1d(np.arange(90), folds.test[1])
    assert torch.equal(before[1, rest], after[1, rest])
    assert not torch.equal(before[0, rest], after[0, rest])


def test_normal_scores() -> None:
    values = np.random.default_rng(0).standard_cauchy(size=(2000, 1))
    folds = split(2000, Training(folds=2), "independent", np.random.default_rng(0))
    scores = normal_scores(values, folds)
    assert scores.shape == (2, 2000, 1)
    assert float(scores.abs().max()) < 3.4
    order = values[:, 0].argsort()
    for k in (0, 1):
        assert bool((scores[k, order, 0].diff() >= 0).all())
        assert abs(float(scores[k].std()) - 1) < 0.05
    # A column of two values has two scores.
    assert len(normal_scores((values > 0).astype(float), folds)[0].unique()) == 2


def test_critics_of_all_folds_are_trained_as_if_alone() -> None:
    """Two folds at once give what each gives by itself: Adam, clipping and stopping work a fold each."""
    training = Training(folds=2, hidden=(8,), epochs=12, patience=50, batch=32)
    inputs = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 64, 3))).float()
    target = inputs.sum(-1) + torch.tensor([[0.0], [3.0]])
    rows = torch.arange(64).expand(2, 64)

    def trained(folds: slice) -> Critic:
        critic = Critic(2, 3, training, torch.Generator().manual_seed(1))
        part = Critic(len(range(2)[folds]), 3, training, torch.Generator().manual_seed(1))
        for mine, whole in zip(part.parameters(), critic.parameters(), strict=True):
            mine.data = whole.data[folds].clone()

        def loss(critic: Critic, picked: list[torch.Tensor]) -> torch.Tensor:
            # Every row at every step, so that the order of the rows makes no difference.
            return ((critic(inputs[folds]) - target[folds]) ** 2).mean(-1)

        return fit(part, loss, lambda c: loss(c, []), [rows[folds]], training, torch.Generator().manual_seed(0))[0]

    both = trained(slice(0, 2))
    for k in (0, 1):
        alone = trained(slice(k, k + 1))
        for mine, theirs in zip(alone.parameters(), both.parameters(), strict=True):
            # float32 sums of 64 terms in another order, over 24 steps
            torch.testing.assert_close(mine[0], theirs[k], rtol=1e-3, atol=1e-4)


def test_pair_critics_see_every_pair() -> None:
    generator = torch.Generator().manual_seed(0)
    critic = PairCritic(2, (3, 1), Training(hidden=(8,)), generator)
    x, z = torch.randn(2, 5, 3, generator=generator), torch.randn(2, 4, 1, generator=generator)
    assert bool((critic(x, z) == 0).all())
    with torch.no_grad():
        for parameter in critic.parameters():
            parameter.uniform_(-1, 1, generator=generator)
    matrix = critic(x, z)
    assert matrix.shape == (2, 5, 4)
    torch.testing.assert_close(critic(x[1:, 3:4], z[1:, 2:3], slice(1, 2))[0, 0, 0], matrix[1, 3, 2])


def test_the_gradient_of_donsker_varadhan_uses_the_running_mean() -> None:
    """MINE: the gradient's denominator is the running mean of E_Q e^f, not the batch's own."""
    bound = Bound("dv", 1, 100, "cpu")
    on_q = torch.tensor([[1.0, 2.0]], requires_grad=True)
    bound.step(torch.zeros(1, 3), on_q).sum().backward()
    batch = float(torch.exp(on_q.detach()).mean())
    running = 0.95 + 0.05 * batch
    assert float(bound.log_mean.exp()) == pytest.approx(running, rel=1e-6)
    assert on_q.grad is not None
    assert on_q.grad[0].tolist() == pytest.approx([math.e / 2 / running, math.e**2 / 2 / running], rel=1e-6)
    assert bound.most == pytest.approx(math.log(100))
    assert Bound("classifier", 1, 100, "cpu").most == math.inf


def test_critics_are_bounded_where_the_objective_is_not() -> None:
    critic = Critic(1, 2, Training(hidden=(4,)), torch.Generator().manual_seed(0), most=5.0)
    with torch.no_grad():
        critic.quadratic.fill_(10.0)
    values = critic(torch.tensor([[[3.0, 3.0], [0.01, 0.0]]]))
    assert values[0].tolist() == pytest.approx([5.0, 0.001], rel=1e-3)


# -- reproducibility, warnings, refusals ----------------------------------------------------------------


def run(n: int = 120, seed: int = 0, **options: object) -> Number:
    x, z = pair(n, 0)
    return neural_information(x, z, seed=seed, training=Training(folds=2, hidden=(4,), epochs=2), **options)


def test_a_seed_decides_everything_and_global_generators_are_left_alone() -> None:
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    first = run()
    torch.manual_seed(99)
    assert run().value == first.value
    assert run(seed=1).value != first.value
    assert run(objective="infonce").value == run(objective="infonce").value
    p, q = wide(120, 0)
    again = [neural_divergence(p, q, training=Training(folds=2, hidden=(4,), epochs=2)) for _ in range(2)]
    assert again[0].ends() == again[1].ends()
    torch.set_rng_state(torch_state)
    run()
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert (np.random.get_state()[1] == numpy_state).all()  # noqa: NPY002


def test_warns_of_what_makes_an_estimate_unsure() -> None:
    with pytest.warns(EstimationWarning, match="still improving after 2 epochs"):
        assert len(run().warnings) == 1
    with (
        pytest.warns(EstimationWarning, match="20 held-out samples a fold are few"),
        pytest.warns(EstimationWarning, match="still improving"),
    ):
        run(n=40)
    x, _ = pair(200, 0)
    with (
        pytest.warns(EstimationWarning, match="1 of 2 columns"),
        pytest.warns(EstimationWarning, match="still improving"),
    ):
        neural_information(x, 2 * x, training=Training(folds=2, hidden=(4,), epochs=2))


def test_warns_of_an_exponential_average_that_few_samples_make() -> None:
    weights = np.ones(1000)
    assert warn_of_weights(0.5, weights, "dv") == []
    (ceiling,) = warn_of_weights(5.5, weights, "dv")
    assert "near log n = 6.91" in ceiling
    weights[0] = 500.0
    (note,) = warn_of_weights(0.5, weights, "dv")
    # (999 + 500)²/(999 + 500²)
    assert "rests on the weight of 9.0 of 1000 samples" in note
    assert warn_of_weights(0.5, weights, "ratio") == []
    weights[0] = math.inf
    with np.errstate(invalid="ignore"):
        assert len(warn_of_weights(0.5, weights, "nwj")) == 1


def test_refuses_what_is_no_estimate() -> None:
    p, q = wide(50, 0)
    with pytest.raises(SampleError, match="same dimension, got 2 and 1"):
        neural_divergence(p, q[:, :1])
    with pytest.raises(SampleError, match="NaN or infinite values in 1 of 50 rows"):
        neural_divergence(np.where(np.arange(50)[:, None] == 7, np.nan, p), q)
    with pytest.raises(SampleError, match="trained by 'classifier', 'dv' or 'nwj', got 'mine'"):
        neural_divergence(p, q, objective="mine")
    with pytest.raises(SampleError, match="evaluated by 'dv', 'nwj' or 'ratio', got 'jsd'"):
        neural_information(p, q, evaluation="jsd")
    with pytest.raises(SampleError, match="InfoNCE is evaluated by itself, not by 'dv'"):
        neural_information(p, q, objective="infonce", evaluation="dv")
    with pytest.raises(SampleError, match="same number in each: x has 50, z has 49"):
        neural_information(p, q[1:])
    with pytest.raises(SampleError, match="8 samples are too few for 5 folds"):
        neural_divergence(p[:8], q[:8])
    for options, message in (
        ({"folds": 1}, "at least 2 folds, got 1"),
        ({"validation": 1.0}, "validation share lies between 0 and 1, got 1.0"),
        ({"epochs": 0}, "at least 1 as epochs, got 0"),
        ({"hidden": (4, 0)}, "at least 1 as width of a hidden layer, got 0"),
        ({"learning_rate": 0.0}, "learning rate must be positive"),
    ):
        with pytest.raises(SampleError, match=message):
            Training(**options)
