"""Weights and evidence against targets whose evidence is known."""

import inspect
import math
import warnings

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from scipy import stats

import double_well as double_well_target
import fpflow
from fpflow._importance import summed_up
from fpflow._report.pointwise import in_nats, pointwise_gaps
from known import OU, mixture
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


@pytest.mark.slow
@pytest.mark.parametrize("name", SAMPLERS)
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
    assert (
        not own.biased
        and other.biased
        and "biased: weighted by another distribution" in repr(other)
    )
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


def zhang_and_stephens(tail):
    """Their estimator (Technometrics 51 (2009) 316), one candidate after the other, and the prior
    of Vehtari et al.: ten observations of one half."""
    tail = sorted(tail)
    n, quartile = len(tail), tail[int(len(tail) / 4 + 0.5) - 1]
    candidates = 30 + int(math.sqrt(n))
    thetas, likelihoods = [], []
    for j in range(1, candidates + 1):
        theta = 1 / tail[-1] + (1 - math.sqrt(candidates / (j - 0.5))) / (3 * quartile)
        k = -sum(math.log(1 - theta * x) for x in tail) / n
        thetas.append(theta)
        likelihoods.append(n * (math.log(theta / k) + k - 1))
    largest = max(likelihoods)
    weights = [math.exp(value - largest) for value in likelihoods]
    theta = sum(w * t for w, t in zip(weights, thetas, strict=True)) / sum(weights)
    k = sum(math.log(1 - theta * x) for x in tail) / n
    return (n * k + 10 * 0.5) / (n + 10)


def test_pareto_k_is_the_estimator_of_its_paper():
    weights = stats.genpareto.rvs(0.4, size=900, random_state=np.random.default_rng(1))
    ordered = np.sort(weights)
    tail = ordered[-90:] - ordered[-91]  # the three roots of 900 largest
    assert fpflow.pareto_k(np.log(weights)) == pytest.approx(zhang_and_stephens(tail), rel=1e-9)


def test_even_weights_have_no_tail_and_few_have_no_index():
    assert fpflow.pareto_k(np.zeros(100)) == -np.inf
    assert np.isnan(fpflow.pareto_k(np.arange(10.0)))
    truncated = np.append(np.linspace(-3, -1, 433), np.zeros(67))
    assert fpflow.pareto_k(truncated) == -np.inf
    # What rounding makes of equal weights is steps, of which a quarter of the largest are ties.
    rounded = np.round(np.random.default_rng(0).normal(size=500)) * 2**-23
    assert fpflow.pareto_k(rounded) == -np.inf


@pytest.mark.parametrize("sampler", [fpflow.ODE(), fpflow.SDE()], ids=["ode", "sde"])
def test_the_evidence_of_an_exact_score_is_known_to_the_error_of_solvers(sampler):
    """In single precision these errors and rounding move all weights alike, beyond their scatter."""
    with jax.enable_x64(False):
        target = fpflow.datasets.gaussian_mixture()
        asked = {"sampler": sampler, "dim": 2, "key": jr.key(5)}
        found = fpflow.importance_sample(target.marginal(OU), OU, target.log_prob, 500, **asked)
        assert abs(found.log_z.value) < 2 * found.log_z.error < 1e-3
        assert abs(found.log_z.value) > 4 * float(found.log_weights.std()) / 500**0.5


def test_uneven_weights_get_a_warning():
    with pytest.warns(UserWarning, match="the weights are too uneven to be trusted: 1.0 of"):
        fpflow.importance_sample(
            wrong(2), OU, lambda x: -200 * jnp.sum((x - 2.5) ** 2), 500,
            sampler=fpflow.ODE(), key=jr.key(0),
        )  # fmt: skip
    tail = stats.genpareto.rvs(0.95, size=400, random_state=np.random.default_rng(5))
    with pytest.warns(UserWarning, match="the largest weights fall off slowly, Pareto k 0"):
        summed_up(jnp.zeros((400, 2)), jnp.asarray(np.log(tail)), biased=False)
    with pytest.warns(UserWarning, match="24 weights are too few to say whether"):
        summed_up(jnp.zeros((24, 2)), jnp.zeros(24), biased=False)


def narrow_target(rng, shape):
    """Log weights of a normal target in four dimensions, of an eighth of the variance of the
    sampler's law."""
    return -rng.chisquare(4, shape) * (1 / 0.12 - 1) / 2 - 2 * np.log(0.12)


@pytest.mark.parametrize(
    "log_weights",
    [narrow_target, lambda rng, shape: 1.6 * rng.normal(size=shape) - 1.6**2 / 2],
    ids=["narrow", "lognormal"],
)
def test_weights_that_are_not_called_uneven_are_not_the_lucky_ones(log_weights):
    """Whose effective number was large because their mean was."""
    runs = log_weights(np.random.default_rng(0), (1500, 200))
    held = []
    for logs in runs:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = summed_up(jnp.zeros((200, 1)), jnp.asarray(logs), biased=False).log_z
        if not any("too uneven" in str(w.message) for w in caught):
            held.append(abs(found.value) < 2 * found.error)
    # Of 93 %, less three errors of the binomial.
    assert len(held) > 300 and np.mean(held) > 0.93 - 3 * (0.93 * 0.07 / len(held)) ** 0.5


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
            "a chain can weight only its own samples; leave out `density`",
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


@pytest.mark.slow
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


@pytest.fixture(scope="module")
def double_well():
    """A network trained on four particles, and what annealing says of their evidence."""
    model, process = fpflow.load(
        __file__.replace("test_importance.py", "networks/double_well.fpflow")
    )
    x, log_w = jax.jit(double_well_target.annealed)(jr.key(0))
    weights = np.exp(np.asarray(log_w) - float(log_w.max()))
    log_z = float(log_w.max() + np.log(weights.mean()))
    short = np.asarray(jax.vmap(double_well_target.short_pairs)(x)) <= 3
    return model, process, log_z, relative_error(weights), wells(weights, short)


def relative_error(weights):
    return weights.std(ddof=1) / weights.mean() / len(weights) ** 0.5


def wells(weights, short):
    """The free energy of configurations with at most three short pairs above that of the others, in kT,
    and its standard error."""
    few, many = weights[short].sum(), weights[~short].sum()
    terms = np.where(short, weights / few, -weights / many)
    return float(np.log(many / few)), float(np.sqrt((terms**2).sum()))


@pytest.mark.slow
def test_four_particles_in_a_double_well(double_well):
    """By the tuned chain four fifths are effective; evidence and free energy are those of annealing."""
    model, process, log_z, error, (apart, apart_error) = double_well
    data = fpflow.sample_sde(model, process, 300, key=jr.key(1))
    chain = fpflow.tuned_chain(
        fpflow.GaussianChain(num_steps=100), model, process, data, key=jr.key(2)
    )
    found = fpflow.importance_sample(
        model, process, double_well_target.log_target, 4000, sampler=chain, key=jr.key(3)
    )
    assert found.effective_sample_size > 0.8 * 4000 and found.pareto_k < 0.7
    assert abs(found.log_z.value - log_z) < 3 * np.hypot(found.log_z.error, error)
    short = np.asarray(jax.vmap(double_well_target.short_pairs)(found.x)) <= 3
    logs = np.asarray(found.log_weights, float)
    own, own_error = wells(np.exp(logs - logs.max()), short)
    assert abs(own - apart) < 3 * np.hypot(own_error, apart_error) and own_error < 0.05


def trained_on(law, dim):
    layers = fpflow.PotentialMLP(dim, width=96, prior=fpflow.IsotropicGaussian(), key=jr.key(0))
    drawn = np.asarray(law.sample(jr.key(1), 2000))
    model = fpflow.in_frame(layers, OU, centre=float(drawn.mean()), scale=float(drawn.std()))
    with jax.enable_x64(False):
        law = jax.tree.map(lambda v: v.astype(jnp.float32), law)
        model = jax.tree.map(
            lambda v: v.astype(jnp.float32) if eqx.is_inexact_array(v) else v, model
        )
        return fpflow.train(model, OU, law, num_steps=3000, batch_size=512, key=jr.key(2)).model


@pytest.mark.slow
@pytest.mark.parametrize("dim", [2, 8, 32])
def test_the_evidence_of_mixtures_by_every_law(dim):
    """Of trained networks, within three standard errors."""
    law = mixture(dim)
    model = NETWORK if dim == 2 else trained_on(law, dim)
    law = LAW if dim == 2 else law
    target = lambda x: law.log_prob(x) + jnp.log(3.0)
    chain = fpflow.tuned_chain(
        fpflow.GaussianChain(num_steps=60), model, OU, law.sample(jr.key(4), 200), key=jr.key(5)
    )
    for name, sampler, num in (
        ("ode", fpflow.ODE(), 800), ("sde", fpflow.SDE(), 100), ("chain", chain, 1500),
    ):  # fmt: skip
        one = fpflow.importance_sample(model, OU, target, num, sampler=sampler, key=jr.key(6))
        assert abs(one.log_z.value - np.log(3)) < 3 * one.log_z.error, (name, one)
        assert one.log_z.error < 0.15, (name, one)


@pytest.mark.slow
def test_the_bias_of_mixing_the_laws_is_what_the_gap_predicts():
    """Samples of the SDE weighed by the ODE's density, and draws of the target with both densities."""
    model, width = wrong(2), 0.4
    target = lambda x: jax.scipy.stats.norm.logpdf(x, 0.0, width).sum()
    mixed = fpflow.importance_sample(
        model, SHORT, target, 4000, sampler=fpflow.SDE(), density=fpflow.ODE(), dim=2, key=jr.key(0)
    )
    bias = mixed.log_z
    assert abs(bias.value) > 5 * bias.error  # there is one to predict
    sets = {
        "points": width * np.asarray(jr.normal(jr.key(1), (1500, 2))),
        "SDE": np.asarray(mixed.x[:8]),
        "ODE": np.asarray(mixed.x[:8]),
    }
    gaps = pointwise_gaps(model, SHORT, sets, 64, False, jr.key(2))
    predicted = in_nats(gaps, None).mixing_bias
    assert abs(predicted.value - bias.value) < 3 * np.hypot(predicted.error, bias.error)
    assert predicted.error < abs(bias.value) / 5
