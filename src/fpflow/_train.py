"""Training: a pure step, run many at a time, and a thin driver."""

import dataclasses
import math
import time
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int
from tqdm import tqdm

from ._loss import DenoisingScoreMatching, MarginalPenalty, Penalty, noised_batch
from ._model import check_counts, check_dims, check_has_score, check_key, check_score
from ._types import ArrayLike, DataLaw, PotentialModel, PRNGKey, Process, ScoreModel
from .datasets import as_data


class Cosine(eqx.Module):
    r"""A learning rate that rises linearly for `warmup` steps and falls as a cosine.

    **Arguments:**

    - `peak`: the largest rate.
    - `warmup`: steps of linear rise.
    - `final`: the last rate, as a fraction of `peak`.
    """

    peak: float = 3e-3
    warmup: int = 200
    final: float = 1e-3

    def rate(self, step: Int[Array, ""], num_steps: Int[Array, ""]) -> Float[Array, ""]:
        """The learning rate at a step of `num_steps`."""
        rise = (step + 1) / (self.warmup + 1)
        phase = jnp.clip((step - self.warmup) / jnp.maximum(num_steps - self.warmup, 1), 0, 1)
        fall = self.final + (1 - self.final) * (1 + jnp.cos(jnp.pi * phase)) / 2
        return self.peak * jnp.minimum(rise, fall)

    def renews(self, step: Int[Array, ""], num_steps: Int[Array, ""]) -> Bool[Array, ""]:
        """Whether the optimiser forgets its moments before this step: never."""
        del num_steps
        return step < 0


class Staged(eqx.Module):
    r"""Constant learning rates, one after another, with the optimiser renewed at each.

    **Arguments:**

    - `rates`: the learning rate of each stage.
    - `shares`: the part of all steps that each stage takes; they sum to one.
    """

    rates: tuple[float, ...] = (1e-3, 1e-4, 1e-5)
    shares: tuple[float, ...] = (0.25, 0.65, 0.10)

    def __check_init__(self):
        if len(self.rates) != len(self.shares) or not math.isclose(sum(self.shares), 1):
            raise ValueError(f"`shares` must sum to one, one a rate, got {self.shares}.")

    def _starts(self, num_steps: Int[Array, ""]) -> Int[Array, " stages"]:
        begun = jnp.asarray([sum(self.shares[:k]) for k in range(len(self.shares))])
        return jnp.round(begun * num_steps).astype(int)

    def rate(self, step: Int[Array, ""], num_steps: Int[Array, ""]) -> Float[Array, ""]:
        """The learning rate at a step of `num_steps`."""
        stage = jnp.sum(step >= self._starts(num_steps)) - 1
        return jnp.asarray(self.rates)[stage]

    def renews(self, step: Int[Array, ""], num_steps: Int[Array, ""]) -> Bool[Array, ""]:
        """Whether the optimiser forgets its moments before this step."""
        return jnp.any(step == self._starts(num_steps)[1:])


@runtime_checkable
class Schedule(Protocol):
    """What `train` asks of a learning rate: `Cosine()`, `Staged()` or an object of one's own."""

    def rate(self, step: Any, num_steps: Any) -> Any: ...

    def renews(self, step: Any, num_steps: Any) -> Any: ...


@dataclasses.dataclass(frozen=True)
class History:
    r"""Means of the loss parts over successive intervals of steps.

    **Attributes:**

    - `step`: the steps done at the end of each interval.
    - `dsm`: the denoising score matching loss.
    - `residual`: the Fokker--Planck penalty before its weight; NaN where it was not computed.
    - `seconds`: wall time since the start, compilation included.
    """

    step: np.ndarray
    dsm: np.ndarray
    residual: np.ndarray
    seconds: np.ndarray


@dataclasses.dataclass(frozen=True)
class TrainResult:
    """What training leaves behind.

    **Attributes:**

    - `model`: the model with averaged parameters, which is the one to use.
    - `last`: the model with the parameters of the last step.
    - `history`: the loss parts along the way.
    """

    model: Any
    last: Any
    history: History


class TrainingDiverged(FloatingPointError):
    """The loss or a parameter stopped being finite.

    **Attributes:**

    - `step`: the first step, counted from zero, whose loss or update was not finite.
    - `result`: the `TrainResult` up to the step before it.
    """

    def __init__(self, step: int, result: TrainResult):
        super().__init__(
            f"the loss stopped being finite at step {step}; the last good model is in `.result`. "
            "Lower the learning rate, or check that the data and the score are finite."
        )
        self.step = step
        self.result = result


class TrainState(eqx.Module):
    """Everything that a step changes."""

    params: Any
    average: Any
    optimiser: Any
    step: Int[Array, ""]
    healthy: Bool[Array, ""]


_ADAM = optax.scale_by_adam()


def init_state(model: Any) -> TrainState:
    """The state before the first step."""
    params = eqx.filter(model, eqx.is_inexact_array)
    return TrainState(params, params, _ADAM.init(params), jnp.array(0), jnp.array(True))


def train_step(
    state: TrainState,
    loss_parts: Callable[[Any, PRNGKey], tuple[Array, tuple[Array, Array]]],
    rate: Float[Array, ""],
    renew: Bool[Array, ""],
    ema_decay: Float[Array, ""],
    key: PRNGKey,
) -> tuple[TrainState, tuple[Float[Array, ""], Float[Array, ""]]]:
    """One step of Adam; a step that is not finite changes nothing but `healthy`."""
    (loss, parts), gradient = jax.value_and_grad(loss_parts, has_aux=True)(state.params, key)
    fresh = _ADAM.init(state.params)
    optimiser = jax.tree.map(lambda new, old: jnp.where(renew, new, old), fresh, state.optimiser)
    update, optimiser = _ADAM.update(gradient, optimiser)
    params = jax.tree.map(lambda p, u: p - rate.astype(p.dtype) * u, state.params, update)
    # A short memory at first, so that the initial weights are forgotten.
    decay = jnp.minimum(ema_decay, (1 + state.step) / (10 + state.step))
    average = jax.tree.map(
        lambda a, p: a + (1 - decay).astype(p.dtype) * (p - a), state.average, params
    )
    total = sum(jnp.sum(jnp.abs(p)) for p in jax.tree.leaves(params))
    healthy = jnp.isfinite(loss) & jnp.isfinite(total)
    new = TrainState(params, average, optimiser, state.step + 1, healthy)
    old = dataclasses.replace(state, healthy=healthy)
    return jax.tree.map(lambda n, o: jnp.where(healthy, n, o), new, old), parts


@eqx.filter_jit
def _run_chunk(state, model, process, data, loss, penalty, fp_weight, settings, key, length):
    """Up to `length` steps in one call; those beyond the last, or after a failure, do nothing."""
    schedule, batch_size, num_steps, ema_decay = settings
    static = eqx.filter(model, eqx.is_inexact_array, inverse=True)

    def loss_parts(params, key):
        net = eqx.combine(params, static)
        key_batch, key_penalty = jr.split(key)
        batch = noised_batch(loss.times, process, data, batch_size, key_batch)
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
            return train_step(state, loss_parts, rate, renew, ema_decay, step_key)

        def idle(state):
            nan = jnp.full_like(jax.tree.leaves(state.params)[0], jnp.nan, shape=())
            return state, (nan, nan)

        return jax.lax.cond(state.healthy & (state.step < num_steps), active, idle, state)

    return jax.lax.scan(step, state, None, length=length)


def train(
    model: ScoreModel,
    process: Process,
    data: DataLaw | ArrayLike,
    *,
    fp_weight: float = 0.0,
    loss: DenoisingScoreMatching | None = None,
    penalty: Penalty | None = None,
    num_steps: int = 20_000,
    batch_size: int = 2048,
    schedule: Schedule | None = None,
    ema_decay: float = 0.999,
    chunk: int = 250,
    progress: bool | None = None,
    key: PRNGKey,
) -> TrainResult:
    r"""Trains a model by Adam on $L = L_\mathrm{DSM} + w_R\,\tilde R$.

    **Arguments:**

    - `model`: an `equinox.Module` with `score(t, x)`; with `potential(t, x)` too if
      `fp_weight` is positive.
    - `process`: the noising process.
    - `data`: an array `(n, dim)`, or an object with `sample(key, n)`.
    - `fp_weight`: $w_R \ge 0$, the weight of the squared Fokker--Planck residual.
    - `loss`: where in time the score is matched, and how it is weighted.
    - `penalty`: where the residual is taken: `MarginalPenalty()` under $p_t$ (default) or
      `UniformPenalty()` over $\Omega \times [t_0, t_1]$.
    - `num_steps`: optimiser steps.
    - `batch_size`: fresh data points in each step.
    - `schedule`: the learning rate, `Cosine()` (default) or `Staged()`.
    - `ema_decay`: memory of the parameter average, in $[0, 1)$; zero returns the last step.
    - `chunk`: steps in one compiled call, and in one entry of the history. It changes no result.
    - `progress`: a progress bar; by default only on a terminal.
    - `key`: a `jax.random.key`.

    **Returns:** a `TrainResult`.

    **Raises:** `ValueError` for bad data or settings, `TrainingDiverged` with the last good model
    when the loss is not finite.
    """
    data = as_data(data)
    _check_settings(model, process, data, fp_weight, num_steps, batch_size, ema_decay, chunk, key)
    batch_size, chunk = int(batch_size), int(chunk)
    loss = DenoisingScoreMatching() if loss is None else loss
    schedule = Cosine() if schedule is None else schedule
    penalty = MarginalPenalty() if penalty is None else penalty
    settings = (schedule, batch_size, jnp.asarray(num_steps), jnp.asarray(ema_decay, float))

    state = init_state(model)
    intervals: list[tuple[int, float, float, float]] = []
    start, done = time.perf_counter(), 0

    def result() -> TrainResult:
        columns = np.array(intervals, float).reshape(-1, 4).T
        history = History(columns[0].astype(int), *columns[1:])
        return TrainResult(
            eqx.combine(state.average, model), eqx.combine(state.params, model), history
        )

    # tqdm reads `disable=None` as: only on a terminal.
    disable = None if progress is None else not progress
    with tqdm(total=num_steps, unit="step", desc="train", disable=disable) as bar:
        while done < num_steps:
            state, (dsm, residual) = _run_chunk(
                state, model, process, data, loss, penalty if fp_weight > 0 else None,
                jnp.asarray(fp_weight, float), settings, key, chunk,
            )  # fmt: skip
            before, done = done, int(state.step)
            if done > before:
                dsm, residual = (
                    float(np.asarray(p)[: done - before].mean()) for p in (dsm, residual)
                )
                intervals.append((done, dsm, residual, time.perf_counter() - start))
                bar.set_postfix(dsm=f"{dsm:.4g}", residual=f"{residual:.3g}")
            bar.update(done - before)
            if not state.healthy:
                raise TrainingDiverged(done, result())
    return result()


def _check_settings(model, process, data, fp_weight, num_steps, batch_size, ema_decay, chunk, key):
    check_counts(num_steps=num_steps, batch_size=batch_size, chunk=chunk)
    check_key(key)
    if not (fp_weight >= 0 and math.isfinite(fp_weight)):
        raise ValueError(f"`fp_weight` must be finite and not negative, got {fp_weight}.")
    if not 0 <= ema_decay < 1:
        raise ValueError(f"`ema_decay` must lie in [0, 1), got {ema_decay}.")
    check_has_score(model)
    if not jax.tree.leaves(eqx.filter(model, eqx.is_inexact_array)):
        raise ValueError(f"`model` has no arrays to train, got {type(model).__name__}.")
    if fp_weight > 0 and not isinstance(model, PotentialModel):
        raise ValueError(
            f"`fp_weight` = {fp_weight} needs a model with `potential(t, x)`, got "
            f"{type(model).__name__}; use `PotentialMLP`, or `fp_weight=0`."
        )
    x = eqx.filter_eval_shape(data.sample, jr.key(0), 1)
    check_dims("data", x.shape[1], model)
    check_score(model, process, dim=x.shape[1])
