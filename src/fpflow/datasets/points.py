"""Points of one's own as a law."""

from typing import Any

import equinox as eqx
import jax
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
    - `condition`: what each point belongs to, shape `(n, condition_dim)`; a draw is then a pair.

    **Raises:** `ValueError` when the array has another shape, is empty, holds NaN or Inf, or is
    constant in a coordinate.
    """

    points: Float[Array, "n dim"]
    condition: Float[Array, "n ..."] | None

    def __init__(self, points: ArrayLike, condition: ArrayLike | None = None):
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
        self.condition = None if condition is None else _conditions(condition, len(x))

    @property
    def dim(self) -> int:
        """The dimension of a point."""
        return self.points.shape[1]

    def sample(self, key: PRNGKey, n: int) -> Any:
        """`n` draws with replacement, with their conditions where there are some."""
        row = jr.randint(key, (n,), 0, self.points.shape[0])
        return (
            self.points[row] if self.condition is None else (self.points[row], self.condition[row])
        )

    def cell_probabilities(self, window: Window) -> GridDensity:
        """The histogram of the points; its error is that of counting them."""
        return histogram_density(
            count_in_cells(np.asarray(self.points), window), len(self.points), window
        )


def _conditions(condition: ArrayLike, n: int) -> Array:
    c = np.asarray(condition, float)
    if c.ndim < 2 or len(c) != n:
        raise ValueError(
            f"`condition` must have one row a point, shape ({n}, condition_dim), got {c.shape}."
        )
    if not np.isfinite(c).all():
        raise ValueError(f"`condition` holds NaN or Inf in {int((~np.isfinite(c)).sum())} places.")
    return jnp.asarray(c, jnp.result_type(float))


def as_data(data: DataLaw | ArrayLike) -> DataLaw:
    """The law behind `data`: itself where it has `sample(key, n)`, else its points.

    **Raises:** `ValueError` when an array is no set of points, or `sample` returns other shapes,
    does not follow its key, or draws by other means than its key.
    """
    if not hasattr(data, "sample"):
        return Points(data)  # pyright: ignore[reportArgumentType]
    if isinstance(data, type):
        raise ValueError(f"data must be an object, got the class {data.__name__}; call it.")
    shapes = eqx.filter_eval_shape(draw, data, jr.key(0), 3)
    shape, condition = shapes[0].shape, shapes[1]
    if len(shape) != 2 or shape[0] != 3:
        raise ValueError(f"`data.sample(key, n)` must return shape (n, dim), got {shape} at n = 3.")
    if condition is not None and (condition.ndim < 2 or len(condition) != 3):
        raise ValueError(
            "`data.sample(key, n)` must return conditions of shape (n, condition_dim), got "
            f"{condition.shape} at n = 3."
        )
    _follows_its_key(data)
    return data  # pyright: ignore[reportReturnType]


def _follows_its_key(data: Any) -> None:
    """Refuses draws from a generator of another kind: a compiled step would repeat the first for
    ever."""
    with jax.ensure_compile_time_eval():
        once, again, other = (np.asarray(draw(data, jr.key(k), 3)[0]) for k in (0, 0, 1))
    if (once != again).any():
        raise ValueError(
            "`data.sample(key, n)` gives other points for the same key: it draws by numpy.random or "
            "the like, "
            "which a compiled step would freeze. Draw by `jax.random` from `key`, or pass an array "
            "of points."
        )
    if (once == other).all():
        raise ValueError(
            "`data.sample(key, n)` gives the same points for every key; draw by `jax.random` from "
            "`key`, or "
            "pass an array of points."
        )


def draw(data: Any, key: PRNGKey, n: int) -> tuple[Float[Array, "n dim"], Array | None]:
    """`n` points and what they belong to, `None` where there are no conditions."""
    found = data.sample(key, n)
    return found if isinstance(found, tuple) else (found, None)


def unconditional(data: DataLaw) -> DataLaw:
    """The law itself, refused where it gives conditions."""
    if eqx.filter_eval_shape(draw, data, jr.key(0), 1)[1] is not None:
        raise ValueError(
            "`data` gives conditions: take the points that belong to one of them, and the model by "
            "`fpflow.given(model, condition)`."
        )
    return data


def widths_away(x: np.ndarray, data: np.ndarray) -> np.ndarray:
    """How far each row of `x` lies outside the box of the data, in widths of the box, shape `(n,)`;
    zero inside."""
    low, high = data.min(0), data.max(0)
    return (np.maximum(np.maximum(low - x, x - high), 0) / (high - low)).max(1)
