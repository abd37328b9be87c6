r"""Counted data as data with a density."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float

from .._types import ArrayLike, DataLaw, PRNGKey
from ..datasets import as_data, draw


class Dequantised(eqx.Module):
    r"""A distribution of points on a grid of steps $h$, each spread evenly over its step: $x + h u$.

    Count data have no density, and a network that learns one makes it as large as it can. The spread
    data have one, and it bounds the probabilities of the counts:

    $$\log P(x) \ge E_u \log p(x + h u) + \sum_i \log h_i, \qquad u \sim U[0, 1)^d.$$

    **Arguments:**

    - `data`: points of shape `(n, dim)`, or an object with `sample(key, n)`.
    - `step`: $h$, a number or shape `(dim,)`, in units of the data; zero if a column does not hold
      counts.

    **Raises:** `ValueError` for data of another shape or a negative step.

    **Example:**

    ```python
    counts = jax.random.poisson(jax.random.key(0), 3.0, (500, 2))
    data = fpflow.Dequantised(counts, step=1.0)
    ```

    ??? cite "Reference"
        Theis, van den Oord and Bethge, *A note on the evaluation of generative models*, ICLR 2016,
        arXiv 1511.01844.
    """

    data: Any
    step: Float[Array, " dim"]

    def __init__(self, data: DataLaw | ArrayLike, step: ArrayLike):
        self.data = as_data(data)
        dim = eqx.filter_eval_shape(draw, self.data, jr.key(0), 1)[0].shape[1]
        h = np.asarray(step, float)
        if h.shape not in ((), (dim,)) or not (np.isfinite(h) & (h >= 0)).all():
            raise ValueError(
                f"`step` must be a number or have shape ({dim},), finite and not negative, got {h}."
            )
        self.step = jnp.asarray(np.broadcast_to(h, dim), jnp.result_type(float))

    def sample(self, key: PRNGKey, n: int) -> Any:
        """`n` draws with fresh noise, with their conditions if there are any."""
        key_draw, key_noise = jr.split(key)
        x, condition = draw(self.data, key_draw, n)
        noisy = x + self.step * jr.uniform(key_noise, jnp.shape(x), self.step.dtype)
        return noisy if condition is None else (noisy, condition)
