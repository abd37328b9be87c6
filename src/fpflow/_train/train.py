"""Training: a thin driver around the steps."""

import contextlib
import dataclasses
import math
import os
import time
import warnings
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax.sharding import Mesh
from tqdm import tqdm

from .._devices import automatic, check_mesh
from .._loss import DenoisingScoreMatching, MarginalPenalty, Penalty
from .._model import (
    PotentialMLP,
    ScoreMLP,
    check_counts,
    check_dims,
    check_has_score,
    check_key,
    check_score,
    save,
)
from .._run import Intervals, TrainingInterrupted, open_run
from .._types import ArrayLike, DataLaw, PotentialModel, PRNGKey, Process, ScoreModel
from ..datasets import as_data
from .optimiser import Optimiser, Soap
from .schedule import Cosine, Schedule
from .step import init_state, run_chunk


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


def train(
    model: ScoreModel,
    process: Process,
    data: DataLaw | ArrayLike,
    *,
    fp_weight: float = 0.0,
    loss: DenoisingScoreMatching | None = None,
    penalty: Penalty | None = None,
    num_steps: int = 10_000,
    batch_size: int = 2048,
    schedule: Schedule | None = None,
    optimiser: Optimiser | None = None,
    ema_decay: float = 0.999,
    chunk: int = 250,
    mesh: Mesh | None = None,
    run_dir: str | os.PathLike | None = None,
    resume: bool = False,
    checkpoint_every: int = 1000,
    keep_checkpoints: int = 3,
    log_fn: Callable[[int, dict[str, float]], None] | None = None,
    progress: bool | None = None,
    key: PRNGKey,
) -> TrainResult:
    r"""Trains a model on $L = L_\mathrm{DSM} + w_R\,\tilde R$.

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
    - `schedule`: the learning rate, `Cosine(peak=1e-2)` (default) or `Staged()`.
    - `optimiser`: `Soap()` (default), `Adam()`, or an optax transformation that scales by one.
    - `ema_decay`: memory of the parameter average, in $[0, 1)$; zero returns the last step.
    - `chunk`: steps in one compiled call, and in one entry of the history. It changes no result.
    - `mesh`: a `jax.sharding.Mesh` of devices that share each batch, where they divide it; it
      changes results by round-off.
    - `run_dir`: a folder for `config.json`, `environment.json`, `metrics.jsonl`, checkpoints and, at
      the end, the network as `model.fpflow`; it must not hold a run already, unless
    - `resume`: goes on, bit for bit, from the newest checkpoint in `run_dir` that is whole, or starts
      where there is none.
    - `checkpoint_every`: steps between checkpoints, rounded up to whole chunks.
    - `keep_checkpoints`: how many of the newest stay, besides that of the lowest loss.
    - `log_fn`: called after each chunk with the steps done and a dictionary of `loss`, `dsm`,
      `residual` (if there is one), `rate` (steps per second) and `seconds`.
    - `progress`: a progress bar; by default only on a terminal.
    - `key`: a `jax.random.key`.

    **Returns:** a `TrainResult`.

    **Raises:** `ValueError` for bad data or settings; `TrainingDiverged` with the last good model
    when the loss is not finite; with a `run_dir`, `TrainingInterrupted` after Ctrl-C or SIGTERM, when
    a checkpoint has been written, and `DamagedFile` where checkpoints exist and none is whole.

    **Example:**

    ```python
    result = fpflow.train(model, process, data, fp_weight=0.1, num_steps=50, key=jax.random.key(1))
    ```
    """
    data = as_data(data)
    check_mesh(mesh)
    _check_settings(model, process, data, fp_weight, num_steps, batch_size, ema_decay, chunk, key)
    check_counts(checkpoint_every=checkpoint_every, keep_checkpoints=keep_checkpoints)
    if resume and run_dir is None:
        raise ValueError("`resume=True` needs the `run_dir` to go on from.")
    batch_size, chunk = int(batch_size), int(chunk)
    loss = DenoisingScoreMatching() if loss is None else loss
    schedule = Cosine(peak=1e-2) if schedule is None else schedule
    penalty = MarginalPenalty() if penalty is None else penalty
    optimiser = Soap() if optimiser is None else optimiser
    _check_parts(loss=loss, penalty=penalty, schedule=schedule, optimiser=optimiser)
    run = None
    if run_dir is not None:
        run = open_run(
            run_dir,
            {
                "model": model, "process": process, "data": data, "fp_weight": float(fp_weight),
                "loss": loss, "penalty": penalty, "num_steps": int(num_steps),
                "batch_size": batch_size, "schedule": schedule, "optimiser": optimiser,
                "ema_decay": float(ema_decay), "key": key,
            },
            resume=resume, keep=keep_checkpoints,
        )  # fmt: skip
    # As arrays: another rate compiles nothing new.
    settings = (
        jax.tree.map(lambda v: jnp.asarray(v) if isinstance(v, float) else v, schedule),
        optimiser,
        batch_size,
        jnp.asarray(num_steps),
        jnp.asarray(ema_decay, float),
    )
    state = init_state(model, optimiser)
    intervals: Intervals = []
    if run is not None:
        state, intervals = run.newest(state) or (state, intervals)
        run.write_metrics(intervals)
    before = intervals[-1][3] if intervals else 0.0
    start, done = time.perf_counter() - before, int(state.step)
    saved = done

    def result() -> TrainResult:
        columns = np.array(intervals, float).reshape(-1, 4).T
        history = History(columns[0].astype(int), *columns[1:])
        return TrainResult(
            eqx.combine(state.average, model), eqx.combine(state.params, model), history
        )

    # tqdm reads `disable=None` as: only on a terminal.
    disable = None if progress is None else not progress
    devices = contextlib.nullcontext() if mesh is None else jax.set_mesh(automatic(mesh))
    signals = contextlib.nullcontext(lambda: None) if run is None else run.guarded()
    bar = tqdm(total=num_steps, initial=done, unit="step", desc="train", disable=disable)
    with devices, signals as came, bar:
        while done < num_steps:
            state, (dsm, residual) = run_chunk(
                state, model, process, data, loss, penalty if fp_weight > 0 else None,
                jnp.asarray(fp_weight, float), settings, key, chunk,
            )  # fmt: skip
            before, done = done, int(state.step)
            if done > before:
                dsm, residual = (
                    float(np.asarray(p)[: done - before].mean()) for p in (dsm, residual)
                )
                intervals.append((done, dsm, residual, time.perf_counter() - start))
                _tell(bar, log_fn, run, intervals, fp_weight)
            bar.update(done - before)
            if not state.healthy:
                raise TrainingDiverged(done, result())
            signal = came()
            if run is not None and (
                signal or done == num_steps or done >= saved + checkpoint_every
            ):
                recent = [_total(row, fp_weight) for row in intervals if row[0] > saved]
                path = run.save(done, state, intervals, float(np.mean(recent)))
                saved = done
                if signal and done < num_steps:
                    raise TrainingInterrupted(done, path, signal)
    finished = result()
    if run is not None and isinstance(finished.model, PotentialMLP | ScoreMLP):
        save(run.path / "model.fpflow", finished.model)
    return finished


def _total(interval, fp_weight) -> float:
    """The whole loss of an interval."""
    _, dsm, residual, _ = interval
    return dsm + fp_weight * residual if fp_weight > 0 else dsm


def _tell(bar, log_fn, run, intervals, fp_weight) -> None:
    """What an interval came to, on the bar, in the run's folder and to the user's hook."""
    step, dsm, residual, seconds = intervals[-1]
    previous = intervals[-2] if len(intervals) > 1 else (0, 0.0, 0.0, 0.0)
    metrics = {"loss": _total(intervals[-1], fp_weight), "dsm": dsm}
    if fp_weight > 0:
        metrics["residual"] = residual
    bar.set_postfix({name: f"{value:.4g}" for name, value in metrics.items() if name != "loss"})
    if run is not None:
        run.add_metrics(intervals[-1])
    if log_fn is not None:
        rate = (step - previous[0]) / max(seconds - previous[3], 1e-9)
        log_fn(step, {**metrics, "rate": rate, "seconds": seconds})


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
    _compare_priors(model, process)
    x = eqx.filter_eval_shape(data.sample, jr.key(0), 1)
    check_dims("data", x.shape[1], model)
    check_score(model, process, dim=x.shape[1])


# What a part of training must be, and one that is.
_PARTS = {
    "loss": (DenoisingScoreMatching, "DenoisingScoreMatching()"),
    "penalty": (Penalty, "MarginalPenalty()"),
    "schedule": (Schedule, "Cosine(peak=1e-2)"),
    "optimiser": (Optimiser, "Soap()"),
}


def _check_parts(**parts: Any) -> None:
    """Refuses names and classes where an object belongs."""
    for name, part in parts.items():
        kind, example = _PARTS[name]
        if isinstance(part, type) or not isinstance(part, kind):
            raise ValueError(f"`{name}` must be an object such as `{example}`, got {part!r}.")


def _compare_priors(model: Any, process: Process) -> None:
    """A word where a network corrects another prior than that of the process."""
    precision, std = getattr(model, "precision", 0.0), getattr(process.prior, "std", None)
    if precision and std and not math.isclose(precision * std**2, 1, rel_tol=1e-3):
        warnings.warn(
            f"the network corrects a prior of width {precision**-0.5:.4g}, that of the process has "
            f"{std:.4g}; make the network with `prior=process.prior`.",
            stacklevel=3,
        )
