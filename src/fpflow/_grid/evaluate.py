"""Evaluating a user's function on a whole grid without holding all of its work in memory."""

from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import Array

from .._model import check_counts, check_score
from .._types import Process, ScoreModel
from .._window import Window

# Points per call of the model: wide enough for the matrix products, small enough for the cache.
_BLOCK = 4096


def on_points(function: Callable[[Array], Array], points: Array, dtype: Any) -> Array:
    """`function` of one point at each of `points`, shape `(n, dim)`, in blocks."""
    result = jax.lax.map(function, points.astype(dtype), batch_size=min(_BLOCK, len(points)))
    return result.astype(points.dtype)


def check_grid(model: ScoreModel, process: Process, window: Window, **counts: int) -> None:
    """Refuses what cannot be solved before anything compiles."""
    if not isinstance(window, Window):
        raise ValueError(f"`window` must be a `fpflow.Window`, got {type(window).__name__}.")
    check_counts(**counts)
    check_score(model, process, dim=2)
