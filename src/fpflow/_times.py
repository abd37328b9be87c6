"""Where in time a loss is taken."""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float

from ._process import AbstractProcess, check_numbers, number
from ._types import PRNGKey


class AbstractTimes(eqx.Module):
    """A distribution of times, with the weights that compensate for it."""

    @abc.abstractmethod
    def sample(
        self, process: AbstractProcess, key: PRNGKey, n: int
    ) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
        """Times and weights, shapes `(n,)`; the mean of `weight * h(t)` estimates that of h over
        $[t_0, t_1]$."""


def strata(key: PRNGKey, n: int) -> Float[Array, " n"]:
    """One uniform draw from each of `n` equal parts of the unit interval."""
    # A compiler may divide by multiplying with 1/n, which can round the last draw to above one.
    return jnp.minimum((jnp.arange(n) + jr.uniform(key, (n,))) / n, 1)


class UniformTime(AbstractTimes):
    r"""Times uniform on $[t_0 + \epsilon, t_1]$, stratified.

    **Arguments:**

    - `offset`: $\epsilon$, which keeps $1/\sigma(t)$ finite.
    """

    offset: float = number(1e-5)

    def __check_init__(self):
        check_numbers(self, positive=("offset",))

    def sample(self, process: AbstractProcess, key: PRNGKey, n: int):
        low = process.t0 + self.offset
        return low + (process.t1 - low) * strata(key, n), jnp.ones(n)


class BetaTime(AbstractTimes):
    r"""Times $t_0 + (t_1 - t_0)\,\mathrm{Beta}(1, b) + \epsilon$, without a weight to compensate for it.

    The density $b(1 - t/T)^{b-1}/T$ favours small times; the published code has $b = 2$.
    """

    b: float = number(2.0)
    offset: float = number(1e-5)

    def __check_init__(self):
        check_numbers(self, positive=("b",))
        if not self.offset >= 0:
            raise ValueError(f"`offset` must not be negative, got {self.offset}.")

    def sample(self, process: AbstractProcess, key: PRNGKey, n: int):
        fraction = 1 - (1 - strata(key, n)) ** (1 / self.b)
        return process.t0 + (process.t1 - process.t0) * fraction + self.offset, jnp.ones(n)


class NoiseRatioTime(AbstractTimes):
    r"""Times with density proportional to $g^2/\sigma^2$, drawn in closed form and stratified.

    The derivative of $\ell(t) = \log\sigma^2/\alpha^2$ is $g^2/\sigma^2$, so the draw is uniform in
    $\ell$; for $g = 1$ the density is $\propto 1/\sigma^2$. With likelihood weighting the loss becomes
    $\propto E\|\sigma s + z\|^2$, whose variance is bounded.

    **Arguments:**

    - `offset`: times start at $t_0$ + `offset`.
    """

    offset: float = number(1e-5)

    def __check_init__(self):
        check_numbers(self, positive=("offset",))

    def sample(self, process: AbstractProcess, key: PRNGKey, n: int):
        low = process.log_noise_ratio(jnp.asarray(process.t0 + self.offset))
        high = process.log_noise_ratio(jnp.asarray(process.t1))
        ratio = low + (high - low) * strata(key, n)
        t = jax.vmap(process.time_at_log_noise_ratio)(ratio)
        std = jax.vmap(process.sigma)(t)
        g = jax.vmap(process.diffusion)(t)
        return t, (high - low) / (process.t1 - process.t0) * (std / g) ** 2
