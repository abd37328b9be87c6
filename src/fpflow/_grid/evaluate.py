"""What both grid densities share: evaluation in blocks, checks, and extrapolation."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jaxtyping import Array

from .._model import check_counts, check_dims, check_score
from .._process import AbstractProcess
from .._window import GridDensity, Window

# Points per call of the model: wide enough for the matrix products, small enough for the cache.
_BLOCK = 4096


def on_points(function: Callable[[Array], Array], points: Array, dtype: Any) -> Array:
    """`function` of one point at each of `points`, shape `(n, dim)`, in blocks."""
    result = jax.lax.map(function, points.astype(dtype), batch_size=min(_BLOCK, len(points)))
    return result.astype(points.dtype)


def check_grid(model: Any, process: AbstractProcess, window: Any, **counts: Any) -> None:
    """Refuses what cannot be solved before anything compiles."""
    if not isinstance(window, Window):
        raise ValueError(f"`window` must be a `fpflow.Window`, got {type(window).__name__}.")
    check_counts(**counts)
    if counts["refine"] < 2:
        raise ValueError(
            "`refine` must be at least 2, so that a coarser grid gives the error, got 1."
        )
    check_dims("window", window.dim, model)
    check_score(model, process, dim=window.dim)


def coarser(refine: int, num_steps: int) -> tuple[int, int]:
    """The resolution of the second computation: half of both, or as near as whole numbers allow."""
    half = (refine + 1) // 2
    return half, max(round(num_steps * half / refine), 1)


def extrapolated(fine: np.ndarray, coarse: np.ndarray, refine: int, window: Window) -> GridDensity:
    r"""Richardson's extrapolation of a second-order method from two resolutions of ratio $\rho$,
    $(\rho^2 p_\text{fine} - p_\text{coarse}) / (\rho^2 - 1)$.

    On the mixture's exact score it divides the error of `fine` by forty, on sharp networks by two
    to nine, for no work beyond the two computations that an error estimate needs anyway.
    """
    if not (np.isfinite(fine).all() and np.isfinite(coarse).all()):
        raise FloatingPointError(
            "the density is not finite: `model.score` returned NaN or Inf on the grid, or its flow is "
            "too steep to be followed."
        )
    gain = (refine / coarser(refine, 1)[0]) ** 2 - 1
    best = fine + (fine - coarse) / gain
    outside = max(float(1 - best.sum()), 0.0)
    # Folds of the flow and the extrapolation itself leave negative masses of the size of the error.
    negative = float(-np.minimum(best, 0).sum())
    best, fine, coarse = (np.maximum(m, 0) / np.maximum(m, 0).sum() for m in (best, fine, coarse))
    error = float(np.abs(fine - coarse).sum() / 2 / gain) + negative
    return GridDensity(best, outside, error, window, fine)
