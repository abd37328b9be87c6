"""A quarter of a circle from data to noise."""

import math

import jax.numpy as jnp

from .._types import Scalar, Time
from .base import AbstractProcess, check_signal
from .numbers import check_numbers, number


class TrigonometricPath(AbstractProcess):
    r"""Rotates signal into noise: $x_t = \cos(\tfrac\pi2 t)\,x_0 + \sin(\tfrac\pi2 t)\,z$.

    It preserves unit variance, with $g^2 = \pi\tan(\tfrac\pi2 t)$. This is infinite at $t = 1$, so the
    process ends just before.

    **Arguments:**

    - `t1`: the time at which data counts as noise, below one.
    - `t0`: the time of the data.

    **Raises:** `ValueError` if `t1` leaves no signal or is not after `t0`.

    **Example:**

    ```python
    process = fpflow.TrigonometricPath()
    ```

    ??? cite "Reference"
        Albergo, Boffi and Vanden-Eijnden, *Stochastic interpolants*, arXiv 2303.08797.
    """

    t1: float = number(0.999)
    t0: float = number(0.0)

    def __check_init__(self):
        check_numbers(self)
        check_signal(self)

    def _angle(self, t: Time) -> Scalar:
        return math.pi / 2 * (jnp.asarray(t) - self.t0)

    def alpha(self, t: Time) -> Scalar:
        return jnp.cos(self._angle(t))

    def sigma(self, t: Time) -> Scalar:
        return jnp.sin(self._angle(t))

    def diffusion(self, t: Time) -> Scalar:
        return jnp.sqrt(math.pi * jnp.tan(self._angle(t)))

    def time_at_log_noise_ratio(self, ratio: Scalar) -> Scalar:
        return self.t0 + 2 / math.pi * jnp.arctan(jnp.exp(jnp.asarray(ratio) / 2))
