"""The law that reverse time starts from."""

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float

from .._types import Point, PRNGKey, Scalar
from .numbers import number


class IsotropicGaussian(eqx.Module):
    r"""The centred Gaussian $N(0, \sigma^2 I)$ in any dimension."""

    std: float = number(1.0)

    def __check_init__(self):
        if not self.std > 0:
            raise ValueError(f"`std` must be positive, got {self.std}.")

    def log_prob(self, x: Point) -> Scalar:
        r"""$\log\pi(x) = -\|x\|^2 / 2\sigma^2 - \tfrac d2 \log 2\pi\sigma^2$, in nats.

        **Arguments:**

        - `x`: one point, shape `(dim,)`.

        **Returns:** the log density, shape `()`.
        """
        return -jnp.sum((x / self.std) ** 2) / 2 - x.size * jnp.log(jnp.sqrt(2 * jnp.pi) * self.std)

    def sample(self, key: PRNGKey, shape: tuple[int, ...]) -> Float[Array, "..."]:
        """Independent draws.

        **Arguments:**

        - `key`: a `jax.random.key`.
        - `shape`: the shape of the result; the last axis is `dim`.

        **Returns:** an array of that shape.
        """
        return self.std * jr.normal(key, shape)
