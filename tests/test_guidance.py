"""Guidance: what it makes of known scores, and that neither sampler draws the powered target."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import fpflow
from known import OU, ROUND_OFF, LinearScore, without_mismatch

X = jnp.array([0.4, -0.7])


def gaussian(mean, variance):
    return fpflow.datasets.GaussianMixture(
        jnp.array([mean], float), variance * jnp.eye(len(mean))[None]
    )


# The third draws nowhere near a Gaussian where it is guided by the first.
ONE, ALL = gaussian([1.0, 0.5], 0.5), gaussian([0.0, 0.0], 0.5)
MIXED = fpflow.datasets.GaussianMixture(
    jnp.array([[1.0, 0.0], [-1.0, 0.0]]), jnp.stack([0.1 * jnp.eye(2), 0.2 * jnp.eye(2)])
)


def test_gaussians_of_one_width_are_guided_to_the_powered_one():
    """p(x|c)^3 p(x)^-2 of N(m, v) and N(0, v) is N(3 m, v), at all times and so of both samplers."""
    model = fpflow.guided(ONE.marginal(OU), ALL.marginal(OU), 3.0)
    powered = gaussian([3.0, 1.5], 0.5)
    exact = powered.marginal(OU)
    for t in (0.0, 0.3, 4.0):
        np.testing.assert_allclose(
            model.score(jnp.asarray(t), X), exact.score(jnp.asarray(t), X), atol=ROUND_OFF
        )
    process = without_mismatch(OU, powered)
    found = fpflow.log_prob_ode(model, process, X[None]).value
    np.testing.assert_allclose(found[0], powered.log_prob(X), atol=1e-5)  # the solver's tolerance


@pytest.mark.parametrize("weight", [0.0, 1.0, 2.5])
def test_weights_and_classifiers_lead_to_one_score(weight):
    """The exact classifier is the ratio of the conditional law to the whole: both guidances agree, and
    the potential's gradient is the score."""
    inner, outer = ONE.marginal(OU), MIXED.marginal(OU)
    free = fpflow.guided(inner, outer, weight)
    by_class = fpflow.classifier_guided(
        outer, lambda t, x: inner.potential(t, x) - outer.potential(t, x), weight
    )
    t = jnp.asarray(0.4)
    for model in (free, by_class):
        gradient = jax.grad(lambda x, model=model: model.potential(t, x))(X)
        np.testing.assert_allclose(model.score(t, X), gradient, rtol=1e-9)
    np.testing.assert_allclose(free.score(t, X), by_class.score(t, X), rtol=1e-9)
    alone = fpflow.guided(LinearScore(jnp.eye(2)), LinearScore(2 * jnp.eye(2)), weight)
    assert not hasattr(alone, "potential")
    np.testing.assert_allclose(alone.score(t, X), -(2 - weight) * X, rtol=1e-9)


def test_guided_models_behind_a_transform_stay_there():
    scale = fpflow.Standardise([1.0, 2.0], [3.0, 4.0])
    parts = [fpflow.Transformed(law.marginal(OU), scale) for law in (ONE, ALL)]
    model = fpflow.guided(*parts, 3.0)
    assert isinstance(model, fpflow.Transformed) and model.transform is scale
    np.testing.assert_allclose(model.model.weight, 3.0)
    other = fpflow.Transformed(parts[1].model, fpflow.Standardise([1.0, 2.0], [3.0, 5.0]))
    with pytest.raises(ValueError, match="use different transforms, so their scores are with"):
        fpflow.guided(parts[0], other, 3.0)


@pytest.mark.slow
def test_neither_sampler_draws_the_powered_target_and_weights_correct_it():
    """On a grid both laws are far from the target and from each other; the evidence of the target by
    the SDE is that of the grid, and that by the ODE is not believed."""
    inner = fpflow.datasets.GaussianMixture(MIXED.means[:1], 0.1 * jnp.eye(2)[None])
    model = fpflow.guided(inner.marginal(OU), MIXED.marginal(OU), 3.0)
    window = fpflow.Window(nodes=48)
    ode = fpflow.grid_density_ode(model, OU, window)
    sde = fpflow.grid_density_sde(model, OU, window)
    target = fpflow.grid_density_potential(model, OU, window)
    apart = [fpflow.total_variation(*pair) for pair in ((target, ode), (target, sde), (ode, sde))]
    assert all(found.value > 10 * found.error and found.value > 0.02 for found in apart)

    def log_target(x):
        return model.potential(jnp.asarray(0.0), x)

    nodes = window.centres()
    cells = jnp.asarray(np.stack(np.meshgrid(nodes, nodes, indexing="ij"), -1).reshape(-1, 2))
    logs = jax.vmap(log_target)(cells)
    exact = float(jax.nn.logsumexp(logs) + 2 * np.log(window.cell_width))
    asked = {"log_target": log_target, "num_samples": 400, "key": jr.key(0)}
    found = fpflow.importance_sample(model, OU, sampler=fpflow.SDE(), **asked).log_z
    # Four standard errors, and a thousandth for the cells.
    assert abs(found.value - exact) < 4 * found.error + 1e-3
    # The ODE hardly goes where the target still has mass, and a thousand weights say so; four hundred
    # look even, and miss log Z by eight of their errors.
    asked["num_samples"] = 1000
    with pytest.warns(UserWarning, match="the largest weights fall off slowly, Pareto k 0"):
        fpflow.importance_sample(model, OU, sampler=fpflow.ODE(), **asked)


def test_conditions_are_dropped_now_and_then():
    points = jr.normal(jr.key(0), (50, 2))
    law = fpflow.datasets.Dropped(fpflow.datasets.Points(points, 1 + points[:, :1] ** 2), 0.2)
    x, condition = law.sample(jr.key(1), 4000)
    null = (condition == 0).all(1)
    assert abs(null.mean() - 0.2) < 5 * (0.2 * 0.8 / 4000) ** 0.5  # five standard errors
    np.testing.assert_allclose(condition[~null], 1 + x[~null, :1] ** 2)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: fpflow.guided(ONE.marginal(OU), ALL.marginal(OU), np.nan), "`weight` must be finite"),
        (lambda: fpflow.guided(3, ALL.marginal(OU), 1.0), "must have a method `score"),
        (lambda: fpflow.datasets.Dropped(ONE), "`data` has no conditions to drop; give"),
        (lambda: fpflow.datasets.Dropped(PAIRS, 1.0), "`probability` must lie between 0 and 1, got 1.0"),
        (
            lambda: fpflow.datasets.Dropped(PAIRS, 0.5, [1.0]),
            "`null` must be a condition that no data point",
        ),
        (lambda: fpflow.datasets.Dropped(PAIRS, 0.5, [1.0, 2.0]), r"`null` must have shape \(1,\), got"),
    ],
)  # fmt: skip
def test_what_cannot_be_guided_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


PAIRS = fpflow.datasets.Points(np.eye(2), np.ones((2, 1)))


def test_another_weight_compiles_nothing(compilations):
    draw = eqx.filter_jit(lambda m: m.score(jnp.asarray(0.3), X))
    draw(fpflow.guided(ONE.marginal(OU), ALL.marginal(OU), 1.0))
    with compilations() as count:
        draw(fpflow.guided(ONE.marginal(OU), ALL.marginal(OU), 2.0))
        assert count() == 0
