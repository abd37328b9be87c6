"""Points of one's own as a law."""

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float

from .._types import ArrayLike, DataLaw, PRNGKey
from .._window import GridDensity, Window
from .cells import count_in_cells, histogram_density


class Points(eqx.Module):
    """The empirical law of given points: every draw is one of them.

    **Arguments:**

    - `points`: an array of shape `(n, dim)`.

    **Raises:** `ValueError` when the array has another shape, is empty, holds NaN or Inf, or is
    constant in a coordinate.
    """

    points: Float[Array, "n dim"]

    def __init__(self, points: ArrayLike):
        x = np.asarray(points)
        if x.ndim != 2:
            raise ValueError(
                f"data must have shape (n, dim), one point a row, got {x.shape}; "
                "reshape a single coordinate with `data[:, None]`."
            )
        if x.size == 0:
            raise ValueError(f"data is empty: it has shape {x.shape}; give at least two points.")
        if not (np.issubdtype(x.dtype, np.floating) or np.issubdtype(x.dtype, np.integer)):
            raise ValueError(f"data must hold real numbers, got dtype {x.dtype}.")
        bad = ~np.isfinite(x)
        if bad.any():
            kind = "NaN" if np.isnan(x).any() else "Inf"
            raise ValueError(
                f"data holds {kind} in {bad.any(1).sum()} of {len(x)} rows, first in row "
                f"{int(bad.any(1).argmax())}; drop those rows."
            )
        constant = np.ptp(x, axis=0) == 0
        if constant.any():
            column = int(constant.argmax())
            raise ValueError(
                f"data is constant in column {column} (every value is {x[0, column]}), so it has "
                "no density; drop the column."
            )
        self.points = jnp.asarray(x, jnp.result_type(float))

    @property
    def dim(self) -> int:
        """The dimension of a point."""
        return self.points.shape[1]

    def sample(self, key: PRNGKey, n: int) -> Float[Array, "n dim"]:
        """`n` draws with replacement."""
        return self.points[jr.randint(key, (n,), 0, self.points.shape[0])]

    def cell_probabilities(self, window: Window) -> GridDensity:
        """The histogram of the points; its error is that of counting them."""
        return histogram_density(
            count_in_cells(np.asarray(self.points), window), len(self.points), window
        )


def as_data(data: DataLaw | ArrayLike) -> DataLaw:
    """The law behind `data`: itself where it has `sample(key, n)`, else its points.

    **Raises:** `ValueError` when an array is no set of points, or `sample` returns other shapes.
    """
    if not hasattr(data, "sample"):
        return Points(data)  # pyright: ignore[reportArgumentType]
    shape = eqx.filter_eval_shape(data.sample, jr.key(0), 3).shape  # pyright: ignore
    if len(shape) != 2 or shape[0] != 3:
        raise ValueError(f"`data.sample(key, n)` must return shape (n, dim), got {shape} at n = 3.")
    return data  # pyright: ignore[reportReturnType]


def widths_away(x: np.ndarray, data: np.ndarray) -> np.ndarray:
    """How far each row of `x` lies outside the box of the data, in widths of the box, shape `(n,)`;
    zero inside."""
    low, high = data.min(0), data.max(0)
    return (np.maximum(np.maximum(low - x, x - high), 0) / (high - low)).max(1)
