"""The process whose time is its noise."""

import jax.numpy as jnp

from .._types import Point, Scalar, Time
from .base import AbstractProcess
from .numbers import check_numbers, number


class EDM(AbstractProcess):
    r"""Time equals noise: $\alpha = 1$, $\sigma = t - t_0$ and $dx = \sqrt{2 (t - t_0)}\,dW$.

    **Arguments:**

    - `t1`: the largest noise, in units of $x$; it must be large compared to the data.
    - `t0`: the time of the data.

    **Raises:** `ValueError` if `t1` is not after `t0`.

    **Example:**

    ```python
    process = fpflow.EDM(t1=80.0)
    ```

    ??? cite "Reference"
        Karras, Aittala, Aila and Laine, *Elucidating the design space of diffusion-based generative
        models*, NeurIPS 2022, arXiv 2206.00364.
    """

    t1: float = number(80.0)
    t0: float = number(0.0)

    def __check_init__(self):
        check_numbers(self)

    def alpha(self, t: Time) -> Scalar:
        return jnp.ones_like(t)

    def sigma(self, t: Time) -> Scalar:
        return jnp.asarray(t) - self.t0

    def drift(self, t: Time, x: Point) -> Point:
        del t
        return jnp.zeros_like(x)

    def diffusion(self, t: Time) -> Scalar:
        return jnp.sqrt(2 * (jnp.asarray(t) - self.t0))

    def time_at_log_noise_ratio(self, ratio: Scalar) -> Scalar:
        return self.t0 + jnp.exp(jnp.asarray(ratio) / 2)
