"""Data that now and then forget their condition."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array

from .._types import ArrayLike, DataLaw, PRNGKey
from .points import as_data, draw


class Dropped(eqx.Module):
    """A distribution of pairs whose condition is sometimes replaced by a null condition, so that one
    network learns both scores of classifier-free guidance.

    **Arguments:**

    - `data`: the points with their conditions.
    - `probability`: the probability of the null condition, conventionally 0.1.
    - `null`: the null condition, with the shape of one condition and in units of the data; zeros by
      default. It must not occur in the data.

    **Raises:** `ValueError` for data without conditions, an invalid probability or shape, or a null
    condition that occurs in the data.

    **Example:**

    ```python
    points = jax.random.normal(jax.random.key(0), (100, 2))
    labelled = fpflow.datasets.Points(points, jnp.sign(points[:, :1]))
    data = fpflow.datasets.Dropped(labelled, 0.1)
    ```
    """

    data: Any
    probability: float
    null: Array

    def __init__(self, data: DataLaw, probability: float = 0.1, null: ArrayLike | None = None):
        self.data = as_data(data)
        condition = eqx.filter_eval_shape(draw, self.data, jr.key(0), 1)[1]
        if condition is None:
            raise ValueError("`data` has no conditions to drop; give `Points(points, condition)`.")
        if not 0 < probability < 1:
            raise ValueError(f"`probability` must lie between 0 and 1, got {probability}.")
        shape = condition.shape[1:]
        self.null = jnp.zeros(shape, condition.dtype) if null is None else jnp.asarray(null)
        if self.null.shape != shape:
            raise ValueError(f"`null` must have shape {shape}, got {self.null.shape}.")
        self.probability = float(probability)
        found = np.asarray(draw(self.data, jr.key(0), 1024)[1])
        known = (found == np.asarray(self.null)).all(tuple(range(1, found.ndim)))
        if known.any():
            raise ValueError(
                f"`null` must be a condition that no data point has, but {known.mean():.0%} of the "
                f"data have {np.asarray(self.null)}; pass another, such as `null=[-1.0]` for classes "
                "0, 1, ..."
            )

    def sample(self, key: PRNGKey, n: int) -> tuple[Array, Array]:
        """`n` draws, some of them with the null condition."""
        key_draw, key_drop = jr.split(key)
        x, condition = draw(self.data, key_draw, n)
        dropped = jr.bernoulli(key_drop, self.probability, (n,))
        rows = dropped.reshape(-1, *(1 for _ in self.null.shape))
        return x, jnp.where(rows, self.null, condition)
