"""One step of training, and many of them in one compiled call."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import optax
from jaxtyping import Array, Bool, Int

from .._devices import shared_out
from .._process import AbstractProcess
from .._terms import Objective
from .._types import DataLaw, PRNGKey, Scalar
from .validation import Best


class TrainState(eqx.Module):
    """Everything that a training step changes.

    **Attributes:**

    - `params`, `average`: the model's arrays, and their running average.
    - `moments`: the state of the optimiser.
    - `step`: number of steps done.
    - `healthy`: whether all losses and parameters have been finite.
    - `best`: the average with the smallest held-out loss so far, if points are held out.
    """

    params: Any
    average: Any
    moments: Any
    step: Int[Array, ""]
    healthy: Bool[Array, ""]
    best: Best | None = None


class Settings(eqx.Module):
    """What a step is told besides its state; numbers are arrays, so that others compile nothing new."""

    objective: Objective
    optimiser: Any
    num_steps: Int[Array, ""]
    ema_decay: Scalar
    batch_size: int = eqx.field(static=True)


def init_state(model: Any, optimiser: Any, held_out: bool = False) -> TrainState:
    """The state before the first step."""
    params = eqx.filter(model, eqx.is_inexact_array)
    start = jnp.array(0)
    best = Best(params, jnp.asarray(jnp.inf, float), start) if held_out else None
    return TrainState(params, params, optimiser.init(params), start, jnp.array(True), best)


def train_step(
    state: TrainState,
    static: Any,
    process: AbstractProcess,
    data: DataLaw,
    settings: Settings,
    *,
    key: PRNGKey,
) -> tuple[TrainState, tuple[Scalar, dict[str, Scalar]]]:
    """One training step on a fresh batch. A step that is not finite changes nothing but `healthy`.

    **Arguments:**

    - `static`: the part of the model that is not trained,
      `eqx.filter(model, eqx.is_inexact_array, inverse=True)`.

    **Returns:** the new state, and the loss with its terms by name.
    """
    key_batch, key_terms = jr.split(key)

    def loss_of(params):
        model, objective = eqx.combine(params, static), settings.objective
        noised = objective.noising(process, data, settings.batch_size, key=key_batch)
        return objective(model, process, shared_out(noised), step=state.step, key=key_terms)

    (loss, parts), gradient = jax.value_and_grad(loss_of, has_aux=True)(state.params)
    update, moments = settings.optimiser.update(
        gradient, state.moments, state.params, num_steps=settings.num_steps
    )
    params = optax.apply_updates(state.params, update)
    # A short memory at first, so that the initial weights are forgotten.
    decay = jnp.minimum(settings.ema_decay, (1 + state.step) / (10 + state.step))
    average = jax.tree.map(
        lambda a, p: a + (1 - decay).astype(p.dtype) * (p - a), state.average, params
    )
    total = sum(jnp.sum(jnp.abs(p)) for p in jax.tree.leaves(params))
    healthy = jnp.isfinite(loss) & jnp.isfinite(total)
    new = TrainState(params, average, moments, state.step + 1, healthy, state.best)
    old = dataclasses.replace(state, healthy=healthy)
    return jax.tree.map(lambda n, o: jnp.where(healthy, n, o), new, old), (loss, parts)


@eqx.filter_jit
def run_chunk(state, model, process, data, settings, key, length):
    """Up to `length` steps in one call; those beyond the last, or after a failure, do nothing."""
    static = eqx.filter(model, eqx.is_inexact_array, inverse=True)

    def active(state):
        step_key = jr.fold_in(key, state.step)
        return train_step(state, static, process, data, settings, key=step_key)

    losses = jax.eval_shape(active, state)[1]

    def idle(state):
        return state, jax.tree.map(lambda a: jnp.full(a.shape, jnp.nan, a.dtype), losses)

    def step(state, _):
        return jax.lax.cond(state.healthy & (state.step < settings.num_steps), active, idle, state)

    return jax.lax.scan(step, state, None, length=length)
