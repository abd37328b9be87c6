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
from .._hosts import agreed, check_agreement, gathered, no_bar, replicated, together, watched
from .._model import (
    Transformed,
    check_counts,
    check_dims,
    check_has_score,
    check_key,
    check_score,
    given,
    save,
)
from .._process import AbstractProcess
from .._run import (
    Intervals,
    SharedRun,
    TrainingInterrupted,
    describe,
    fingerprint,
    open_shared,
)
from .._shown import shown_fields
from .._terms import Objective, default_objective
from .._types import ArrayLike, DataLaw, PRNGKey, ScoreModel, shown
from ..datasets import as_data, draw
from .optimiser import AbstractOptimiser, Soap, check_optimiser
from .schedule import AbstractSchedule
from .step import Settings, init_state, run_chunk

# Layers of x itself learn priors of width 1, and were seen not to learn one of 50.
_WIDE = 5.0


@dataclasses.dataclass(frozen=True)
class History:
    r"""Means of the loss and its terms over successive intervals of steps.

    **Attributes:**

    - `step`: the steps done at the end of each interval.
    - `loss`: the whole loss, weights included.
    - `terms`: each term before its weight, by its name in the objective; `history["dsm"]` is one.
    - `seconds`: wall time since the start, compilation included.
    """

    step: np.ndarray
    loss: np.ndarray
    terms: dict[str, np.ndarray]
    seconds: np.ndarray

    __repr__ = shown_fields

    def __getitem__(self, name: str) -> np.ndarray:
        return self.terms[name]

    @classmethod
    def from_rows(cls, rows: Intervals, names: tuple[str, ...]) -> "History":
        """From rows of step, loss, one number a term, and seconds."""
        columns = np.array(rows, float).reshape(-1, len(names) + 3).T
        terms = dict(zip(names, columns[2:-1], strict=True))
        return cls(columns[0].astype(int), columns[1], terms, columns[-1])


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

    __repr__ = shown_fields


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
    model: ScoreModel | Transformed,
    process: AbstractProcess,
    data: DataLaw | ArrayLike,
    *,
    objective: Objective | None = None,
    fp_weight: float = 0.0,
    num_steps: int = 10_000,
    batch_size: int = 2048,
    optimiser: Any = None,
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
    r"""Trains a model on $L = L_\mathrm{DSM} + w_R\,\tilde R$, or on terms of one's own.

    **Arguments:**

    - `model`: an `equinox.Module` with `score(t, x)`, or `score(t, x, condition)` where `data` has
      conditions; with `potential` too it is regularised by the residual of the potential. In
      `Transformed` it is trained on transformed data.
    - `process`: the noising process.
    - `data`: an array `(n, dim)`, or an object with `sample(key, n)`.
    - `objective`: an `Objective`, the terms of the loss and how the batch is noised.
    - `fp_weight`: $w_R \ge 0$, the weight of the Fokker--Planck term of the default objective:
      `FokkerPlanck` for a potential, `ScoreFokkerPlanck` for a score. Zero trains by score matching
      alone.
    - `num_steps`: optimiser steps.
    - `batch_size`: fresh data points in each step.
    - `optimiser`: `Soap()` (default) or any `optax.GradientTransformation`, taken whole: its sign, its
      learning rate, its need of the parameters.
    - `ema_decay`: memory of the parameter average, in $[0, 1)$; zero returns the last step.
    - `chunk`: steps in one compiled call, and in one entry of the history. It changes no result.
    - `mesh`: a `jax.sharding.Mesh` of devices that share each batch, where they divide it; it
      changes results by round-off. Where it spans several processes, all call `train` with the same
      arguments and return the same result, and the first alone touches `run_dir` and has a bar.
    - `run_dir`: a folder for `config.json`, `environment.json`, `metrics.jsonl`, checkpoints and, at
      the end, the network as `model.fpflow`; it must not hold a run already, unless
    - `resume`: goes on, bit for bit, from the newest checkpoint in `run_dir` that is whole, or starts
      where there is none.
    - `checkpoint_every`: steps between checkpoints, rounded up to whole chunks.
    - `keep_checkpoints`: how many of the newest stay, besides that of the lowest loss.
    - `log_fn`: called after each chunk with the steps done and a dictionary of `loss`, each
      term by its name, `rate` (steps per second) and `seconds`; on every process of a mesh.
    - `progress`: a progress bar; by default only on a terminal.
    - `key`: a `jax.random.key`.

    **Returns:** a `TrainResult`.

    **Raises:** `ValueError` for bad data or settings; `TrainingDiverged` with the last good model
    when the loss is not finite; with a `run_dir`, `TrainingInterrupted` after Ctrl-C or SIGTERM, when
    a checkpoint has been written, and `DamagedFile` where checkpoints exist and none is whole;
    `HostLost` where another process of the mesh ended.

    **Example:**

    ```python
    result = fpflow.train(model, process, data, fp_weight=0.1, num_steps=50, key=jax.random.key(1))
    ```
    """
    counts = check_counts(
        num_steps=num_steps,
        batch_size=batch_size,
        chunk=chunk,
        checkpoint_every=checkpoint_every,
        keep_checkpoints=keep_checkpoints,
    )
    num_steps, batch_size, chunk, checkpoint_every, keep_checkpoints = counts
    data, outer = as_data(data), model
    if isinstance(model, Transformed):
        data, model = model.law(data), model.model
    check_mesh(mesh)
    check_key(key)
    if not 0 <= ema_decay < 1:
        raise ValueError(f"`ema_decay` must lie in [0, 1), got {ema_decay}.")
    objective = _objective(model, objective, fp_weight)
    optimiser = check_optimiser(Soap() if optimiser is None else optimiser)
    _check_model(model, process, data, objective)
    if resume and run_dir is None:
        raise ValueError("`resume=True` needs the `run_dir` to go on from.")
    described = dict(
        model=model,
        process=process,
        data=data,
        objective=objective,
        num_steps=num_steps,
        batch_size=batch_size,
        optimiser=optimiser,
        ema_decay=float(ema_decay),
        key=key,
    )
    others = dict(
        chunk=chunk, checkpoint_every=checkpoint_every, resume=resume, run_dir=run_dir is not None
    )
    if together(mesh):
        every = {name: fingerprint(describe(v)) for name, v in {**described, **others}.items()}
        check_agreement(every, mesh)
    columns = ("step", "loss", *objective.terms, "seconds")
    options: dict[str, Any] = dict(columns=columns, resume=resume, keep=keep_checkpoints, mesh=mesh)
    run = None if run_dir is None else open_shared(run_dir, described, **options)
    weights, rates = _arrays_for_weights(objective), _arrays_for_rates(optimiser)
    decay = jnp.asarray(ema_decay, float)
    settings = Settings(weights, rates, jnp.asarray(num_steps), decay, batch_size)
    names = tuple(objective.terms)
    loop = _Loop(model, outer, process, run, mesh, names, num_steps, checkpoint_every, log_fn)

    def steps(state):
        # The steps alone: in force for a hook of the user's, a mesh of several processes would make
        # each of its lines a common computation.
        with contextlib.nullcontext() if mesh is None else jax.set_mesh(automatic(mesh)):
            return run_chunk(state, model, process, data, settings, key, chunk)

    return loop.go(init_state(model, optimiser), steps, no_bar(progress))


def _way_on(run: SharedRun | None, saved: int) -> str:
    """What is left when a process is lost."""
    if run is None:
        return "nothing is saved without a `run_dir`; start all processes again."
    if saved == 0:
        return f"{run.path} has no checkpoint yet; start all processes again."
    return (
        f"step {saved} is saved in {run.path}; start all processes again and go on with "
        "`resume=True`."
    )


@dataclasses.dataclass
class _Loop:
    """What the driver keeps besides the state: the history, and where it is told.

    `outer` is the model as the user has it: `model` itself, or `Transformed` around it.
    """

    model: Any
    outer: Any
    process: AbstractProcess
    run: SharedRun | None
    mesh: Mesh | None
    names: tuple[str, ...]
    num_steps: int
    checkpoint_every: int
    log_fn: Callable[[int, dict[str, float]], None] | None
    intervals: Intervals = dataclasses.field(default_factory=list)
    start: float = 0.0

    def go(self, state, steps, no_bar: bool | None) -> TrainResult:
        """All chunks from the newest state on, each by `steps`, and the result."""
        signals = contextlib.nullcontext(lambda: None) if self.run is None else self.run.guarded()
        with watched(self.mesh, "training") as say:
            # Before the first chunk a signal ends the call at once: there is nothing to save.
            state = self.begin(state)
            done = saved = int(state.step)
            say(_way_on(self.run, saved))
            bar = tqdm(
                total=self.num_steps, initial=done, unit="step", desc="train", disable=no_bar
            )
            with signals as came, bar:
                while done < self.num_steps:
                    state, losses = steps(state)
                    done = self.note(state, losses, bar)
                    signal = agreed(came(), self.mesh)
                    last = done == self.num_steps
                    if signal or last or done >= saved + self.checkpoint_every:
                        path = self.save(state, since=saved)
                        saved = done
                        say(_way_on(self.run, saved))
                        if path and signal and not last:
                            raise TrainingInterrupted(done, path, signal)
            return self.finish(state)

    def begin(self, state):
        """The state to go on from."""
        if self.run is not None:
            state, self.intervals = self.run.newest(state) or (state, self.intervals)
            self.run.write_metrics(self.intervals)
        before = self.intervals[-1][-1] if self.intervals else 0.0
        self.start = time.perf_counter() - before
        return replicated(state, self.mesh)

    def note(self, state, losses, bar) -> int:
        """The steps done, after a chunk is told to the bar, the folder and the user's hook."""
        before, done = self.intervals[-1][0] if self.intervals else 0, int(state.step)
        if done > before:
            loss, parts = jax.tree.map(
                lambda column: float(np.asarray(column)[: done - before].mean()), losses
            )
            self._tell((done, loss, *parts.values(), time.perf_counter() - self.start), bar)
        bar.update(done - before)
        if not state.healthy:
            raise TrainingDiverged(done, self.result(state))
        return done

    def _tell(self, row, bar) -> None:
        previous = self.intervals[-1] if self.intervals else (0, *row[1:-1], 0.0)
        self.intervals.append(row)
        terms = dict(zip(self.names, row[2:-1], strict=True))
        bar.set_postfix({name: f"{value:.4g}" for name, value in terms.items()})
        if self.run is not None:
            self.run.add_metrics(row)
        if self.log_fn is not None:
            rate = (row[0] - previous[0]) / max(row[-1] - previous[-1], 1e-9)
            told = {"loss": row[1], **terms, "rate": rate, "seconds": row[-1]}
            self.log_fn(row[0], told)

    def save(self, state, since: int):
        """A checkpoint, where there is a folder; its loss is the mean over the intervals since the
        last."""
        if self.run is None:
            return None
        recent = [row[1] for row in self.intervals if row[0] > since]
        state = gathered(state, self.mesh)
        return self.run.save(int(state.step), state, self.intervals, float(np.mean(recent)))

    def result(self, state) -> TrainResult:
        """The models and the history so far."""
        state = gathered(state, self.mesh)
        return TrainResult(
            self._outside(eqx.combine(state.average, self.model)),
            self._outside(eqx.combine(state.params, self.model)),
            History.from_rows(self.intervals, self.names),
        )

    def _outside(self, model: Any) -> Any:
        """The model in the units of the data."""
        if not isinstance(self.outer, Transformed):
            return model
        return eqx.tree_at(lambda outer: outer.model, self.outer, model)

    def finish(self, state) -> TrainResult:
        """The result, with the model in the folder."""
        result = self.result(state)
        if self.run is not None:
            try:
                self.run.write_model(lambda path: save(path, result.model, self.process))
            except ValueError as error:
                warnings.warn(
                    f"the model is in the result and not in a file: {error}", stacklevel=4
                )
        return result


def _objective(model: Any, objective: Any, fp_weight: float) -> Objective:
    """What is lowered, without terms of weight zero, checked against the model."""
    check_has_score(model)
    if not (isinstance(fp_weight, int | float) and fp_weight >= 0 and math.isfinite(fp_weight)):
        raise ValueError(f"`fp_weight` must be finite and not negative, got {fp_weight}.")
    if objective is None:
        objective = default_objective(model, fp_weight)
    elif not isinstance(objective, Objective):
        raise ValueError(f"`objective` must be an `fpflow.Objective`, got {objective!r}.")
    elif fp_weight > 0:
        raise ValueError(
            "`fp_weight` belongs to the default objective: give the weight to a term of `objective`, "
            f"as in `fpflow.FokkerPlanck(weight={fp_weight})`."
        )
    objective = objective.active()
    objective.check(model)
    return objective


def _arrays_for_weights(objective: Objective) -> Objective:
    """Weights as arrays, so that another one compiles nothing new."""

    def weights(objective):
        return [t.weight for t in objective.terms.values() if not callable(t.weight)]

    arrays = [jnp.asarray(w, float) for w in weights(objective)]
    return eqx.tree_at(weights, objective, arrays) if arrays else objective


def _arrays_for_rates(optimiser: Any) -> Any:
    """The numbers of a schedule of ours as arrays, so that another rate compiles nothing new."""
    if not isinstance(optimiser, AbstractOptimiser):
        return optimiser
    rate = optimiser.learning_rate
    if isinstance(rate, float | AbstractSchedule):
        rate = jax.tree.map(lambda v: jnp.asarray(v) if isinstance(v, float) else v, rate)
        optimiser = eqx.tree_at(lambda o: o.learning_rate, optimiser, rate)
    return optimiser


def _check_model(model, process, data, objective) -> None:
    """Refuses what cannot be trained, before anything compiles."""
    if not jax.tree.leaves(eqx.filter(model, eqx.is_inexact_array)):
        found = shown(model) if isinstance(model, type) else type(model).__name__
        raise ValueError(f"`model` has no arrays to train, got {found}.")
    x, condition = eqx.filter_eval_shape(draw, data, jr.key(0), 1)
    check_dims("data", x.shape[1], model)
    at_one = model
    if condition is not None:
        at_one = given(model, draw(data, jr.key(0), 1)[1][0])  # pyright: ignore
    check_score(at_one, process, dim=x.shape[1])
    _compare_priors(model, process)


def _compare_priors(model: Any, process: AbstractProcess) -> None:
    """A word where a network corrects another prior than that of the process."""
    precision, std = getattr(model, "precision", 0.0), getattr(process.prior, "std", None)
    if hasattr(model, "precision") and std and std > _WIDE:
        warnings.warn(
            f"the network sees points and times as they come, and the prior has width {std:.4g}: it "
            "will learn badly; make it with `prior=fpflow.IsotropicGaussian()` and put it where all "
            "processes are the same, by `fpflow.in_frame(network, process)`.",
            stacklevel=4,
        )
    elif precision and std and not math.isclose(precision * std**2, 1, rel_tol=1e-3):
        warnings.warn(
            f"the network corrects a prior of width {precision**-0.5:.4g}, that of the process has "
            f"{std:.4g}; make the network with `prior=process.prior`.",
            stacklevel=4,
        )
