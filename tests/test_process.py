"""Transitions obey their equations, and what is derived from them."""

import math

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import fpflow
from fpflow._process import graded_times
from known import KINDS, PROCESSES, ROUND_OFF, Stretch

ALL = {**PROCESSES, **KINDS, "stretch": Stretch()}


@pytest.mark.parametrize("process", ALL.values(), ids=ALL)
def test_transition_obeys_its_moment_equations(process):
    """For f = a(t) x the mean m and variance v obey m' = a m and v' = 2 a v + g^2."""
    t, x0 = jnp.array(0.7), jnp.array([1.3])
    a = process.drift(t, jnp.ones(1))[0]

    def mean(t):
        return process.transition(t, x0)[0][0]

    def variance(t):
        return process.transition(t, x0)[1] ** 2

    np.testing.assert_allclose(jax.grad(mean)(t), a * mean(t), rtol=ROUND_OFF, atol=ROUND_OFF)
    expected = 2 * a * variance(t) + process.diffusion(t) ** 2
    np.testing.assert_allclose(jax.grad(variance)(t), expected, rtol=ROUND_OFF)


@pytest.mark.parametrize("process", ALL.values(), ids=ALL)
def test_parts_belong_together_at_both_ends(process):
    """No end makes a drift or a diffusion infinite, and the prior is the transition's."""
    fpflow.check_process(process)
    for t in (process.t0, process.t1):
        assert np.isfinite(process.drift(t, jnp.ones(2))).all() and np.isfinite(
            process.diffusion(t)
        )
    mean, std = process.transition(process.t1, jnp.ones(1))
    # The prior leaves out what is left of the signal: relative to the noise, its square.
    assert abs(process.prior.std / std - 1) <= 1e-3 + (mean[0] / std) ** 2


@pytest.mark.parametrize("process", ALL.values(), ids=ALL)
def test_graded_times_are_cubic_in_the_time_of_an_ornstein_uhlenbeck_process(process):
    """log(1 + c^2 sigma^2 / alpha^2) / 2 is a cube of the share; c is the prior's precision for the
    process that is one itself, and one otherwise."""
    times = graded_times(process, 20)[::-1]
    assert times[0] == process.t0 and times[-1] == process.t1 and (np.diff(times) > 0).all()
    scale = process.prior.std if isinstance(process, fpflow.OrnsteinUhlenbeck) else 1.0
    ratio = [float(process.sigma(t) / process.alpha(t)) / scale for t in times]
    tau = np.log1p(np.square(ratio)) / 2
    np.testing.assert_allclose(tau / tau[-1], np.linspace(0, 1, 21) ** 3, atol=1e-9)
    rate = jax.vmap(jax.grad(process.graded_time))(jnp.array([0.2, 0.6]))
    change = [
        (process.graded_time(u + 1e-5) - process.graded_time(u - 1e-5)) / 2e-5 for u in (0.2, 0.6)
    ]
    # Central differences over 1e-5 of a smooth function.
    np.testing.assert_allclose(rate, change, rtol=1e-6)


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
    t = jnp.array([process.t0 + 1e-5, process.t0 + 0.01, (process.t0 + process.t1) / 2, process.t1])
    ratio = jax.vmap(lambda t: process.log_noise_ratio(t))(t)
    rate = jax.vmap(jax.grad(lambda t: process.log_noise_ratio(t)))(t)
    std = jax.vmap(lambda t: process.transition(t, jnp.zeros(1))[1])(t)
    np.testing.assert_allclose(rate, jax.vmap(process.diffusion)(t) ** 2 / std**2, rtol=1e-9)
    back = jax.vmap(lambda r: process.time_at_log_noise_ratio(r))(ratio)
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


@pytest.mark.parametrize("number", [np.float64(1), np.float32(1), jnp.array(1.0), np.array(1), 1])
def test_a_setting_may_be_any_number(number):
    """Scalars of numpy and JAX would be traced where settings are looked at."""
    process = fpflow.OrnsteinUhlenbeck(rate=number)
    assert type(process.rate) is float and process == fpflow.OrnsteinUhlenbeck()
    x = fpflow.sample_ode(lambda_score(), process, 3, num_steps=2, key=jr.key(0))
    assert np.isfinite(x).all()


def lambda_score():
    return fpflow.ScoreFunction(lambda t, x: -2 * x, dim=2)


class Wrong(fpflow.AbstractProcess):
    """A variance-preserving process with one part exchanged."""

    part: str
    t0: float = 0.0
    t1: float = 3.0

    def alpha(self, t):
        return jnp.exp(-t)

    def sigma(self, t):
        variance = -jnp.expm1(-2 * t)
        return variance if self.part == "sigma" else jnp.sqrt(variance)

    def drift(self, t, x):
        return -2 * x if self.part == "drift" else -x

    def diffusion(self, t):
        return jnp.full_like(t, 2.0 if self.part == "diffusion" else 2**0.5)

    @property
    def prior(self):
        return fpflow.IsotropicGaussian(std=2.0 if self.part == "prior" else 1.0)


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ("sigma", r"at t = 0.3, g\^2 is 2 and must be"),
        ("diffusion", r"at t = 0.3, g\^2 is 4 and must be 2"),
        ("drift", "the drift f.* is -1.482 and must be -0.7408"),
        (
            "prior",
            "the prior of Wrong must have the width of the transition at `t1` = 3.0, sigma = 0.9988, "
            "got 2",
        ),
    ],
)
def test_a_process_whose_parts_do_not_belong_together_is_refused(part, words):
    fpflow.check_process(Wrong("nothing"))
    with pytest.raises(ValueError, match=words):
        fpflow.check_process(Wrong(part))
    with pytest.raises(ValueError, match=words):
        fpflow.sample_sde(lambda_score(), Wrong(part), 3, num_steps=2, key=jr.key(0))


def test_what_is_no_process_is_refused():
    with pytest.raises(ValueError, match="make an object of it: OrnsteinUhlenbeck()"):
        fpflow.check_process(fpflow.OrnsteinUhlenbeck)
    with pytest.raises(ValueError, match="`t1` = 1.0 leaves no signal"):
        fpflow.LinearPath(t1=1.0)
    with pytest.raises(ValueError, match="must be concrete numbers, got a traced value"):
        jax.jit(lambda r: fpflow.OrnsteinUhlenbeck(rate=r).drift(0.0, jnp.ones(1)))(1.0)


# Drift over x and squared diffusion at a time, as the literature states them.
RATE = 0.1 + 19.9 * 0.3
LOST = 0.1 * 0.3 + 19.9 * 0.3**2 / 2
ANGLE = np.pi / 2 * (0.3 + 0.008) / 1.008
# The harmonic mean of the rates before and after the 300th of 1000 steps; half of each is the drift's.
TABLED = -1000 / (1 / np.log1p(-np.linspace(1e-4, 0.02, 1000)[299:301])).sum()
STATED = {
    "ou": (-1.0, 1.0),
    "vp": (-RATE / 2, RATE),
    "vp-table": (-TABLED, 2 * TABLED),
    "vp-cosine": (-np.pi / 2 / 1.008 * np.tan(ANGLE), np.pi / 1.008 * np.tan(ANGLE)),
    "subvp": (-RATE / 2, RATE * (1 - np.exp(-2 * LOST))),
    "ve": (0.0, 2 * 0.01**2 * 5000 ** (2 * 0.3) * np.log(5000)),
    "ve-harmonic": (0.0, 20.0**2 / (1 - 0.3)),
    "edm": (0.0, 2 * 0.3),
    "linear": (-1 / 0.7, 2 * 0.3 / 0.7),
    "trigonometric": (-np.pi / 2 * np.tan(0.15 * np.pi), np.pi * np.tan(0.15 * np.pi)),
}


def test_a_table_of_discrete_steps_is_a_process():
    """That of DDPM is the linear schedule but for the order of its steps, and exact after each."""
    bars = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
    table = fpflow.VariancePreserving(fpflow.TabulatedSchedule(bars))
    fpflow.check_process(table)
    after = jnp.array([1, 2, 500, 1000])
    np.testing.assert_allclose(
        jax.vmap(table.alpha)(after / 1000) ** 2, bars[after - 1], rtol=1e-12
    )
    linear, times = fpflow.VariancePreserving(), jnp.linspace(0.01, 1.0, 37)
    found, known = (jax.vmap(p.diffusion)(times) for p in (table, linear))
    # Half a step changes the first rate by 1.7 %, and log(1 - beta) is 1 % more than beta in the end.
    np.testing.assert_allclose(found, known, rtol=2e-2)
    assert float(table.diffusion(jnp.array(0.0))) > 0


@pytest.mark.parametrize("name", KINDS)
def test_processes_are_those_of_the_literature(name):
    process, (pull, noise) = KINDS[name], STATED[name]
    t = jnp.array(0.3)
    np.testing.assert_allclose(process.drift(t, jnp.ones(1))[0], pull, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(process.diffusion(t) ** 2, noise, rtol=1e-9)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: fpflow.LinearSchedule(beta_min=-1.0), "`beta_min` must not be negative, got -1.0"),
        (lambda: fpflow.CosineSchedule(offset=-1.0), "`offset` must not be negative, got -1.0"),
        (
            lambda: fpflow.TabulatedSchedule([1e-4, 0.01, 0.02]),
            r"must decrease from below one and stay above zero, shape \(K,\), got shape \(3,\)",
        ),
        (
            lambda: fpflow.GeometricNoise(sigma_max=0.001),
            "`sigma_max` must be above `sigma_min` = 0.01",
        ),
        (
            lambda: fpflow.OrnsteinUhlenbeck(rate="fast"),
            "a setting must be one real number, got 'fast'",
        ),
        (lambda: fpflow.EDM(t1=np.inf), "`t1` must be finite, got inf"),
        (
            lambda: fpflow.check_process(Late()),
            "Late must start from the data: at `t0` = 1.0, alpha must be 1 and sigma 0, got 0.3679",
        ),
        (
            lambda: fpflow.check_process(Ends()),
            r"alpha\(t\) must be positive and finite from `t0` to `t1`, got 0 from Ends at t = 1;",
        ),
        (
            lambda: fpflow.check_process(Turns()),
            r"sigma\(t\) must not be negative and finite from `t0` to `t1`, got -0.8\d+ from Turns",
        ),
        (
            lambda: fpflow.check_process(ByMath()),
            "`alpha` and `sigma` of ByMath must be written with `jax.numpy`",
        ),
    ],
)
def test_settings_that_make_no_process_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()


class Ends(fpflow.AbstractProcess):
    """A path that reaches pure noise, where its score has nothing to say."""

    t0: float = 0.0
    t1: float = 1.0

    def alpha(self, t):
        return 1 - t

    def sigma(self, t):
        return jnp.asarray(t)


class Turns(fpflow.AbstractProcess):
    """A deviation with a sign."""

    t0: float = 0.0
    t1: float = 3.0

    def alpha(self, t):
        return jnp.ones_like(t)

    def sigma(self, t):
        return jnp.sin(2 * t)


class ByMath(fpflow.AbstractProcess):
    t0: float = 0.0
    t1: float = 3.0

    def alpha(self, t):
        return math.exp(-t)

    def sigma(self, t):
        return math.sqrt(1 - math.exp(-2 * t))


class Late(fpflow.AbstractProcess):
    """Time that counts from zero while the data stands at one."""

    t0: float = 1.0
    t1: float = 3.0

    def alpha(self, t):
        return jnp.exp(-t)

    def sigma(self, t):
        return jnp.sqrt(-jnp.expm1(-2 * t))
