"""Grid densities against laws that are known, and the parts they are made of."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import scipy.special

import fpflow
from fpflow._grid.sde import _bernoulli, thomas
from known import OU, LinearScore, WithoutPotential, bures, linear_laws

MIXTURE = fpflow.datasets.gaussian_mixture()
EXACT = MIXTURE.marginal(OU)
WINDOW = fpflow.Window()
SOLVERS = {"sde": fpflow.grid_density_sde, "ode": fpflow.grid_density_ode}
NETWORK = fpflow.PotentialMLP(2, width=16, depth=2, beta=2.0, key=jr.key(0))


@pytest.fixture(scope="module")
def exact_densities():
    return {name: solve(EXACT, OU, WINDOW) for name, solve in SOLVERS.items()}


@pytest.mark.parametrize("law", SOLVERS)
def test_exact_score_gives_the_exact_cells(law, exact_densities):
    """Extrapolated from cells of 1/18 the distance is far below 1e-4; `error` is that of the masses
    without extrapolation, to a factor, and covers the rest."""
    density, exact = exact_densities[law], MIXTURE.cell_probabilities(WINDOW)
    assert fpflow.w2_grid(density, exact).value < 1e-4
    plain_error = np.abs(density.unextrapolated - exact.mass).sum() / 2
    assert 0.8 < density.error / plain_error < 1.25
    assert np.abs(density.mass - exact.mass).sum() / 2 < plain_error / 10
    assert abs(density.mass.sum() - 1) < 1e-10
    np.testing.assert_allclose(density.outside, exact.outside, atol=1e-5)


def refined(law, window, k, sde_steps):
    """Cells, and for the SDE steps, divided by `k`; the ODE's steps choose themselves."""
    steps = {"num_steps": k * sde_steps} if law == "sde" else {"tolerance": 1e-4 / k**2}
    return SOLVERS[law](EXACT, OU, window, refine=k, **steps)


def test_halving_cells_and_steps_hardly_moves_the_distances():
    """By less than 2e-4, on cells twice as wide as the paper's."""
    window = fpflow.Window(nodes=32)
    data = MIXTURE.cell_probabilities(window)
    coarse, fine = (
        {law: refined(law, window, k, 100) for law in SOLVERS} | {"data": data} for k in (2, 4)
    )
    for a, b in (("ode", "sde"), ("ode", "data"), ("sde", "data")):
        moved = fpflow.w2_grid(fine[a], fine[b]).value - fpflow.w2_grid(coarse[a], coarse[b]).value
        assert abs(moved) < 2e-4


@pytest.mark.parametrize("law", SOLVERS)
def test_error_falls_with_the_square_of_the_resolution(law):
    """Refining cells and steps by two divides the error by four, on a small window."""
    window = fpflow.Window(-3.5, 3.5, 22)
    exact = MIXTURE.cell_probabilities(window).mass
    errors = [np.abs(refined(law, window, k, 50).unextrapolated - exact).sum() for k in (2, 4)]
    assert 1.7 < np.log2(errors[0] / errors[1]) < 2.3


def test_linear_wrong_score_has_the_bures_gap():
    """W2^2 between the two Gaussian laws within 2 % of the moment equations' value."""
    process = fpflow.OrnsteinUhlenbeck(t1=1.0)
    matrix = np.array([[5.0, 0.6], [0.6, 4.0]])
    sde, ode = linear_laws(matrix, process)
    window = fpflow.Window(-2.2, 2.2, 72)
    model = LinearScore(jnp.asarray(matrix))
    densities = {law: solve(model, process, window) for law, solve in SOLVERS.items()}
    gap = fpflow.w2_grid(densities["ode"], densities["sde"])
    np.testing.assert_allclose(gap.value, bures(sde, ode), rtol=0.02)
    x = window.centres()
    for law, covariance in (("sde", sde), ("ode", ode)):
        mass = densities[law].mass
        second = np.array(
            [
                [x**2 @ mass.sum(1), x @ mass @ x],
                [x @ mass @ x, x**2 @ mass.sum(0)],
            ]
        )
        # A cell's mass on its centre adds h^2 / 12 to a variance (Sheppard).
        second -= np.eye(2) * window.cell_width**2 / 12
        np.testing.assert_allclose(second, covariance, atol=0.01 * covariance.max())


@pytest.mark.parametrize("slope", [3.0, 10.0])
@pytest.mark.parametrize("dim", [1, 2])
def test_a_flow_that_stretches_cells_far_beyond_the_prior_keeps_their_masses(dim, slope):
    """A linear flow takes cells to squares, at the larger slope of fifteen widths of the prior: what is
    left is the integrator's tolerance. Three points in each triangle do not see such a prior."""
    process = fpflow.OrnsteinUhlenbeck(t1=1.0)
    window = fpflow.Window(-2.0, 2.1, 10, dim=dim)
    spread = process.prior.std * np.exp(1.0 - slope / 2)
    model = LinearScore(slope * jnp.eye(dim))
    found = fpflow.grid_density_ode(model, process, window, tolerance=1e-8)
    line = np.diff(scipy.special.ndtr(window.edges() / spread))
    expected = line if dim == 1 else np.outer(line, line)
    np.testing.assert_allclose(found.unextrapolated, expected, atol=1e-6)


def test_bare_score_gives_the_density_of_its_potential():
    """Edge integrals by Gauss's rule against differences of the potential."""
    window = fpflow.Window(-3.0, 3.0, 24)
    a = fpflow.grid_density_sde(NETWORK, OU, window)
    b = fpflow.grid_density_sde(WithoutPotential(NETWORK), OU, window)
    # Gauss's rule is of fourth order, so the two differ less than the plain error of either.
    assert np.abs(a.mass - b.mass).sum() / 2 < 0.2 * a.error + 1e-6


def test_stationary_law_is_kept_exactly():
    """The score -2 x has the prior as its law at all times, and Scharfetter--Gummel keeps it."""
    window = fpflow.Window(-2.5, 2.5, 20)
    density = fpflow.grid_density_sde(LinearScore(2 * jnp.eye(2)), OU, window, refine=2)
    edges = window.edges(2)
    weight = np.exp(-(((edges[1:] + edges[:-1]) / 2) ** 2)).reshape(20, 2).sum(1)
    exact = np.outer(weight, weight)
    np.testing.assert_allclose(density.unextrapolated, exact / exact.sum(), rtol=1e-8)


def test_single_precision_networks_keep_their_mass():
    narrow = jax.tree.map(lambda a: a.astype(jnp.float32) if hasattr(a, "astype") else a, NETWORK)
    window = fpflow.Window(-3.0, 3.0, 16)
    for law, solve in SOLVERS.items():
        # At the default tolerance the two precisions step differently, which is all one would see.
        settings = {"tolerance": 1e-6} if law == "ode" else {}
        a, b = (solve(network, OU, window, **settings) for network in (narrow, NETWORK))
        assert abs(a.mass.sum() - 1) < 1e-10
        # Float32 knows a potential to 1e-6 and a corner to as much: errors of that order in mass.
        np.testing.assert_allclose(a.mass, b.mass, atol=1e-5)


def test_own_processes_and_objects_are_welcome():
    class Duck:
        t0, t1 = 0.0, 10.0
        prior = OU.prior

        def drift(self, t, x):
            return -x

        def diffusion(self, t):
            return jnp.ones_like(t)

        def transition(self, t, x0):
            return OU.transition(t, x0)

    window = fpflow.Window(-3.0, 3.0, 16)
    for solve in SOLVERS.values():
        a, b = solve(NETWORK, Duck(), window), solve(NETWORK, OU, window)
        np.testing.assert_allclose(a.mass, b.mass, atol=1e-12)


def test_thomas_solves_as_lapack_does():
    keys = jr.split(jr.key(0), 4)
    lower, upper, rhs = (jr.uniform(key, (9, 4)) for key in keys[:3])
    lower, upper = lower.at[0].set(0.0), upper.at[-1].set(0.0)
    diagonal = 3 + jr.uniform(keys[3], (9, 4))
    expected = jax.lax.linalg.tridiagonal_solve(lower.T, diagonal.T, upper.T, rhs.T[..., None])
    np.testing.assert_allclose(thomas(lower, diagonal, upper, rhs), expected[..., 0].T, rtol=1e-12)


def test_bernoulli_function_is_smooth_through_zero():
    w = jnp.array([-30.0, -1.0, -1.1e-4, -0.9e-4, 0.0, 0.9e-4, 1.1e-4, 1.0, 30.0])
    # B(w) - B(-w) = -w, and B(w) = e^{-w} B(-w).
    np.testing.assert_allclose(_bernoulli(w) - _bernoulli(-w), -w, atol=1e-13)
    np.testing.assert_allclose(_bernoulli(w), jnp.exp(-w) * _bernoulli(-w), rtol=1e-11)


class Broken:
    def score(self, t, x):
        return x * jnp.where(t < 1, jnp.nan, 1.0)


@pytest.mark.parametrize("law", SOLVERS)
def test_bad_input_is_refused(law):
    solve = SOLVERS[law]
    with pytest.raises(ValueError, match="`refine` must be a whole number of at least 1, got 0"):
        solve(EXACT, OU, WINDOW, refine=0)
    with pytest.raises(ValueError, match="`refine` must be at least 2"):
        solve(EXACT, OU, WINDOW, refine=1)
    with pytest.raises(ValueError, match="`num_steps` must be a whole number of at least 1, got 0"):
        fpflow.grid_density_sde(EXACT, OU, WINDOW, num_steps=0)
    with pytest.raises(ValueError, match=r"`tolerance` must lie in \(0, 1\), got 2.0"):
        fpflow.grid_density_ode(EXACT, OU, WINDOW, tolerance=2.0)
    with pytest.raises(ValueError, match="`window` must be a `fpflow.Window`, got tuple"):
        solve.__wrapped__(EXACT, OU, (-3, 3))
    with pytest.raises(ValueError, match="`window` has dimension 2 and the model dimension 3"):
        solve(fpflow.ScoreMLP(3, key=jr.key(0)), OU, WINDOW)
    with pytest.raises(FloatingPointError, match="returned NaN or Inf on the grid"):
        solve(Broken(), OU, fpflow.Window(nodes=8))


class Steep:
    """A wall of width 1/400 at |x_1| = 1 that pushes outwards in forward time."""

    dim = 2

    def score(self, t, x):
        wall = 40 * jax.nn.sigmoid(400 * (jnp.abs(x[0]) - 1)) * jnp.exp(-4 * t)
        return -2 * x - jnp.array([jnp.sign(x[0]) * wall, 0.0])


def test_steep_scores_are_followed():
    """A finer tolerance must not move the masses."""
    window = fpflow.Window(-3.0, 3.0, 24)
    coarse, fine = (
        fpflow.grid_density_ode(Steep(), OU, window, tolerance=tolerance)
        for tolerance in (1e-4, 1e-7)
    )
    # Measured 5e-6; a tolerance of 1e-2 moves them by 2e-4.
    assert np.abs(coarse.mass - fine.mass).sum() / 2 < 5e-5


def test_negative_margin_is_refused():
    with pytest.raises(ValueError, match="`margin` must not be negative, got -1.0"):
        fpflow.grid_density_sde(EXACT, OU, WINDOW, margin=-1.0)
