"""Processes that keep the variance of data of variance one."""

import abc
import math

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from .._types import ArrayLike, Scalar, Time
from .base import AbstractProcess, check_signal
from .numbers import check_numbers, number
from .prior import IsotropicGaussian


class AbstractSignal(eqx.Module):
    r"""How fast the signal is lost: $\log\alpha(t)$, which is zero at $t = 0$ and falls from there."""

    @abc.abstractmethod
    def log_alpha(self, t: Time) -> Scalar:
        r"""$\log\alpha$ at a time counted from $t_0$, shape `()`."""


class LinearSchedule(AbstractSignal):
    r"""A rate that grows linearly, $\beta(t) = \beta_0 + (\beta_1 - \beta_0)\,t$, with
    $\log\alpha = -\tfrac12\int\beta$.

    **Arguments:**

    - `beta_min`: $\beta_0$, per unit of time.
    - `beta_max`: $\beta_1$, the rate at $t = 1$.
    """

    beta_min: float = number(0.1)
    beta_max: float = number(20.0)

    def __check_init__(self):
        check_numbers(self, positive=("beta_max",))
        if not self.beta_min >= 0:
            raise ValueError(f"`beta_min` must not be negative, got {self.beta_min}.")

    def log_alpha(self, t: Time) -> Scalar:
        t = jnp.asarray(t)
        return -(self.beta_min * t + (self.beta_max - self.beta_min) * t**2 / 2) / 2


class CosineSchedule(AbstractSignal):
    r"""$\alpha(t) = \cos\!\bigl(\tfrac\pi2\tfrac{t + s}{1 + s}\bigr) /
    \cos\!\bigl(\tfrac\pi2\tfrac{s}{1 + s}\bigr)$, which vanishes at $t = 1$, so it needs `t1` below one.

    **Arguments:**

    - `offset`: $s$.

    ??? cite "Reference"
        Nichol and Dhariwal, *Improved denoising diffusion probabilistic models*, ICML 2021, arXiv
        2102.09672.
    """

    offset: float = number(0.008)

    def __check_init__(self):
        if not self.offset >= 0:
            raise ValueError(f"`offset` must not be negative, got {self.offset}.")

    def log_alpha(self, t: Time) -> Scalar:
        start = math.pi / 2 * self.offset / (1 + self.offset)
        # cos(start + x) / cos(start) = 1 - 2 sin^2(x/2) - tan(start) sin(x), with all digits at small x.
        angle = math.pi / 2 * jnp.asarray(t) / (1 + self.offset)
        return jnp.log1p(-2 * jnp.sin(angle / 2) ** 2 - math.tan(start) * jnp.sin(angle))


class TabulatedSchedule(AbstractSignal):
    r"""The schedule of a network trained at discrete steps, such as that of DDPM: $\alpha$ at
    $t = k / K$ after $k$ of $K$ steps, and smooth, decreasing cubics of $\log\alpha$ in between.

    A network that counts its steps from zero is evaluated at step $K t - 1$.

    **Arguments:**

    - `alphas_cumprod`: $\bar\alpha_k = \alpha^2 = \prod_{j \le k} (1 - \beta_j)$, decreasing, shape
      `(K,)`: the array of this name in a scheduler of diffusers.

    **Raises:** `ValueError` if it does not decrease from below one and stay above zero.

    **Example:**

    ```python
    betas = jnp.linspace(1e-4, 0.02, 1000)
    ddpm = fpflow.VariancePreserving(fpflow.TabulatedSchedule(jnp.cumprod(1 - betas)))
    ```

    ??? cite "Reference"
        Ho, Jain and Abbeel, *Denoising diffusion probabilistic models*, NeurIPS 2020, arXiv 2006.11239;
        Fritsch and Butland, *A method for constructing local monotone piecewise cubic interpolants*,
        SIAM J. Sci. Stat. Comput. 5 (1984).
    """

    # Numbers and no array, as all settings of a process.
    alphas_cumprod: tuple[float, ...] = eqx.field(static=True)

    def __init__(self, alphas_cumprod: ArrayLike):
        table = np.asarray(alphas_cumprod, float)
        falls = table.ndim == 1 and len(table) > 1 and (np.diff(table) < 0).all()
        if not (falls and table[-1] > 0 and table[0] < 1):
            raise ValueError(
                "`alphas_cumprod` must decrease from below one and stay above zero, shape (K,), "
                "got shape "
                f"{table.shape}{f', {table[0]:.4g} to {table[-1]:.4g}' if table.ndim == 1 else ''}."
            )
        self.alphas_cumprod = tuple(table.tolist())

    def __repr__(self) -> str:
        bars = self.alphas_cumprod
        return f"TabulatedSchedule({len(bars)} steps, {bars[0]:.4g} to {bars[-1]:.3g})"

    def log_alpha(self, t: Time) -> Scalar:
        t, num = jnp.asarray(t), len(self.alphas_cumprod)
        nodes = np.concatenate([[0.0], np.log(self.alphas_cumprod) / 2])
        rises = np.diff(nodes)
        # Harmonic means of neighbours keep the cubics falling.
        slopes = np.concatenate([rises[:1], 2 / (1 / rises[:-1] + 1 / rises[1:]), rises[-1:]])
        k = jnp.clip(jnp.floor(t * num).astype(int), 0, num - 1)
        u = t * num - k
        at = lambda table: jnp.asarray(table, t.dtype)[k]
        bend = (1 - u) * (at(slopes[:-1]) - at(rises)) - u * (at(slopes[1:]) - at(rises))
        return at(nodes) + u * at(rises) + u * (1 - u) * bend


class VariancePreserving(AbstractProcess):
    r"""Keeps the variance of data with unit variance: $\alpha^2 + \sigma^2 = 1$, with the prior
    $N(0, I)$.

    $$dx = -\tfrac12\beta\,x\,dt + \sqrt\beta\,dW, \qquad \beta = -2\,(\log\alpha)'.$$

    **Arguments:**

    - `schedule`: $\log\alpha$: `LinearSchedule()`, `CosineSchedule()`, a `TabulatedSchedule` or your own
      `AbstractSignal`.
    - `t1`: the time at which data counts as noise; below one for the cosine.
    - `t0`: the time of the data.

    **Raises:** `ValueError` if no signal is left at `t1`, or if `t1` is not after `t0`.

    **Example:**

    ```python
    process = fpflow.VariancePreserving(fpflow.LinearSchedule(beta_min=0.1, beta_max=20.0))
    ```

    ??? cite "Reference"
        Song et al., *Score-based generative modeling through stochastic differential equations*,
        ICLR 2021, arXiv 2011.13456; Ho, Jain and Abbeel, NeurIPS 2020, arXiv 2006.11239.
    """

    schedule: AbstractSignal = LinearSchedule()
    t1: float = number(1.0)
    t0: float = number(0.0)

    def __check_init__(self):
        check_numbers(self)
        check_signal(self)

    @property
    def prior(self) -> IsotropicGaussian:
        """The standard normal distribution."""
        return IsotropicGaussian(std=1.0)

    def alpha(self, t: Time) -> Scalar:
        return jnp.exp(self.schedule.log_alpha(t - self.t0))

    def sigma(self, t: Time) -> Scalar:
        return jnp.sqrt(-jnp.expm1(2 * self.schedule.log_alpha(t - self.t0)))


class SubVariancePreserving(AbstractProcess):
    r"""The drift of `VariancePreserving` with less noise: $\sigma = 1 - \alpha^2$, so that $g$
    vanishes at $t_0$.

    **Arguments:**

    - `schedule`: $\log\alpha$, as for `VariancePreserving`.
    - `t1`: the time at which data counts as noise.
    - `t0`: the time of the data.

    **Raises:** `ValueError` as for `VariancePreserving`.

    **Example:**

    ```python
    process = fpflow.SubVariancePreserving()
    ```

    ??? cite "Reference"
        Song et al., ICLR 2021, arXiv 2011.13456.
    """

    schedule: AbstractSignal = LinearSchedule()
    t1: float = number(1.0)
    t0: float = number(0.0)

    def __check_init__(self):
        check_numbers(self)
        check_signal(self)

    @property
    def prior(self) -> IsotropicGaussian:
        """The standard normal distribution."""
        return IsotropicGaussian(std=1.0)

    def alpha(self, t: Time) -> Scalar:
        return jnp.exp(self.schedule.log_alpha(t - self.t0))

    def sigma(self, t: Time) -> Scalar:
        return -jnp.expm1(2 * self.schedule.log_alpha(t - self.t0))
