"""What a noising process must offer, and what follows from its transition."""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp

from .._types import Point, Process, Scalar, Time
from .prior import IsotropicGaussian


class AbstractProcess(eqx.Module):
    r"""A diffusion $dx = f(t, x)\,dt + g(t)\,dW$ that turns data at `t0` into noise at `t1`.

    Subclass it to add a process, or pass any object with the same attributes: nothing in the
    library asks for this base class.
    """

    t0: eqx.AbstractVar[float]
    t1: eqx.AbstractVar[float]

    @property
    @abc.abstractmethod
    def prior(self) -> IsotropicGaussian:
        """The law that reverse time starts from at `t1`."""

    @abc.abstractmethod
    def drift(self, t: Time, x: Point) -> Point:
        """The drift $f(t, x)$ at one point, shape `(dim,)`."""

    @abc.abstractmethod
    def diffusion(self, t: Time) -> Scalar:
        """The diffusion $g(t)$, shape `()`; the same in every direction and place."""

    @abc.abstractmethod
    def transition(self, t: Time, x0: Point) -> tuple[Point, Scalar]:
        """Mean, shape `(dim,)`, and standard deviation, shape `()`, of $x_t$ given $x_{t_0}$."""


def mean_scale(process: Process, t: Time) -> Scalar:
    r"""The factor $a(t)$ in the transition mean $a(t)\,x_0 + b(t)$ of a linear process."""
    zero, one = jnp.zeros(1), jnp.ones(1)
    return jax.jvp(lambda x0: process.transition(t, x0)[0], (zero,), (one,))[1][0]


@eqx.filter_custom_jvp
def transition_variance(process: Process, t: Time) -> Scalar:
    r"""The variance $v(t)$ of the transition, with a derivative that is finite at $t_0$ too.

    Through $\sigma = \sqrt v$ it would be $0 \cdot \infty$ there; every linear process has
    $v' = 2\,\tfrac{a'}{a}\,v + g^2$.
    """
    return process.transition(t, jnp.zeros(1))[1] ** 2


@transition_variance.def_jvp
def _transition_variance_jvp(primals, tangents):
    (process, t), (_, dt) = primals, tangents
    variance = transition_variance(process, t)
    a, da = jax.jvp(lambda t: mean_scale(process, t), (t,), (jnp.ones_like(t),))
    return variance, (2 * da / a * variance + process.diffusion(t) ** 2) * dt


def log_noise_ratio(process: Process, t: Time) -> Scalar:
    r"""The logarithm of the noise-to-signal ratio, $\ell(t) = \log(\sigma^2(t) / a^2(t))$.

    For every linear process $\ell'(t) = g^2(t)/\sigma^2(t)$, so that $\ell$ is the closed-form
    distribution function of times drawn with density proportional to $g^2/\sigma^2$.
    """
    _, std = process.transition(t, jnp.zeros(1))
    return 2 * (jnp.log(std) - jnp.log(mean_scale(process, t)))


def time_at_log_noise_ratio(process: Process, ratio: Scalar) -> Scalar:
    r"""The time $t$ at which $\ell(t)$ takes a given value.

    A process that knows the inverse in closed form offers it as a method of the same name; for the
    others the increasing function is bisected to machine precision.
    """
    if hasattr(process, "time_at_log_noise_ratio"):
        return process.time_at_log_noise_ratio(ratio)  # pyright: ignore

    # In log t, because ell falls like log t towards t = 0 and data sits there.
    def halve(_, bracket):
        low, high = bracket
        middle = (low + high) / 2
        below = log_noise_ratio(process, process.t0 + jnp.exp(middle)) < ratio
        return jnp.where(below, middle, low), jnp.where(below, high, middle)

    ratio = jnp.asarray(ratio)
    span = process.t1 - process.t0
    start = (jnp.full_like(ratio, jnp.log(span * 1e-12)), jnp.full_like(ratio, jnp.log(span)))
    low, high = jax.lax.fori_loop(0, 60, halve, start)
    return process.t0 + jnp.exp((low + high) / 2)
