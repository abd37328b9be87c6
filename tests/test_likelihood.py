"""Both log densities against closed forms, each other's identities, and the grid."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from jax.scipy.stats import multivariate_normal

import fpflow
from fpflow._likelihood.average import MeanOfLogs, MeanOfWeights, UnitMean, UnitSums
from fpflow._likelihood.sde import check_found
from fpflow._likelihood.units import Budget, Found
from known import (
    KINDS,
    OU,
    LinearScore,
    WithoutPotential,
    in_double,
    linear_laws,
    mixture,
    without_mismatch,
)

# At T = 20 the prior is the law of noised data to e^-20 = 2e-9.
LONG = fpflow.OrnsteinUhlenbeck(t1=20.0)
NETWORK = fpflow.load(__file__.replace("test_likelihood.py", "networks/mixture.fpflow")).model


class LinearPotential(LinearScore):
    """The same wrong score as the gradient of -x A x / 2."""

    def potential(self, t, x):
        del t
        return -x @ self.matrix @ x / 2


def wrong(dim, potential=True):
    """A score a few per cent off the prior's, -2 x, with axes of its own."""
    rng = np.random.default_rng(dim)
    tilt = 0.05 / dim * rng.normal(size=(dim, dim))
    matrix = jnp.asarray(2 * np.eye(dim) + tilt + tilt.T)
    return (LinearPotential if potential else LinearScore)(matrix)


@pytest.mark.parametrize("dim", [1, 2, pytest.param(5, marks=pytest.mark.slow)])
def test_log_prob_ode_of_an_exact_score(dim):
    law = mixture(dim)
    x = law.sample(jr.key(1), 20)
    result = fpflow.log_prob_ode(law.marginal(LONG), LONG, x)
    exact = jax.vmap(law.log_prob)(x)
    # The promise for double precision; the solver's tolerance is 1e-9.
    np.testing.assert_allclose(result.value, exact, atol=1e-6)
    assert (result.standard_error == 0).all() and (result.num_steps > 5).all()
    assert (result.solver_error < 1e-6).all()


@pytest.mark.parametrize("dim", [1, 2, pytest.param(5, marks=pytest.mark.slow)])
def test_log_prob_sde_of_an_exact_score_has_no_variance(dim):
    law = mixture(dim)
    x = law.sample(jr.key(1), 20)
    exact = jax.vmap(law.log_prob)(x)
    known = law.marginal(LONG)
    with_potential = fpflow.log_prob_sde(known, LONG, x, num_paths=8, num_steps=20, key=jr.key(0))
    np.testing.assert_allclose(with_potential.value, exact, atol=1e-7)  # r is zero to round-off
    assert (with_potential.standard_error < 1e-7).all()
    np.testing.assert_allclose(with_potential.effective_sample_size, 8, rtol=1e-6)
    bare = fpflow.log_prob_sde(
        WithoutPotential(known), LONG, x, num_paths=32, num_steps=400, key=jr.key(0)
    )
    # The line integral along 400 steps of noise: measured 2e-4 at most.
    np.testing.assert_allclose(bare.value, exact, atol=1e-3)
    assert (bare.standard_error < 1e-3).all() and (bare.step_error < 5e-3).all()


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_densities_of_an_exact_score_whatever_the_process(kind):
    """At fifty points; from the law at t1, not the prior, which for variance-exploding processes differs
    from it by a thousandth."""
    law = fpflow.datasets.gaussian_mixture()
    process, x = without_mismatch(KINDS[kind], law), law.sample(jr.key(1), 50)
    model, exact = law.marginal(process), jax.vmap(law.log_prob)(x)
    ode = fpflow.log_prob_ode(model, process, x)
    # The solver's own estimate, and the round-off of a thousand steps; the rate of a table bends at each
    # of its own, which no solver's estimate sees: 3e-7.
    slack = 1e-6 if kind == "vp-table" else 1e-8
    assert (abs(ode.value - exact) < ode.solver_error + slack).all()
    assert ode.solver_error.max() < 1e-5
    sde = fpflow.log_prob_sde(model, process, x, num_paths=8, num_steps=20, key=jr.key(0))
    np.testing.assert_allclose(sde.value, exact, atol=1e-7)  # r is zero to round-off
    assert (sde.standard_error < 1e-7).all()


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_densities_of_an_exact_bare_score_whatever_the_process(kind):
    law = fpflow.datasets.gaussian_mixture()
    process, x = without_mismatch(KINDS[kind], law), law.sample(jr.key(1), 50)
    model, exact = WithoutPotential(law.marginal(process)), jax.vmap(law.log_prob)(x)
    sde = fpflow.log_prob_sde(model, process, x, num_paths=64, num_steps=400, key=jr.key(0))
    miss = abs(sde.value - exact)
    # Five standard errors of fifty points, and what halving the steps moves.
    assert (miss < 5 * sde.standard_error + sde.step_error).all()
    assert miss.max() < 0.02


@pytest.mark.slow
def test_steps_of_a_bare_score_converge_to_second_order():
    """Halving the steps divides the unextrapolated error in mean by four, as `step_error` shows."""
    law = mixture(2)
    model, x = WithoutPotential(law.marginal(LONG)), law.sample(jr.key(2), 40)
    errors = []
    for n in (100, 200):
        result = fpflow.log_prob_sde(model, LONG, x, num_paths=16, num_steps=n, key=jr.key(0))
        errors.append(float(result.step_error.mean()))
    assert 3 < errors[0] / errors[1] < 5.5


@pytest.mark.parametrize(
    ("dim", "potential"),
    [
        pytest.param(
            dim,
            potential,
            marks=() if dim == 1 and potential else pytest.mark.slow,
            id=f"{dim}-{'potential' if potential else 'score'}",
        )
        for dim in (1, 2, 10, 50)
        for potential in (True, False)
    ],
)
def test_linear_wrong_score_gives_both_gaussians(dim, potential):
    model, process = wrong(dim, potential), fpflow.OrnsteinUhlenbeck(t1=1.0)
    sde_cov, ode_cov = linear_laws(model.matrix, process)
    x = jnp.asarray(np.random.default_rng(0).multivariate_normal(np.zeros(dim), sde_cov, 5))
    zero = jnp.zeros(dim)
    ode = fpflow.log_prob_ode(model, process, x)
    paths = fpflow.ResidualPaths(40)
    sde = fpflow.log_prob_sde(model, process, x, num_paths=2**15, method=paths, key=jr.key(3))
    # The promise of a thousandth at every point, and what the SDE says of its own errors.
    np.testing.assert_allclose(
        ode.value, multivariate_normal.logpdf(x, zero, jnp.asarray(ode_cov)), atol=1e-4
    )
    miss = sde.value - multivariate_normal.logpdf(x, zero, jnp.asarray(sde_cov))
    assert (abs(miss) < 1e-3).all()
    assert (abs(miss) < 4 * sde.standard_error + sde.step_error).all()
    assert abs(sde.value - ode.value).max() > 1e-3  # a gap there is


@pytest.mark.slow
def test_three_ways_to_the_divergence_agree():
    x = fpflow.datasets.gaussian_mixture().sample(jr.key(0), 50)
    model = in_double(NETWORK)
    exact = fpflow.log_prob_ode(model, OU, x)
    other = fpflow.log_prob_ode(model, OU, x, divergence=fpflow.ThroughResidual())
    miss = abs(exact.value - other.value)
    # A solver's error is a size: ten of both.
    assert (miss < 10 * (exact.solver_error + other.solver_error)).all() and miss.max() < 1e-5


@pytest.mark.slow
def test_probes_know_their_error():
    model = fpflow.PotentialMLP(20, width=16, depth=1, prior=OU.prior, key=jr.key(0))
    x = jr.normal(jr.key(1), (50, 20))
    exact = fpflow.log_prob_ode(model, OU, x)
    probed = fpflow.log_prob_ode(model, OU, x, divergence=fpflow.Hutchinson(8), key=jr.key(5))
    z = (probed.value - exact.value) / jnp.maximum(probed.standard_error, 1e-6)
    assert (probed.standard_error > 0).all()
    # Fifty Student ratios with 7 degrees of freedom, whose factor is in the error.
    assert abs(z.mean()) < 5 / 50**0.5 and 0.7 < z.std() < 1.4


@pytest.mark.slow
def test_log_prob_ode_is_differentiable_in_points_and_parameters():
    model, x = wrong(2), jnp.array([[0.3, -0.4]])

    def value(matrix, x):
        return fpflow.log_prob_ode(LinearPotential(matrix), LONG, x).value[0]

    step = 1e-4
    for argument in (0, 1):
        slope = jax.grad(value, argument)(model.matrix, x)
        at = [model.matrix, x]
        bump = jnp.zeros_like(at[argument]).at[0, 1].set(step)
        ends = []
        for sign in (1, -1):
            moved = list(at)
            moved[argument] = moved[argument] + sign * bump
            ends.append(value(*moved))
        # A central difference of step 1e-4 on a tolerance of 1e-9.
        np.testing.assert_allclose(slope[0, 1], (ends[0] - ends[1]) / (2 * step), atol=1e-4)


@pytest.fixture(scope="module")
def trained_cells():
    """Two hundred cells under the trained network's SDE law, and point values at their centres."""
    window = fpflow.Window(low=-3.6, high=3.6, nodes=81)
    laws = {
        "ode": fpflow.grid_density_ode(NETWORK, OU, window),
        "sde": fpflow.grid_density_sde(NETWORK, OU, window),
    }
    rng = np.random.default_rng(0)
    inner = np.zeros(window.shape, bool)
    inner[1:-1, 1:-1] = True
    p = np.where(inner, laws["sde"].mass, 0).ravel()
    cells = rng.choice(p.size, 200, p=p / p.sum())

    def log_density(law):
        """The cell mean less h^2/24 times its Laplacian is the point value to fourth order."""
        mean = law.mass * (1 - law.outside) / window.cell_width**2
        bend = sum(np.roll(mean, s, a) for s in (1, -1) for a in (0, 1)) - 4 * mean
        return np.log((mean - bend / 24).ravel()[cells])

    return window.points()[cells], {name: log_density(law) for name, law in laws.items()}


@pytest.mark.slow
def test_log_prob_ode_agrees_with_the_grid(trained_cells):
    x, grid = trained_cells
    result = fpflow.log_prob_ode(NETWORK, OU, x)
    # Both are deterministic: the grid's own error is 3e-4 in total variation, more in the tails.
    miss = np.asarray(result.value) - grid["ode"]
    assert abs(np.median(miss)) < 1e-3 and np.quantile(abs(miss), 0.9) < 0.01


@pytest.mark.slow
def test_log_prob_sde_agrees_with_the_grid(trained_cells):
    x, grid = trained_cells
    result = fpflow.log_prob_sde(NETWORK, OU, x, num_paths=64, num_steps=300, key=jr.key(7))
    miss, error = np.asarray(result.value) - grid["sde"], np.asarray(result.standard_error)
    assert error.max() < 0.03 and bool(result.reliable.all())
    # Within three standard errors of the mean, and a spread that the errors explain: the root of 200
    # squared ratios has a standard deviation of 5 %, the grid adds a few thousandths.
    assert abs(miss.mean()) < 3 * error.mean() / 200**0.5 + 1e-3
    assert 0.8 < np.sqrt(np.mean((miss / np.hypot(error, 3e-3)) ** 2)) < 1.25


@pytest.mark.slow
@pytest.mark.parametrize("law", ["ode", "sde"])
def test_densities_of_a_trained_network_integrate_to_one(law):
    window = fpflow.Window(low=-4.0, high=4.0, nodes=40)
    x = window.points()
    if law == "ode":
        result = fpflow.log_prob_ode(NETWORK, OU, x)
    else:
        with pytest.warns(UserWarning, match="log p_SDE is unreliable"):  # far out, few paths
            result = fpflow.log_prob_sde(NETWORK, OU, x, num_paths=16, num_steps=100, key=jr.key(0))
    # The midpoint rule on features of width 0.29 with h = 0.21 is exact to 1e-17.
    total = float(jnp.exp(result.value).sum() * window.cell_width**2)
    assert abs(total - 1) < 1e-3


@pytest.mark.slow
def test_evidence_bound_tightens_towards_log_prob_sde():
    model = LinearPotential(jnp.diag(jnp.array([2.4, 1.7])))
    x = jnp.array([[0.5, 0.5], [1.0, -0.5], [0.0, 1.5]])
    settings = {"num_steps": 100, "key": jr.key(0)}
    log_p = fpflow.log_prob_sde(model, OU, x, num_paths=2048, **settings)
    bounds = [
        fpflow.evidence_bound(model, OU, x, num_importance=k, num_groups=400, **settings)
        for k in (1, 8)
    ]
    for looser, tighter in ((bounds[0], bounds[1]), (bounds[1], log_p)):
        gain = tighter.value - looser.value
        error = jnp.hypot(tighter.standard_error, looser.standard_error)
        assert (gain > -4 * error).all()
    assert (bounds[1].value - bounds[0].value > 2 * bounds[0].standard_error).any()


def test_uneven_weights_are_called_unreliable():
    model = LinearPotential(jnp.diag(jnp.array([9.0, 0.3])))
    with pytest.warns(UserWarning, match="log p_SDE is unreliable at"):
        result = fpflow.log_prob_sde(model, OU, jnp.ones((3, 2)), num_paths=64, key=jr.key(0))
    assert not result.reliable.all()


@pytest.mark.slow
def test_few_paths_are_unbiased_and_know_their_error():
    """The same point four thousand times with eight paths each."""
    model, process = LinearPotential(jnp.array([[3.0]])), fpflow.OrnsteinUhlenbeck(t1=1.0)
    x = jnp.full((4000, 1), 0.3)
    result = fpflow.log_prob_sde(model, process, x, num_paths=8, num_steps=30, key=jr.key(0))
    cov = linear_laws(model.matrix, process)[0]
    exact = float(multivariate_normal.logpdf(x[0], jnp.zeros(1), jnp.asarray(cov)))
    spread = float(result.value.std())
    # Student's factor of four pairs is 1.6 at two errors, and the allowance for skew is as large as the
    # skew itself: half of the runs state at least the truth, and less than twice of it.
    assert 1 < float(jnp.median(result.standard_error)) / spread < 2
    # Left of the bias is what is of the next order in the variance of the mean.
    assert abs(float(result.value.mean()) - exact) < 3 * spread / 4000**0.5 + spread**2 / 10
    miss = abs(result.value - exact)[result.reliable] / result.standard_error[result.reliable]
    assert 0.93 < float((miss < 2).mean()) < 0.99


def test_points_that_look_easy_by_chance_get_the_paths_of_the_others():
    """Variances by sixteen units; a point misses its target where it gets fewer than it needs."""
    rng = np.random.default_rng(0)
    average = MeanOfWeights()

    def asked(variance, few):
        zero = jnp.zeros_like(variance)
        first = UnitMean(zero, variance, variance, zero, zero, zero)
        return average.needed(average.reckoned(first, jnp.asarray(few)), 0.02, jnp.asarray(1e9))

    known = 1_000_000
    # By chi-square a third of the points miss, were each asked alone; where they differ by a tenth none
    # does, and where they differ tenfold sixteen units tell most of them apart, and few are lifted.
    for differ, most in ((0.1, 0.01), (0.3, 0.1), (2.3, 0.15)):
        truth = jnp.asarray(0.01 * np.exp(differ * rng.normal(size=20_000)))
        seen = truth * rng.chisquare(15, size=20_000) / 15
        enough = asked(truth, known) / 1.25
        assert (
            (asked(seen, 16) < enough).mean() < most < 0.18 < (asked(seen, known) < enough).mean()
        )
        assert jnp.median(asked(seen, 16) / enough) < 1.5
        assert (asked(seen, 16) >= asked(seen, known)).all()
    # A point without any variance says nothing of the others.
    with_exact = asked(jnp.append(seen, 0.0), 16)
    np.testing.assert_allclose(with_exact[:-1], asked(seen, 16), rtol=1e-6)
    assert with_exact[-1] == 2 * average.least


def test_a_target_that_is_missed_says_whether_the_first_set_or_the_bound_missed_it():
    def found(paths):
        one = jnp.ones(1)
        return Found(one, 0.04 * one, one, one > 0, paths * one, one, one)

    for paths, cure in (
        (64, "underestimated how many are needed; a lower"),
        (512, "`num_paths` above 512"),
    ):
        with pytest.warns(UserWarning, match=cure):
            check_found(found(paths), Budget(512, 0.02), "log p_SDE")


@pytest.mark.slow
def test_more_paths_are_spent_where_the_error_is_too_large():
    """The target holds for what is stated, and what is stated for the truth."""
    model = LinearPotential(jnp.diag(jnp.array([2.2, 1.7])))
    process = fpflow.OrnsteinUhlenbeck(t1=1.0)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(200, 2)))
    settings = {"num_steps": 30, "key": jr.key(0)}
    few = fpflow.log_prob_sde(model, process, x, num_paths=32, **settings)
    found = fpflow.log_prob_sde(model, process, x, target_error=0.02, num_paths=8192, **settings)
    assert (few.standard_error > 0.02).sum() > 100
    # Sixteen pairs of all points know a variance to a fifth: one in eight gets too few, none by far.
    assert (found.standard_error < 0.02).mean() > 0.8 and (found.standard_error < 0.04).all()
    # A block of points gets what its neediest needs: two numbers here, 64 paths and four times as many.
    assert found.effective_sample_size.max() > 3 * found.effective_sample_size.min()
    cov = jnp.asarray(linear_laws(model.matrix, process)[0])
    exact = multivariate_normal.logpdf(x, jnp.zeros(2), cov)
    miss = abs(found.value - exact) / (found.standard_error + found.step_error)
    assert (miss < 2).mean() > 0.93


@pytest.mark.slow
def test_results_do_not_depend_on_blocks():
    x = fpflow.datasets.gaussian_mixture().sample(jr.key(0), 70)
    whole = fpflow.log_prob_ode(NETWORK, OU, x, tolerance=1e-3)
    parts = fpflow.log_prob_ode(NETWORK, OU, x, tolerance=1e-3, batch_size=32)
    # Another width of the matrix products rounds differently.
    np.testing.assert_allclose(whole.value, parts.value, atol=2e-4)
    paths = {"num_paths": 64, "num_steps": 20, "key": jr.key(1)}
    many = fpflow.log_prob_sde(NETWORK, OU, x, **paths)
    few = fpflow.log_prob_sde(NETWORK, OU, x[:5], **paths)
    np.testing.assert_allclose(many.value[:5], few.value, atol=2e-4)


class NotANumber(eqx.Module):
    def score(self, t, x):
        return jnp.where(t < 5, jnp.nan, -2 * x)


def test_bad_input_is_refused():
    x, key = jnp.zeros((3, 2)), jr.key(0)
    score = WithoutPotential(NETWORK)
    cases = [
        (lambda: fpflow.log_prob_ode(NETWORK, OU, x[0]), r"`x` must hold points, shape \(n, dim\)"),
        (
            lambda: fpflow.log_prob_ode(NETWORK, OU, jnp.zeros((3, 5))),
            "`x` has dimension 5 and the",
        ),
        (lambda: fpflow.log_prob_ode(NETWORK, OU, x * jnp.nan), "`x` holds NaN or Inf in 6 places"),
        (lambda: fpflow.log_prob_ode(NETWORK, OU, x, tolerance=2.0), "`tolerance` must lie in"),
        (
            lambda: fpflow.log_prob_ode(NETWORK, OU, x, divergence=fpflow.Hutchinson()),
            "`key` is needed for the probes of Hutchinson",
        ),
        (
            lambda: fpflow.log_prob_ode(score, OU, x, divergence=fpflow.ThroughResidual()),
            "needs a model with `potential",
        ),
        (
            lambda: fpflow.log_prob_sde(NETWORK, OU, x, num_paths=2, key=key),
            "`num_paths` must be at",
        ),
        (
            lambda: fpflow.Hutchinson(num_probes=3),
            "`num_probes` must be at least 4, so that their spread gives",
        ),
        (
            lambda: fpflow.log_prob_ode(NETWORK, OU, x, divergence=fpflow.Hutchinson(4), key=key),
            "4 probes in dimension 2 cost no less than `fpflow.Exact",
        ),
        (
            lambda: fpflow.evidence_bound(NETWORK, OU, x, num_groups=1, key=key),
            "`num_groups` must be at least 2",
        ),
    ]
    for call, words in cases:
        with pytest.raises(ValueError, match=words):
            call()
    with pytest.raises(FloatingPointError, match="log p_ODE is not finite at 3 of 3 points"):
        fpflow.log_prob_ode(NotANumber(), OU, x)
    with pytest.raises(
        FloatingPointError,
        match="log p_SDE is not finite at 3 of 3 points: the score is not finite somewhere on the",
    ):
        fpflow.log_prob_sde(NotANumber(), OU, x, num_steps=10, key=key)


def test_a_loose_flow_says_so():
    x = fpflow.datasets.gaussian_mixture().sample(jr.key(0), 5)
    with pytest.warns(UserWarning, match="log p_ODE is known to no better than 0.1 nats at"):
        found = fpflow.log_prob_ode(NETWORK, OU, x, tolerance=0.3)
    assert found.solver_error.max() > 0.1


class Gauged(eqx.Module):
    """A potential with a function of time more, which no sampler feels."""

    model: LinearPotential

    def potential(self, t, x):
        return self.model.potential(t, x) + 20 * jnp.sin(40 * jnp.log(t + 1e-3))

    def score(self, t, x):
        return self.model.score(t, x)


def test_a_function_of_time_in_the_potential_changes_nothing():
    """Faster than the times of a path can follow, as that of a network of waves in log time is."""
    model, x = wrong(2), jnp.array([[0.3, -0.5], [1.0, 0.2]])
    options = {"num_paths": 16, "method": fpflow.ResidualPaths(16), "key": jr.key(0)}
    plain, gauged = (
        fpflow.log_prob_sde(m, fpflow.OrnsteinUhlenbeck(t1=1.0), x, **options)
        for m in (model, Gauged(model))
    )
    # Simpson's rule at 64 times of what else is in du/dt leaves 6e-8, and differs at 16 by 2e-5.
    np.testing.assert_allclose(gauged.value, plain.value, atol=1e-6)
    np.testing.assert_allclose(gauged.step_error, plain.step_error, atol=1e-4)


def test_turns_of_units_add_up():
    """Three turns of eight units say what twenty-four at once say."""
    logs = 3 * jr.normal(jr.key(0), (24, 2))
    none = UnitSums.none(jnp.zeros(1))
    turns = jax.vmap(none.add)(logs.reshape(3, 8, 2)).merged(jnp.zeros(3, int), 1, jnp.asarray(8))
    for average in (MeanOfWeights(), MeanOfLogs()):
        whole, joined = (average.mean(sums, jnp.array(24.0)) for sums in (none.add(logs), turns))
        for name in ("value", "spread", "log_variance", "plain"):
            np.testing.assert_allclose(getattr(joined, name)[0], getattr(whole, name), rtol=1e-12)
        # Its three sums of cubes cancel to a tenth: one digit less.
        np.testing.assert_allclose(joined.third[0], whole.third, rtol=1e-11)


class Narrow(eqx.Module):
    """The exact score of a Gaussian so narrow that it changes within a few steps of a path."""

    width: float
    process: fpflow.VariancePreserving

    def score(self, t, x):
        left = self.process.alpha(t) ** 2
        return -x / (left * self.width**2 + 1 - left)


@pytest.mark.slow
def test_paths_get_the_steps_that_narrow_data_need():
    """Sixty-four are off by 18 nats in the median here, as long as nobody looks."""
    process, width = fpflow.VariancePreserving(), 3e-3
    x = width * jr.normal(jr.key(0), (12, 2))
    exact = multivariate_normal.logpdf(x, jnp.zeros(2), width**2 * jnp.eye(2))
    found = fpflow.log_prob_sde(Narrow(width, process), process, x, key=jr.key(1))
    off = abs(found.value - exact)
    assert (off < 2 * (found.standard_error + found.step_error)).mean() > 0.9 and off.max() < 0.5
