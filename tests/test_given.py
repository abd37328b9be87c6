"""Conditions and arrays of any shape: what `given` and `Raveled` make is an ordinary model."""

import dataclasses
import inspect
import re
import warnings

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import posterior
import pytest

import fpflow
from fpflow import _files
from fpflow.datasets import as_data
from known import OU

POTENTIAL = fpflow.PotentialMLP(2, width=6, depth=1, condition_dim=3, key=jr.key(0))
SCORE = fpflow.ScoreMLP(2, width=6, depth=1, condition_dim=3, key=jr.key(0))
C, X = jnp.array([0.3, -1.0, 0.5]), jnp.array([0.2, 0.7])


@pytest.mark.parametrize("model", [POTENTIAL, SCORE], ids=["potential", "score"])
def test_a_given_condition_is_one_more_input(model):
    """The weights of the condition only shift the first layer's biases."""
    first, bias = model.network.weights[0], model.network.biases[0]
    weights = (first[:, :3], *model.network.weights[1:])
    biases = (bias + first[:, 3:] @ C, *model.network.biases[1:])
    network = dataclasses.replace(model.network, weights=weights, biases=biases, condition_dim=0)
    shifted = eqx.tree_at(lambda m: m.network, model, network)
    at_one = fpflow.given(model, C)
    np.testing.assert_allclose(at_one.score(0.3, X), shifted.score(0.3, X), rtol=1e-12)
    assert at_one.dim == 2
    if model is POTENTIAL:
        for a, b in zip(at_one.jet(0.3, X), shifted.jet(0.3, X), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12)
        np.testing.assert_allclose(
            jax.grad(lambda x: at_one.potential(0.3, x))(X), at_one.score(0.3, X)
        )


class Quadratic(eqx.Module):
    """A conditional potential without a jet of its own."""

    slope: jax.Array

    def potential(self, t, x, condition):
        return -jnp.sum((x - condition) ** 2) * (self.slope + t)

    def score(self, t, x, condition):
        return jax.grad(lambda x: self.potential(t, x, condition))(x)


def test_a_potential_of_ones_own_is_differentiated():
    jet = fpflow.potential_jet(fpflow.given(Quadratic(jnp.array(1.0)), X), 0.5, jnp.zeros(2))
    np.testing.assert_allclose(jet.laplacian, -6.0)
    np.testing.assert_allclose(jet.time_derivative, -jnp.sum(X**2))


def test_conditions_are_asked_for_where_they_are_missing():
    with pytest.raises(ValueError, match=r"needs a condition of shape \(3,\): give it one with"):
        fpflow.sample_ode(POTENTIAL, OU, 3, key=jr.key(0))
    with pytest.raises(ValueError, match=r"`condition` must have shape \(3,\), got \(2,\)"):
        fpflow.given(POTENTIAL, jnp.ones(2)).score(0.3, X)
    plain = fpflow.ScoreMLP(2, width=6, depth=1, key=jr.key(0))
    with pytest.raises(ValueError, match="the network takes no condition; make it with"):
        fpflow.given(plain, C).score(0.3, X)
    with pytest.raises(ValueError, match="must have a method `score.t, x, condition.`, got float"):
        fpflow.given(3.0, C)
    with pytest.raises(ValueError, match="`condition_dim` must be at least 0, got -1"):
        fpflow.ScoreMLP(2, condition_dim=-1, key=jr.key(0))


def test_points_carry_their_conditions():
    x, c = np.random.default_rng(0).normal(size=(50, 2)), np.arange(50.0)[:, None]
    law = fpflow.datasets.Points(x, c)
    drawn, condition = law.sample(jr.key(0), 20)
    np.testing.assert_allclose(drawn, x[np.asarray(condition[:, 0], int)])
    with pytest.raises(
        ValueError, match=r"one row per point, shape \(50, condition_dim\), got \(3, 1\)"
    ):
        fpflow.datasets.Points(x, np.ones((3, 1)))
    with pytest.raises(ValueError, match="`condition` holds NaN or Inf in 1 places"):
        fpflow.datasets.Points(x, np.where(c == 7, np.nan, c))
    with pytest.raises(ValueError, match="`data` has conditions: pass the points that belong"):
        fpflow.gap_report(fpflow.ScoreFunction(lambda t, x: -2 * x, 2), OU, law, progress=False)


class Frozen:
    """Draws by numpy, once for all times under a transformation."""

    def sample(self, key, n):
        return np.random.normal(size=(n, 2))


class Fixed:
    def sample(self, key, n):
        return jnp.arange(2.0 * n).reshape(n, 2)


class Odd:
    def sample(self, key, n):
        return jr.normal(key, (n, 2)), jnp.zeros(n)


@pytest.mark.parametrize(
    ("law", "words"),
    [
        (Frozen(), "gives different points for the same key: it draws with numpy.random"),
        (Fixed(), "gives the same points for every key"),
        (Odd(), r"must return conditions of shape \(n, condition_dim\), got \(3,\) at n = 3"),
        (Fixed, "data must be an object, got Fixed uncalled; call it"),
        ("circles", "got the text 'circles'; distributions are in `fpflow.datasets`"),
    ],
)
def test_laws_that_do_not_follow_their_key_are_refused(law, words):
    with pytest.raises(ValueError, match=words):
        fpflow.train(SCORE, OU, law, num_steps=1, key=jr.key(0))


def test_a_law_that_was_not_called_is_refused():
    with pytest.raises(ValueError, match="data must be an object, got circles uncalled; call it"):
        inspect.unwrap(as_data)(fpflow.datasets.circles)


@pytest.mark.slow
def test_the_amortised_posterior_is_the_exact_one():
    """Within .1 standard deviations and 10 % at 95 % of 200 observations; 4000 samples know a mean
    to .016."""
    assert posterior.main() >= 0.95


class Convolution(eqx.Module):
    """A small network of images."""

    first: eqx.nn.Conv2d
    last: eqx.nn.Conv2d

    def __init__(self, key):
        one, two = jr.split(key)
        self.first = eqx.nn.Conv2d(2, 4, 3, padding=1, key=one)
        self.last = eqx.nn.Conv2d(4, 1, 3, padding=1, key=two)

    def __call__(self, t, x):
        time = jnp.broadcast_to(jnp.asarray(t, x.dtype), x.shape)
        return self.last(jax.nn.silu(self.first(jnp.concatenate([x, time])))) - 2 * x


def images(n=64):
    x = np.random.default_rng(0).normal(size=(n, 1, 8, 8)) * 0.7
    x[:, 0, 0] = 0.0
    return x


@pytest.mark.slow
def test_images_train_sample_and_have_both_densities():
    """Dead pixels are named in a note and not refused."""
    model = fpflow.Raveled(fpflow.ScoreFunction(Convolution(jr.key(0))), (1, 8, 8))
    assert model.dim == 64
    with pytest.warns(UserWarning, match="constant in 8 of its 64 columns"):
        found = fpflow.train(
            model,
            OU,
            images().reshape(64, -1),
            num_steps=20,
            batch_size=64,
            chunk=10,
            key=jr.key(1),
        )
    assert found.history.loss[-1] < found.history.loss[0]
    x = fpflow.sample_sde(found.model, OU, 5, num_steps=8, key=jr.key(2)).reshape(-1, 1, 8, 8)
    assert np.isfinite(x).all()
    points = images(2).reshape(2, -1).astype(x.dtype)
    ode = fpflow.log_prob_ode(found.model, OU, points, tolerance=1e-2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # few paths: unreliable, and says so
        sde = fpflow.log_prob_sde(found.model, OU, points, num_paths=4, num_steps=8, key=jr.key(3))
    assert np.isfinite(ode.value).all() and np.isfinite(sde.value).all()


def test_raveled_potentials_keep_their_potential():
    class Image(eqx.Module):
        def potential(self, t, x):
            return -jnp.sum(x**2) + jnp.sum(x[0, 0]) * t

        def score(self, t, x):
            return jax.grad(lambda x: self.potential(t, x))(x)

    model = fpflow.Raveled(Image(), (1, 2, 3))
    x = jnp.arange(6.0)
    np.testing.assert_allclose(jax.grad(lambda x: model.potential(0.5, x))(x), model.score(0.5, x))
    assert fpflow.potential_jet(model, 0.5, x).laplacian == -12.0
    for shape in ((), (0, 3), (1.5,)):
        with pytest.raises(ValueError, match="`shape` must be positive whole numbers"):
            getattr(fpflow.Raveled, "__wrapped__", fpflow.Raveled)(Image(), shape)
    with pytest.raises(ValueError, match="got function; wrap a function in `fpflow.ScoreFunction`"):
        fpflow.Raveled(images, (1, 8, 8))


def test_any_module_is_saved_with_its_process(tmp_path):
    model = fpflow.Raveled(fpflow.ScoreFunction(Convolution(jr.key(0))), (1, 8, 8))
    process = fpflow.VariancePreserving(fpflow.LinearSchedule(beta_max=15.0))
    fpflow.save(tmp_path / "model.fpflow", model, process)
    same, its_process = fpflow.load(tmp_path / "model.fpflow")
    assert its_process == process
    x = jr.normal(jr.key(1), (64,))
    np.testing.assert_array_equal(same.score(0.3, x), model.score(0.3, x))
    with pytest.raises(ValueError, match="`model.function` is .*lambda.* cannot be written"):
        fpflow.save(tmp_path / "other.fpflow", fpflow.ScoreFunction(lambda t, x: -x), process)

    class Local(eqx.Module):
        a: jax.Array

    with pytest.raises(ValueError, match="whose class cannot be found by name; define it at"):
        fpflow.save(tmp_path / "other.fpflow", Local(jnp.ones(2)), process)
    with pytest.raises(
        ValueError, match="`model.a` is a random key, which a saved model cannot contain"
    ):
        fpflow.save(tmp_path / "other.fpflow", KeyHolder(jr.key(0)), process)
    assert not (tmp_path / "other.fpflow").exists()


class KeyHolder(eqx.Module):
    a: jax.Array


def test_a_model_that_cannot_be_saved_ends_in_a_word_and_not_in_an_error(tmp_path):
    model = fpflow.ScoreFunction(eqx.nn.Lambda(lambda x: x))
    model = Held(model, jnp.ones(()))
    with pytest.warns(UserWarning, match="the model is in the result but could not be saved"):
        fpflow.train(
            model, OU, np.random.default_rng(0).normal(size=(50, 2)), num_steps=2, batch_size=8,
            chunk=2, run_dir=tmp_path / "run", key=jr.key(0),
        )  # fmt: skip
    assert not (tmp_path / "run" / "model.fpflow").exists()


class Held(eqx.Module):
    inner: fpflow.ScoreFunction
    scale: jax.Array
    dim: int = 2

    def score(self, t, x):
        return -self.scale * x


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"arrays": 3}, "its header has the arrays 3"),
        ({"arrays": []}, "it holds 4 arrays, not 0"),
        ({"process": None}, "its process is a NoneType"),
        ({"model": {"module": "jax:jit", "fields": {}}}, "jax:jit is not an equinox module"),
        (
            {"model": {"module": "nowhere:Model", "fields": {}}},
            "it needs nowhere:Model, which cannot be imported (",
        ),
        ({"model": {"what": 1}}, "its header has the part {'what': 1}"),
        ({"format": 3}, "not a model saved by `fpflow.save` in format 4"),
    ],
)
def test_files_of_another_kind_are_refused(tmp_path, change, words):
    path = tmp_path / "model.fpflow"
    fpflow.save(path, fpflow.ScoreMLP(2, width=3, depth=1, key=jr.key(0)), OU)
    header = {**_files._parts(path.read_bytes())[0], **change}
    arrays = [
        np.asarray(a) for a in jax.tree.leaves(eqx.filter(fpflow.load(path).model, eqx.is_array))
    ]
    _files.write_arrays(path, header, arrays)
    with pytest.raises(fpflow.DamagedFile, match=re.escape(words)):
        fpflow.load(path)
