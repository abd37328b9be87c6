"""Numbers by a second route that shares no code with the first: numpy and scipy alone."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import scipy
from scipy.integrate import solve_ivp
from scipy.interpolate import CubicSpline

import fpflow
from fpflow._grid.sde import density_history
from known import KINDS, OU, LinearScore, in_double


def untrained(kind, dim, factor=2.0):
    """A network in double precision with larger weights than those it starts training from, so that its
    own part of the score is not small."""
    network = in_double(kind(dim, width=16, beta=2.0, key=jr.key(dim)))
    return jax.tree.map(lambda leaf: factor * leaf if eqx.is_array(leaf) else leaf, network)


def differences(function, point, width):
    """First and second derivatives along one axis to fourth order, from five values."""
    far_left, left, here, right, far_right = (function(point + k * width) for k in range(-2, 3))
    first = (far_left - 8 * left + 8 * right - far_right) / (12 * width)
    second = (-far_left + 16 * left - 30 * here + 16 * right - far_right) / (12 * width**2)
    return first, second


@pytest.mark.parametrize(
    "name",
    ["vp", *(pytest.param(name, marks=pytest.mark.slow) for name in ("ou", "trigonometric"))],
)
def test_log_p_ode_of_a_network_with_curl_by_another_integrator(name):
    """Runge--Kutta of eighth order by scipy, forwards in time, with the trace of jax's Jacobian."""
    process = KINDS[name]
    model = untrained(fpflow.ScoreMLP, 2)
    jacobian = jax.jit(jax.jacfwd(lambda t, x: model.score(t, x), 1))
    skew = jacobian(jnp.array(0.3), jnp.array([0.4, -0.2]))
    assert abs(skew[0, 1] - skew[1, 0]) > 1e-2  # it has curl

    @jax.jit
    def rate(t, state):
        x, g2 = state[:2], process.diffusion(t) ** 2
        velocity = process.drift(t, x) - g2 * model.score(t, x) / 2
        # The drift is linear in x, so that its Jacobian is its value at the unit vectors less at zero.
        drift = jnp.stack([process.drift(t, e) for e in jnp.eye(2)]) - process.drift(
            t, jnp.zeros(2)
        )
        return jnp.append(velocity, jnp.trace(drift) - g2 * jnp.trace(jacobian(t, x)) / 2)

    x = 0.7 * jr.normal(jr.key(1), (2, 2))
    span, expected = (process.t0, process.t1), []
    for point in np.asarray(x):
        start = np.append(point, 0.0)
        path = solve_ivp(rate, span, start, method="DOP853", rtol=1e-11, atol=1e-12)
        end = path.y[:, -1]
        expected.append(float(process.prior.log_prob(jnp.asarray(end[:2]))) + end[2])
    found = fpflow.log_prob_ode(model, process, x, tolerance=1e-10)
    # Both tolerances, a hundred times over for what the flow makes of them.
    np.testing.assert_allclose(found.value, expected, atol=1e-8)


@pytest.mark.slow
def test_log_p_sde_on_a_line_by_crank_nicolson():
    """Central differences and the trapezoidal rule for the equation of the reverse process."""
    model, process = untrained(fpflow.PotentialMLP, 1, 1.4), OU
    grid, steps = np.linspace(-6, 6, 3001), 2000
    width = grid[1] - grid[0]
    score = jax.jit(jax.vmap(lambda t, x: model.score(t, x), (None, 0)))

    def operator(t):
        """p -> -(b p)' + g^2 p'' / 2 with b = g^2 s - f, in the time that runs backwards."""
        g2 = float(process.diffusion(jnp.asarray(t)) ** 2)
        s = np.asarray(score(jnp.asarray(t), jnp.asarray(grid[:, None])))[:, 0]
        drift = jax.vmap(process.drift, (None, 0))(jnp.asarray(t), jnp.asarray(grid[:, None]))
        b = g2 * s - np.asarray(drift)[:, 0]
        upper, lower = -b[1:] / (2 * width) + g2 / (2 * width**2), b[:-1] / (2 * width)
        lower = lower + g2 / (2 * width**2)
        return scipy.sparse.diags([lower, np.full(len(grid), -g2 / width**2), upper], [-1, 0, 1])

    p = np.exp(np.asarray(jax.vmap(process.prior.log_prob)(jnp.asarray(grid[:, None]))))
    times = np.linspace(process.t1, process.t0, steps + 1)
    h, eye = times[0] - times[1], scipy.sparse.identity(len(grid))
    now = operator(times[0])
    for t in times[1:]:
        after = operator(t)
        p = scipy.sparse.linalg.spsolve((eye - h / 2 * after).tocsc(), p + h / 2 * (now @ p))
        now = after
    x = np.linspace(-1.0, 1.0, 9)
    expected = CubicSpline(grid, np.log(np.maximum(p, 1e-300)))(x)
    found = fpflow.log_prob_sde(model, process, x[:, None], num_paths=2048, key=jr.key(0))
    assert found.reliable.all() and found.standard_error.max() < 0.02
    # Four errors of nine points; both grids are of second order and known to 1e-4.
    assert (abs(found.value - expected) < 4 * found.standard_error + found.step_error + 1e-3).all()


def test_w2_on_a_grid_by_linear_programming():
    """The transport problem of 12 x 12 cells as HiGHS solves it, with all 20,736 arcs."""
    window, rng = fpflow.Window(-1.0, 1.0, 12), np.random.default_rng(0)
    a, b = (rng.random(window.shape) ** 3 for _ in range(2))
    a, b = a / a.sum(), b / b.sum()
    centres = np.stack(np.meshgrid(*[window.centres()] * 2, indexing="ij"), -1).reshape(-1, 2)
    cost = ((centres[:, None] - centres[None]) ** 2).sum(-1)
    n = len(centres)
    rows = scipy.sparse.kron(scipy.sparse.identity(n), np.ones((1, n)))
    columns = scipy.sparse.kron(np.ones((1, n)), scipy.sparse.identity(n))
    # One of the equations follows from the others.
    equations = scipy.sparse.vstack([rows, columns]).tocsr()[:-1]
    masses = np.concatenate([a.ravel(), b.ravel()])[:-1]
    best = scipy.optimize.linprog(cost.ravel(), A_eq=equations, b_eq=masses, method="highs")
    # HiGHS meets its equations to 1e-7 of their terms.
    np.testing.assert_allclose(fpflow.w2_grid(a, b, window).value, best.fun, rtol=1e-6)


def normal_mixture(x, means, variances, weights):
    """Log density and score of a mixture on a line."""
    parts = np.log(weights) - (x[..., None] - means) ** 2 / (2 * variances)
    parts = parts - np.log(2 * np.pi * variances) / 2
    log_p = scipy.special.logsumexp(parts, axis=-1)
    share = np.exp(parts - log_p[..., None])
    return log_p, -(share * (x[..., None] - means) / variances).sum(-1)


@pytest.mark.slow
def test_kl_equality_by_quadrature():
    """Data and the data of a wrong score are mixtures, so that all but the flow is closed form; the flow
    by scipy, the score of its law by a spline."""
    data = (np.array([-0.8, 0.6]), 0.15, np.array([1.0, 2.0]) / 3)
    wrong = (np.array([-0.6, 0.7]), 0.2, np.array([0.5, 0.5]))
    as_law = lambda m, v, w: fpflow.datasets.GaussianMixture(m[:, None], v, weights=w)
    x = np.linspace(-5, 5, 801)
    width = x[1] - x[0]

    def at(t, law, x):
        means, variance, weights = law
        mean, decay = means * np.exp(-t), np.exp(-2 * t)
        return normal_mixture(x, mean, variance * decay + (1 - decay) / 2, weights)

    def log_flow(t):
        """The log density of the flow from the prior N(0, 1/2) at time t, and its derivative.

        dx/dt = -x - s / 2 has the divergence -1 - s' / 2, with s' by central differences."""
        h = 1e-4

        def rate(time, state):
            y = state[: len(x)]
            s, slope = at(time, wrong, y)[1], at(time, wrong, y + h)[1] - at(time, wrong, y - h)[1]
            return np.concatenate([-y - s / 2, -1 - slope / (4 * h)])

        start = np.concatenate([x, np.zeros_like(x)])
        y = solve_ivp(rate, (t, OU.t1), start, method="DOP853", rtol=1e-9, atol=1e-10).y[:, -1]
        end, change = y[: len(x)], y[len(x) :]
        log_p = -(end**2) - np.log(np.pi) / 2 + change
        return log_p, CubicSpline(x, log_p)(x, 1)

    def integral(values, law_log_p):
        return float((np.exp(law_log_p) * values).sum() * width)

    log_p0, _ = at(OU.t0, data, x)
    left = integral(log_p0 - log_flow(OU.t0)[0], log_p0)
    log_p1, _ = at(OU.t1, data, x)
    prior = integral(log_p1 + x**2 + np.log(np.pi) / 2, log_p1)
    # Gauss--Legendre in log t, because the score's error grows towards t0.
    nodes, shares = np.polynomial.legendre.leggauss(24)
    low, high = np.log(OU.t0 + 0.02), np.log(OU.t1 + 0.02)
    matching = difference = 0.0
    for node, share in zip(nodes, shares, strict=True):
        t = np.exp((high + low) / 2 + node * (high - low) / 2) - 0.02
        weight = (
            share * (high - low) / 2 * (t + 0.02) * float(OU.diffusion(jnp.asarray(t))) ** 2 / 2
        )
        (log_p, true), (_, s) = at(t, data, x), at(t, wrong, x)
        matching += weight * integral((true - s) ** 2, log_p)
        difference += weight * integral((true - s) * (s - log_flow(t)[1]), log_p)
    # Four digits of the divergence, by 24 times and 801 points.
    np.testing.assert_allclose(prior + matching + difference, left, rtol=1e-4)
    model = as_law(*wrong).marginal(OU)
    account = fpflow.kl_account(model, OU, as_law(*data), num_points=4096, key=jr.key(0))
    for found, expected in [
        (account.prior, prior),
        (account.score_matching, matching),
        (account.difference, difference),
        (account.bound_sde, prior + matching),
        (account.kl_ode, left),
    ]:
        assert abs(found.value - expected) < 4 * found.error + 1e-9
        assert found.error < 0.1 * left


@pytest.mark.parametrize(
    "name", ["ou", *(pytest.param(name, marks=pytest.mark.slow) for name in ("subvp", "linear"))]
)
def test_residuals_by_finite_differences(name):
    """r = u_t - g^2 (lap u + |grad u|^2) / 2 + div f + f . grad u, and its gradient, by five values
    along each axis.

    Differences at widths of 2e-3 miss of order 2e-11 times the sixth derivatives, and 1e-16 / 4e-6 of
    the values by round-off; in the gradient once more over the width."""
    model, process, h = untrained(fpflow.PotentialMLP, 2), KINDS[name], 2e-3
    u = jax.jit(lambda t, x: model.potential(t, x))  # a method of arrays has no hash
    t, x = process.t0 + 0.4 * (process.t1 - process.t0), np.array([0.7, -0.3])

    def residual(x):
        slope, _ = differences(lambda t: float(u(t, x)), t, h)
        g2, drift = float(process.diffusion(jnp.asarray(t))) ** 2, []
        gradient, second = [], []
        for e in np.eye(2):
            first, curve = differences(lambda k, e=e: float(u(t, x + k * e)), 0.0, h)
            gradient.append(first)
            second.append(curve)
            drift.append(np.asarray(process.drift(jnp.asarray(t), jnp.asarray(e)))[e > 0][0])
        flow = np.asarray(process.drift(jnp.asarray(t), jnp.asarray(x)))
        bend = sum(second) + np.square(gradient).sum()
        return slope - g2 * bend / 2 + sum(drift) + flow @ np.array(gradient)

    found = fpflow.log_fp_residual(model, process, jnp.asarray(t), jnp.asarray(x))
    size = 1 + abs(float(found))
    np.testing.assert_allclose(found, residual(x), atol=1e-8 * size)
    of_score = fpflow.score_fp_residual(model, process, jnp.asarray(t), jnp.asarray(x))
    expected = [differences(lambda k, e=e: residual(x + k * e), 0.0, 0.05)[0] for e in np.eye(2)]
    # Here the width is .05, for the noise of the differences inside; its fourth power is 6e-6.
    np.testing.assert_allclose(of_score, expected, atol=1e-4 * size)


def test_a_linear_score_by_the_matrix_exponential():
    """Under a wrong linear score the ODE's law is N(0, F F^T / 2), F the exponential of its matrix."""
    matrix = jnp.array([[2.3, 0.4], [-0.3, 1.8]])
    # dx/dt = -x + A x / 2, backwards from t1.
    flow = scipy.linalg.expm((np.eye(2) - np.asarray(matrix) / 2) * (OU.t1 - OU.t0))
    x = np.array([[0.3, -0.1], [0.0, 0.4], [-0.2, -0.2]])
    expected = scipy.stats.multivariate_normal(np.zeros(2), flow @ flow.T / 2).logpdf(x)
    found = fpflow.log_prob_ode(LinearScore(matrix), OU, x, tolerance=1e-9)
    np.testing.assert_allclose(found.value, expected, atol=1e-6)


class Deterministic(eqx.Module):
    r"""A score whose probability flow has the law of the SDE of another score $s$ at all times, the
    paper's equation (9): $2 s - \nabla\log p_\text{SDE}$, with the densities from a grid."""

    model: eqx.Module
    times: jax.Array
    slopes: jax.Array  # of log p_SDE in the frame's coordinate, over the width of a cell
    first: jax.Array
    width: jax.Array
    dim: int = eqx.field(default=1, static=True)

    def score(self, t, x):
        time = jnp.interp(t, self.times, jnp.arange(len(self.times), dtype=float))
        before = jnp.clip(jnp.floor(time), 0, len(self.times) - 2).astype(int)
        share = time - before

        def at(k):
            cell = jnp.clip((x[0] - self.first[k]) / self.width[k], 0, self.slopes.shape[1] - 1)
            place = jnp.arange(self.slopes.shape[1], dtype=float)
            return jnp.interp(cell, place, self.slopes[k])

        slope = (1 - share) * at(before) + share * at(before + 1)
        return 2 * self.model.score(t, x) - slope[None]


def test_deterministic_dynamics_with_the_law_of_the_sde():
    """The grid of flows, asked for the flow of equation (9), gives what the grid of the Fokker--Planck
    equation gives for the SDE, though the ODE of the score itself is far away."""
    law = fpflow.datasets.GaussianMixture([[-0.9], [0.9]], 0.3)
    exact = law.marginal(OU)

    class Wrong(eqx.Module):  # colder than the data and drawn to one side
        dim: int = eqx.field(default=1, static=True)

        def score(self, t, x):
            return 1.3 * exact.score(t, x) + 0.2 * jnp.cos(x)

    window, options = fpflow.Window(-3.5, 3.5, 64, dim=1), {"refine": 4, "num_steps": 240}
    times, q, centres = density_history(Wrong(), OU, window, margin=1.5, **options)
    width = centres[:, 1] - centres[:, 0]
    # Beyond the solid part the slope of the score itself, which is nearly that of the law there.
    of_score = jax.vmap(jax.vmap(lambda t, x: Wrong().score(t, x[None])[0], (None, 0)))
    outside = np.asarray(of_score(jnp.asarray(times), jnp.asarray(centres)))
    slopes = np.gradient(np.log(np.maximum(q, 1e-300)), axis=1) / width[:, None]
    slopes = np.where(q > 1e-11, slopes, outside)
    parts = map(jnp.asarray, (times, slopes, centres[:, 0], width))
    flow = Deterministic(Wrong(), *parts)
    sde = fpflow.grid_density_sde(Wrong(), OU, window, **options)
    ode = fpflow.grid_density_ode(Wrong(), OU, window)
    found = fpflow.grid_density_ode(flow, OU, window)
    assert fpflow.total_variation(ode, sde).value > 0.5
    # Slopes by differences on cells a quarter of the window's: an error of second order.
    assert fpflow.total_variation(found, sde).value < 2e-3
