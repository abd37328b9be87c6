"""Terms of the loss against the same means written down, and the objective that adds them."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest

import fpflow
from known import KINDS, OU, LinearScore, mixture

KEY = jr.key(9)
LAW = mixture(2)
VP = fpflow.VariancePreserving()
SMALL = fpflow.PotentialMLP(2, width=6, depth=1, key=jr.key(0))


def noised(process, n=64, data=LAW, **settings):
    return fpflow.Noising(**settings)(process, data, n, key=jr.key(1))


def predicted(rule, process=VP):
    """A model of a network's prediction, and the network on a batch."""

    def network(t, x):
        return jnp.sin(3 * x) + t

    model = rule(network, process, dim=2)
    return model, lambda batch: jax.vmap(network)(batch.t, batch.x)


@pytest.mark.parametrize(
    ("rule", "weighting", "target"),
    [
        (fpflow.from_noise_prediction, fpflow.noise_weighting, lambda b, a, s: b.noise),
        (fpflow.from_data_prediction, fpflow.data_weighting, lambda b, a, s: b.x0),
        (fpflow.from_v_prediction, fpflow.v_weighting, lambda b, a, s: a * b.noise - s * b.x0),
    ],
    ids=["noise", "data", "v"],
)
@pytest.mark.parametrize("process", [VP, fpflow.LinearPath()], ids=["vp", "linear"])
def test_weightings_are_squared_errors_of_predictions(rule, weighting, target, process):
    """The weighted error of the score is the plain error of what the network predicts."""
    model, network = predicted(rule, process)
    batch = noised(process, times=fpflow.UniformTime(offset=1e-2))
    alpha, sigma = (jax.vmap(f)(batch.t)[:, None] for f in (process.alpha, process.sigma))
    loss = fpflow.DenoisingScoreMatching(weighting=weighting, factor=1.0)(
        model, process, batch, key=KEY
    )
    square = jnp.sum((network(batch) - target(batch, alpha, sigma)) ** 2, axis=1)
    if weighting is fpflow.noise_weighting:
        square = square / process.sigma(process.t1) ** 2
    np.testing.assert_allclose(loss, jnp.mean(square), rtol=1e-8)


@pytest.mark.parametrize(
    ("weighting", "of_data"),
    [
        (fpflow.SNRWeighting(5.0), lambda r2: np.minimum(1 / r2, 5.0)),
        (fpflow.EDMWeighting(0.5), lambda r2: (r2 + 0.25) / (0.25 * r2)),
    ],
    ids=["snr", "edm"],
)
def test_weightings_of_the_error_of_the_data(weighting, of_data):
    model, network = predicted(fpflow.from_data_prediction)
    batch = noised(VP, times=fpflow.UniformTime(offset=1e-2))
    ratio2 = np.asarray(jnp.exp(jax.vmap(VP.log_noise_ratio)(batch.t)))
    loss = fpflow.DenoisingScoreMatching(weighting=weighting, factor=1.0)(model, VP, batch, key=KEY)
    square = jnp.sum((network(batch) - batch.x0) ** 2, axis=1)
    np.testing.assert_allclose(loss, jnp.mean(of_data(ratio2) * square), rtol=1e-8)
    with pytest.raises(ValueError, match="`gamma` must be positive, got -1"):
        fpflow.SNRWeighting(-1.0)
    with pytest.raises(ValueError, match="`data_std` must be positive, got -1"):
        fpflow.EDMWeighting(-1.0)


@pytest.mark.parametrize("process", KINDS.values(), ids=KINDS)
def test_flow_matching_is_the_squared_error_of_the_velocity(process):
    """Of a network that predicts the velocity, at times where it is asked."""
    late = fpflow.UniformTime(offset=0.1 * (process.t1 - process.t0))
    batch = noised(process, times=late, pairs=False)

    def network(t, x):
        return jnp.sin(x) + t

    model = fpflow.from_velocity(network, process, dim=2)
    rates = [jax.vmap(jax.grad(f))(batch.t)[:, None] for f in (process.alpha, process.sigma)]
    target = rates[0] * batch.x0 + rates[1] * batch.noise
    expected = jnp.mean(jnp.sum((jax.vmap(network)(batch.t, batch.x) - target) ** 2, axis=1))
    np.testing.assert_allclose(
        fpflow.FlowMatching()(model, process, batch, key=KEY), expected, rtol=1e-7
    )


@pytest.mark.slow
def test_the_score_term_is_the_gradient_of_the_residual():
    """For s = grad u the residual of the score is the gradient of that of the potential."""
    batch = noised(OU, pairs=False)

    def slope(t, x):
        return jnp.sum(jax.grad(lambda x: fpflow.log_fp_residual(SMALL, OU, t, x))(x) ** 2)

    weight = batch.weight * np.expm1(-2 * batch.t) / np.expm1(-20.0) * batch.std**2
    expected = jnp.mean(weight * jax.vmap(slope)(batch.t, batch.x))
    found = fpflow.ScoreFokkerPlanck(num_points=64)(SMALL, OU, batch, key=KEY)
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    exact = LAW.marginal(OU)
    assert float(fpflow.ScoreFokkerPlanck(num_points=64)(exact, OU, batch, key=KEY)) < 1e-12


def moments_of_second_and_third_order(process, t, variance, c, dim):
    """Of s = -c x at Gaussian data: l = sigma s + z is Gaussian, and its even moments are known."""
    alpha, sigma = process.alpha(t), process.sigma(t)
    a = 1 - sigma**2 * c
    tau2 = sigma**2 * c**2 * (alpha**2 * variance + sigma**2) + 1 - 2 * sigma**2 * c
    square = dim * (a**2 - 2 * a * tau2 + 3 * tau2**2) + dim * (dim - 1) * tau2**2
    trace = dim**2 * (a**2 - 2 * a * tau2) + dim * (dim + 2) * tau2**2
    powers = [np.prod(dim + 2 * np.arange(k)) * tau2**k for k in range(1, 4)]
    b = (dim + 2) * a
    third = powers[2] - 2 * b * powers[1] + b**2 * powers[0]
    # For one v, with V = |v|^2: E (v.l)^4 |l|^2 = 3 (d + 4) V^2 tau^6 and so on; E V^2 = d (d + 2).
    along = 3 * (dim + 4) * tau2**3 + (dim + 8) * a**2 * tau2 - (2 * dim + 16) * a * tau2**2
    return square, trace, third, dim * (dim + 2) * along


class Cloud(eqx.Module):
    """Normal data of a given variance, in three dimensions."""

    variance: float

    def sample(self, key, n):
        return self.variance**0.5 * jr.normal(key, (n, 3))


def test_terms_of_higher_order_have_their_gaussian_moments():
    """Of a linear score, at one time; fifty batches give the standard error."""
    variance, c, n = 2.0, 0.4, 2000
    late = fpflow.UniformTime(offset=0.05)
    batches = [
        fpflow.Noising(late, pairs=False)(VP, Cloud(variance), n, key=jr.key(k)) for k in range(50)
    ]
    model = LinearScore(c * jnp.eye(3))
    known = jax.vmap(lambda t: jnp.stack(moments_of_second_and_third_order(VP, t, variance, c, 3)))
    terms = [
        fpflow.SecondOrderScoreMatching(num_points=n),
        fpflow.SecondOrderScoreMatching(num_points=n, num_probes=1),
        fpflow.TraceScoreMatching(num_points=n),
        fpflow.ThirdOrderScoreMatching(num_points=n),
        fpflow.ThirdOrderScoreMatching(num_points=n, num_probes=64),
    ]
    for term, k in zip(terms, (0, 0, 1, 2, 3), strict=True):

        @jax.jit
        def missed(batch, key, term=term, k=k):
            return term(model, VP, batch, key=key) - jnp.mean(batch.weight * known(batch.t)[:, k])

        apart = np.array([missed(b, jr.key(i)) for i, b in enumerate(batches)])
        assert abs(apart.mean()) < 4 * apart.std(ddof=1) / 50**0.5
        # A fiftieth of what they are: a wrong factor would show.
        size = jnp.mean(batches[0].weight * known(batches[0].t)[:, k])
        assert apart.std(ddof=1) / 50**0.5 < 0.02 * size


class Bent(eqx.Module):
    """The exact score of the mixture, and a field with derivatives of every order times a number."""

    amount: jax.Array
    dim: int = 2

    def score(self, t, x):
        return LAW.marginal(VP).score(t, x) + self.amount * jnp.sin(2 * x + t)


@pytest.mark.parametrize(
    "term",
    [
        fpflow.SecondOrderScoreMatching(num_points=4096),
        fpflow.TraceScoreMatching(num_points=4096),
        fpflow.ThirdOrderScoreMatching(num_points=4096),
        fpflow.ThirdOrderScoreMatching(num_points=4096, num_probes=1),
        fpflow.ImplicitScoreMatching(),
        fpflow.ImplicitScoreMatching(num_probes=1),
        fpflow.DenoisingScoreMatching(),
    ],
    ids=lambda term: type(term).__name__,
)
def test_the_gradient_vanishes_at_the_exact_score_and_only_there(term):
    """Within its standard error over twenty batches; away from it, by many of them."""
    late = fpflow.UniformTime(offset=0.05)

    @jax.jit
    def slope(amount, key):
        key_batch, key_term = jr.split(key)
        batch = fpflow.Noising(late, pairs=False)(VP, LAW, 4096, key=key_batch)
        return jax.grad(lambda a: term(Bent(a), VP, batch, key=key_term))(amount)

    def found(amount):
        slopes = np.array([slope(jnp.array(amount), key) for key in jr.split(jr.key(5), 20)])
        return slopes.mean() / (slopes.std(ddof=1) / 20**0.5)

    assert abs(found(0.0)) < 4 and found(0.3) > 8


def test_implicit_matching_is_denoising_without_its_constant():
    """Its differences between two models are those of the denoising loss, both known for Gaussians."""
    batch = noised(VP, 40_000, Cloud(2.0), times=fpflow.UniformTime(offset=0.05), pairs=False)
    total = jax.vmap(lambda t: 2.0 * VP.alpha(t) ** 2 + VP.sigma(t) ** 2)(batch.t)
    weight = batch.weight * jax.vmap(VP.diffusion)(batch.t) ** 2
    for num_probes in (None, 2):
        term = fpflow.ImplicitScoreMatching(num_points=40_000, num_probes=num_probes)
        value = float(term(LinearScore(0.4 * jnp.eye(3)), VP, batch, key=KEY))
        known = 3 * (0.4**2 * total / 2 - 0.4)
        # The mean of |x|^2 over 40,000 points has this error.
        error = jnp.sqrt(jnp.mean((weight * 0.4**2 / 2 * total) ** 2) * 6 / 40_000)
        assert abs(value - jnp.mean(weight * known)) < 4 * error < 0.02 * abs(value)


def test_the_curl_penalty_is_the_mean_square_of_the_curl():
    """Of a turning field, 2 w; probes give it on average; a gradient has none."""
    turned = fpflow.ScoreFunction(lambda t, x: -x + 0.7 * t * jnp.stack([-x[1], x[0]]), dim=2)
    batch = noised(OU, 4096, pairs=False)
    share = jax.vmap(lambda t: fpflow.noise_weighting(OU, t))(batch.t)
    expected = jnp.mean(batch.weight * share * (2 * 0.7 * batch.t) ** 2)
    whole = fpflow.CurlPenalty(num_points=4096)
    np.testing.assert_allclose(whole(turned, OU, batch, key=KEY), expected, rtol=1e-12)
    some = fpflow.CurlPenalty(num_points=4096, num_probes=2)
    of_key = jax.jit(lambda key: some(turned, OU, batch, key=key))
    by_probes = np.array([of_key(jr.key(k)) for k in range(20)])
    error = by_probes.std(ddof=1) / 20**0.5
    assert abs(by_probes.mean() - expected) < 4 * error < 0.1 * expected
    assert float(whole(SMALL, OU, batch, key=KEY)) < 1e-20
    with pytest.raises(ValueError, match="`num_probes` must be at least 1, or None for the whole"):
        fpflow.CurlPenalty(num_probes=0)


def test_the_objective_is_the_weighted_sum_and_weights_may_be_scheduled():
    batch, terms = (
        noised(OU),
        {
            "dsm": fpflow.DenoisingScoreMatching(),
            "fp": fpflow.FokkerPlanck(weight=0.5, num_points=64),
            "late": fpflow.ScoreFokkerPlanck(
                weight=optax.linear_schedule(0.0, 1.0, 10), num_points=64
            ),
        },
    )
    for step, late in ((0, 0.0), (5, 0.5), (20, 1.0)):
        total, parts = fpflow.Objective(terms)(SMALL, OU, batch, step=step, key=KEY)
        assert list(parts) == list(terms)
        expected = parts["dsm"] + 0.5 * parts["fp"] + late * parts["late"]
        np.testing.assert_allclose(total, expected, rtol=1e-12)


SETTINGS = {"num_steps": 20, "batch_size": 64, "chunk": 10, "key": jr.key(1)}


def leaves(result):
    return jax.tree.leaves(eqx.filter(result.model, eqx.is_array))


def test_a_weight_of_zero_is_plain_training_bit_for_bit():
    plain = fpflow.train(SMALL, OU, LAW, **SETTINGS)
    terms = {
        "dsm": fpflow.DenoisingScoreMatching(),
        "fp": fpflow.FokkerPlanck(weight=0.0),
        "score": fpflow.ScoreFokkerPlanck(weight=0.0),
    }
    zero = fpflow.train(SMALL, OU, LAW, objective=fpflow.Objective(terms), **SETTINGS)
    for a, b in zip(leaves(plain), leaves(zero), strict=True):
        np.testing.assert_array_equal(a, b)
    assert list(zero.history.terms) == ["dsm"]


@pytest.mark.slow
def test_a_score_network_can_be_regularised():
    """The penalty of the same noised points falls; without its gradient it would not."""
    model = fpflow.ScoreMLP(2, width=8, depth=1, key=jr.key(0))
    batch, ends = noised(OU, 256), []
    for weight in (0.0, 10.0):
        result = fpflow.train(model, OU, LAW, fp_weight=weight, **{**SETTINGS, "num_steps": 200})
        term = fpflow.ScoreFokkerPlanck(num_points=256)
        ends.append(float(term(result.model, OU, batch, key=KEY)))
    assert set(result.history.terms) == {"dsm", "fp"}
    assert ends[1] < 0.5 * ends[0]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: fpflow.Objective({}), "`terms` must be a dictionary of terms by name"),
        (lambda: fpflow.Objective({"a": 3.0}), r"`terms\['a'\]` must be a term, got 3.0"),
        (
            lambda: fpflow.Objective({"a": fpflow.FokkerPlanck(weight=-1.0)}),
            "the weight of 'a' must be finite and not negative, got -1.0",
        ),
        (
            lambda: fpflow.Objective({"loss": fpflow.FokkerPlanck()}),
            "a term cannot be called 'loss', a name that the history itself uses",
        ),
        (
            lambda: fpflow.Objective({"a": fpflow.FokkerPlanck()}, noising=3),
            "`noising` must be a `Noising`, got int",
        ),
        (
            lambda: fpflow.Objective({"a": fpflow.FokkerPlanck(weight=0.0)}).active(),
            "all terms of the objective have weight zero",
        ),
        (lambda: fpflow.UniformTime(offset=-1.0), "`offset` must be positive, got -1.0"),
        (lambda: fpflow.BetaTime(offset=-1.0), "`offset` must not be negative, got -1.0"),
    ],
)
def test_what_is_no_objective_is_refused(make, words):
    with pytest.raises(ValueError, match=words):
        unchecked(make)


def unchecked(make):
    """Past the annotations, which would refuse some of these first."""
    original = fpflow.Objective.__init__
    fpflow.Objective.__init__ = getattr(original, "__wrapped__", original)
    try:
        return make()
    finally:
        fpflow.Objective.__init__ = original


class Conditional(eqx.Module):
    """The exact score of x | c ~ N(c, 1/2), under the paper's process: it stays N(c e^-t, 1/2)."""

    slope: jax.Array

    def score(self, t, x, condition):
        return -2 * (x - self.slope * condition * jnp.exp(-t))


class Shifted(eqx.Module):
    dim: int = 2

    def sample(self, key, n):
        key_c, key_x = jr.split(key)
        c = jr.normal(key_c, (n, self.dim))
        return c + 0.5**0.5 * jr.normal(key_x, (n, self.dim)), c


def test_terms_see_the_condition_of_each_point():
    """At the exact conditional score the gradient of the loss vanishes, and only there."""
    batch = noised(OU, 4096, Shifted())
    slope = jax.grad(lambda a: fpflow.DenoisingScoreMatching()(Conditional(a), OU, batch, key=KEY))
    assert abs(slope(jnp.array(1.0))) < 0.05 * abs(slope(jnp.array(0.0)))
    model = fpflow.PotentialMLP(2, width=6, depth=1, condition_dim=2, key=jr.key(0))
    batch = noised(OU, 32, Shifted(), pairs=False)

    def square(t, x, c):
        return fpflow.log_fp_residual(fpflow.given(model, c), OU, t, x) ** 2

    weight = batch.weight * np.expm1(-2 * batch.t) / np.expm1(-20.0)
    expected = jnp.mean(weight * jax.vmap(square)(batch.t, batch.x, batch.condition))
    found = fpflow.FokkerPlanck(num_points=32)(model, OU, batch, key=KEY)
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    uniform, other = (
        fpflow.UniformFokkerPlanck(num_points=50)(model, OU, b, key=KEY)
        for b in (batch, eqx.tree_at(lambda b: b.condition, batch, batch.condition.at[5].add(3.0)))
    )
    assert np.isfinite(uniform) and uniform > 0 and other != uniform


def test_linear_scores_have_no_jet_and_still_no_gradient_is_lost():
    """A plain module with a score goes through every term that takes one."""
    model, batch = LinearScore(2 * jnp.eye(2)), noised(OU)
    gaussian = fpflow.datasets.GaussianMixture([[0.0, 0.0]], 0.5)
    still = noised(OU, data=gaussian)
    assert float(fpflow.ScoreFokkerPlanck(num_points=64)(model, OU, still, key=KEY)) < 1e-20
    for term in (fpflow.DenoisingScoreMatching(), fpflow.FlowMatching()):
        slope = jax.grad(lambda m, term=term: term(m, OU, batch, key=KEY))(model)
        assert float(jnp.abs(slope.matrix).max()) > 0
