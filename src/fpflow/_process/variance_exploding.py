"""Processes that add noise and leave the signal as it is."""

import abc

import equinox as eqx
import jax.numpy as jnp

from .._types import Point, Scalar, Time
from .base import AbstractProcess
from .numbers import check_numbers, number


class AbstractNoiseLevel(eqx.Module):
    r"""How the variance of the noise grows; it is zero at $t = 0$."""

    @abc.abstractmethod
    def variance(self, t: Time) -> Scalar:
        r"""$\sigma^2$ at a time counted from $t_0$, shape `()`."""


class GeometricNoise(AbstractNoiseLevel):
    r"""$g \propto (\sigma_1/\sigma_0)^t$, so that $\sigma^2 = \sigma_0^2\,((\sigma_1/\sigma_0)^{2t}
    - 1)$.

    **Arguments:**

    - `sigma_min`: $\sigma_0$, in units of $x$.
    - `sigma_max`: $\sigma_1$, the noise at $t = 1$ apart from the subtracted $\sigma_0$.

    ??? cite "Reference"
        Song et al., ICLR 2021, arXiv 2011.13456.
    """

    sigma_min: float = number(0.01)
    sigma_max: float = number(50.0)

    def __check_init__(self):
        check_numbers(self, positive=("sigma_min",))
        if not self.sigma_max > self.sigma_min:
            raise ValueError(
                f"`sigma_max` must be above `sigma_min` = {self.sigma_min}, got {self.sigma_max}."
            )

    def variance(self, t: Time) -> Scalar:
        growth = jnp.log(self.sigma_max / self.sigma_min)
        return self.sigma_min**2 * jnp.expm1(2 * growth * t)


class HarmonicNoise(AbstractNoiseLevel):
    r"""Variance that grows at a rate proportional to $(1 - t)^{-1}$: $\sigma^2 = -c^2\log(1 - t)$. It
    needs `t1` below one.

    **Arguments:**

    - `scale`: $c$, in units of $x$.
    """

    scale: float = number(10.0)

    def __check_init__(self):
        check_numbers(self, positive=("scale",))

    def variance(self, t: Time) -> Scalar:
        return -(self.scale**2) * jnp.log1p(-jnp.asarray(t))


class VarianceExploding(AbstractProcess):
    r"""Noise alone: $dx = g\,dW$ with $\alpha = 1$ and $g^2 = (\sigma^2)'$.

    The prior is $N(0, \sigma^2(t_1) I)$, so $\sigma(t_1)$ must be large compared to the data.

    **Arguments:**

    - `schedule`: $\sigma^2$: `GeometricNoise()`, `HarmonicNoise()` or your own `AbstractNoiseLevel`.
    - `t1`: the time at which data counts as noise; below one for `HarmonicNoise`.
    - `t0`: the time of the data.

    **Raises:** `ValueError` if the noise at `t1` is not finite, or if `t1` is not after `t0`.

    **Example:**

    ```python
    process = fpflow.VarianceExploding(fpflow.GeometricNoise(sigma_min=0.01, sigma_max=50.0))
    ```

    ??? cite "Reference"
        Song et al., ICLR 2021, arXiv 2011.13456.
    """

    schedule: AbstractNoiseLevel = GeometricNoise()
    t1: float = number(1.0)
    t0: float = number(0.0)

    def __check_init__(self):
        check_numbers(self)

    def alpha(self, t: Time) -> Scalar:
        return jnp.ones_like(t)

    def sigma(self, t: Time) -> Scalar:
        return jnp.sqrt(self.schedule.variance(t - self.t0))

    def drift(self, t: Time, x: Point) -> Point:
        del t
        return jnp.zeros_like(x)
