"""Divergences on a window, distances without cells, and distances between samples."""

import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from scipy.stats import norm

import fpflow
from fpflow._metrics import within_cells
from fpflow._metrics.exact import _arcs
from fpflow._metrics.samples import _between_halves, _sliced
from known import OU, LinearScore, bures, linear_laws

LINE = fpflow.Window(-5.0, 5.0, 200, dim=1)


def gaussian(mean, std, window=LINE):
    dim = window.dim
    mean = np.broadcast_to(mean, dim)
    return fpflow.datasets.GaussianMixture(mean[None], std**2).cell_probabilities(window)


def test_divergences_of_gaussians():
    a, b = gaussian(0.3, 0.8), gaussian(-0.2, 1.1)
    kl = np.log(1.1 / 0.8) + (0.8**2 + 0.5**2) / (2 * 1.1**2) - 0.5
    affinity = np.sqrt(2 * 0.8 * 1.1 / (0.8**2 + 1.1**2)) * np.exp(-0.25 / (4 * (0.8**2 + 1.1**2)))
    # Cells of width 0.05 lose h^2 / 24 of the Fisher information; the window loses 1e-5 of mass.
    np.testing.assert_allclose(fpflow.kl_divergence(a, b).value, kl, atol=3e-4)
    np.testing.assert_allclose(fpflow.hellinger(a, b).value, np.sqrt(1 - affinity), atol=3e-4)
    x = np.linspace(-9, 9, 200_001)

    def density(m, s):
        return np.exp(-((x - m) ** 2) / (2 * s * s)) / (s * np.sqrt(2 * np.pi))

    tv = np.abs(density(0.3, 0.8) - density(-0.2, 1.1)).sum() * (x[1] - x[0]) / 2
    np.testing.assert_allclose(fpflow.total_variation(a, b).value, tv, atol=1e-3)
    assert fpflow.kl_divergence(a, a).value == fpflow.total_variation(b, b).value == 0
    assert fpflow.total_variation(a, b).error == 0


def test_floors_come_from_the_masses_without_extrapolation():
    model = LinearScore(jnp.diag(jnp.array([2.2, 1.9])))
    window = fpflow.Window(-4.0, 4.0, 32)
    ode = fpflow.grid_density_ode(model, OU, window)
    sde = fpflow.grid_density_sde(model, OU, window, num_steps=20)
    found = fpflow.total_variation(ode, sde)
    plain = np.abs(ode.unextrapolated - sde.unextrapolated).sum() / 2
    np.testing.assert_allclose(found.error, abs(found.value - plain))
    assert found.kind == "floor" and found.error > 0


def test_w2_on_a_line_is_that_of_the_quantiles():
    a, b = gaussian(0.3, 0.8), gaussian(-0.2, 1.1)
    exact = 0.5**2 + 0.3**2  # (difference of means)^2 + (difference of deviations)^2
    # On centres the cell adds up to h^2 / 6 = 4e-4; the window's edges lose 1e-5 of the tails.
    np.testing.assert_allclose(fpflow.w2_grid(a, b).value, exact, atol=2e-3)
    np.testing.assert_allclose(fpflow.w2_continuous(a, b).value, exact, atol=1e-3)
    assert fpflow.w2_grid(a, a).value == 0


def test_shifts_below_the_cell_are_seen_without_cells():
    """Masses on centres turn a shift d into about d h; the densities keep d^2."""
    for window in (fpflow.Window(-4.0, 4.0, 64, dim=1), fpflow.Window(-4.0, 4.0, 64)):
        h, shift = window.cell_width, window.cell_width / 8
        direction = np.zeros(window.dim)
        direction[0] = shift
        a, b = gaussian(0.0, 0.6, window), gaussian(direction, 0.6, window)
        exact = fpflow.w2_grid(a, b).value
        assert 0.8 < exact / (shift * h) < 1.2
        # Second order in h / 0.6, which is 0.2.
        np.testing.assert_allclose(fpflow.w2_continuous(a, b).value, shift**2, rtol=0.03)


@pytest.mark.slow
def test_w2_without_cells_of_close_gaussians_is_bures():
    model = LinearScore(jnp.diag(jnp.array([2.05, 1.98])))
    sde_cov, ode_cov = linear_laws(model.matrix, OU)
    window = fpflow.Window(-5.0, 5.0, 80)
    found = fpflow.w2_continuous(
        fpflow.grid_density_ode(model, OU, window), fpflow.grid_density_sde(model, OU, window)
    )
    exact = bures(sde_cov, ode_cov)
    # Two per cent of W2 is the promise; its own error says as much.
    np.testing.assert_allclose(found.value**0.5, exact**0.5, rtol=0.02)
    assert abs(found.value - exact) < found.error


@pytest.mark.parametrize("dim", [1, 3, 10])
def test_sliced_w2_of_a_shift(dim):
    x, y = (np.asarray(jr.normal(k, (10_000, dim))) for k in jr.split(jr.key(dim)))
    shift = np.zeros(dim)
    shift[0] = 0.5
    found = fpflow.sliced_w2(x, y + shift)
    # dim * E cos^2 = 1; the floor comes on top.
    assert abs(found.value - 0.25) < 5 * found.standard_error + 3 * found.floor
    same = fpflow.sliced_w2(x, y)
    # A distance between two sets of one law is its own floor, within the luck of the draw.
    assert 0.2 < same.value / same.floor < 5


@pytest.mark.parametrize("dim", [1, 3])
def test_sliced_w2_knows_its_error(dim):
    """Between sets of unequal size, drawn forty times with directions of their own."""
    rng = np.random.default_rng(dim)
    found = [
        fpflow.sliced_w2(
            rng.normal(size=(500, dim)), 1.5 * rng.normal(size=(300, dim)) + 0.4,
            num_projections=64, seed=k,
        )
        for k in range(40)
    ]  # fmt: skip
    spread = np.std([d.value for d in found], ddof=1)
    stated = np.mean([d.standard_error for d in found])
    # Forty draws know a standard deviation to 11 per cent; three of them either way.
    assert 0.66 < spread / stated < 1.34


def test_mass_that_crosses_a_vacuum_is_not_of_first_order():
    """A fiftieth of it, from one of two modes to the other: the first order is four times too large at
    0.4 and millions at 0.2, at every width of the cells."""
    for nodes, std in ((32, 0.2), (64, 0.4), (96, 0.4)):
        window = fpflow.Window(nodes=nodes)
        across = np.diff(norm.cdf(window.edges(), 0.0, std))
        modes = [np.diff(norm.cdf(window.edges(), m, std)) for m in (-1.5, 1.5)]
        p, q = (a * modes[0] + (1 - a) * modes[1] for a in (0.5, 0.48))
        line = fpflow.Window(nodes=nodes, dim=1)
        exact = fpflow.w2_continuous(p / p.sum(), q / q.sum(), line).value
        planes = [np.outer(v / v.sum(), across / across.sum()) for v in (p, q)]
        found = fpflow.w2_continuous(*planes, window)
        assert found.value > 3 * exact and abs(found.value - exact) < found.error


def test_cells_bound_a_distance_without_them():
    """By a diagonal; where mass crosses a vacuum the first order is far worse."""
    window = fpflow.Window(nodes=32)
    across = np.diff(norm.cdf(window.edges(), 0.0, 0.2))
    modes = [np.diff(norm.cdf(window.edges(), m, 0.2)) for m in (-1.5, 1.5)]
    p, q = (np.outer(a * modes[0] + (1 - a) * modes[1], across) for a in (0.5, 0.48))
    found = fpflow.w2_continuous(p := p / p.sum(), q := q / q.sum(), window)
    cells, diagonal = fpflow.w2_grid(p, q, window), window.cell_width * 2**0.5
    known = within_cells(found, cells, window)
    assert known.error < found.error / 1000
    line = fpflow.Window(nodes=32, dim=1)
    exact = fpflow.w2_continuous(p.sum(1), q.sum(1), line).value
    assert abs(known.value - exact) < known.error
    top = (cells.upper**0.5 + diagonal) ** 2
    assert known.value + known.error <= top * (1 + 1e-12)
    near = fpflow.Estimate(cells.value, 1e-9, "bracket")
    assert within_cells(near, cells, window) == near
    # A bracket that the cells refute is not narrowed to less than nothing.
    refuted = within_cells(fpflow.Estimate(9.0, 0.1), cells, window)
    assert abs(refuted.value - exact) < refuted.error
    apart = within_cells(fpflow.Estimate(0.0, 1e-9), fpflow.W2Result(1.0, 1.0, 1.0), window)
    np.testing.assert_allclose(apart.value - apart.error, (1 - diagonal) ** 2, rtol=1e-12)


def test_the_floor_has_directions_enough():
    """In 20 dimensions, where 64 of the 256 directions of the value made its error a tenth too large."""
    pairs = np.random.default_rng(0).normal(size=(40, 2, 400, 20))
    directions = np.random.default_rng(0).normal(size=(20, 256))
    directions /= np.linalg.norm(directions, axis=0)

    def with_all(x, y):
        return _between_halves(lambda a, b: 20 * float(_sliced(a, b, directions).mean()), x, y)[1]

    stated = np.mean([fpflow.sliced_w2(x, y).floor_error for x, y in pairs])
    # Forty ratios that scatter by a tenth are known to 2 %.
    assert 0.98 < stated / np.mean([with_all(x, y) for x, y in pairs]) < 1.06


def test_w2_of_samples_stands_beside_its_floor():
    x, y = (np.asarray(jr.normal(k, (800, 2))) for k in jr.split(jr.key(0)))
    same, apart = fpflow.w2_samples(x, y), fpflow.w2_samples(x, y + np.array([2.0, 0]))
    assert abs(same.value - same.floor) < 5 * same.standard_error + 0.1 * same.floor
    assert abs(apart.value - same.floor - 4) < 5 * apart.standard_error


@pytest.mark.slow
def test_w2_of_moments_is_bures_in_dimension_ten():
    """Samples of both samplers of a linear wrong score, whose laws are Gaussian."""
    process = fpflow.OrnsteinUhlenbeck(t1=1.0)
    model = LinearScore(jnp.diag(jnp.linspace(0.5, 4.0, 10)))
    exact = bures(*linear_laws(model.matrix, process))
    n = 100_000
    ode = fpflow.sample_ode(model, process, n, num_steps=30, key=jr.key(0))
    sde = fpflow.sample_sde(model, process, n, num_steps=60, key=jr.key(1))
    found = fpflow.w2_moments(ode, sde)
    np.testing.assert_allclose((found.value - found.floor) ** 0.5, exact**0.5, rtol=0.02)
    assert found.standard_error < 0.04 * exact


@pytest.mark.parametrize("dim", [1, 3])
def test_w2_of_moments_is_that_of_the_points_where_the_plan_is_linear(dim):
    """Skewed points moved by the gradient of a convex square: no plan is better than that map, and it is
    known from the moments; what has the same moments is at distance zero to them and not in truth."""
    rng = np.random.default_rng(dim)
    x = rng.exponential(size=(200, dim))
    root = rng.normal(size=(dim, dim))
    y = x @ (np.eye(dim) + root @ root.T) + rng.normal(size=dim)
    moved = ((y - x) ** 2).sum(1).mean()
    # Covariances of 200 points are divided by 199, where the plan is by 200.
    shift = ((y.mean(0) - x.mean(0)) ** 2).sum()
    exact = shift + (moved - shift) * 200 / 199
    np.testing.assert_allclose(fpflow.w2_moments(x, y).value, exact, rtol=1e-9)
    mirrored = 2 * x.mean(0) - x
    found, truth = fpflow.w2_moments(x, mirrored).value, fpflow.w2_samples(x, mirrored).value
    assert found < 1e-9 and truth > 0.05


def test_bad_samples_are_refused():
    x = np.zeros((8, 2))
    for call, words in (
        (
            lambda: fpflow.sliced_w2(x[0], x),
            r"`x` must hold at least four points, shape \(n, dim\)",
        ),
        (
            lambda: fpflow.sliced_w2(x, x[:, :1]),
            "`x` and `y` must have the same dimension, got 2 and 1",
        ),
        (lambda: fpflow.w2_samples(x, x * np.nan), "`y` holds NaN or Inf"),
    ):
        with pytest.raises(ValueError, match=words):
            call()
    with pytest.raises(ValueError, match="`method` is for windows in the plane"):
        a = gaussian(0.0, 1.0)
        fpflow.w2_grid(a, a, method=fpflow.Sinkhorn())


def test_much_mass_outside_is_told():
    a = gaussian(4.5, 1.0)
    with pytest.warns(UserWarning, match="of `a` lies outside|of `b` lies outside"):
        fpflow.w2_grid(a, a)


def test_windows_on_a_line_hold_both_laws():
    """The moments of a linear score's laws on a line; h^2 / 12 is the cell's own variance."""
    model = LinearScore(jnp.array([[2.6]]))
    for density, cov in zip(
        (fpflow.grid_density_sde(model, OU, LINE), fpflow.grid_density_ode(model, OU, LINE)),
        linear_laws(model.matrix, OU), strict=True,
    ):  # fmt: skip
        x = LINE.centres()
        variance = float((density.mass * x**2).sum() - LINE.cell_width**2 / 12)
        if cov[0, 0] < 0.7:  # the other reaches far beyond the window
            np.testing.assert_allclose(variance, cov[0, 0], rtol=1e-3)
        np.testing.assert_allclose(density.mass.sum(), 1, rtol=1e-12)
        np.testing.assert_allclose(density.mass, density.mass[::-1], atol=1e-9)
    counts = fpflow.sample_histogram(fpflow.SDE(num_steps=50), model, OU, 4000, LINE, key=jr.key(0))
    assert counts.mass.shape == (200,)
    with pytest.raises(ValueError, match="`dim` of a window must be 1 or 2, got 3"):
        fpflow.Window(dim=3)
    with pytest.raises(
        ValueError, match="the window has dimension 1 and the distribution dimension 2"
    ):
        fpflow.datasets.circles().cell_probabilities(LINE)


def test_members_of_the_family_have_the_laws_of_their_moment_equations():
    """Sampler and grid of eta = 0.5 against the covariance equation, and the exact score for all."""
    eta, matrix = 0.5, jnp.array([[2.4]])
    drift, noise = 1 - (1 + eta**2) / 2 * 2.4, eta**2
    cov = 0.5
    for _ in range(100_000):
        cov += 1e-4 * (2 * drift * cov + noise)
    density = fpflow.grid_density_sde(LinearScore(matrix), OU, LINE, eta=eta)
    variance = float((density.mass * LINE.centres() ** 2).sum() - LINE.cell_width**2 / 12)
    np.testing.assert_allclose(variance, cov, rtol=2e-3)
    x = fpflow.sample_sde(LinearScore(matrix), OU, 40_000, eta=eta, num_steps=100, key=jr.key(0))
    # The variance of 40,000 samples has a relative standard error of 0.7 %.
    np.testing.assert_allclose(float(x.var()), cov, rtol=0.035)
    law = fpflow.datasets.GaussianMixture([[-1.0], [1.0]], 0.1)
    member = fpflow.grid_density_sde(law.marginal(OU), OU, LINE, eta=0.7)
    assert fpflow.total_variation(member, law.cell_probabilities(LINE)).value < 1e-3
    for bad, words in ((-1.0, "`eta` must be finite and not negative"), (0.0, "`eta` = 0 is the")):
        with pytest.raises(ValueError, match=words):
            fpflow.grid_density_sde(law.marginal(OU), OU, LINE, eta=bad)


def test_w2_without_cells_stretches_within_a_cell():
    """One cell onto two: the quantile functions h u and 2 h u are h / sqrt 3 apart."""
    window = fpflow.Window(0.0, 3.0, 4, dim=1)
    one, two = np.array([0.0, 1.0, 0, 0]), np.array([0.0, 0.5, 0.5, 0])
    np.testing.assert_allclose(fpflow.w2_continuous(one, two, window).value, 1 / 3, rtol=1e-12)


def test_divergences_say_what_counting_and_empty_cells_hide():
    window = fpflow.Window(-4.0, 4.0, 40, dim=1)
    law = fpflow.datasets.GaussianMixture([[0.0]], 0.5)
    exact = law.cell_probabilities(window)
    counted = fpflow.datasets.Points(law.sample(jr.key(0), 500)).cell_probabilities(window)
    for kind in (fpflow.total_variation, fpflow.hellinger, fpflow.kl_divergence):
        found = kind(counted, exact)
        # All of it is counting noise, and floor and error say so.
        assert abs(found.value - found.floor) < 3 * found.error and found.error < found.floor / 2
    narrow = gaussian(0.0, 0.1, window)
    wide = fpflow.kl_divergence(exact, narrow)
    assert wide.error == np.inf and wide.kind == "lower bound"
    assert np.isfinite(fpflow.kl_divergence(narrow, exact).error)


def test_arcs_are_all_pairs_within_reach_and_each_once():
    window, rng = fpflow.Window(-1.0, 1.0, 12), np.random.default_rng(0)
    p, q = (rng.random((2, 12, 12)) * (rng.random((2, 12, 12)) < 0.4)).astype(float)
    p[0, 0], q[9:, 9:] = 1.0, 0  # a corner far from all mass of the other: longer arcs
    found = _arcs(p, q, window, 0.5)
    centres = np.stack(np.meshgrid(*[window.centres()] * 2, indexing="ij"), -1).reshape(-1, 2)
    a, b = centres[p.ravel() > 0], centres[q.ravel() > 0]
    squares = ((a[:, None] - b) ** 2).sum(-1)
    pairs = set(zip(found.row.tolist(), found.col.tolist(), strict=True))
    assert len(pairs) == found.nnz, "no arc comes twice"
    assert {tuple(pair) for pair in np.argwhere(squares <= 0.25).tolist()} <= pairs
    np.testing.assert_allclose(found.data, squares[found.row, found.col], atol=1e-15)
