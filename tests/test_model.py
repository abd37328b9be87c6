"""Networks: the written derivatives are the true ones, and layers from elsewhere fit."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import scipy.special

import fpflow
from fpflow._calculus import differentiated_jet
from fpflow._model.network import softplus_and_slope
from known import KINDS, OU, ROUND_OFF

T, X = jnp.array(0.3), jnp.array([0.4, -1.1])
SHARPNESS = [1.0, 3.0, 100.0]


@pytest.mark.parametrize("beta", SHARPNESS)
def test_written_derivatives_match_automatic_ones(beta):
    """Score, time derivative and Laplacian against jax on a softplus network of jax's own."""
    prior = fpflow.OrnsteinUhlenbeck(rate=0.5, noise=2.0).prior
    model = fpflow.PotentialMLP(2, width=16, beta=beta, prior=prior, key=jr.key(1))

    def potential(t, x):
        h = jnp.concatenate([t[None], x])
        for weight, bias in zip(model.network.weights[:-1], model.network.biases[:-1], strict=True):
            h = jax.nn.softplus(beta * (weight @ h + bias)) / beta
        layers = (model.network.weights[-1] @ h + model.network.biases[-1])[0]
        return layers + prior.log_prob(x) - prior.log_prob(jnp.zeros(2))

    jet = model.jet(T, X)
    np.testing.assert_allclose(jet.value, potential(T, X), rtol=ROUND_OFF)
    np.testing.assert_allclose(model.potential(T, X), potential(T, X), rtol=ROUND_OFF)
    np.testing.assert_allclose(jet.time_derivative, jax.grad(potential, 0)(T, X), rtol=ROUND_OFF)
    np.testing.assert_allclose(jet.gradient, jax.grad(potential, 1)(T, X), rtol=ROUND_OFF)
    np.testing.assert_allclose(model.score(T, X), jet.gradient, rtol=ROUND_OFF)
    hessian = jax.hessian(potential, 1)(T, X)
    # A sharp softplus bends by beta: the Laplacian loses as many digits.
    np.testing.assert_allclose(jet.laplacian, jnp.trace(hessian), rtol=beta * ROUND_OFF)


@pytest.mark.parametrize("beta", SHARPNESS)
def test_parameter_gradients_of_the_score_match_automatic_ones(beta):
    """Training differentiates the written score; it must be the derivative of the potential's."""
    model = fpflow.PotentialMLP(2, width=8, beta=beta, key=jr.key(2))

    def written(model):
        return jnp.sum(model.score(T, X) ** 2)

    def automatic(model):
        return jnp.sum(jax.grad(model.potential, 1)(T, X) ** 2)

    for a, b in zip(
        jax.tree.leaves(jax.grad(written)(model)),
        jax.tree.leaves(jax.grad(automatic)(model)),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=beta * ROUND_OFF)


def test_the_softplus_is_that_of_the_library():
    """In single precision the logarithm is a polynomial: right to two units of the last digit, far
    out too, where the value is tiny."""
    h = jnp.linspace(-12, 12, 20_001, dtype=jnp.float32)
    value, slope = softplus_and_slope(2.0, h)
    h = np.asarray(h, float)
    np.testing.assert_allclose(value, np.logaddexp(0, 2 * h) / 2, rtol=5e-7)
    np.testing.assert_allclose(slope, scipy.special.expit(2 * h), rtol=5e-7)


@pytest.mark.parametrize("kind", [fpflow.PotentialMLP, fpflow.ScoreMLP])
def test_layers_without_output_leave_the_score_of_the_prior(kind):
    """By default the prior is that of the default process; without one the layers stand alone."""
    process = fpflow.OrnsteinUhlenbeck(rate=0.3, noise=1.5)

    def silent(**prior):
        model = kind(2, width=4, key=jr.key(0), **prior)
        return jax.tree.map(lambda a: 0 * a if eqx.is_array(a) else a, model)

    for model, prior in (
        (silent(), fpflow.OrnsteinUhlenbeck().prior),
        (silent(prior=process.prior), process.prior),
    ):
        expected = jax.grad(prior.log_prob)(X)
        np.testing.assert_allclose(model.score(T, X), expected, rtol=ROUND_OFF)
    np.testing.assert_array_equal(silent(prior=None).score(T, X), 0)


def test_extreme_inputs_stay_finite():
    """Softplus and slope neither overflow nor turn NaN at either end."""
    model = fpflow.PotentialMLP(2, width=8, beta=100.0, key=jr.key(0))
    for scale in (1e3, 1e6):
        jet = model.jet(T, scale * X)
        assert all(jnp.isfinite(part).all() for part in jet)


def test_leading_axes_equal_vmap():
    t, x = jr.uniform(jr.key(0), (5, 3)), jr.normal(jr.key(1), (5, 3, 2))
    for model in (fpflow.PotentialMLP(2, key=jr.key(2)), fpflow.ScoreMLP(2, key=jr.key(2))):
        mapped = jax.vmap(jax.vmap(model.score))(t, x)
        np.testing.assert_allclose(model.score(t, x), mapped, rtol=ROUND_OFF)


def test_parameters_of_the_papers_network():
    model = fpflow.PotentialMLP(2, key=jr.key(0))
    assert sum(a.size for a in jax.tree.leaves(model) if hasattr(a, "size")) == 13_361


def test_layers_from_elsewhere_give_the_same_network():
    model = fpflow.PotentialMLP(2, width=7, depth=2, beta=5.0, key=jr.key(3))
    pairs = list(zip(model.network.weights, model.network.biases, strict=True))
    again = fpflow.PotentialMLP.from_layers(pairs, beta=5.0, precision=model.precision)
    np.testing.assert_array_equal(again.score(T, X), model.score(T, X))
    assert again.dim == 2
    sharp = fpflow.PotentialMLP.from_layers(pairs)
    h = jnp.concatenate([T[None], X])
    for weight, bias in pairs[:-1]:
        h = jax.nn.softplus(100.0 * (weight @ h + bias)) / 100.0
    value = (pairs[-1][0] @ h + pairs[-1][1])[0]
    np.testing.assert_allclose(sharp.potential(T, X), value, rtol=ROUND_OFF)
    score = fpflow.ScoreMLP(3, key=jr.key(4))
    pairs = list(zip(score.network.weights, score.network.biases, strict=True))
    same = fpflow.ScoreMLP.from_layers(pairs, beta=1.0, precision=score.precision)
    np.testing.assert_array_equal(same.score(T, jnp.ones(3)), score.score(T, jnp.ones(3)))


W, B = np.ones((4, 3)), np.zeros(4)


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        ([(W, B)], "at least two"),
        ([(np.ones(3), B), (W, B)], r"`layers\[0\]` must have a weight of shape \(out, in\)"),
        (
            [(W, B), (np.ones((1, 5)), np.ones(1))],
            r"`layers\[1\]` .* shape \(out, 4\), got \(1, 5\)",
        ),
        ([(W, np.ones(3)), (np.ones((1, 4)), np.ones(1))], r"bias of shape \(4,\), got \(3,\)"),
        ([(W * np.nan, B), (np.ones((1, 4)), np.ones(1))], r"`layers\[0\]` holds NaN or Inf"),
        ([(W, B), (np.ones((2, 4)), np.ones(2))], "must have one output, got 2"),
        ([(np.ones((4, 1)), B), (np.ones((1, 4)), np.ones(1))], "at least two inputs"),
    ],
)
def test_bad_layers_are_refused(layers, words):
    with pytest.raises(ValueError, match=words):
        fpflow.PotentialMLP.from_layers(layers)


def test_bad_sizes_are_refused():
    with pytest.raises(ValueError, match="must have 2 outputs, one per coordinate, got 1"):
        fpflow.ScoreMLP.from_layers([(W, B), (np.ones((1, 4)), np.ones(1))])
    with pytest.raises(ValueError, match="`dim` must be at least 1, got 0"):
        fpflow.PotentialMLP(0, key=jr.key(0))
    with pytest.raises(ValueError, match="`width` must be at least 1, got 0"):
        fpflow.PotentialMLP(2, width=0, key=jr.key(0))
    with pytest.raises(ValueError, match="`depth` must be at least 1, got 0"):
        fpflow.ScoreMLP(2, depth=0, key=jr.key(0))
    with pytest.raises(ValueError, match="`beta` must be positive and finite, got -1.0"):
        fpflow.PotentialMLP(2, beta=-1.0, key=jr.key(0))


def test_a_network_in_the_frame_solves_the_equation_its_inner_one_solves():
    """The residual of the framed potential is that of the inner one in the frame, at the pace of tau,
    whatever the process: the change of variables is exact. Its jet is that of differentiation."""
    inner = fpflow.PotentialMLP(2, width=8, prior=fpflow.IsotropicGaussian(), key=jr.key(0))
    standard = fpflow.OrnsteinUhlenbeck(rate=1.0, noise=2**0.5)
    z, share = jnp.array([0.4, -1.1]), 0.3
    for process in KINDS.values():
        model = fpflow.in_frame(inner, process, centre=0.7, scale=1.3)
        t = jnp.asarray(process.t0 + share * (process.t1 - process.t0))
        tau, pace = jax.jvp(model.frame.tau, (t,), (jnp.ones_like(t),))
        x = model.frame.place(t, z)
        expected = pace * fpflow.log_fp_residual(inner, standard, tau, z)
        np.testing.assert_allclose(
            fpflow.log_fp_residual(model, process, t, x), expected, rtol=1e-9
        )
        for time in (process.t0, t):
            found, other = model.jet(time, x), differentiated_jet(model, jnp.asarray(time), x)
            for a, b in zip(found, other, strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)
            np.testing.assert_allclose(model.score(time, x), found.gradient, rtol=1e-12)
    assert model.dim == 2


def test_a_frame_takes_conditions_and_scores(tmp_path):
    process = fpflow.EDM()
    prior = fpflow.IsotropicGaussian()
    network = fpflow.PotentialMLP(2, width=4, condition_dim=1, prior=prior, key=jr.key(0))
    model, c = fpflow.in_frame(network, process), jnp.array([0.3])
    x = jnp.array([0.1, 0.2])
    there, here = (
        fpflow.given(model, c).jet(2.0, x),
        fpflow.in_frame(fpflow.given(network, c), process).jet(2.0, x),
    )
    for a, b in zip(there, here, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)
    score = fpflow.in_frame(fpflow.ScoreMLP(2, width=4, prior=None, key=jr.key(0)), process)
    assert not hasattr(score, "potential")
    fpflow.save(tmp_path / "framed.fpflow", model, process)
    loaded, _ = fpflow.load(tmp_path / "framed.fpflow")
    np.testing.assert_array_equal(loaded.score(2.0, x, c), model.score(2.0, x, c))


def test_a_frame_needs_a_score_and_a_width():
    network = fpflow.ScoreMLP(2, width=4, prior=None, key=jr.key(0))
    with pytest.raises(ValueError, match="`model` must have a method `score"):
        fpflow.in_frame(3, OU)
    with pytest.raises(ValueError, match="`scale` must be positive"):
        fpflow.in_frame(network, OU, scale=0.0)
    with pytest.raises(
        ValueError, match="corrects a prior of width 0.7071, but the prior of the frame has width 1"
    ):
        fpflow.in_frame(fpflow.ScoreMLP(2, width=4, key=jr.key(0)), OU)


def test_a_model_in_a_frame_knows_its_process():
    """Other times are the same noise; another rate, also within `given`, is not."""
    inner = fpflow.ScoreMLP(2, width=4, condition_dim=1, prior=None, key=jr.key(0))
    model = fpflow.given(fpflow.in_frame(inner, OU), jnp.zeros(1))
    shorter = fpflow.OrnsteinUhlenbeck(t1=3.0)
    fpflow.sample_ode(model, shorter, 2, num_steps=2, key=jr.key(0))
    with pytest.raises(
        ValueError, match="is in the frame of another process, Ornstein.*, got Ornst"
    ):
        fpflow.sample_ode(model, fpflow.OrnsteinUhlenbeck(rate=2.0), 2, key=jr.key(0))
