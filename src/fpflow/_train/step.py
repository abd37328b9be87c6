"""One step of training, and many of them in one compiled call."""

import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Bool, Float, Int

from .._devices import shared_out
from .._loss import noised_batch
from .._types import PRNGKey
from .optimiser import Optimiser


class TrainState(eqx.Module):
    """Everything that a step changes."""

    params: Any
    average: Any
    moments: Any
    step: Int[Array, ""]
    healthy: Bool[Array, ""]


def init_state(model: Any, optimiser: Optimiser) -> TrainState:
    """The state before the first step."""
    params = eqx.filter(model, eqx.is_inexact_array)
    return TrainState(params, params, optimiser.init(params), jnp.array(0), jnp.array(True))


def train_step(
    state: TrainState,
    loss_parts: Callable[[Any, PRNGKey], tuple[Array, tuple[Array, Array]]],
    optimiser: Optimiser,
    rate: Float[Array, ""],
    renew: Bool[Array, ""],
    ema_decay: Float[Array, ""],
    key: PRNGKey,
) -> tuple[TrainState, tuple[Float[Array, ""], Float[Array, ""]]]:
    """One step; one that is not finite changes nothing but `healthy`."""
    (loss, parts), gradient = jax.value_and_grad(loss_parts, has_aux=True)(state.params, key)
    fresh = optimiser.init(state.params)
    moments = jax.tree.map(lambda new, old: jnp.where(renew, new, old), fresh, state.moments)
    update, moments = optimiser.update(gradient, moments)
    params = jax.tree.map(lambda p, u: p - rate.astype(p.dtype) * u, state.params, update)
    # A short memory at first, so that the initial weights are forgotten.
    decay = jnp.minimum(ema_decay, (1 + state.step) / (10 + state.step))
    average = jax.tree.map(
        lambda a, p: a + (1 - decay).astype(p.dtype) * (p - a), state.average, params
    )
    total = sum(jnp.sum(jnp.abs(p)) for p in jax.tree.leaves(params))
    healthy = jnp.isfinite(loss) & jnp.isfinite(total)
    new = TrainState(params, average, moments, state.step + 1, healthy)
    old = dataclasses.replace(state, healthy=healthy)
    return jax.tree.map(lambda n, o: jnp.where(healthy, n, o), new, old), parts


@eqx.filter_jit
def run_chunk(state, model, process, data, loss, penalty, fp_weight, settings, key, length):
    """Up to `length` steps in one call; those beyond the last, or after a failure, do nothing."""
    schedule, optimiser, batch_size, num_steps, ema_decay = settings
    static = eqx.filter(model, eqx.is_inexact_array, inverse=True)

    def loss_parts(params, key):
        net = eqx.combine(params, static)
        key_batch, key_penalty = jr.split(key)
        batch = shared_out(
            noised_batch(loss.times, process, data, batch_size, key_batch, loss.pairs)
        )
        dsm = loss(net, process, batch)
        if penalty is None:
            return dsm, (dsm, jnp.full_like(dsm, jnp.nan))
        residual = penalty(net, process, batch, key_penalty)
        return dsm + fp_weight.astype(dsm.dtype) * residual, (dsm, residual)

    def step(state, _):
        def active(state):
            rate = schedule.rate(state.step, num_steps)
            renew = schedule.renews(state.step, num_steps)
            step_key = jr.fold_in(key, state.step)
            return train_step(state, loss_parts, optimiser, rate, renew, ema_decay, step_key)

        def idle(state):
            nan = jnp.full_like(jax.tree.leaves(state.params)[0], jnp.nan, shape=())
            return state, (nan, nan)

        return jax.lax.cond(state.healthy & (state.step < num_steps), active, idle, state)

    return jax.lax.scan(step, state, None, length=length)
