"""Evaluating a user's function on a whole grid without holding all of its work in memory."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .._process import AbstractProcess
from .._types import ScoreModel
from .._window import Window

# Points per call of the model: wide enough for the matrix products, small enough for the cache.
_BLOCK = 8192


def model_dtype(model: Any) -> np.dtype:
    """The precision a model computes in: that of its arrays, or double if it holds none."""
    leaves = jax.tree.leaves(eqx.filter(model, eqx.is_inexact_array))
    return jnp.result_type(*leaves) if leaves else np.dtype(np.float64)


def on_points(function: Callable[[Array], Array], points: Array, dtype: Any) -> Array:
    """`function` of one point at each of `points`, shape `(n, dim)`, in blocks."""
    result = jax.lax.map(function, points.astype(dtype), batch_size=min(_BLOCK, len(points)))
    return result.astype(points.dtype)


def graded_times(t0: float, t1: float, num_steps: int) -> np.ndarray:
    """Times from `t1` down to `t0`, cubically denser towards `t0` where scores are stiff."""
    return t0 + (t1 - t0) * (1 - np.linspace(0, 1, num_steps + 1)) ** 3


def check_grid(model: ScoreModel, process: AbstractProcess, window: Window, **counts: int) -> None:
    """Refuses what cannot be solved before anything compiles."""
    if not isinstance(window, Window):
        raise ValueError(f"`window` must be a `fpflow.Window`, got {type(window).__name__}.")
    for name, value in counts.items():
        if value != int(value) or value < 1:
            raise ValueError(f"`{name}` must be a whole number of at least 1, got {value}.")
    if not hasattr(model, "score"):
        raise ValueError(f"`model` must have a method `score(t, x)`, got {type(model).__name__}.")
    t = jnp.asarray(process.t1, jnp.float32)
    try:
        score = model.score(t, jnp.full((2,), 0.5, jnp.float32))
    except (TypeError, ValueError) as error:
        raise ValueError(f"`model.score` fails at one point of shape (2,): {error}") from error
    if jnp.shape(score) != (2,):
        raise ValueError(f"`model.score` must return shape (2,), got {jnp.shape(score)}.")
    if not np.isfinite(np.asarray(score)).all():
        raise ValueError(f"`model.score` returns {score} at t = {t}, x = (0.5, 0.5).")
