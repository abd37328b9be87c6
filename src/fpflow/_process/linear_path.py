"""The straight path of flow matching and rectified flow."""

import jax
import jax.numpy as jnp

from .._types import Scalar, Time
from .base import AbstractProcess, check_signal
from .numbers import check_numbers, number


class LinearPath(AbstractProcess):
    r"""A straight line from data to noise: $x_t = (1 - t)\,x_0 + t\,z$, $g^2 = 2t / (1 - t)$.

    Time runs from data to noise, opposite to most texts on flow matching: their $t$ is $1 - t$ here, and
    their velocity has the other sign. At $t = 1$ no signal is left and $g$ is infinite, so the process
    ends just before.

    **Arguments:**

    - `t1`: the time at which data counts as noise, below one.
    - `t0`: the time of the data.

    **Raises:** `ValueError` if `t1` leaves no signal or is not after `t0`.

    **Example:**

    ```python
    process = fpflow.LinearPath()
    ```

    ??? cite "Reference"
        Lipman et al., *Flow matching for generative modeling*, ICLR 2023, arXiv 2210.02747; Liu,
        Gong and Liu, ICLR 2023, arXiv 2209.03003.
    """

    t1: float = number(0.999)
    t0: float = number(0.0)

    def __check_init__(self):
        check_numbers(self)
        check_signal(self)

    def alpha(self, t: Time) -> Scalar:
        return 1 - (jnp.asarray(t) - self.t0)

    def sigma(self, t: Time) -> Scalar:
        return jnp.asarray(t) - self.t0

    def diffusion(self, t: Time) -> Scalar:
        t = jnp.asarray(t) - self.t0
        return jnp.sqrt(2 * t / (1 - t))

    def time_at_log_noise_ratio(self, ratio: Scalar) -> Scalar:
        r"""$t = r / (1 + r)$ with $r = \sigma/\alpha$."""
        return self.t0 + jax.nn.sigmoid(jnp.asarray(ratio) / 2)
