"""Grid densities against laws that are known, and the parts they are made of."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import scipy.special

import fpflow
from fpflow._grid.gaussian import gaussian_over_quadrilaterals, owens_t
from fpflow._grid.sde import _bernoulli, thomas
from known import KINDS, OU, LinearScore, WithoutPotential, bures, linear_laws

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


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.parametrize("law", SOLVERS)
def test_error_falls_with_the_square_of_the_resolution(law):
    """Refining cells and steps by two divides the error by four, on a small window."""
    window = fpflow.Window(-3.5, 3.5, 22)
    exact = MIXTURE.cell_probabilities(window).mass
    errors = [np.abs(refined(law, window, k, 50).unextrapolated - exact).sum() for k in (2, 4)]
    assert 1.7 < np.log2(errors[0] / errors[1]) < 2.3


@pytest.mark.slow
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


@pytest.mark.slow
def test_bare_score_gives_the_density_of_its_potential():
    """Edge integrals by Gauss's rule against differences of the potential."""
    window = fpflow.Window(-3.0, 3.0, 24)
    a = fpflow.grid_density_sde(NETWORK, OU, window)
    b = fpflow.grid_density_sde(WithoutPotential(NETWORK), OU, window)
    # Gauss's rule is of fourth order, so the two differ less than the plain error of either.
    assert np.abs(a.mass - b.mass).sum() / 2 < 0.2 * a.error + 1e-6


def test_stationary_law_is_kept_exactly():
    """The score -2 x has the prior as its law at all times. In the frame of variance one half, which
    this margin makes, it stands still, and Scharfetter--Gummel keeps it."""
    window = fpflow.Window(-2.5, 2.5, 20)
    density = fpflow.grid_density_sde(LinearScore(2 * jnp.eye(2)), OU, window, margin=2.5)
    edges = window.edges(2)
    weight = np.exp(-(((edges[1:] + edges[:-1]) / 2) ** 2)).reshape(20, 2).sum(1)
    exact = np.outer(weight, weight)
    np.testing.assert_allclose(density.unextrapolated, exact / exact.sum(), rtol=1e-7)


@pytest.mark.slow
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


@pytest.mark.slow
def test_own_processes_are_welcome():
    """The process of the paper from its two functions alone."""

    class Relaxing(fpflow.AbstractProcess):
        t0: float = 0.0
        t1: float = 10.0

        def alpha(self, t):
            return jnp.exp(-t)

        def sigma(self, t):
            return jnp.sqrt(-jnp.expm1(-2 * t) / 2)

    window = fpflow.Window(-3.0, 3.0, 16)
    for solve in SOLVERS.values():
        a, b = solve(NETWORK, Relaxing(), window), solve(NETWORK, OU, window)
        np.testing.assert_allclose(a.mass, b.mass, atol=1e-8)


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


@pytest.mark.slow
def test_steep_scores_are_followed():
    """A finer tolerance must not move the masses."""
    window = fpflow.Window(-3.0, 3.0, 24)
    coarse, fine = (
        fpflow.grid_density_ode(Steep(), OU, window, tolerance=tolerance)
        for tolerance in (1e-4, 1e-7)
    )
    # Measured 5e-6; a tolerance of 1e-2 moves them by 2e-4.
    assert np.abs(coarse.mass - fine.mass).sum() / 2 < 5e-5


WIDE = {
    "ou": fpflow.OrnsteinUhlenbeck(noise=10.0),
    "ve": KINDS["ve"],
    "linear": KINDS["linear"],
}


def what_the_prior_forgets(law, process):
    """The total variation between the prior and the noised data, which lack its centre: neither the
    flow nor the SDE makes it larger. And the tolerance of the flow."""
    alpha, sigma = (float(part(process.t1)) for part in (process.alpha, process.sigma))
    mean = float(jnp.abs(law.weights @ law.means).max())
    return alpha * mean / sigma / (2 * np.pi) ** 0.5 + 5e-5


@pytest.mark.parametrize("process", WIDE.values(), ids=WIDE)
def test_a_prior_wider_than_the_window_is_not_cut(process):
    """On a line, within the stated error: the grid widens with the process."""
    law = fpflow.datasets.GaussianMixture([[-1.0], [1.5]], 0.1)
    window, model = fpflow.Window(nodes=64, dim=1), law.marginal(process)
    exact = law.cell_probabilities(window)
    ode, sde = (SOLVERS[name](model, process, window) for name in ("ode", "sde"))
    assert np.abs(sde.mass - exact.mass).sum() / 2 < sde.error
    known = ode.error + what_the_prior_forgets(law, process)
    assert np.abs(ode.mass - exact.mass).sum() / 2 < known
    assert max(sde.outside, ode.outside) < 1e-9


@pytest.mark.parametrize(
    "kind",
    [pytest.param(k, marks=() if k == "linear" else pytest.mark.slow) for k in (*KINDS, "wide")],
)
def test_exact_scores_give_the_exact_cells_whatever_the_process(kind):
    """By less than 2e-4 on cells twice as wide as the paper's."""
    process, window = {**KINDS, "wide": WIDE["ou"]}[kind], fpflow.Window(nodes=32)
    laws = [solve(MIXTURE.marginal(process), process, window) for solve in SOLVERS.values()]
    exact = MIXTURE.cell_probabilities(window)
    for a, b in (laws, (laws[0], exact), (laws[1], exact)):
        assert fpflow.w2_grid(a, b).value < 2e-4


@pytest.mark.parametrize("name", ["ou", "ve", "edm", "linear"])
def test_windows_off_the_centre(name):
    """Around one of two far components, of which the other counts as outside."""
    law = fpflow.datasets.GaussianMixture([[5.0], [-6.0]], 0.3, weights=[2.0, 1.0])
    window, process = fpflow.Window(2.0, 9.0, 48, dim=1), KINDS[name]
    exact = law.cell_probabilities(window)
    for solve in SOLVERS.values():
        found = solve(law.marginal(process), process, window)
        known = found.error + what_the_prior_forgets(law, process)
        assert np.abs(found.mass - exact.mass).sum() / 2 < known
        assert abs(found.outside - exact.outside) < known


@pytest.mark.parametrize("margin", [0.0, 0.5])
@pytest.mark.parametrize("name", ["ou", "ve"])
@pytest.mark.parametrize("where", [2.5, 6.0])
def test_mass_that_leaves_the_grid_is_seen(where, name, margin):
    """One of two components lies on the far end of the margin or beyond."""
    law = fpflow.datasets.GaussianMixture([[0.0], [where]], 0.3)
    window, process = fpflow.Window(-2.0, 2.0, 40, dim=1), KINDS[name]
    exact = law.cell_probabilities(window)
    found = fpflow.grid_density_sde(law.marginal(process), process, window, margin=margin)
    assert abs(found.outside - exact.outside) < 2e-3
    assert np.abs(found.mass - exact.mass).sum() / 2 < found.error


@pytest.mark.parametrize("law", SOLVERS)
def test_windows_without_mass_are_refused(law):
    far = fpflow.datasets.GaussianMixture([[40.0, 40.0]], 0.1)
    with pytest.raises(ValueError, match="none of the mass lies in Window"):
        SOLVERS[law](far.marginal(OU), OU, fpflow.Window(nodes=8))


def test_another_prior_is_integrated():
    """The same Gaussian, as an object that has only its density."""

    class Plain(eqx.Module):
        def log_prob(self, x):
            return OU.prior.log_prob(x)

    class Process(fpflow.OrnsteinUhlenbeck):
        @property
        def prior(self):
            return Plain()

    window = fpflow.Window(-3.0, 3.0, 24, dim=1)
    model = fpflow.datasets.GaussianMixture([[0.5]], 0.4).marginal(OU)
    for solve in SOLVERS.values():
        a, b = solve(model, Process(), window), solve(model, OU, window)
        np.testing.assert_allclose(a.mass, b.mass, atol=2e-5)


SMALL = [fpflow.PotentialMLP(2, width=8, depth=2, key=jr.key(i)) for i in range(2)]
NARROW = fpflow.Window(-3.0, 3.0, 10)


@pytest.mark.slow
@pytest.mark.parametrize("law", SOLVERS)
def test_densities_are_functions_that_jax_can_transform(law):
    """Compiled, mapped over models and differentiated in their parameters."""

    def density(model):
        return SOLVERS[law](model, OU, NARROW, **({"tolerance": 1e-6} if law == "ode" else {}))

    arrays, rest = eqx.partition(SMALL[0], eqx.is_array)
    mass = lambda arrays: density(eqx.combine(arrays, rest)).mass
    plain = [density(model) for model in SMALL]
    compiled = jax.jit(lambda arrays: density(eqx.combine(arrays, rest)))(arrays)
    np.testing.assert_allclose(compiled.mass, plain[0].mass, atol=1e-12)
    np.testing.assert_allclose(compiled.error, plain[0].error, rtol=1e-8)
    assert compiled.window == NARROW
    np.testing.assert_allclose(jax.jit(lambda: density(SMALL[0]).mass)(), plain[0].mass, atol=1e-12)
    others = eqx.filter(SMALL[1], eqx.is_array)
    stacked = jax.tree.map(lambda *a: jnp.stack(a), arrays, others)
    for a, b in zip(jax.vmap(mass)(stacked), plain, strict=True):
        np.testing.assert_allclose(a, b.mass, atol=1e-12)

    spread = lambda arrays: (mass(arrays) * NARROW.points()[:, 0].reshape(10, 10) ** 2).sum()
    gradient = jax.jit(jax.grad(spread))(arrays)
    towards = jax.tree.map(lambda a: jr.normal(jr.key(3), a.shape), arrays)
    moved = lambda step: jax.tree.map(lambda a, b: a + step * b, arrays, towards)
    up, down = spread(moved(1e-4)), spread(moved(-1e-4))
    slope = sum(jax.tree.leaves(jax.tree.map(lambda a, b: (a * b).sum(), gradient, towards)))
    # The steps of the ODE's integrator are chosen anew at each point: noise of its tolerance.
    np.testing.assert_allclose(slope, (up - down) / 2e-4, rtol=1e-3)


def test_owens_t_is_that_of_scipy():
    h, slope = np.meshgrid(np.geomspace(1e-6, 30, 60), np.r_[0, np.geomspace(1e-6, 1e8, 60)])
    for sign in (1, -1):
        expected = scipy.special.owens_t(h, sign * slope)
        found = owens_t(jnp.asarray(h), jnp.asarray(sign * slope))
        np.testing.assert_allclose(found, expected, atol=1e-15)


@pytest.mark.slow
@pytest.mark.parametrize("size", [0.1, 3.0, 40.0])
def test_masses_of_quadrilaterals_have_their_derivative(size):
    """By a side's sweep, against that of the formula where it has one; at the origin it has none."""
    keys = jr.split(jr.key(0))
    z, dz = (size * jr.normal(key, (5, 6, 2)) for key in keys)
    step = 1e-6
    up, down = (gaussian_over_quadrilaterals(z + sign * step * dz) for sign in (1, -1))
    slope = jax.jvp(gaussian_over_quadrilaterals, (z,), (dz,))[1]
    np.testing.assert_allclose(slope, (up - down) / (2 * step), atol=1e-7 * size)
    edges = jnp.linspace(-1.0, 1.0, 5)
    grid = jnp.stack(jnp.meshgrid(edges, edges, indexing="ij"), -1)
    gradient = jax.grad(lambda z: (gaussian_over_quadrilaterals(z) ** 2).sum())(grid)
    assert jnp.isfinite(gradient).all() and jnp.abs(gradient).max() > 0


def test_negative_margin_is_refused():
    with pytest.raises(ValueError, match="`margin` must not be negative, got -1.0"):
        fpflow.grid_density_sde(EXACT, OU, WINDOW, margin=-1.0)
