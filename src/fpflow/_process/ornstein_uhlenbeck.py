"""The process of the paper: relaxation towards a Gaussian at a constant rate."""

import jax.numpy as jnp

from .._types import Point, Scalar, Time
from .base import AbstractProcess
from .prior import IsotropicGaussian


class OrnsteinUhlenbeck(AbstractProcess):
    r"""Relaxes any start towards a Gaussian: $dx = -\theta x\,dt + g\,dW$.

    The transition has mean $e^{-\theta t} x_0$ and variance $\tfrac{g^2}{2\theta}(1 - e^{-2\theta
    t})$; the prior is the stationary law $N(0, \tfrac{g^2}{2\theta} I)$.

    **Arguments:**

    - `rate`: $\theta$, per unit of time.
    - `noise`: $g$, in units of $x$ per root of time.
    - `t1`: the time $T$ at which data counts as noise.
    - `t0`: the time of the data.

    **Raises:** `ValueError` for a rate or noise that is not positive, or `t1` not after `t0`.

    **Example:**

    ```python
    process = fpflow.OrnsteinUhlenbeck(rate=1.0, noise=1.0, t1=10.0)
    ```

    ??? cite "Reference"
        Uhlenbeck and Ornstein, *On the theory of the Brownian motion*, Phys. Rev. 36 (1930) 823.
    """

    rate: float = 1.0
    noise: float = 1.0
    t1: float = 10.0
    t0: float = 0.0

    def __check_init__(self):
        if not self.rate > 0:
            raise ValueError(f"`rate` must be positive, got {self.rate}.")
        if not self.noise > 0:
            raise ValueError(f"`noise` must be positive, got {self.noise}.")
        if not self.t1 > self.t0:
            raise ValueError(f"`t1` must lie after `t0` = {self.t0}, got {self.t1}.")

    @property
    def prior(self) -> IsotropicGaussian:
        """The stationary law."""
        return IsotropicGaussian(std=self.noise / (2 * self.rate) ** 0.5)

    def drift(self, t: Time, x: Point) -> Point:
        del t  # autonomous
        return -self.rate * x

    def diffusion(self, t: Time) -> Scalar:
        return jnp.full_like(t, self.noise)

    def transition(self, t: Time, x0: Point) -> tuple[Point, Scalar]:
        age = jnp.asarray(t) - self.t0
        # expm1 keeps the digits that 1 - exp(-2 rate t) loses as t -> t0.
        variance = -(self.noise**2) / (2 * self.rate) * jnp.expm1(-2 * self.rate * age)
        return jnp.exp(-self.rate * age) * x0, jnp.sqrt(variance)

    def time_at_log_noise_ratio(self, ratio: Scalar) -> Scalar:
        r"""The inverse of $\ell(t) = \log\tfrac{g^2}{2\theta}(e^{2\theta t} - 1)$."""
        shifted = ratio + jnp.log(2 * self.rate / self.noise**2)
        return self.t0 + jnp.logaddexp(shifted, 0.0) / (2 * self.rate)
