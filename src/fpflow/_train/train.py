"""Training: a thin driver around the steps."""

import contextlib
import math
import os
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax.sharding import Mesh

from .._devices import automatic, check_mesh
from .._hosts import check_agreement, no_bar, together
from .._model import (
    PotentialMLP,
    ScoreMLP,
    Transformed,
    check_counts,
    check_dims,
    check_has_score,
    check_key,
    check_score,
    given,
)
from .._process import AbstractProcess
from .._run import describe, fingerprint, open_shared
from .._terms import HELD_OUT, Objective, default_objective
from .._types import ArrayLike, DataLaw, PRNGKey, ScoreModel, shown
from .._warning import warn
from ..datasets import as_data, draw
from .loop import Loop
from .optimiser import AbstractOptimiser, Soap, check_optimiser
from .result import TrainResult
from .schedule import AbstractSchedule
from .step import Settings, init_state, run_chunk
from .validation import HeldOutLoss, parted

# Layers of x itself learn priors of width 1, and were seen not to learn one of 50.
_WIDE = 5.0
# Conditions of about 4000 were ignored, those of up to four are learnt; between is a guess.
_FAR = 20.0


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
    validation: float | DataLaw | ArrayLike | None = None,
    patience: int | None = None,
    progress: bool | None = None,
    key: PRNGKey,
) -> TrainResult:
    r"""Trains a model on $L = L_\mathrm{DSM} + w_R\,\tilde R$, or on terms of your own.

    **Arguments:**

    - `model`: an `equinox.Module` with `score(t, x)`, or `score(t, x, condition)` if `data` has
      conditions. If it also has `potential`, it is regularised by the residual of the potential. A
      `Transformed` model is trained on transformed data.
    - `process`: the noising process.
    - `data`: an array `(n, dim)`, or an object with `sample(key, n)`.
    - `objective`: an `Objective`: the terms of the loss and how the batch is noised.
    - `fp_weight`: $w_R \ge 0$, the weight of the Fokker--Planck term of the default objective:
      `FokkerPlanck` for a potential, `ScoreFokkerPlanck` for a score. With zero, the model is trained by
      score matching alone.
    - `num_steps`: number of optimiser steps.
    - `batch_size`: number of fresh data points per step.
    - `optimiser`: `Soap()` (default) or any `optax.GradientTransformation`, used as it is, with its
      sign, its learning rate and its use of the parameters.
    - `ema_decay`: decay rate of the running average of the parameters, in $[0, 1)$; with zero, the
      parameters of the last step are returned.
    - `chunk`: number of steps per compiled call and per entry of the history. Does not change the
      result, except that the loss on held-out points is computed after each chunk.
    - `mesh`: a `jax.sharding.Mesh` of devices that share each batch, if its size is divisible by their
      number; changes results by round-off. If it spans several processes, all call `train` with the same
      arguments and return the same result; only the first accesses `run_dir` and shows a progress bar.
    - `run_dir`: a folder for `config.json`, `environment.json`, `metrics.jsonl`, checkpoints and, at the
      end, the network as `model.fpflow`. Without `resume` it must not hold a run already.
    - `resume`: whether to continue, bit for bit, from the newest intact checkpoint in `run_dir`. A run
      without checkpoints starts anew.
    - `checkpoint_every`: number of steps between checkpoints, rounded up to whole chunks.
    - `keep_checkpoints`: how many of the newest checkpoints to keep, besides the one with the lowest
      loss.
    - `log_fn`: called after each chunk, on every process of a mesh, with the number of steps done and a
      dictionary of `loss`, each term by its name, `rate` (steps per second) and `seconds`.
    - `validation`: a fraction of the points to hold out, such as 0.1 (`datasets.split` defines which),
      or held-out points or a distribution. After each chunk the history then records the first term of
      the objective on the training points as `seen` and on the held-out points as `held_out`, both for
      the averaged parameters and with the same fixed noise. The returned model is the one with the
      smallest `held_out`.
    - `patience`: stop after this many steps without a smaller `held_out`, which is computed after each
      chunk; by default never.
    - `progress`: whether to show a progress bar; by default on a terminal or in a notebook.
    - `key`: a `jax.random.key`.

    **Returns:** a `TrainResult`.

    **Raises:** `ValueError` for invalid data or settings; `TrainingDiverged`, with the last good model,
    if the loss is not finite; with a `run_dir`, `TrainingInterrupted` after Ctrl-C or SIGTERM, once a
    checkpoint has been written, and `DamagedFile` if checkpoints exist but none is intact; `HostLost` if
    another process of the mesh ended.

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
    data, outer, held = as_data(data), model, None
    if validation is not None:
        data, held = parted(data, validation)
    elif patience is not None:
        raise ValueError("`patience` needs a held-out loss; pass `validation=` too.")
    if patience is not None:
        check_counts(patience=patience)
    if isinstance(model, Transformed):
        data, held = model.law(data), None if held is None else model.law(held)
        model = model.model
    check_mesh(mesh)
    check_key(key)
    if not 0 <= ema_decay < 1:
        raise ValueError(f"`ema_decay` must lie in [0, 1), got {ema_decay}.")
    objective = _objective(model, objective, fp_weight)
    optimiser = check_optimiser(Soap() if optimiser is None else optimiser)
    _check_model(model, process, data, objective)
    if resume and run_dir is None:
        raise ValueError("`resume=True` needs the `run_dir` to continue from.")
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
    if held is not None:
        described |= dict(validation=held, patience=patience)
    others = dict(
        chunk=chunk, checkpoint_every=checkpoint_every, resume=resume, run_dir=run_dir is not None
    )
    if together(mesh):
        every = {name: fingerprint(describe(v)) for name, v in {**described, **others}.items()}
        check_agreement(every, mesh)
    names = (*objective.terms, *(() if held is None else HELD_OUT))
    columns = ("step", "loss", *names, "seconds")
    options: dict[str, Any] = dict(columns=columns, resume=resume, keep=keep_checkpoints, mesh=mesh)
    run = None if run_dir is None else open_shared(run_dir, described, **options)
    weights, rates = _arrays_for_weights(objective), _arrays_for_rates(optimiser)
    decay = jnp.asarray(ema_decay, float)
    settings = Settings(weights, rates, jnp.asarray(num_steps), decay, batch_size)
    held_out = None
    if held is not None:
        held_out = HeldOutLoss.of(objective, process, data, held, patience)
    told = (checkpoint_every, log_fn, held_out)
    loop = Loop(model, outer, process, run, mesh, names, num_steps, *told)

    def steps(state):
        # The steps alone: in force for a hook of the user's, a mesh of several processes would make
        # each of its lines a common computation.
        with contextlib.nullcontext() if mesh is None else jax.set_mesh(automatic(mesh)):
            return run_chunk(state, model, process, data, settings, key, chunk)

    state = init_state(model, optimiser, held is not None)
    return loop.go(state, steps, no_bar(progress))


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
            "`fp_weight` applies to the default objective: set the weight of a term of `objective` "
            f"instead, as in `fpflow.FokkerPlanck(weight={fp_weight})`."
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
    _look_at_sizes(model, data)
    _compare_priors(model, process)


def _look_at_sizes(model: Any, data: DataLaw) -> None:
    """A word where columns of data, shown to a network without a frame of its own, or of conditions are
    so far from one that a network hardly learns them."""
    x, condition = (None if a is None else np.asarray(a) for a in draw(data, jr.key(0), 1024))
    data_cure = "`fpflow.Transformed(network, fpflow.Standardise.of(data))`"
    both_cure = (
        "`fpflow.Transformed(network, fpflow.Standardise.of(points), "
        "fpflow.Standardise.of(conditions))`"
    )
    for name, table, harm, cure in (
        ("data", x, "training will fail or take very long", data_cure),
        ("conditions", condition, "samples may ignore it", both_cure),
    ):
        raw = name == "conditions" or isinstance(model, PotentialMLP | ScoreMLP)
        if not raw or table is None or table.ndim != 2 or table.dtype.kind != "f":
            continue
        size = np.sqrt((table.astype(float) ** 2).mean(0))
        column = int(size.argmax())
        if size[column] > _FAR:
            warn(
                f"column {column} of the {name} has a root mean square of {size[column]:.4g}, and "
                f"networks expect about one: {harm}. Wrap the network in {cure}."
            )


def _compare_priors(model: Any, process: AbstractProcess) -> None:
    """A word where a network corrects another prior than that of the process."""
    precision, std = getattr(model, "precision", 0.0), getattr(process.prior, "std", None)
    if hasattr(model, "precision") and std and std > _WIDE:
        warn(
            f"the network receives points and times unscaled, and the prior has width {std:.4g}: it "
            "will train poorly; make it with `prior=fpflow.IsotropicGaussian()` and put it in the frame "
            "shared by all processes with `fpflow.in_frame(network, process)`."
        )
    elif precision and std and not math.isclose(precision * std**2, 1, rel_tol=1e-3):
        warn(
            f"the network corrects a prior of width {precision**-0.5:.4g}, but the prior of the "
            f"process has width {std:.4g}; make the network with `prior=process.prior`."
        )
