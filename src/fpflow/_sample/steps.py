"""The times at which a sampler stops."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from .._model import check_counts
from .._process import AbstractProcess, at_times, graded_times
from .._types import ArrayLike

# A grid of one's own, as samplers keep it: it has a hash, so that it is part of a program.
Grid = tuple[float, ...]


def chosen_steps(
    num_steps: int | None, step_grid: ArrayLike | None, default: int
) -> tuple[int, Grid | None]:
    """The number of steps and the grid, if there is one, after checks.

    **Raises:** `ValueError` for a bad number, a bad grid, or two that disagree.
    """
    if step_grid is None:
        (num_steps,) = check_counts(num_steps=default if num_steps is None else num_steps)
        return num_steps, None
    if isinstance(step_grid, Tracer):
        raise ValueError("`step_grid` must be concrete times, got a traced value.")
    grid = np.asarray(step_grid, float)
    if num_steps is not None and num_steps != grid.size - 1:
        raise ValueError("give either `num_steps` or `step_grid`, not both.")
    if grid.ndim != 1 or len(grid) < 2 or not np.isfinite(grid).all():
        raise ValueError(f"`step_grid` must be finite times, shape (n + 1,), got {grid.shape}.")
    if not (grid[1:] < grid[:-1]).all():
        raise ValueError(
            f"`step_grid` must decrease strictly from `t1` to `t0`, got {grid[:2]} ... {grid[-2:]}."
        )
    return len(grid) - 1, tuple(grid.tolist())


def finer_steps(num_steps: int | None, step_grid: ArrayLike | None, factor: int) -> dict[str, Any]:
    """The two settings with every step divided."""
    (factor,) = check_counts(factor=factor)
    assert num_steps is not None
    grid = step_grid
    if grid is not None:
        index = np.arange(factor * num_steps + 1) / factor
        grid = tuple(
            np.atleast_1d(np.interp(index, np.arange(num_steps + 1), np.asarray(grid))).tolist()
        )
    return {"num_steps": factor * num_steps, "step_grid": grid}


def step_times(
    process: AbstractProcess, num_steps: int | None, step_grid: ArrayLike | None, dtype: Any
) -> np.ndarray:
    """The times from `t1` down to `t0`, shape `(num_steps + 1,)`, in double precision.

    **Raises:** `ValueError` for a grid that does not fit the process or does not fall in `dtype`.
    """
    assert num_steps is not None
    grid = graded_times(process, num_steps) if step_grid is None else np.asarray(step_grid)
    rounded = grid.astype(dtype)
    if not (rounded[1:] < rounded[:-1]).all():
        name = "`num_steps` is too large: the steps" if step_grid is None else "`step_grid`"
        raise ValueError(
            f"{name} must decrease strictly from `t1` to `t0`, got {grid[:2]} ... {grid[-2:]}, which "
            f"is not the case in {np.dtype(dtype).name}."
        )
    if abs(grid[0] - process.t1) > 1e-6 * process.t1 or grid[-1] < process.t0:
        raise ValueError(
            f"`step_grid` must start at `t1` = {process.t1} and end no lower than `t0` = "
            f"{process.t0}, got {grid[0]} and {grid[-1]}."
        )
    return grid


def rates(process: AbstractProcess, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    r"""$(\log\alpha)'$, by which $f = (\log\alpha)'\,x$, and $g$ at given times, as `levels`."""
    return at_times(_rates, process, times)


def _rates(process, t):
    return process.drift(t, jnp.ones(1, t.dtype))[0], process.diffusion(t)
