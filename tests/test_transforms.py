"""Every result goes through jit, vmap and grad: of keys, of conditions, and of a model's parameters."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import fpflow

PROCESS = fpflow.OrnsteinUhlenbeck(t1=3.0)
MODEL = fpflow.PotentialMLP(2, width=6, depth=1, condition_dim=1, key=jr.key(0))
POINTS = jnp.array([[0.3, -0.2], [1.0, 0.5]])
CONDITIONS = jnp.array([[0.3], [-1.0], [2.0]])


def ode(model, key):
    return fpflow.sample_ode(model, PROCESS, 5, num_steps=4, key=key)


def sde(model, key):
    return fpflow.sample_sde(model, PROCESS, 5, num_steps=4, key=key)


def log_ode(model, key):
    del key
    return fpflow.log_prob_ode(model, PROCESS, POINTS, tolerance=1e-4).value


def log_sde(model, key):
    return fpflow.log_prob_sde(model, PROCESS, POINTS, num_paths=4, num_steps=5, key=key).value


FUNCTIONS = {"sample_ode": ode, "sample_sde": sde, "log_prob_ode": log_ode, "log_prob_sde": log_sde}


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
def test_jit_and_vmap_give_what_plain_calls_give(function):
    """Over keys and conditions, to the round-off of another order of sums."""
    keys = jr.split(jr.key(3), 3)
    plain = [function(fpflow.given(MODEL, c), k) for c, k in zip(CONDITIONS, keys, strict=True)]
    mapped = jax.jit(jax.vmap(lambda c, k: function(fpflow.given(MODEL, c), k)))(CONDITIONS, keys)
    np.testing.assert_allclose(mapped, np.stack(plain), rtol=1e-9, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
def test_gradients_in_parameters_are_those_of_differences(function):
    params, static = eqx.partition(MODEL, eqx.is_inexact_array)

    def value(params):
        model = fpflow.given(eqx.combine(params, static), CONDITIONS[0])
        return jnp.mean(function(model, jr.key(1)))

    slope = jax.jit(jax.grad(value))(params)
    along = jax.tree.map(lambda p: jr.normal(jr.key(p.size), p.shape), params)
    h = 1e-4
    ahead, behind = (
        value(jax.tree.map(lambda p, d, h=h: p + h * d, params, along)) for h in (h, -h)
    )
    inner = sum(
        jnp.vdot(a, b) for a, b in zip(jax.tree.leaves(slope), jax.tree.leaves(along), strict=True)
    )
    # Central differences: h^2 of a smooth function, and the tolerance of the solver over h.
    np.testing.assert_allclose(inner, (ahead - behind) / (2 * h), rtol=1e-3, atol=1e-5)


def test_a_thousand_conditions_compile_once(compilations):
    def at(conditions, keys):
        return jax.vmap(lambda c, k: ode(fpflow.given(MODEL, c), k))(conditions, keys)

    many = jax.jit(at)
    conditions, keys = jr.normal(jr.key(4), (1000, 1)), jr.split(jr.key(5), 1000)
    first = many(conditions, keys)
    others = conditions + 1.0
    with compilations() as count:
        other = many(others, keys)
    assert count() == 0
    assert first.shape == (1000, 5, 2) and (first != other).any()
