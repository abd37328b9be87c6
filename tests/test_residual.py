"""The Fokker--Planck residual: zero where it must be, and the right number where it is not."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import fpflow
from known import OU, PROCESSES, ROUND_OFF, Stretch, mixture


class Plain(eqx.Module):
    """A potential without derivatives of its own, so that jax takes them."""

    function: object

    def potential(self, t, x):
        return self.function(t, x)

    def score(self, t, x):
        return jax.grad(self.function, 1)(t, x)


@pytest.mark.parametrize("dim", [1, 2, 5])
@pytest.mark.parametrize("process", [*PROCESSES.values(), Stretch()], ids=[*PROCESSES, "stretch"])
def test_residual_of_the_exact_potential_vanishes(dim, process):
    """Below 1e-9: terms of order up to 1e3 at t = 0.01, of round-off 1e-16, cancel."""
    exact = mixture(dim).marginal(process)
    t = process.t0 + jnp.array([0.01, 0.1, 1.0, process.t1 - process.t0])
    x = jr.normal(jr.key(0), (4, dim))
    for model in (exact, Plain(exact.potential)):
        r = jax.vmap(lambda t, x, m=model: fpflow.log_fp_residual(m, process, t, x))(t, x)
        assert jnp.abs(r).max() < 1e-9


def test_residual_of_a_wrong_potential_is_the_formula():
    """u = -a |x|^2 / 2 + b t has r = b - d + a |x|^2 - (a^2 |x|^2 - a d) / 2."""
    a, b, d = 1.7, 0.4, 3
    model = Plain(lambda t, x: -a * jnp.sum(x**2) / 2 + b * t)
    x = jr.normal(jr.key(1), (d,))
    r = fpflow.log_fp_residual(model, OU, jnp.array(0.5), x)
    square = jnp.sum(x**2)
    expected = b - d + a * square - (a**2 * square - a * d) / 2
    np.testing.assert_allclose(r, expected, rtol=ROUND_OFF)


def test_an_offset_in_time_adds_its_derivative():
    exact = mixture(2).marginal(OU)
    model = Plain(lambda t, x: exact.potential(t, x) + jnp.sin(3 * t))
    t, x = jnp.array(0.8), jnp.array([0.3, -0.2])
    r = fpflow.log_fp_residual(model, OU, t, x)
    np.testing.assert_allclose(r, 3 * jnp.cos(3 * t), rtol=1e-9)


def test_network_jet_and_automatic_derivatives_give_one_residual():
    model = fpflow.PotentialMLP(2, width=16, beta=4.0, key=jr.key(0))
    t, x = jnp.array(0.2), jnp.array([0.7, 0.1])
    one = fpflow.log_fp_residual(model, OU, t, x)
    other = fpflow.log_fp_residual(Plain(model.potential), OU, t, x)
    np.testing.assert_allclose(one, other, rtol=1e-10)


def test_residual_norm_splits_off_the_part_that_no_sampler_feels():
    """An exact potential plus a sin(b t) leaves R = a^2 b^2 mean(cos^2(b t)) and nothing in x."""
    exact = mixture(2).marginal(OU)
    model = Plain(lambda t, x: exact.potential(t, x) + 0.5 * jnp.sin(3 * t))
    norm = fpflow.residual_norm(model, OU, num_times=2048, points_per_time=4, key=jr.key(0))
    # mean of cos^2 over [0, 10] is 1/2 + sin(60) / 120.
    expected = 0.25 * 9 * (0.5 + np.sin(60) / 120)
    assert abs(norm.value - expected) < 5 * norm.standard_error
    assert norm.standard_error < 0.05 * expected
    assert abs(norm.spatial) < 1e-12


def test_residual_norm_is_the_integral():
    """Against Gauss--Legendre in x and the trapezoidal rule in t, for a potential that is wrong."""
    model = Plain(lambda t, x: -jnp.sum(x**2) + 0.1 * x[0] * t)
    norm = fpflow.residual_norm(model, OU, low=-2.0, high=2.0, key=jr.key(2))
    t = np.linspace(0, 10, 201)
    nodes, weights = np.polynomial.legendre.leggauss(6)
    grid = np.stack(np.meshgrid(2 * nodes, 2 * nodes, indexing="ij"), -1).reshape(-1, 2)
    w = np.outer(weights, weights).ravel() / 4
    r = jax.vmap(
        lambda t: jax.vmap(lambda x: fpflow.log_fp_residual(model, OU, t, x))(jnp.asarray(grid))
    )(jnp.asarray(t))
    square, mean = np.asarray(r**2) @ w, np.asarray(r) @ w
    value = np.trapezoid(square, t) / 10
    spatial = np.trapezoid(square - mean**2, t) / 10
    assert abs(norm.value - value) < 5 * norm.standard_error + 1e-3 * value
    assert abs(norm.spatial - spatial) < 5 * norm.spatial_standard_error + 1e-3 * spatial
    assert norm.standard_error < 0.05 * value


def test_calculus_on_fields_with_known_derivatives():
    x = jnp.array([0.3, -0.7])
    field = lambda x: jnp.array([x[0] ** 2 * x[1], jnp.sin(x[0]) + x[1]])
    np.testing.assert_allclose(fpflow.divergence(field, x), 2 * x[0] * x[1] + 1, rtol=ROUND_OFF)
    np.testing.assert_allclose(fpflow.curl(field, x), jnp.cos(x[0]) - x[0] ** 2, rtol=ROUND_OFF)
    quartic = lambda x: jnp.sum(x**4)
    np.testing.assert_allclose(fpflow.laplacian(quartic, x), 12 * jnp.sum(x**2), rtol=ROUND_OFF)
    assert abs(fpflow.curl(jax.grad(quartic), x)) < ROUND_OFF
    with pytest.raises(
        ValueError, match=r"must be one point of the plane, shape \(2,\), got \(3,\)"
    ):
        fpflow.curl(field, jnp.ones(3))
