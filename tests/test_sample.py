"""Samplers: orders of convergence, exact laws, and independence of batches."""

import diffrax
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import fpflow
from fpflow.datasets import count_in_cells
from known import OU, LinearScore, WithoutPotential, linear_laws

MIXTURE = fpflow.datasets.gaussian_mixture()
EXACT = MIXTURE.marginal(OU)
SHORT = fpflow.OrnsteinUhlenbeck(t1=1.0)
LINEAR = LinearScore(jnp.array([[3.0, 0.5], [0.2, 4.0]]))
WINDOW = fpflow.Window()


def uniform(n):
    return np.linspace(1.0, 0.0, n + 1)


@pytest.mark.parametrize(
    ("solver", "order"),
    [(diffrax.Euler(), 1), (diffrax.Heun(), 2), (diffrax.Tsit5(), 5), (diffrax.Dopri8(), 8)],
    ids=["Euler", "Heun", "Tsit5", "Dopri8"],
)
def test_ode_solvers_show_their_order(solver, order):
    """Doubling the steps divides the error by 2^order, on x' = (A/2 - 1) x with a known flow."""
    key, n = jr.key(0), 64
    steps = {1: 32, 2: 32, 5: 8, 8: 1}[order]
    drift = np.asarray(LINEAR.matrix) / 2 - np.eye(2)
    x1 = sample_prior(key, n)
    exact = x1 @ np.asarray(jax.scipy.linalg.expm(-drift)).T
    errors = [
        np.abs(
            fpflow.sample_ode(
                LINEAR, SHORT, n, solver=solver, step_grid=uniform(k * steps), key=key
            )
            - exact
        ).max()
        for k in (1, 2)
    ]
    measured = np.log2(errors[0] / errors[1])
    # Half an order is the room for the next term of the expansion at these coarse steps; Dopri8
    # does better than its order on a linear equation.
    assert measured > order - 0.5
    assert measured < order + 0.5 or order == 8


def sample_prior(key, n):
    """What the samplers start from: the prior under the first block's key."""
    return np.asarray(SHORT.prior.sample(jr.split(jr.fold_in(key, 0))[0], (n, 2)))


@pytest.mark.parametrize(
    ("solver", "steps", "order"),
    [
        (diffrax.Euler(), 8, 1),
        (diffrax.ShARK(), 6, 2),
        (diffrax.SRA1(), 6, 2),
        (diffrax.SEA(), 8, 1),
    ],
    ids=["Euler-Maruyama", "ShARK", "SRA1", "SEA"],
)
def test_sde_solvers_show_their_weak_order(solver, steps, order):
    """The error of the variance falls by 2^order, within the noise of 1.6 million coordinates."""
    model, n = LinearScore(4.0 * jnp.eye(8)), 200_000
    exact = linear_laws(4.0 * np.eye(1), SHORT)[0][0, 0]
    errors = []
    for k in (1, 2):
        x = fpflow.sample_sde(
            model, SHORT, n, solver=solver, step_grid=uniform(k * steps), key=jr.key(k)
        )
        errors.append(float(jnp.mean(x**2)) - exact)
    noise = 4 * exact * (2 / (8 * n)) ** 0.5
    low = (abs(errors[0]) - noise) / (abs(errors[1]) + noise)
    high = (abs(errors[0]) + noise) / max(abs(errors[1]) - noise, 1e-12)
    assert abs(errors[0]) > 3 * noise, "the steps are too fine to see an error"
    assert low < 2 ** (order + 0.5)
    assert high > 2 ** (order - 0.5)


def test_euler_maruyama_adds_the_noise_it_should():
    """For N equal steps the variance of Euler--Maruyama obeys v -> (1 - 3 h)^2 v + h exactly."""
    model, n, steps = LinearScore(4.0 * jnp.eye(8)), 100_000, 10
    for last in (True, False):
        v, h = 0.5, 1 / steps
        for k in range(steps):
            v = (1 - 3 * h) ** 2 * v + (h if last or k < steps - 1 else 0)
        x = fpflow.sample_sde(
            model, SHORT, n, solver=diffrax.Euler(), step_grid=uniform(steps),
            last_step_noise=last, key=jr.key(1),
        )  # fmt: skip
        assert abs(float(jnp.mean(x**2)) / v - 1) < 5 * (2 / (8 * n)) ** 0.5


@pytest.mark.parametrize("law", ["ode", "sde"])
def test_exact_score_samples_the_data_law_within_the_noise(law):
    """W2^2 of 200,000 samples to the cell probabilities against the same for direct draws."""
    n = 200_000
    steps = {"ode": 50, "sde": 100}[law]
    histogram = fpflow.sample_histogram(
        EXACT, OU, n, WINDOW, law=law, num_steps=steps, key=jr.key(0)
    )
    exact = MIXTURE.cell_probabilities(WINDOW)
    value = fpflow.w2_grid(histogram, exact).value
    floors = []
    for k in range(4):
        counts = count_in_cells(np.asarray(MIXTURE.sample(jr.key(10 + k), n)), WINDOW)
        floors.append(fpflow.w2_grid(counts / counts.sum(), exact, WINDOW).value)
    # Four draws of the floor; their spread, from 0.0012 to 0.0016, bounds what noise alone does.
    assert value < np.mean(floors) + 5 * np.std(floors, ddof=1)


def test_batches_and_order_do_not_change_samples():
    model = fpflow.PotentialMLP(2, width=8, depth=1, key=jr.key(0))
    settings = {"num_steps": 4, "key": jr.key(3)}
    for sampler in (fpflow.sample_ode, fpflow.sample_sde):
        whole = sampler(model, OU, 10_000, **settings)
        parts = sampler(model, OU, 10_000, batch_size=8192, **settings)
        np.testing.assert_array_equal(whole, parts)
        assert whole.shape == (10_000, 2)
    assert len(np.unique(np.asarray(whole)[:, 0])) == 10_000
    other = fpflow.sample_sde(model, OU, 10_000, num_steps=4, key=jr.key(4))
    assert (whole != other).all()


def test_histogram_counts_the_samples():
    model, settings = LinearScore(3 * jnp.eye(2)), {"num_steps": 20, "key": jr.key(3)}
    x = np.asarray(fpflow.sample_sde(model, OU, 5000, **settings))
    density = fpflow.sample_histogram(model, OU, 5000, WINDOW, law="sde", **settings)
    nearest = np.rint((x - WINDOW.low) / WINDOW.cell_width).astype(int)
    counts = np.zeros(WINDOW.shape)
    for i, j in nearest[((nearest >= 0) & (nearest < 64)).all(1)]:
        counts[i, j] += 1
    np.testing.assert_allclose(density.mass, counts / counts.sum(), atol=1e-15)
    np.testing.assert_allclose(density.outside, 1 - counts.sum() / 5000, atol=1e-12)


def test_adaptive_steps_agree_with_fixed_ones():
    """To the tolerance asked for, for the ODE; in law, for the SDE."""
    controller = diffrax.PIDController(rtol=1e-8, atol=1e-8)
    settings = {"solver": diffrax.Tsit5(), "key": jr.key(0)}
    free = fpflow.sample_ode(EXACT, OU, 64, stepsize_controller=controller, **settings)
    fixed = fpflow.sample_ode(EXACT, OU, 64, num_steps=200, **settings)
    np.testing.assert_allclose(free, fixed, atol=1e-5)
    exact = linear_laws(np.asarray(LINEAR.matrix), SHORT)[0]
    x = fpflow.sample_sde(
        LINEAR, SHORT, 20_000, solver=diffrax.ShARK(), key=jr.key(1),
        stepsize_controller=diffrax.PIDController(rtol=1e-2, atol=1e-2),
    )  # fmt: skip
    covariance = np.asarray(x).T @ np.asarray(x) / len(x)
    # Five standard errors of a variance plus one per cent for the tolerance of the steps.
    assert (np.abs(covariance - exact) < exact.max() * (5 * (2 / len(x)) ** 0.5 + 0.01)).all()


def test_the_papers_step_grid():
    grid = fpflow.paper.step_grid()
    steps = -np.diff(grid)
    assert (len(steps), grid[0], grid[-1]) == (890, 10.0, 0.0)
    np.testing.assert_allclose(steps[:790], 0.0125)
    np.testing.assert_allclose(steps[790:], 0.00125)
    model = fpflow.PotentialMLP(2, width=4, depth=1, key=jr.key(0))
    x = fpflow.sample_sde(
        model, OU, 10, solver=diffrax.Euler(), step_grid=grid, last_step_noise=False, key=jr.key(0)
    )
    assert jnp.isfinite(x).all()


def test_single_precision_keeps_the_smallest_steps():
    """A float32 model follows the graded grid to steps of 1e-7 and stays on the float64 path."""
    model = LinearScore(3 * jnp.eye(2))
    narrow = jax.tree.map(lambda a: a.astype(jnp.float32) if hasattr(a, "astype") else a, model)
    x = fpflow.sample_ode(model, OU, 100, key=jr.key(0))
    y = fpflow.sample_ode(narrow, OU, 100, key=jr.key(0))
    assert y.dtype == jnp.float32
    # A hundred steps add as many round-offs of 6e-8 to values of order one.
    np.testing.assert_allclose(x, y, atol=1e-5)


def test_dimension_is_read_off_the_score():
    class Mixture:
        def score(self, t, x):
            return EXACT.score(t, x)

    assert fpflow.sample_ode(Mixture(), OU, 3, num_steps=2, key=jr.key(0)).shape == (3, 2)

    class Any:
        def score(self, t, x):
            return -2 * x

    with pytest.raises(ValueError, match="cannot be told from `model.score`.* pass `dim=`"):
        fpflow.sample_ode(Any(), OU, 3, key=jr.key(0))
    assert fpflow.sample_sde(Any(), OU, 3, num_steps=2, dim=5, key=jr.key(0)).shape == (3, 5)


class NaNScore:
    dim = 2

    def score(self, t, x):
        return x * jnp.where(t < 5, jnp.nan, 1.0)


@pytest.mark.parametrize(
    ("model", "settings", "words"),
    [
        (EXACT, {"num_steps": 0}, "`num_steps` must be a whole number of at least 1"),
        (EXACT, {"num_samples": 0}, "`num_samples` must be a whole number of at least 1"),
        (EXACT, {"batch_size": -1}, "`batch_size` must be a whole number"),
        (EXACT, {"num_steps": 5, "step_grid": [10.0, 0.0]}, "either `num_steps` or `step_grid`"),
        (EXACT, {"step_grid": [0.0, 10.0]}, "`step_grid` must fall strictly"),
        (EXACT, {"step_grid": [9.0, 0.0]}, "`step_grid` must start at `t1` = 10.0"),
        (EXACT, {"step_grid": [10.0, -1.0]}, "end no lower than `t0` = 0.0"),
        (EXACT, {"step_grid": [10.0, np.nan]}, "`step_grid` must be finite times"),
        (
            EXACT,
            {"num_steps": 5, "stepsize_controller": diffrax.PIDController(1e-3, 1e-3)},
            "not both",
        ),
        (EXACT, {"dim": 0}, "`dim` must be a whole number of at least 1, got 0"),
        (EXACT, {"dim": 3}, r"does not take points of shape \(3,\)|must return shape \(3,\)"),
        (WithoutPotential(LinearScore(jnp.eye(2) * jnp.nan)), {}, "`model.score` must be finite"),
    ],
)
def test_bad_arguments_are_refused(model, settings, words):
    with pytest.raises(ValueError, match=words):
        fpflow.sample_ode(model, OU, **{"num_samples": 5, "key": jr.key(0), **settings})


def test_failures_underway_are_reported():
    with pytest.raises(FloatingPointError, match="an ODE sample is not finite"):
        fpflow.sample_ode(NaNScore(), OU, 5, num_steps=5, key=jr.key(0))
    with pytest.raises(ValueError, match="defined for `solver=diffrax.Euler"):
        fpflow.sample_sde(EXACT, OU, 5, num_steps=5, last_step_noise=False, key=jr.key(0))
    with pytest.raises(ValueError, match='`law` must be "ode" or "sde", got \'flow\''):
        fpflow.sample_histogram.__wrapped__(EXACT, OU, 5, law="flow", key=jr.key(0))


def test_another_key_or_number_of_batches_compiles_nothing(compilations):
    model = fpflow.PotentialMLP(2, width=8, depth=1, key=jr.key(0))
    fpflow.sample_sde(model, OU, 8192, num_steps=3, key=jr.key(0))
    with compilations() as count:
        fpflow.sample_sde(model, OU, 8192, num_steps=3, eta=0.5, key=jr.key(1))
    assert count() == 0
