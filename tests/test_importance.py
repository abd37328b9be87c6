"""Weights and evidence against targets whose evidence is known."""

import inspect

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from scipy import stats

import fpflow
from known import OU
from test_chain import SHORT, wrong

NETWORK = fpflow.load(__file__.replace("test_importance.py", "networks/mixture.fpflow")).model
LAW = fpflow.datasets.gaussian_mixture()


def thrice(x):
    """A target with evidence three."""
    return LAW.log_prob(x) + jnp.log(3.0)


SAMPLERS = {
    "ode": (fpflow.ODE(), 1000),
    "sde": (fpflow.SDE(), 150),
    "chain": (fpflow.GaussianChain(0.05, 30), 1500),
}


@pytest.mark.parametrize(
    "name", ["chain", *(pytest.param(n, marks=pytest.mark.slow) for n in ("ode", "sde"))]
)
def test_the_evidence_of_a_known_target(name):
    """By a trained network, within three standard errors."""
    sampler, num = SAMPLERS[name]
    found = fpflow.importance_sample(NETWORK, OU, thrice, num, sampler=sampler, key=jr.key(1))
    assert abs(found.log_z.value - np.log(3)) < 3 * found.log_z.error
    assert found.log_z.error < 0.05 and found.effective_sample_size > 0.3 * num
    assert found.pareto_k < 0.7 and not found.biased
    x = found.resampled(2000, key=jr.key(2))
    data = np.asarray(LAW.sample(jr.key(3), 20_000))
    # Five errors of the draws and of the sample that they are drawn from.
    error = data.std(0) * (1 / 2000 + 1 / found.effective_sample_size) ** 0.5
    assert (abs(x.mean(0) - data.mean(0)) < 5 * error).all()


def test_few_paths_and_steps_of_a_wrong_score_have_no_bias():
    """Four paths of ten steps, by a score that is off by a quarter."""
    target = lambda x: jax.scipy.stats.norm.logpdf(x, 0.0, 0.5).sum()
    chain = fpflow.EulerMaruyama(num_steps=10, quiet_end=False)
    found = fpflow.importance_sample(
        wrong(2), SHORT, target, 20_000, sampler=chain, num_paths=4, dim=2, key=jr.key(0)
    )
    assert abs(found.log_z.value) < 3 * found.log_z.error
    assert found.log_z.error < 0.05


@pytest.mark.slow
def test_the_other_law_must_be_asked_for_and_is_labelled():
    """Samples of the SDE by the density of the ODE."""
    settings = {"sampler": fpflow.SDE(), "dim": 2, "key": jr.key(1)}
    own = fpflow.importance_sample(wrong(2), SHORT, lambda x: -x @ x, 100, **settings)
    other = fpflow.importance_sample(
        wrong(2), SHORT, lambda x: -x @ x, 1000, density=fpflow.ODE(), **settings
    )
    assert not own.biased and other.biased and "biased: weighed by another law" in repr(other)
    exact = np.log(np.pi)
    assert abs(own.log_z.value - exact) < 4 * own.log_z.error
    assert abs(other.log_z.value - exact) > 4 * other.log_z.error


@pytest.mark.parametrize("k", [0.2, 0.5, 0.9])
def test_pareto_k_finds_the_tail(k):
    """Of weights with a Pareto tail, within three deviations of forty repeats of a thousand."""
    rng = np.random.default_rng(0)
    draws = stats.genpareto.rvs(k, size=(40, 1000), random_state=rng)
    found = [fpflow.pareto_k(np.log(row)) for row in draws]
    # Ninety weights know k to (1 + k) / 90^.5, and the prior pulls by a tenth of the way to .5.
    assert abs(np.mean(found) - k) < 0.1 * abs(k - 0.5) + 3 * (1 + k) / 90**0.5 / 40**0.5 + 0.02


def test_even_weights_have_no_tail_and_few_have_no_index():
    assert fpflow.pareto_k(np.zeros(100)) == -np.inf
    assert np.isnan(fpflow.pareto_k(np.arange(10.0)))


def test_uneven_weights_get_a_warning():
    with pytest.warns(UserWarning, match="the weights are too uneven to be believed: Pareto k"):
        fpflow.importance_sample(
            NETWORK, OU, lambda x: -200 * jnp.sum((x - 2.5) ** 2), 500,
            sampler=fpflow.ODE(), key=jr.key(0),
        )  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"sampler": fpflow.DDIM()}, "DDIM adds no noise in step 1 of 100"),
        (
            {"sampler": fpflow.PredictorCorrector()},
            "`sampler` must be `fpflow.ODE.*`, `fpflow.SDE.*` or a chain such as `fpflow.Gau",
        ),
        (
            {"density": fpflow.GaussianChain()},
            "a chain weighs only its own samples; leave out `density`",
        ),
        (
            {"sampler": fpflow.SDE(eta=0.5)},
            "only `SDE.*` with eta = 1 has a density by noising paths",
        ),
    ],
)
def test_what_has_no_density_is_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        fpflow.importance_sample(NETWORK, OU, thrice, 10, key=jr.key(0), **settings)


def test_an_equation_between_is_another_law():
    """Samples of eta = 1/2 by the density of eta = 1."""
    found = fpflow.importance_sample(
        wrong(2), SHORT, lambda x: -x @ x, 40,
        sampler=fpflow.SDE(eta=0.5), density=fpflow.SDE(), dim=2, key=jr.key(0),
    )  # fmt: skip
    assert found.biased


def test_weights_that_mostly_vanish_have_the_heaviest_tail():
    logs = np.full(1000, -np.inf)
    logs[:10] = np.arange(10.0)
    assert fpflow.pareto_k(logs) == np.inf


def test_a_target_that_is_no_number_is_told():
    call = inspect.unwrap(fpflow.importance_sample)
    with pytest.raises(
        FloatingPointError, match="is minus infinity at all 5 samples: none lies in"
    ):
        call(NETWORK, OU, lambda x: -jnp.inf * (x[0] > -99), 5, sampler=fpflow.ODE(), key=jr.key(0))
    with pytest.raises(FloatingPointError, match="minus the log density is not a number at"):
        call(NETWORK, OU, lambda x: x[0] * jnp.nan, 5, sampler=fpflow.ODE(), key=jr.key(0))
