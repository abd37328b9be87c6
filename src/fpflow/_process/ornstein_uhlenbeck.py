"""The process of the paper: relaxation towards a Gaussian at a constant rate."""

import jax.numpy as jnp

from .._types import Point, Scalar, Time
from .base import AbstractProcess
from .numbers import check_numbers, number
from .prior import IsotropicGaussian


class OrnsteinUhlenbeck(AbstractProcess):
    r"""Relaxation of any initial distribution towards a Gaussian: $dx = -\theta x\,dt + g\,dW$.

    $\alpha = e^{-\theta t}$ and $\sigma^2 = \tfrac{g^2}{2\theta}(1 - e^{-2\theta t})$; the prior is the
    stationary distribution $N(0, \tfrac{g^2}{2\theta} I)$.

    **Arguments:**

    - `rate`: $\theta$, per unit of time.
    - `noise`: $g$, in units of $x$ per root of time.
    - `t1`: the time $T$ at which data counts as noise.
    - `t0`: the time of the data.

    **Raises:** `ValueError` for a rate or noise that is not positive, or if `t1` is not after `t0`.

    **Example:**

    ```python
    process = fpflow.OrnsteinUhlenbeck(rate=1.0, noise=1.0, t1=10.0)
    ```

    ??? cite "Reference"
        Uhlenbeck and Ornstein, *On the theory of the Brownian motion*, Phys. Rev. 36 (1930) 823.
    """

    rate: float = number(1.0)
    noise: float = number(1.0)
    t1: float = number(10.0)
    t0: float = number(0.0)

    def __check_init__(self):
        check_numbers(self, positive=("rate", "noise"))

    @property
    def prior(self) -> IsotropicGaussian:
        """The stationary distribution."""
        return IsotropicGaussian(std=self.noise / (2 * self.rate) ** 0.5)

    def alpha(self, t: Time) -> Scalar:
        return jnp.exp(-self.rate * (jnp.asarray(t) - self.t0))

    def sigma(self, t: Time) -> Scalar:
        age = jnp.asarray(t) - self.t0
        # expm1 keeps the digits that 1 - exp(-2 rate t) loses as t -> t0.
        return jnp.sqrt(-(self.noise**2) / (2 * self.rate) * jnp.expm1(-2 * self.rate * age))

    def drift(self, t: Time, x: Point) -> Point:
        del t  # autonomous
        return -self.rate * x

    def diffusion(self, t: Time) -> Scalar:
        return jnp.full_like(t, self.noise)

    def time_at_log_noise_ratio(self, ratio: Scalar) -> Scalar:
        r"""The inverse of $\ell(t) = \log\tfrac{g^2}{2\theta}(e^{2\theta t} - 1)$."""
        shifted = ratio + jnp.log(2 * self.rate / self.noise**2)
        return self.t0 + jnp.logaddexp(shifted, 0.0) / (2 * self.rate)

    def graded_time(self, u: Time) -> Scalar:
        r"""$t_0 + (t_1 - t_0)\,u^3$: the time of the process is the one that the general rule uses."""
        return self.t0 + (self.t1 - self.t0) * jnp.asarray(u) ** 3
