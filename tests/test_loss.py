"""Times, weights and losses against integrals that are known."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from scipy.stats import beta, kstest

import fpflow
from fpflow._blocks import block_mean
from known import OU, PROCESSES, LinearScore, Stretch, mixture

KEY = jr.key(9)
GAUSSIAN = fpflow.datasets.GaussianMixture([[0.5, -0.2]], 0.3)


@pytest.mark.parametrize(
    "times", [fpflow.UniformTime(), fpflow.NoiseRatioTime()], ids=["uniform", "ratio"]
)
@pytest.mark.parametrize("process", [*PROCESSES.values(), Stretch()], ids=[*PROCESSES, "stretch"])
def test_weighted_times_integrate(times, process):
    """The mean of weight * h(t) is the mean of h over time, here h = 1 + t^2 and h = sigma^-1/2."""
    t, weight = times.sample(process, jr.key(0), 20_000)
    t0, t1 = process.t0, process.t1
    expected = 1 + (t1**3 - t0**3) / (3 * (t1 - t0))
    # Stratified: the error is that of a midpoint rule with 20,000 nodes, jittered.
    np.testing.assert_allclose(jnp.mean(weight * (1 + t**2)), expected, rtol=2e-3)
    fine = t0 + (t1 - t0) * ((jnp.arange(200_000) + 0.5) / 200_000) ** 2
    inverse = jax.vmap(lambda t: process.transition(t, jnp.zeros(1))[1] ** -0.5)
    spacing = 2 * jnp.sqrt((fine - t0) / (t1 - t0))
    np.testing.assert_allclose(
        jnp.mean(weight * inverse(t)), jnp.mean(spacing * inverse(fine)), rtol=0.02
    )


def test_times_have_their_densities():
    """Kolmogorov--Smirnov; stratified draws lie within 1/n of their law, so the statistic is tiny."""
    n = 4000
    t, _ = fpflow.BetaTime(2.0, offset=0.0).sample(OU, jr.key(0), n)
    assert kstest(t / 10, beta(1, 2).cdf).statistic <= 1.001 / n
    t, _ = fpflow.NoiseRatioTime().sample(OU, jr.key(1), n)
    ell = np.log(np.expm1(2 * np.asarray(t)))
    low, high = np.log(np.expm1(2e-5)), np.log(np.expm1(20.0))
    assert kstest((ell - low) / (high - low), "uniform").statistic <= 1.001 / n


@pytest.mark.parametrize(
    "times", [fpflow.UniformTime(), fpflow.BetaTime(), fpflow.NoiseRatioTime()]
)
def test_the_last_stratum_does_not_round_beyond_the_end(times, monkeypatch):
    """The largest draw below one; a compiled 1 - (499 + u)/500 is negative there without a bound."""

    def compiled(u):
        with monkeypatch.context() as patch:
            patch.setattr(jr, "uniform", lambda key, shape: jnp.broadcast_to(u, shape))
            return times.sample(OU, jr.key(0), 500)

    with jax.enable_x64(False):
        t, weight = jax.jit(compiled)(np.nextafter(np.float32(1), np.float32(0)))
    # Draws at the end and offset, to the rounding of single precision.
    np.testing.assert_allclose(t[-1], OU.t1, rtol=2e-6)
    assert np.isfinite(weight).all()


def test_score_matching_loss_of_a_gaussian():
    """For s = -A x and x_t ~ N(m, v I): E|s - k|^2 = |A m|^2 + v tr(A A^T) - 2 tr A + d / sigma^2."""
    matrix = jnp.array([[1.4, 0.3], [-0.2, 0.9]])
    times = fpflow.NoiseRatioTime(offset=0.05)
    loss = fpflow.DenoisingScoreMatching(factor=0.5)
    batch = fpflow.Noising(times, pairs=False)(OU, GAUSSIAN, 200_000, key=jr.key(0))
    value = loss(LinearScore(matrix), OU, batch, key=KEY)
    t = jnp.linspace(0.05, 10, 200_001)
    mean = jnp.exp(-t)[:, None] * jnp.array([0.5, -0.2])
    noise = -jnp.expm1(-2 * t) / 2
    v = jnp.exp(-2 * t) * 0.3 + noise
    at = (mean @ matrix.T) ** 2
    square = at.sum(1) + v * jnp.sum(matrix**2) - 2 * jnp.trace(matrix) + 2 / noise
    # The weights are those of a mean over all of [0, 10], of which times start at 0.05.
    expected = 0.5 * jnp.trapezoid(square, t) / 10
    np.testing.assert_allclose(value, expected, rtol=0.01)


def test_factor_and_weighting_multiply():
    batch = fpflow.Noising(fpflow.UniformTime())(OU, GAUSSIAN, 64, key=jr.key(0))
    model = LinearScore(jnp.eye(2))
    one = fpflow.DenoisingScoreMatching(factor=1.0)(model, OU, batch, key=KEY)
    half = fpflow.DenoisingScoreMatching(factor=0.5, weighting=lambda process, t: jnp.array(3.0))(
        model, OU, batch, key=KEY
    )
    np.testing.assert_allclose(half, 1.5 * one, rtol=1e-12)


def test_excess_loss_differs_by_the_squared_distance_of_the_scores():
    """E g^2(|s|^2 - 2 s k) of s minus that of the exact score is E g^2 |s - exact|^2."""
    law = mixture(2)
    exact = law.marginal(OU)

    class Off(eqx.Module):
        def score(self, t, x):
            return exact.score(t, x) + jnp.array([0.3, -0.1]) * jnp.exp(-t)

    n = 2**15
    off = fpflow.excess_loss(Off(), OU, law, num_points=n, key=jr.key(0))
    best = fpflow.excess_loss(exact, OU, law, num_points=n, key=jr.key(0))
    # |(0.3, -0.1)|^2 times the mean of exp(-2 t) over [0, 10].
    expected = 0.1 * 0.05 * -np.expm1(-20)
    paired = fpflow.excess_loss(Off(), OU, law, reference=exact, num_points=n, key=jr.key(0))
    np.testing.assert_allclose(paired.value, off.value - best.value, atol=1e-9)
    assert abs(paired.value - expected) < 5 * paired.standard_error
    assert paired.standard_error < off.standard_error / 10
    # The best value is minus the mean of g^2 |exact score|^2; both routes are Monte Carlo.
    batch = fpflow.Noising(pairs=False)(OU, law, n, key=jr.key(1))
    terms = batch.weight * jnp.sum(jax.vmap(exact.score)(batch.t, batch.x) ** 2, 1)
    error = np.hypot(best.standard_error, float(terms.std()) / n**0.5)
    assert abs(best.value + float(terms.mean())) < 5 * error


class AtTime(fpflow.AbstractTimes):
    t: float

    def sample(self, process, key, n):
        return jnp.full(n, self.t), jnp.ones(n)


def test_pairs_leave_the_mean_and_shrink_the_noise_of_the_gradient():
    """The gradient in A of s = -A x at small sigma: its error has one order of sigma more."""
    model, data = LinearScore(jnp.array([[2.5]])), fpflow.datasets.GaussianMixture([[0.0]], 0.5)
    shares = []
    for t in (1e-2, 1e-4):
        spread = []
        for pairs in (False, True):
            noising, loss = fpflow.Noising(AtTime(t), pairs), fpflow.DenoisingScoreMatching()

            def slope(key, noising=noising, loss=loss):
                batch = noising(OU, data, 64, key=key)
                return jax.grad(lambda m: loss(m, OU, batch, key=KEY))(model).matrix[0, 0]

            slopes = jax.jit(jax.vmap(slope))(jr.split(jr.key(0), 2000))
            # E (s - k) ds/dA = A E x^2 - 1 with E x^2 = 1/2: the stationary law.
            error = slopes.std(ddof=1) / 2000**0.5
            assert abs(slopes.mean() - 0.25) < 5 * error
            spread.append(slopes.std(ddof=1))
        shares.append(spread[1] / spread[0])
    assert shares[0] < 0.5 and 5 < shares[0] / shares[1] < 20


def test_an_odd_batch_of_pairs_has_its_size():
    data = fpflow.datasets.GaussianMixture([[0.0]], 0.5)
    batch = fpflow.Noising()(OU, data, 7, key=jr.key(0))
    assert batch.x.shape == (7, 1)
    np.testing.assert_array_equal(batch.noise[4:], -batch.noise[:3])
    np.testing.assert_array_equal(batch.t[4:], batch.t[:3])


def test_penalties_are_means_of_the_squared_residual():
    """Both against the same mean taken point by point, and the uniform one against R itself."""
    model = fpflow.PotentialMLP(2, width=8, key=jr.key(0))
    batch = fpflow.Noising(pairs=False)(OU, GAUSSIAN, 512, key=jr.key(1))
    r = jax.vmap(lambda t, x: fpflow.log_fp_residual(model, OU, t, x))(batch.t, batch.x)
    for weighting, weight in (
        (fpflow.no_weighting, 1.0),
        (fpflow.noise_weighting, np.expm1(-2 * batch.t) / np.expm1(-20.0)),
    ):
        penalty = fpflow.FokkerPlanck(num_points=512, weighting=weighting)
        value = penalty(model, OU, batch, key=jr.key(2))
        np.testing.assert_allclose(value, jnp.mean(weight * batch.weight * r**2), rtol=1e-12)
    default = fpflow.FokkerPlanck(num_points=512)(model, OU, batch, key=jr.key(2))
    assert default == value
    norm = fpflow.residual_norm(model, OU, num_times=1024, points_per_time=16, key=jr.key(3))
    penalty = fpflow.UniformFokkerPlanck(num_points=4000)
    values = [penalty(model, OU, batch, key=jr.key(k)) for k in range(8)]
    error = np.hypot(norm.standard_error, np.std(values, ddof=1) / 8**0.5)
    assert abs(np.mean(values) - norm.value) < 5 * error


@pytest.mark.parametrize("rows", [24, 26], ids=["divided", "with a rest"])
def test_a_mean_in_blocks_is_the_mean_and_so_is_its_gradient(rows):
    with jax.enable_x64(True):
        model = fpflow.PotentialMLP(2, width=5, depth=1, key=jr.key(0))
        model = jax.tree.map(lambda a: a.astype(float) if eqx.is_array(a) else a, model)
        x, keys = jr.normal(jr.key(1), (rows, 2)), jr.split(jr.key(2), rows)

        def terms(model, rows):
            x, keys = rows
            shift = jax.vmap(lambda key: jr.normal(key, (2,)))(keys)
            return jnp.sum(model.score(0.3, x + shift) ** 2, axis=1)

        def mean(model, size):
            return 3 * block_mean(terms, model, (x, keys), size)

        whole = eqx.filter_value_and_grad(mean)(model, rows)
        parts = eqx.filter_jit(eqx.filter_value_and_grad(mean))(model, 8)
        # Sums of 26 terms in another order, in double precision.
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), whole, parts)
        assert float(mean(model, 8)) == pytest.approx(float(whole[0]), rel=1e-12)
