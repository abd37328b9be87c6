"""Points of one's own as a law."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float

from .._types import ArrayLike, DataLaw, PRNGKey
from .._warning import warn
from .._window import GridDensity, Window
from .cells import count_in_cells, histogram_density


class Points(eqx.Module):
    """The empirical distribution of given points: every draw is one of them.

    **Arguments:**

    - `points`: an array of shape `(n, dim)`.
    - `condition`: the condition that belongs to each point, shape `(n, condition_dim)`; each draw is
      then a pair.

    **Raises:** `ValueError` if the array has another shape, is empty or masked, contains NaN or Inf,
    holds only one distinct point, or loses its digits in the precision of JAX.
    """

    points: Float[Array, "n dim"]
    condition: Float[Array, "n ..."] | None

    def __init__(self, points: ArrayLike, condition: ArrayLike | None = None):
        self.points = jnp.asarray(_checked(points))
        self.condition = None if condition is None else _conditions(condition, len(self.points))

    @property
    def dim(self) -> int:
        """The dimension of a point."""
        return self.points.shape[1]

    def sample(self, key: PRNGKey, n: int) -> Any:
        """`n` draws with replacement, with their conditions if there are any."""
        row = jr.randint(key, (n,), 0, self.points.shape[0])
        return (
            self.points[row] if self.condition is None else (self.points[row], self.condition[row])
        )

    def cell_probabilities(self, window: Window) -> GridDensity:
        """The histogram of the points; its error is that of counting."""
        return histogram_density(
            count_in_cells(np.asarray(self.points), window), len(self.points), window
        )


def _checked(points: ArrayLike) -> np.ndarray:
    """The points in the precision that JAX computes in, fit to be learnt."""
    # Looked at first: `asarray` drops a mask, and what it hid becomes data.
    masked = np.ma.getmaskarray(np.ma.asarray(points))
    if masked.any() and masked.ndim == 2:
        raise ValueError(
            f"data has {masked.sum()} masked values in {masked.any(1).sum()} of {len(masked)} rows, "
            "which training would see; drop those rows with `np.ma.compress_rows(data)`."
        )
    x = np.asarray(points)
    if x.ndim != 2:
        raise ValueError(
            f"data must have shape (n, dim), one point per row, got {x.shape}; "
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
            f"{int(bad.any(1).argmax())}, counted from 0; drop those rows."
        )
    x = x.astype(np.float64)  # small integers wrap round in differences
    constant = np.ptp(x, axis=0) == 0
    if constant.all():
        raise ValueError(
            f"data is the same point {len(x)} times, which has no density; give at least two different "
            "points."
        )
    used = _in_precision_of_jax(x)
    if constant.any():
        warn(
            f"the data is constant in {constant.sum()} of its {len(constant)} columns, the first column "
            f"{int(constant.argmax())}: it has no density there, and its score grows without bound "
            "towards t0; drop those columns where you can."
        )
    if len(x) < x.shape[1]:
        warn(
            f"the data is {len(x)} points in dimension {x.shape[1]}, one point per row; if the points "
            "are the columns, transpose it with `data.T`."
        )
    return used


def _in_precision_of_jax(x: np.ndarray) -> np.ndarray:
    """`x` as it will be used, refused where too little of it is left."""
    dtype = jnp.result_type(float)
    with np.errstate(over="ignore"):
        used = x.astype(dtype)
    beyond = ~np.isfinite(used).all(0)
    if beyond.any():
        column = int(beyond.argmax())
        raise ValueError(
            f"data holds numbers beyond {jnp.finfo(dtype).max:.2g}, the largest {dtype}: column "
            f"{column} reaches {np.abs(x[:, column]).max():.3g}; divide each column by its standard "
            "deviation."
        )
    lost, span = np.abs(used - x).max(0), np.ptp(x, axis=0)
    rounded = (lost > 1e-3 * span) & (span > 0)
    if rounded.any():
        column = int(rounded.argmax())
        raise ValueError(
            f"{dtype} rounds column {column} of the data by {lost[column] / span[column]:.2g} of its "
            "range; subtract its mean and divide by its standard deviation."
        )
    return used


def _conditions(condition: ArrayLike, n: int) -> Array:
    c = np.asarray(condition, float)
    if c.ndim < 2 or len(c) != n:
        raise ValueError(
            f"`condition` must have one row per point, shape ({n}, condition_dim), got {c.shape}."
        )
    if not np.isfinite(c).all():
        raise ValueError(f"`condition` holds NaN or Inf in {int((~np.isfinite(c)).sum())} places.")
    return jnp.asarray(c, jnp.result_type(float))


def split(data: DataLaw | ArrayLike, share: float) -> tuple[Points, Points]:
    """Splits points into two parts: most of them, and a fraction that is held out. Every call gives the
    same split.

    **Arguments:**

    - `data`: `Points`, or an array of shape `(n, dim)`.
    - `share`: the fraction in the second part, between 0 and 1.

    **Returns:** two `Points`, with their conditions if there are any.

    **Raises:** `ValueError` for a `share` outside this range, or if a part would have fewer than two
    points.

    **Example:**

    ```python
    data = jax.random.normal(jax.random.key(0), (100, 2))
    seen, held_out = fpflow.datasets.split(data, 0.1)
    ```
    """
    law = data if isinstance(data, Points) else as_data(data)
    if not isinstance(law, Points):
        raise ValueError(
            f"`data` must be points, got {type(law).__name__}, which draws new points each time."
        )
    count = len(law.points)
    held = round(share * count)
    if not (0 < share < 1 and 2 <= held <= count - 2):
        raise ValueError(
            "the held-out share must lie between 0 and 1 and leave at least two points in each part, "
            f"got {share} of {count} points."
        )
    order = np.random.default_rng(0).permutation(count)

    def part(rows: np.ndarray) -> Points:
        rows = np.sort(rows)
        return Points(law.points[rows], None if law.condition is None else law.condition[rows])

    return part(order[held:]), part(order[:held])


def as_data(data: DataLaw | ArrayLike) -> DataLaw:
    """The law behind `data`: itself where it has `sample(key, n)`, else its points.

    **Raises:** `ValueError` when an array is no set of points, or `sample` returns other shapes,
    does not follow its key, or draws by other means than its key.
    """
    if isinstance(data, str):
        raise ValueError(
            f"data must be points or an object with `sample(key, n)`, got the text {data!r}; "
            "distributions are in `fpflow.datasets`, such as `fpflow.datasets.circles()`."
        )
    if isinstance(data, type) or (callable(data) and not hasattr(data, "sample")):
        name = getattr(data, "__name__", data)
        raise ValueError(f"data must be an object, got {name} uncalled; call it.")
    if hasattr(data, "to_numpy"):  # a data frame, whose `sample` is another, or a series of rows
        table = data.to_numpy()  # pyright: ignore
        data = np.stack(list(table)) if table.ndim == 1 and table.dtype == object else table
    if isinstance(data, tuple) and len({np.shape(part) for part in data}) > 1:
        shapes = ", ".join(str(np.shape(part)) for part in data)
        raise ValueError(
            f"data must be one array of points, got a tuple of arrays of shapes {shapes}; pass its "
            "first, `data[0]`, or pair points and conditions with `fpflow.datasets.Points`."
        )
    if not hasattr(data, "sample"):
        return Points(data)  # pyright: ignore[reportArgumentType]
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
            "`data.sample(key, n)` gives different points for the same key: it draws with "
            "numpy.random or similar, which a compiled step would freeze. Draw with `jax.random` from "
            "`key`, or pass an array of points."
        )
    if (once == other).all():
        raise ValueError(
            "`data.sample(key, n)` gives the same points for every key; draw with `jax.random` from "
            "`key`, or pass an array of points."
        )


def draw(data: Any, key: PRNGKey, n: int) -> tuple[Any, Any]:
    """`n` points and what they belong to, `None` where there are no conditions."""
    found = data.sample(key, n)
    return found if isinstance(found, tuple) else (found, None)


def unconditional(data: DataLaw) -> DataLaw:
    """The law itself, refused where it gives conditions."""
    if eqx.filter_eval_shape(draw, data, jr.key(0), 1)[1] is not None:
        raise ValueError(
            "`data` has conditions: pass the points that belong to one of them, and the model from "
            "`fpflow.given(model, condition)`; on the command line, use `--given` and a file of "
            "points."
        )
    return data


def widths_away(x: np.ndarray, data: np.ndarray) -> np.ndarray:
    """How far each row of `x` lies outside the box of the data, in widths of the box, shape `(n,)`;
    zero inside."""
    low, high = data.min(0), data.max(0)
    # Where the data is constant, its box has no width of its own: the widest side serves.
    width = np.where(high > low, high - low, (high - low).max())
    return (np.maximum(np.maximum(low - x, x - high), 0) / width).max(1)
