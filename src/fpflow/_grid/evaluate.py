"""What both grid densities share: evaluation in blocks, checks, and extrapolation."""

import contextlib
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float

from .._model import check_counts, check_dims, check_score, model_dtype, score_at
from .._process import AbstractProcess
from .._types import ScoreModel
from .._window import GridDensity, Window

# Points per call of the model: wide enough for the matrix products, small enough for the cache.
_BLOCK = 4096
# Less mass than this in a window is the round-off of what lies outside of it.
_NOTHING = 1e-9


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
            "`refine` must be at least 2, so that a coarser grid gives an error estimate, got 1."
        )
    check_dims("window", window.dim, model)
    check_score(model, process, dim=window.dim)


def is_traced(model: ScoreModel, process: AbstractProcess, dim: int) -> bool:
    """Whether scores have no values yet, because `jax.jit`, `jax.vmap` or `jax.grad` is at work."""
    dtype = model_dtype(model)
    score = score_at(model, jnp.asarray(process.t1, dtype), jnp.full(dim, 0.5, dtype))
    return isinstance(score, Tracer)


def coarser(refine: int, num_steps: int) -> tuple[int, int]:
    """The resolution of the second computation: half of both, or as near as whole numbers allow."""
    half = (refine + 1) // 2
    return half, max(round(num_steps * half / refine), 1)


def in_two_resolutions(
    masses: Callable[[int, int], Float[Array, "..."]],
    refine: int,
    num_steps: int,
    window: Window,
    traced: bool,
    tight: Callable[[], Float[Array, "..."]] | None = None,
) -> GridDensity:
    """The density from the masses of cells at `(refine, num_steps)` and `coarser` than that; `tight`
    computes the coarser ones once more by a solver whose own error is far smaller.

    Float64 within this block only: small steps would drown in the round-off of float32. Under a
    transformation of JAX it is the caller's default precision instead, since that cannot be changed
    on the way, and there are no values to check.
    """
    with contextlib.nullcontext() if traced else jax.enable_x64(True):
        fine, coarse = masses(refine, num_steps), masses(*coarser(refine, num_steps))
        # Twice, because what the smaller error is no one knows.
        moved = 0.0 if tight is None else 2 * (tight() - coarse)
        found = extrapolated(fine, coarse, refine, window, moved)
        return found if traced else _checked(found)


@eqx.filter_jit
def extrapolated(
    fine: Array, coarse: Array, refine: int, window: Window, moved: Array | float = 0.0
) -> GridDensity:
    r"""Richardson's extrapolation of a second-order method from two resolutions of ratio $\rho$,
    $(\rho^2 p_\text{fine} - p_\text{coarse}) / (\rho^2 - 1)$.

    On the mixture's exact score it divides the error of `fine` by forty, on sharp networks by two
    to nine, for no work beyond the two computations that an error estimate needs anyway. By how much the
    solver of both has `moved` the masses their difference does not show: that is added to `fine`.
    """
    gain = (refine / coarser(refine, 1)[0]) ** 2 - 1
    best = fine + (fine - coarse) / gain
    outside = jnp.maximum(1 - best.sum(), 0.0)
    # Folds of the flow and the extrapolation itself leave negative masses of the size of the error.
    negative = -jnp.minimum(best, 0).sum()
    best, fine = (jnp.maximum(m, 0) / jnp.maximum(m, 0).sum() for m in (best, fine + moved))
    error = jnp.abs(best - fine).sum() / 2 + negative
    return GridDensity(best, outside, error, window, fine)


def _checked(found: GridDensity) -> GridDensity:
    """The same in numpy, if it is a density."""
    outside, error = float(found.outside), float(found.error)
    if outside > 1 - _NOTHING:
        raise ValueError(f"none of the mass lies in {found.window}; choose another window.")
    if not np.isfinite(error):
        raise FloatingPointError(
            "the density is not finite: `model.score` returned NaN or Inf on the grid, or its flow is "
            "too steep to follow."
        )
    return GridDensity(
        np.asarray(found.mass), outside, error, found.window, np.asarray(found.unextrapolated)
    )
