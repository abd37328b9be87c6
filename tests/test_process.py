"""Transitions obey their equations, and what is derived from them."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import fpflow
from fpflow._process import log_noise_ratio, time_at_log_noise_ratio
from known import PROCESSES, ROUND_OFF, Stretch

ALL = {**PROCESSES, "stretch": Stretch()}


@pytest.mark.parametrize("process", ALL.values(), ids=ALL)
def test_transition_obeys_its_moment_equations(process):
    """For f = a(t) x the mean m and variance v obey m' = a m and v' = 2 a v + g^2."""
    t, x0 = jnp.array(0.7), jnp.array([1.3])
    a = process.drift(t, jnp.ones(1))[0]

    def mean(t):
        return process.transition(t, x0)[0][0]

    def variance(t):
        return process.transition(t, x0)[1] ** 2

    np.testing.assert_allclose(jax.grad(mean)(t), a * mean(t), rtol=ROUND_OFF)
    expected = 2 * a * variance(t) + process.diffusion(t) ** 2
    np.testing.assert_allclose(jax.grad(variance)(t), expected, rtol=ROUND_OFF)


@pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
def test_prior_is_stationary(process):
    """The prior's variance v makes 2 a v + g^2 vanish, and its log-density integrates to one."""
    a = process.drift(jnp.array(1.0), jnp.ones(1))[0]
    v = process.prior.std**2
    assert abs(2 * a * v + process.diffusion(jnp.array(1.0)) ** 2) < ROUND_OFF
    x = jnp.linspace(-12, 12, 4001)[:, None] * process.prior.std
    density = jnp.exp(jax.vmap(process.prior.log_prob)(x))
    # The trapezoidal rule is exact to round-off for a function that vanishes at both ends.
    assert abs(np.trapezoid(density, x[:, 0]) - 1) < ROUND_OFF


@pytest.mark.parametrize("process", ALL.values(), ids=ALL)
def test_log_noise_ratio_has_rate_g2_over_variance_and_is_inverted(process):
    t = jnp.array([process.t0 + 1e-5, process.t0 + 0.01, 1.0, process.t1])
    ratio = jax.vmap(lambda t: log_noise_ratio(process, t))(t)
    rate = jax.vmap(jax.grad(lambda t: log_noise_ratio(process, t)))(t)
    std = jax.vmap(lambda t: process.transition(t, jnp.zeros(1))[1])(t)
    np.testing.assert_allclose(rate, jax.vmap(process.diffusion)(t) ** 2 / std**2, rtol=1e-9)
    back = jax.vmap(lambda r: time_at_log_noise_ratio(process, r))(ratio)
    # t - t0 is known to the round-off of t itself, which at 1e-5 is 1e-11 of it.
    np.testing.assert_allclose(back - process.t0, t - process.t0, rtol=1e-9)


def test_prior_samples_have_its_variance():
    prior = fpflow.OrnsteinUhlenbeck(noise=2.0).prior
    x = prior.sample(jr.key(0), (100_000, 2))
    # The standard error of a variance from n draws is sqrt(2 / n) of it; five of them.
    assert abs(x.var() / 2.0 - 1) < 5 * (2 / 200_000) ** 0.5


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"rate": 0.0}, "`rate` must be positive, got 0.0"),
        ({"noise": -1.0}, "`noise` must be positive, got -1.0"),
        ({"t1": -2.0}, "`t1` must lie after `t0` = 0.0, got -2.0"),
    ],
)
def test_bad_settings_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        fpflow.OrnsteinUhlenbeck(**settings)
    with pytest.raises(ValueError, match="`std` must be positive"):
        fpflow.IsotropicGaussian(std=0.0)
