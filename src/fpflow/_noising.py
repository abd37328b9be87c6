"""The one place that turns data into noise."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float

from ._process import AbstractProcess
from ._times import AbstractTimes, NoiseRatioTime
from ._types import DataLaw, Point, PRNGKey, Time
from .datasets import draw


class Noised(eqx.Module):
    r"""Data points $x_0$ moved to times $t$, $x = \alpha x_0 + \sigma z$: the input of every term.

    **Attributes:**

    - `t`: times, shape `(n,)`.
    - `weight`: the weights that turn a mean over the batch into a mean over uniform times, shape `(n,)`.
    - `x0`: the data, shape `(n, dim)`.
    - `noise`: $z$, shape `(n, dim)`.
    - `std`: $\sigma(t)$, shape `(n,)`.
    - `x`: the noised points, shape `(n, dim)`.
    - `condition`: the conditions that belong to the data, shape `(n, ...)`, or `None`.
    """

    t: Float[Array, " n"]
    weight: Float[Array, " n"]
    x0: Float[Array, "n dim"]
    noise: Float[Array, "n dim"]
    std: Float[Array, " n"]
    x: Float[Array, "n dim"]
    condition: Array | None = None


class Noising(eqx.Module):
    r"""How a batch is noised.

    **Arguments:**

    - `times`: the distribution of times: `NoiseRatioTime()`, `UniformTime()`, `BetaTime()` or your own
      `AbstractTimes`.
    - `pairs`: whether noise comes in pairs $\pm z$ for each data point. As $t \to t_0$, the error of the
      gradient is then smaller by a factor of order $\sigma$.
    """

    times: AbstractTimes = NoiseRatioTime()
    pairs: bool = True

    def __call__(self, process: AbstractProcess, data: DataLaw, n: int, *, key: PRNGKey) -> Noised:
        """`n` data points, each at its own time, with the noise that moved it there; as pairs, half as
        many points and times."""
        key_data, key_time, key_noise = jr.split(key, 3)
        drawn = -(-n // 2) if self.pairs else n
        x0, condition = draw(data, key_data, drawn)
        t, weight = self.times.sample(process, key_time, drawn)
        noise = jr.normal(key_noise, x0.shape, x0.dtype)
        mean, std = jax.vmap(process.transition)(t, x0)
        rows = (t, weight, x0, std, mean, condition)
        if self.pairs:
            rows = jax.tree.map(lambda a: jnp.concatenate([a, a])[:n], rows)
            noise = jnp.concatenate([noise, -noise])[:n]
        t, weight, x0, std, mean, condition = rows
        return Noised(t, weight, x0, noise, std, mean + std[:, None] * noise, condition)


def noised_at(
    process: AbstractProcess, t: Time, x0: Float[Array, "n dim"], key: PRNGKey
) -> Float[Array, "n dim"]:
    r"""Data points all moved to one time, $\alpha x_0 + \sigma z$."""
    noise = jr.normal(key, x0.shape, x0.dtype)
    return jax.vmap(lambda x0, z: moved(process, t, x0, z))(x0, noise)


def moved(process: AbstractProcess, t: Time, x0: Point, noise: Point) -> Point:
    r"""One data point moved by given noise, $\alpha x_0 + \sigma z$."""
    mean, std = process.transition(t, x0)
    return mean + std * noise
