"""W2 against shifts, dense linear programmes and one method against another."""

import numpy as np
import ot
import pytest
from scipy.spatial.distance import cdist

import fpflow
from fpflow._metrics.exact import conjugate

WINDOW = fpflow.Window(-1.0, 1.0, 12)


def random_mass(seed, window=WINDOW, zeros=0.0):
    rng = np.random.default_rng(seed)
    mass = rng.random(window.shape) ** 3 * (rng.random(window.shape) >= zeros)
    return mass / mass.sum()


def centres(window=WINDOW):
    return np.stack(np.meshgrid(*[window.centres()] * 2, indexing="ij"), -1).reshape(-1, 2)


def blob(x, y, width, window):
    grid = centres(window)
    mass = np.exp(-((grid - [x, y]) ** 2).sum(1) / (2 * width**2)).reshape(window.shape)
    return mass / mass.sum()


@pytest.mark.parametrize("zeros", [0.0, 0.6])
@pytest.mark.parametrize("radius", [0.2, 0.7, 5.0])
def test_value_is_that_of_the_dense_programme(zeros, radius):
    """Whatever the arcs: too short, enough, or all."""
    a, b = random_mass(0, zeros=zeros), random_mass(1, zeros=zeros)
    cost = cdist(centres(), centres(), "sqeuclidean")
    expected = ot.emd2(a.ravel(), b.ravel(), cost)
    result = fpflow.w2_grid(a, b, WINDOW, radius=radius)
    np.testing.assert_allclose(result.value, expected, rtol=1e-9)
    assert result.lower <= result.value <= result.upper
    assert result.value - result.lower < 1e-9


def test_translation_costs_its_square():
    """Whole cells moved by (3, -2) cells cost (9 + 4) h^2 exactly, and no plan is cheaper."""
    mass = np.zeros(WINDOW.shape)
    mass[2:7, 4:9] = random_mass(3)[2:7, 4:9]
    mass /= mass.sum()
    moved = np.roll(mass, (3, -2), axis=(0, 1))
    result = fpflow.w2_grid(mass, moved, WINDOW)
    np.testing.assert_allclose(result.value, 13 * WINDOW.cell_width**2, rtol=1e-9)


def test_far_and_disjoint_masses_on_the_papers_grid():
    window = fpflow.Window()
    a, b = blob(-2, -2, 0.3, window), blob(2, 1.5, 0.3, window)
    result = fpflow.w2_grid(a, b)
    # A Gaussian moved by (4, 3.5); the cut at the window's edge changes less than one per cent.
    np.testing.assert_allclose(result.value, 16 + 12.25, rtol=0.01)
    assert result.value - result.lower < 1e-8


def test_distance_is_symmetric_and_zero_on_itself():
    a, b = random_mass(4), random_mass(5)
    forth, back = fpflow.w2_grid(a, b, WINDOW), fpflow.w2_grid(b, a, WINDOW)
    np.testing.assert_allclose(forth.value, back.value, rtol=1e-9)
    assert abs(fpflow.w2_grid(a, a, WINDOW).value) < 1e-12


def test_conjugate_is_the_minimum_over_all_cells():
    potential = np.random.default_rng(0).normal(size=WINDOW.shape)
    cost = cdist(centres(), centres(), "sqeuclidean")
    expected = (cost - potential.ravel()[:, None]).min(0)
    np.testing.assert_allclose(conjugate(potential, WINDOW).ravel(), expected, rtol=1e-12)


@pytest.mark.parametrize("zeros", [0.0, 0.5])
def test_sinkhorn_brackets_the_exact_value(zeros):
    a, b = random_mass(6, zeros=zeros), random_mass(7, zeros=zeros)
    exact = fpflow.w2_grid(a, b, WINDOW)
    method = fpflow.Sinkhorn(epsilon=5e-4, threshold=1e-8, max_iterations=20_000)
    bracket = fpflow.w2_grid(a, b, WINDOW, method=method)
    assert bracket.lower <= exact.value + 1e-9
    assert bracket.upper >= exact.value - 1e-9
    # Entropy costs the plan at most epsilon log n, and a conjugate instead of a soft one the dual at
    # most epsilon times the logarithm of the smallest mass.
    smallest = min(mass[mass > 0].min() for mass in (a, b))
    assert bracket.upper - bracket.lower < method.epsilon * (np.log(a.size) - np.log(smallest))
    assert bracket.lower <= bracket.value <= bracket.upper


BAD = [
    (np.full((5, 5), 1 / 25), r"`a` must have the window's shape \(12, 12\), got \(5, 5\)"),
    (2 * random_mass(0), "`a` must sum to 1, got 2"),
    (np.where(random_mass(0) > 0.01, np.nan, random_mass(0)), "`a` holds NaN or Inf in"),
    (random_mass(0) - 1e-4, "`a` holds negative masses, the lowest is"),
]


@pytest.mark.parametrize(("mass", "words"), BAD)
@pytest.mark.parametrize("method", [None, fpflow.Sinkhorn()], ids=["exact", "sinkhorn"])
def test_bad_masses_are_refused(mass, words, method):
    with pytest.raises(ValueError, match=words):
        fpflow.w2_grid(mass, random_mass(1), WINDOW, method=method)
    with pytest.raises(ValueError, match=words.replace("`a`", "`b`")):
        fpflow.w2_grid(random_mass(1), mass, WINDOW, method=method)


def test_densities_on_different_windows_are_refused():
    law = fpflow.datasets.circles()
    here, there = (law.cell_probabilities(fpflow.Window(-w, w, 12)) for w in (3.0, 4.0))
    with pytest.raises(ValueError, match="`a`, `b` and `window` must be on the same window"):
        fpflow.w2_grid(here, there)
    with pytest.raises(ValueError, match="must be on the same window"):
        fpflow.w2_grid(here, here, WINDOW)


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match="`radius` must be positive, got 0.0"):
        fpflow.w2_grid(random_mass(0), random_mass(1), WINDOW, radius=0.0)
    with pytest.raises(ValueError, match="`epsilon` must be positive, got 0.0"):
        fpflow.Sinkhorn(epsilon=0.0)
    with pytest.raises(ValueError, match="`threshold` must be positive"):
        fpflow.Sinkhorn(threshold=-1.0)
    with pytest.raises(ValueError, match="`max_iterations` must be positive"):
        fpflow.Sinkhorn(max_iterations=0)
