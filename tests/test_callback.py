"""Scores that another framework computes, and potentials distilled from them."""

import math
import re

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import fpflow
from fpflow._model import has_derivatives
from known import OU, LinearScore
from test_chain import SHORT, law_of, wrong

MATRIX = np.array([[2.6, -0.4], [-0.4, 2.1]])


class Counted:
    """A linear score by numpy that knows how often and on how many points it was asked."""

    def __init__(self):
        self.batches = []

    def __call__(self, t, x):
        assert type(t) is np.ndarray and type(x) is np.ndarray
        assert t.shape == x.shape[:1] and x.shape[1:] == (2,)
        self.batches.append(len(x))
        return -x @ MATRIX.T + t[:, None]


class Inside(LinearScore):
    """The same by jax."""

    def score(self, t, x):
        return -self.matrix @ x + t


INSIDE = Inside(jnp.asarray(MATRIX))
KEY = jr.key(3)
WINDOW = fpflow.Window(-3.0, 3.0, 12)
LAWS = {
    "ode": lambda model: fpflow.sample_ode(model, SHORT, 6, num_steps=4, key=KEY),
    "chain": lambda model: fpflow.sample(fpflow.Ancestral(4), model, SHORT, 6, key=KEY),
    "sde": lambda model: fpflow.sample_sde(model, SHORT, 6, num_steps=4, key=KEY),
    "log_prob_chain": lambda model: (
        fpflow.log_prob_chain(
            fpflow.GaussianChain(0.2, 4), model, SHORT, jnp.ones((2, 2)), num_paths=8, key=KEY
        ).value
    ),
    "weights": lambda model: (
        fpflow.importance_sample(
            model,
            SHORT,
            lambda x: -x @ x,
            30,
            sampler=fpflow.GaussianChain(0.2, 4),
            num_paths=2,
            key=KEY,
        ).log_weights
    ),
    "grid ode": lambda model: fpflow.grid_density_ode(model, SHORT, WINDOW).mass,
    "grid sde": lambda model: fpflow.grid_density_sde(model, SHORT, WINDOW).mass,
    "vmap of jit": lambda model: jax.vmap(jax.vmap(jax.jit(lambda t, x: model.score(t, x))))(
        jnp.arange(6.0).reshape(2, 3), jnp.arange(12.0).reshape(2, 3, 2)
    ),
}


# In a short run the sampler of diffrax, the filter and a grid stand for all.
SLOW = ("ode", "weights", "grid ode")


@pytest.mark.filterwarnings("ignore:.*unreliable", "ignore:.*too uneven")
@pytest.mark.parametrize(
    "name", [pytest.param(k, marks=pytest.mark.slow if k in SLOW else ()) for k in LAWS]
)
def test_what_needs_values_alone_is_the_same(name):
    """As with the score written in jax, to the round-off of another order of sums."""
    function = Counted()
    model = fpflow.from_callback(function, 2)
    np.testing.assert_allclose(LAWS[name](model), LAWS[name](INSIDE), rtol=1e-9, atol=1e-11)
    assert max(function.batches) > 5  # whole batches


def test_what_needs_derivatives_says_so_before_it_starts():
    function = Counted()
    model = fpflow.from_callback(function, 2)
    x = jnp.zeros((100, 2))
    for call in (
        lambda: fpflow.log_prob_ode(model, OU, x, key=KEY),
        lambda: fpflow.log_prob_sde(model, OU, x, key=KEY),
        lambda: jax.grad(lambda x: model.score(0.1, x).sum())(x[0]),
    ):
        with pytest.raises(
            ValueError, match="from `from_callback` has no derivatives, and they are needed here"
        ):
            call()
    assert max(function.batches) < 3  # what checks the score, and no more
    assert not has_derivatives(model, 2) and has_derivatives(INSIDE, 2)
    hidden = fpflow.from_noise_prediction(lambda t, x: model(t, x), OU, dim=2)
    assert not has_derivatives(hidden, 2)


def test_another_prediction_goes_through_its_adapter():
    noise = fpflow.from_callback(lambda t, x: 0.4 * x, 3)
    model = fpflow.from_noise_prediction(noise, OU, dim=3)
    x = jnp.array([0.1, -0.4, 2.0])
    sigma = math.sqrt(-math.expm1(-0.6) / 2)
    np.testing.assert_allclose(model.score(0.3, x), -0.4 * x / sigma, rtol=1e-12)


def test_a_function_that_changes_its_shape_is_told():
    shapes = iter([2, 1])
    model = fpflow.from_callback(lambda t, x: np.zeros((len(x), next(shapes))), 2)
    with pytest.raises(ValueError, match=r"`function` must return shape \(1, 2\), got \(1, 1\)"):
        model._on_batch(np.zeros(1), np.zeros((1, 2)))


def test_bad_functions_are_refused():
    for function, words in (
        (lambda t, x: x[:, :1], r"must return shape \(2, 2\), got \(2, 1\)"),
        (lambda t, x: x.no_such_thing, r"`function` fails on two points of shape \(2, 2\)"),
        (3.0, r"`function` must be a function of \(t, x\), got 3.0"),
    ):
        with pytest.raises(ValueError, match=words):
            fpflow.from_callback.__wrapped__(function, 2)
    with pytest.raises(ValueError, match="`dim` must be a whole number of at least 1, got 0"):
        fpflow.from_callback(Counted(), 0)


def trained_twist(model, num_steps):
    points = 0.4 * jr.normal(jr.key(0), (2000, 2))
    return fpflow.distil_potential(model, SHORT, points, num_steps=num_steps, key=jr.key(1))


@pytest.mark.slow
def test_a_distilled_potential_twists_without_bias():
    """Its gradient is near the score, and a filter with it has the chain's density with less noise than
    the paths alone."""
    inside = wrong(2)
    model = fpflow.from_callback(lambda t, x: np.asarray(x @ inside.matrix.T + t[:, None] * 0), 2)
    still = eqx.tree_at(lambda m: m.shift, inside, jnp.zeros(2))
    twist = trained_twist(model, 300)
    t, x = jnp.array(0.5), jnp.array([0.3, -0.2])
    assert jnp.linalg.norm(twist.score(t, x) - still.score(t, x)) < 0.2 * jnp.linalg.norm(
        still.score(t, x)
    )
    chain = fpflow.GaussianChain(0.3, 20)
    mean, cov = law_of(chain, still, SHORT)
    exact = jax.scipy.stats.multivariate_normal.logpdf(x, mean, cov)
    found = fpflow.log_prob_chain(
        chain, model, SHORT, x[None], num_paths=2048, twist=twist, key=jr.key(2)
    )
    assert abs(found.value[0] - exact) < 4 * found.standard_error[0]
    assert found.standard_error[0] < 0.05 and found.reliable.all()


def test_a_student_without_a_potential_is_refused():
    student = fpflow.ScoreMLP(2, key=jr.key(0))
    with pytest.raises(ValueError, match="`student` must have a method `potential"):
        fpflow.distil_potential.__wrapped__(
            INSIDE, SHORT, np.random.default_rng(0).normal(size=(50, 2)), student=student, key=KEY
        )


@pytest.mark.slow
def test_a_torch_module_and_its_layers_agree():
    """The same weights through `from_callback` and `from_layers`, to the single precision of both."""
    torch = pytest.importorskip("torch", reason="the extra `bench` has torch")
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(3, 16), torch.nn.Softplus(), torch.nn.Linear(16, 2))

    def score(t, x):
        inputs = np.concatenate([t[:, None], x], 1).astype(np.float32)
        return net(torch.from_numpy(inputs)) - torch.from_numpy(2 * x)

    layers = [(net[k].weight.detach().numpy(), net[k].bias.detach().numpy()) for k in (0, 2)]
    inner = fpflow.ScoreMLP.from_layers(layers, beta=1.0)
    inside = fpflow.ScoreFunction(lambda t, x: inner.score(t, x) - 2 * x, dim=2)
    outside = fpflow.from_callback(score, 2)
    for name in ("ode", "sde", "chain", "log_prob_chain", "weights", "grid sde"):
        np.testing.assert_allclose(
            LAWS[name](outside), LAWS[name](inside), rtol=1e-4, atol=1e-4, err_msg=name
        )


def test_grids_get_double_precision_in_every_thread():
    """As users run it: single precision by default, doubles on grids; jax calls back in threads that do
    not know of it, where a tenth of a nat was lost or the call failed, now and then."""
    seen = set()

    def score(t, x):
        seen.add((x.dtype, t.dtype))
        return -x @ MATRIX.T

    # Which thread it is cannot be chosen: whole numbers, which none of them rounds, cross.
    model = fpflow.from_callback(score, dim=2)
    program = str(jax.make_jaxpr(lambda t, x: model.score(t, x))(jnp.array(0.5), jnp.ones(2)))
    assert re.search(r":u32\[2,2\] = pure_callback", program)
    with jax.enable_x64(False):
        masses = [fpflow.grid_density_ode(model, SHORT, WINDOW).mass for _ in range(2)]
        own = fpflow.grid_density_ode(LinearScore(jnp.asarray(MATRIX)), SHORT, WINDOW).mass
    assert {dtype for pair in seen for dtype in pair} <= {np.dtype("float32"), np.dtype("float64")}
    assert (np.dtype("float64"),) * 2 in seen
    for mass in masses:
        np.testing.assert_array_equal(mass, masses[0])
        np.testing.assert_allclose(mass, own, atol=1e-6)
