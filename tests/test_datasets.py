"""Data laws: samples, densities and cell probabilities agree with each other."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from scipy.stats import chi2

import fpflow
from fpflow import datasets
from fpflow.datasets import count_in_cells
from known import OU, PROCESSES, ROUND_OFF, Stretch, mixture

LAWS = {
    "mixture": datasets.gaussian_mixture(),
    "circles": datasets.circles(),
    "checkerboard": datasets.checkerboard(),
    "tilted mixture": mixture(2),
}
WINDOW = fpflow.Window(nodes=24)
NORMAL = np.random.default_rng(0).normal(size=(300, 2))


@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
def test_samples_follow_the_cell_probabilities(law):
    """Pearson's chi-square over the cells that expect at least ten of 200,000 draws."""
    n = 200_000
    density = law.cell_probabilities(WINDOW)
    counts = count_in_cells(np.asarray(law.sample(jr.key(1), n)), WINDOW)
    expected = density.mass * (1 - density.outside) * n
    used = expected >= 10
    statistic = ((counts - expected)[used] ** 2 / expected[used]).sum()
    assert statistic < chi2.ppf(1 - 1e-6, used.sum())
    assert statistic > chi2.ppf(1e-6, used.sum())
    assert abs(density.mass.sum() - 1) < ROUND_OFF


@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
def test_cell_probabilities_are_integrals_of_the_density(law):
    """By the midpoint rule on 20 x 20 points a cell: one part in a thousand on smooth laws, and on
    the board one column of points at each of its edges."""
    k = 20
    edges = WINDOW.edges(k)
    axis = jnp.asarray((edges[1:] + edges[:-1]) / 2)
    grid = jnp.stack(jnp.meshgrid(axis, axis, indexing="ij"), -1)
    p = np.exp(jax.vmap(jax.vmap(law.log_prob))(grid)) * (WINDOW.cell_width / k) ** 2
    mass = p.reshape(WINDOW.nodes, k, WINDOW.nodes, k).sum((1, 3))
    density = law.cell_probabilities(WINDOW)
    exact = density.mass * (1 - density.outside)
    tolerance = 0.03 if law is LAWS["checkerboard"] else 1e-3
    assert np.abs(mass - exact).sum() / 2 < tolerance


def test_the_papers_laws_are_the_papers():
    """Facts of the published setting: centres, variance, radii, squares."""
    law = LAWS["mixture"]
    np.testing.assert_allclose(law.variances, 0.0845, rtol=ROUND_OFF)
    np.testing.assert_allclose(np.abs(law.means).sum(1), [2.6] * 4 + [0] + [2.6] * 4)
    circle = np.linalg.norm(LAWS["circles"].sample(jr.key(0), 50_000), axis=1)
    inner = circle < 2.05
    np.testing.assert_allclose([circle[inner].mean(), circle[~inner].mean()], [1.3, 2.8], atol=0.01)
    corners = {
        (-3, -3),
        (0, -3),
        (-1.5, -1.5),
        (1.5, -1.5),
        (-3, 0),
        (0, 0),
        (-1.5, 1.5),
        (1.5, 1.5),
    }
    assert {tuple(c) for c in LAWS["checkerboard"]._corners().tolist()} == corners


@pytest.mark.parametrize("dim", [1, 2, 5])
@pytest.mark.parametrize("process", [*PROCESSES.values(), Stretch()], ids=[*PROCESSES, "stretch"])
def test_marginal_derivatives_match_automatic_ones(dim, process):
    exact = mixture(dim).marginal(process)
    t, x = jnp.array(process.t0 + 0.2), 0.8 * jr.normal(jr.key(3), (dim,))
    gradient = jax.jit(jax.grad(exact.potential, 1))(t, x)
    hessian = jax.jit(jax.hessian(exact.potential, 1))(t, x)
    np.testing.assert_allclose(exact.score(t, x), gradient, rtol=1e-9)
    np.testing.assert_allclose(exact.laplacian(t, x), jnp.trace(hessian), rtol=1e-9)
    by_time = jax.jit(jax.grad(exact.potential, 0))(t, x)
    np.testing.assert_allclose(exact.time_derivative(t, x), by_time, rtol=1e-9)


def test_marginal_is_the_law_of_noised_samples():
    """Mean and covariance at t = 0.5 against 200,000 noised draws, in standard errors."""
    law, t, n = mixture(2), jnp.array(0.5), 200_000
    key_data, key_noise = jr.split(jr.key(0))
    mean, std = jax.vmap(lambda x: OU.transition(t, x))(law.sample(key_data, n))
    x = mean + std[:, None] * jr.normal(key_noise, mean.shape)
    # E_p[s] = 0 and E_p[x s^T] = -I hold for the exact score of the law of x alone.
    s = jax.vmap(lambda x: law.marginal(OU).score(t, x))(x)
    stein = x[:, :, None] * s[:, None, :] + jnp.eye(2)
    for terms in (s, stein.reshape(n, 4)):
        assert (jnp.abs(terms.mean(0)) < 5 * terms.std(0) / n**0.5).all()


def test_points_keep_their_law():
    points = np.random.default_rng(0).normal(size=(500, 3))
    law = datasets.Points(points)
    drawn = law.sample(jr.key(0), 2000)
    assert {tuple(p) for p in np.asarray(drawn)} <= {tuple(p) for p in points}
    histogram = datasets.Points(points[:, :2]).cell_probabilities(WINDOW)
    inside = (np.abs(points[:, :2]) < WINDOW.edges()[-1]).all(1).mean()
    np.testing.assert_allclose(histogram.outside, 1 - inside, atol=ROUND_OFF)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (np.zeros(5), r"shape \(n, dim\), one point per row, got \(5,\)"),
        (np.zeros((2, 3, 4)), r"got \(2, 3, 4\)"),
        (np.zeros((0, 2)), "data is empty"),
        (np.zeros((4, 0)), "data is empty"),
        (np.array([[0.0, 1.0], [np.nan, 2.0]]), "data holds NaN in 1 of 2 rows, first in row 1"),
        (np.array([[0.0, 1.0], [np.inf, 2.0]]), "data holds Inf in 1 of 2 rows, first in row 1"),
        (np.ones((10, 2)), "data is the same point 10 times"),
        (np.ones((1, 2)), "data is the same point 1 times"),
        (
            np.ma.masked_less(np.arange(6.0).reshape(3, 2), 1),
            "data has 1 masked values in 1 of 3 rows",
        ),
        (
            [np.ma.masked_less([0.0, 1.0], 1), np.ma.ones(2)],
            "data has 1 masked values in 1 of 2 rows",
        ),
        (np.array([["a", "b"], ["c", "d"]]), "data must hold real numbers"),
    ],
)
def test_bad_data_is_refused(data, words):
    with pytest.raises(ValueError, match=words):
        datasets.as_data(data)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (1e9 + NORMAL, "float32 rounds column 0 of the data by .* of its range; subtract its mean"),
        (NORMAL + 1e6 * np.eye(2)[1], "float32 rounds column 1 of the data by .*; subtract"),
        (1e39 * NORMAL, "data holds numbers beyond 3.4e\\+38, the largest float32: column 0"),
    ],
)
def test_data_that_single_precision_cannot_hold_is_refused(data, words):
    with jax.enable_x64(False), pytest.raises(ValueError, match=words):
        datasets.as_data(data)
    datasets.as_data(data)  # in double precision all is well
    with jax.enable_x64(False):
        datasets.as_data(1e4 + NORMAL)


def test_odd_data_gets_a_warning():
    """A pixel that is always black is no mistake, but no distribution either."""
    with pytest.warns(UserWarning, match="constant in 1 of its 2 columns, the first column 1"):
        law = datasets.as_data(np.stack([np.arange(9.0), np.ones(9)], 1))
    x = np.array([[4.0, 1.0], [4.0, 5.0], [-8.0, 1.0]])
    np.testing.assert_array_equal(datasets.widths_away(x, np.asarray(law.points)), [0, 0.5, 1])
    with pytest.warns(UserWarning, match="2 points in dimension 300, .* with `data.T`"):
        datasets.as_data(NORMAL.T)


def test_warnings_point_at_the_line_of_the_user():
    """Through a class of equinox and through several rooms of the library."""
    ones = np.stack([np.arange(9.0), np.ones(9)], 1)
    half = fpflow.GridDensity(np.full((24, 24), 24.0**-2), 0.5, 0.0, WINDOW)
    for ask in (
        lambda: datasets.Points(ones),
        lambda: datasets.split(ones, 0.2),
        lambda: fpflow.total_variation(half, half),
    ):
        with pytest.warns(UserWarning) as told:
            ask()
        assert {warning.filename for warning in told} == {__file__}


def test_a_sampler_of_the_wrong_shape_is_refused():
    class Flat:
        def sample(self, key, n):
            return jr.normal(key, (n,))

    with pytest.raises(ValueError, match=r"must return shape \(n, dim\), got \(3,\) at n = 3"):
        datasets.as_data(Flat())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (([1.0, 2.0], 1.0), r"`means` must be finite, shape \(components, dim\)"),
        (([[1.0, 2.0]], [1.0, 2.0, 3.0]), "`covariances` must be a number or of shape"),
        (([[1.0, 2.0]], -1.0), "`covariances` must be positive, got -1"),
        (([[1.0, 2.0]], 1.0, [1.0, 2.0]), r"`weights` must be positive, shape \(1,\)"),
    ],
)
def test_bad_mixtures_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        datasets.GaussianMixture(*arguments)


def test_frames_and_series_of_rows_are_points():
    """What offers `to_numpy`, as frames of pandas and polars do, whose `sample` is no data law's."""

    class Frame:
        def __init__(self, table):
            self.table = table

        def to_numpy(self):
            return self.table

        def sample(self, n=None, frac=None):
            raise AssertionError("not asked")

    table = np.random.default_rng(0).normal(size=(50, 3))
    rows = np.empty(50, object)
    rows[:] = list(table)
    for frame in (Frame(table), Frame(rows)):
        np.testing.assert_allclose(datasets.as_data(frame).points, table, rtol=1e-6)


def test_bad_shapes_of_laws_are_refused():
    with pytest.raises(ValueError, match="`radii` and `width` must be positive"):
        datasets.Circles(width=0.0)
    with pytest.raises(ValueError, match="`half_width` must be positive"):
        datasets.Checkerboard(half_width=-1.0)
    with pytest.raises(
        ValueError, match="the window has dimension 2 and the distribution dimension 5"
    ):
        mixture(5).cell_probabilities(WINDOW)
    with pytest.raises(
        ValueError, match="the window has dimension 2 and the distribution dimension 3"
    ):
        datasets.Points(np.eye(3)).cell_probabilities(WINDOW)
    with pytest.raises(ValueError, match="none of 2 points lies in"):
        datasets.Points(np.array([[50.0, 60.0], [70.0, 80.0]])).cell_probabilities(WINDOW)
    with pytest.raises(ValueError, match="`high` must be above `low` = 1.0, got 1.0"):
        fpflow.Window(1.0, 1.0)
    with pytest.raises(ValueError, match="`nodes` must be a whole number of at least 2, got 1"):
        fpflow.Window(nodes=1)
