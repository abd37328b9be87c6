"""KL accounts and the theorem's constants on laws whose answers are known."""

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import scipy

import fpflow
from fpflow._accounting.theorem import poincare_constant
from fpflow._grid import density_history
from known import OU, LinearScore, linear_laws
from test_likelihood import LinearPotential


def kl_gaussians(a, b):
    ratio = np.linalg.solve(b, a)
    return float(np.trace(ratio) - len(a) - np.linalg.slogdet(ratio)[1]) / 2


@pytest.mark.parametrize("dim", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_accounts_of_a_linear_wrong_score(dim):
    """Data that is the prior itself, N(0, I/2), so that all parts are Gaussian integrals."""
    data = fpflow.datasets.GaussianMixture(np.zeros((1, dim)), 0.5)
    model = LinearPotential(jnp.diag(jnp.linspace(1.8, 2.3, dim)))
    sde_cov, ode_cov = linear_laws(model.matrix, OU)
    account = fpflow.kl_account(model, OU, data, num_points=4096, key=jr.key(0))
    true_ode = kl_gaussians(np.eye(dim) / 2, ode_cov)
    true_sde = kl_gaussians(np.eye(dim) / 2, sde_cov)
    # ½ ∫ g² E|∇log p − s|² = T/2 tr((A − 2)² / 2)
    exact = 5 * np.sum((np.linspace(1.8, 2.3, dim) - 2) ** 2) / 2
    assert abs(account.score_matching.value - exact) < 4 * account.score_matching.error
    assert abs(account.kl_ode.value - true_ode) < 4 * account.kl_ode.error
    assert account.kl_ode.error < 0.1 * true_ode + 1e-3
    assert true_sde < account.bound_sde.value + 4 * account.bound_sde.error
    assert abs(account.prior.value) < 1e-9


@pytest.mark.slow
def test_account_of_an_exact_score_is_zero():
    law = fpflow.datasets.GaussianMixture([[-1.0], [1.0]], 0.2)
    account = fpflow.kl_account(law.marginal(OU), OU, law, num_points=64, key=jr.key(0))
    for term in (account.score_matching, account.difference):
        assert abs(term.value) < 1e-7
    # KL(p_T | pi) of data moved by e^-10 only.
    assert abs(account.prior.value) < 1e-6
    with pytest.raises(ValueError, match=r"`data` must offer `marginal\(process\)`"):
        fpflow.kl_account(law.marginal(OU), OU, fpflow.datasets.circles(), key=jr.key(0))


def test_poincare_constant_of_a_gaussian_is_its_variance():
    x = np.linspace(-4, 4, 161)
    # Second differences at h = 0.05.
    np.testing.assert_allclose(poincare_constant(-(x**2) / (2 * 0.36), 0.05), 0.36, rtol=5e-3)
    plane = -(x[::4, None] ** 2) / (2 * 0.36) - x[None, ::4] ** 2 / (2 * 0.7)
    np.testing.assert_allclose(poincare_constant(plane, 0.2), 0.7, rtol=2e-2)


def test_the_theorem_holds_in_numbers():
    """On a line with a slightly wrong potential: both sides of the identity, and both bounds."""
    model, window = LinearPotential(jnp.array([[2.2]])), fpflow.Window(-4.0, 4.0, 160, dim=1)
    process = fpflow.OrnsteinUhlenbeck(t1=3.0)
    found = fpflow.theorem_one(model, process, window, num_times=120, num_steps=240)
    sde_cov, ode_cov = linear_laws(model.matrix, process)
    gap = abs(np.sqrt(sde_cov[0, 0]) - np.sqrt(ode_cov[0, 0]))
    # psi = -x^2/2 (1/Sigma - A) + c: D^2 = ∫ ½ Sigma (1/Sigma - A)² dt with Sigma from its equation.
    cov, h, total = 0.5, 1e-4, 0.0
    for _ in range(30_000):
        total += h / 2 * cov * (1 / cov - 2.2) ** 2
        cov += h * (2 * (1 - 2.2) * cov + 1)
    np.testing.assert_allclose(found.distance, np.sqrt(total), rtol=0.01)
    # The trapezoidal rule over 120 times misses .0018, over 240 times .0007.
    np.testing.assert_allclose(found.distance_by_identity, found.distance, rtol=0.005)
    # The velocity -x + 1.1 x run backwards: L = 1 - 1.1 = -0.1 everywhere.
    np.testing.assert_allclose(found.lipschitz, -0.1, atol=1e-6)
    np.testing.assert_allclose(found.poincare, 1 / 2.2, rtol=0.02)
    # So that G^2 = ∫ e^(-0.2 t) / 2 dt over [0, 3].
    growth = np.sqrt(2.5 * -np.expm1(-0.6))
    np.testing.assert_allclose(found.growth, growth, rtol=1e-4)
    np.testing.assert_allclose(found.bound_from_densities, growth * found.distance, rtol=1e-4)
    # r = (A - A^2 / 2) x^2 + c under N(0, 1/A), whose square has the variance 2 / A^2.
    np.testing.assert_allclose(found.variance, 2 * (1 - 1.1) ** 2, rtol=1e-3)
    b2 = np.trapezoid(2 * found.poincare * found.ratio * found.variance, found.times)
    np.testing.assert_allclose(found.forcing**2, b2, rtol=1e-6)
    bound = growth * (found.forcing + np.sqrt(b2 + 4 * found.prior_term)) / 2
    np.testing.assert_allclose(found.bound, bound, rtol=1e-4)
    # The bound by the densities is three times the gap here, not orders of magnitude.
    assert gap <= found.bound_from_densities <= found.bound and found.bound_from_densities < 4 * gap
    # The paper's form: a constant, and delta over the box, whose width changes a little, at any time.
    settings = {"refine": 1, "num_steps": 240, "margin": 1.5}
    times, _, centres = density_history(model, process, window, **settings)
    half = centres[np.searchsorted(times, found.times)]
    half = (3 * half[:, -1] - half[:, -2]) / 2
    square = 0.22**2 * half**4 / 5 - 2 * 0.22 * 0.1 * half**2 / 3 + 0.1**2
    delta = np.trapezoid(square, found.times) / 3
    np.testing.assert_allclose(found.delta, delta, rtol=1e-3)
    grown = 2.5 * -np.expm1(-0.2 * (3 - found.times))
    worst = 2 / 2.2 * 2 * half * np.sqrt(2.2 / (2 * np.pi)) * found.ratio
    worst = [worst[k:].max() for k in range(len(worst))]
    np.testing.assert_allclose(found.constant[:-1], (3 * grown * worst)[:-1], rtol=0.02)
    squares = found.constant * delta + 2 * grown * found.prior_term
    np.testing.assert_allclose(found.bound_by_delta**2, squares, rtol=2e-3)
    assert found.bound <= found.bound_by_delta[0]
    rates, tau = (1 - 2.2, 1 - 1.1), 3 - found.times
    sde = np.exp(2 * rates[0] * tau) * 0.5 + np.expm1(2 * rates[0] * tau) / (2 * rates[0])
    apart = abs(np.sqrt(sde) - np.sqrt(0.5) * np.exp(rates[1] * tau))
    np.testing.assert_allclose(apart[0], gap, rtol=1e-6)
    assert (apart <= found.bound_by_delta).all()
    with pytest.raises(ValueError, match="`model` must have `potential"):
        fpflow.theorem_one.__wrapped__(fpflow.ScoreMLP(1, key=jr.key(0)), process, window)


def test_the_gap_of_a_score_is_bounded_by_its_mismatch():
    """A linear score with a curl, in the plane: every part by the equation of the covariance."""
    matrix = np.array([[2.4, 0.5], [-0.5, 1.6]])
    process, window = fpflow.OrnsteinUhlenbeck(t1=2.0), fpflow.Window(-3.0, 3.0, 36, dim=2)
    found = fpflow.gap_bound(LinearScore(jnp.asarray(matrix)), process, window, num_times=40)
    # The velocity of the flow towards the data is (1 - A / 2) x: L is the largest of 1 - eig / 2.
    known = 1 - np.linalg.eigvalsh((matrix + matrix.T) / 2)[0] / 2
    np.testing.assert_allclose(found.lipschitz, known, atol=1e-6)
    h, cov, ode, squares = 1e-3, np.eye(2) / 2, np.eye(2) / 2, []
    for _ in range(2001):
        apart = matrix - np.linalg.inv(cov)
        squares.append(np.trace(apart @ cov @ apart.T))
        move, flow = np.eye(2) - matrix, np.eye(2) - matrix / 2
        cov = cov + h * (move @ cov + cov @ move.T + np.eye(2))
        ode = ode + h * (flow @ ode + ode @ flow.T)
    times = 2 - h * np.arange(2001)
    squares = np.interp(found.times, times[::-1], squares[::-1])
    # Cells of a sixth; half of them miss a quarter of this.
    np.testing.assert_allclose(found.mismatch, np.sqrt(squares), rtol=0.03)
    np.testing.assert_allclose(
        found.distance, np.trapezoid(squares / 2, found.times) ** 0.5, rtol=0.02
    )
    speed = np.exp(known * found.times) * found.mismatch / 2
    np.testing.assert_allclose(found.bound, np.trapezoid(speed, found.times), rtol=1e-6)
    root = scipy.linalg.sqrtm(cov)
    gap = np.trace(cov + ode - 2 * scipy.linalg.sqrtm(root @ ode @ root)) ** 0.5
    # Four times the gap: the curl turns points, which the bound counts and the density does not show.
    assert gap < found.bound < 5 * gap
    with pytest.raises(ValueError, match="`num_times` must be"):
        fpflow.gap_bound(LinearScore(jnp.eye(2)), process, window, num_times=0)


def test_the_theorem_holds_on_a_grid_that_widens():
    """Noise alone, where the grid grows from 3 to 14 wide: the identity and the bounds."""
    law = fpflow.datasets.GaussianMixture([[0.0]], 0.5)
    process = fpflow.VarianceExploding(fpflow.GeometricNoise(sigma_min=0.5, sigma_max=4.0))

    class Off(eqx.Module):
        """A potential with a tenth too much, and no jet of its own."""

        exact: eqx.Module

        def potential(self, t, x):
            return 1.1 * self.exact.potential(t, x)

        def score(self, t, x):
            return 1.1 * self.exact.score(t, x)

    window = fpflow.Window(-3.0, 3.0, 120, dim=1)
    found = fpflow.theorem_one(
        Off(law.marginal(process)), process, window, num_times=120, num_steps=240
    )
    # 120 times and 120 cells miss .0024; twice as many of either .0018 and .0013.
    np.testing.assert_allclose(found.distance_by_identity, found.distance, rtol=0.006)
    assert found.bound_from_densities <= found.bound
    with pytest.raises(
        ValueError, match="must have a diffusion g above zero at all times, got g = 0"
    ):
        fpflow.theorem_one(LinearPotential(jnp.eye(1)), fpflow.LinearPath(), window, num_steps=20)
