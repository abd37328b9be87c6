"""Coordinates in which every linear process is the same Ornstein--Uhlenbeck process."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._types import Scalar, Time
from .base import AbstractProcess, variance
from .numbers import check_numbers, number


class Frame(eqx.Module):
    r"""The frame $z = (x - \alpha m) / \lambda$ with $\lambda^2 = \alpha^2 c + \sigma^2$.

    For data about a centre $m$ and a reference variance $c$, in the time
    $\tau = \tfrac12\log\bigl(1 + \sigma^2 / (\alpha^2 c)\bigr)$ with $d\tau = g^2 / (2\lambda^2)\,dt$,

    $$dx = f\,dt + g\,dW \quad\Longleftrightarrow\quad dz = -z\,d\tau + \sqrt2\,dW_\tau,$$

    whatever $\alpha$ and $\sigma$ are, and the score in $z$ is $\lambda s$. The prior comes to about
    $N(0, I)$. The process of the paper has $\tau = t$ and constant $\lambda$ for $c = \tfrac12$.

    **Attributes:**

    - `process`: gives $\alpha$ and $\sigma$.
    - `centre`: $m$, in every direction, in units of $x$.
    - `scale`: $\sqrt c$, in units of $x$.
    """

    process: AbstractProcess
    centre: float = number(0.0)
    scale: float = number(1.0)

    def __check_init__(self):
        check_numbers(self, positive=("scale",))

    def tau(self, t: Time) -> Scalar:
        r"""$\tau(t)$, with a derivative that is finite at $t_0$ too."""
        signal = (self.process.alpha(t) * self.scale) ** 2
        return jnp.log1p(variance(self.process, t) / signal) / 2

    def spread(self, t: Time) -> Scalar:
        r"""$\lambda(t)$, in units of $x$."""
        return jnp.sqrt((self.process.alpha(t) * self.scale) ** 2 + variance(self.process, t))

    def shift(self, t: Time) -> Scalar:
        r"""$\alpha m$, in units of $x$."""
        return self.process.alpha(t) * self.centre

    def inside(self, t: Time, x: Float[Array, "..."]) -> Float[Array, "..."]:
        r"""$z = (x - \alpha m) / \lambda$."""
        return (x - self.shift(t)) / self.spread(t)

    def place(self, t: Time, z: Float[Array, "..."]) -> Float[Array, "..."]:
        r"""$x = \alpha m + \lambda z$."""
        return self.shift(t) + self.spread(t) * z
