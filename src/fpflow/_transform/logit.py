r"""Bounded intervals as whole lines."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float

from .._types import ArrayLike, Point, Scalar
from .affine import check_columns
from .base import AbstractTransform


class Logit(AbstractTransform):
    r"""$y_i = \log\dfrac{x_i - a_i}{b_i - x_i}$ for data in an open box, which no sample leaves.

    It can also apply to some columns only: a column with $a_i = -\infty$ and $b_i = \infty$ stays as it
    is.

    **Arguments:**

    - `low`, `high`: $a$ and $b$, shape `(dim,)`, in units of the data.

    **Raises:** `ValueError` if the two do not fit, or one is finite and the other is not.

    **Example:**

    ```python
    box = fpflow.Logit(low=[0.0, -jnp.inf], high=[1.0, jnp.inf])
    y = box.forward(jnp.array([0.5, 3.0]))
    ```
    """

    low: Float[Array, " dim"]
    high: Float[Array, " dim"]

    def __init__(self, low: ArrayLike, high: ArrayLike):
        a, b = (np.atleast_1d(np.asarray(part, float)) for part in (low, high))
        if a.ndim != 1 or a.shape != b.shape or not (a < b).all():
            raise ValueError(
                f"`low` and `high` must have the same shape, (dim,), and low < high, got {a} and {b}."
            )
        if (np.isfinite(a) != np.isfinite(b)).any():
            raise ValueError(
                f"`low` and `high` must both be finite or both infinite in each column, got {a} and "
                f"{b}."
            )
        self.low, self.high = (jnp.asarray(part, jnp.result_type(float)) for part in (a, b))

    def _fraction(self, x: Point) -> tuple[Array, Array]:
        """Whether a column is bounded, and where in its interval $x$ is."""
        bounded = jnp.isfinite(self.low)
        width = jnp.where(bounded, self.high - self.low, 1.0)
        return bounded, jnp.where(bounded, (x - jnp.where(bounded, self.low, 0)) / width, 0.5)

    def forward(self, x: Point) -> Point:
        r"""$\log\frac{x - a}{b - x}$."""
        bounded, z = self._fraction(x)
        return jnp.where(bounded, jnp.log(z) - jnp.log1p(-z), x)

    def inverse(self, y: Point) -> Point:
        r"""$a + (b - a) / (1 + e^{-y})$."""
        bounded = jnp.isfinite(self.low)
        low = jnp.where(bounded, self.low, 0.0)
        width = jnp.where(bounded, self.high - self.low, 1.0)
        return jnp.where(bounded, low + width * jax.nn.sigmoid(y), y)

    def log_det(self, x: Point) -> Scalar:
        r"""$-\sum_i \log\bigl[(x_i - a_i)(b_i - x_i) / (b_i - a_i)\bigr]$."""
        bounded, z = self._fraction(x)
        width = jnp.where(bounded, self.high - self.low, 1.0)
        return -jnp.where(bounded, jnp.log(width) + jnp.log(z) + jnp.log1p(-z), 0.0).sum()

    def check(self, x: Float[Array, "n dim"]) -> None:
        """Refuses points on or beyond the bounds."""
        check_columns(x, len(self.low))
        if isinstance(x, Tracer):
            return  # there are no values to look at
        values = np.asarray(x)
        outside = ~((values > np.asarray(self.low)) & (values < np.asarray(self.high)))
        if outside.any():
            column = int(outside.any(0).argmax())
            raise ValueError(
                f"{outside.any(-1).sum()} of {len(x)} points lie on the bounds of the logit or beyond, "
                f"first in column {column}, whose bounds are {float(self.low[column]):.6g} and "
                f"{float(self.high[column]):.6g}; widen them, or add noise to discrete data with "
                "`fpflow.Dequantised`."
            )
