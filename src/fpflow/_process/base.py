"""What a noising process is: two functions of time, and what follows from them."""

import abc
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .._types import Point, Scalar, Time
from .prior import IsotropicGaussian

# How far from t0, in parts of the whole time, derivatives of sigma^2 are taken where sigma itself
# has none.
_INSIDE = 1e-10


class AbstractProcess(eqx.Module):
    r"""A linear diffusion that turns data at `t0` into noise at `t1`: $x_t = \alpha(t)\,x_0 +
    \sigma(t)\,z$.

    It is defined by two functions of time: $\alpha$ falls from one and $\sigma$ grows from zero at
    $t_0$. The stochastic differential equation $dx = f\,dt + g\,dW$ with these marginals has

    $$f(t, x) = \frac{\alpha'}{\alpha}\,x, \qquad
    g^2(t) = (\sigma^2)' - 2\,\frac{\alpha'}{\alpha}\,\sigma^2.$$

    To define a process, subclass this with fields `t0` and `t1` and methods `alpha` and `sigma`. The
    other methods follow from these and may be replaced by closed forms. `check_process` tests whether
    they fit together.

    **Example:**

    ```python
    class Stretch(fpflow.AbstractProcess):
        t0: float = 0.0
        t1: float = 3.0

        def alpha(self, t):
            return jnp.exp(-(t**2) / 2)

        def sigma(self, t):
            return jnp.sqrt(-jnp.expm1(-(t**2)))
    ```
    """

    t0: eqx.AbstractVar[float]
    t1: eqx.AbstractVar[float]

    @abc.abstractmethod
    def alpha(self, t: Time) -> Scalar:
        r"""The factor $\alpha(t)$ of the signal, shape `()`; one at $t_0$."""

    @abc.abstractmethod
    def sigma(self, t: Time) -> Scalar:
        r"""The standard deviation $\sigma(t)$ of the noise, in units of $x$, shape `()`; zero at
        $t_0$."""

    @property
    def prior(self) -> IsotropicGaussian:
        r"""The distribution from which reverse time starts at `t1`: $N(0, \sigma^2(t_1) I)$ unless a
        process defines a better one."""
        return IsotropicGaussian(std=at_time(self.sigma, self.t1))

    def drift(self, t: Time, x: Point) -> Point:
        r"""The drift $f(t, x) = (\log\alpha)'\,x$ at one point, shape `(dim,)`."""
        t = jnp.asarray(t, x.dtype)
        alpha, rate = jax.jvp(self.alpha, (t,), (jnp.ones_like(t),))
        return rate / alpha * x

    def diffusion(self, t: Time) -> Scalar:
        """The diffusion $g(t)$, shape `()`; the same in all directions and at all points."""
        t = jnp.asarray(t, float) if isinstance(t, float | int) else jnp.asarray(t)
        # A sigma like sqrt(t) has no derivative at t0 itself, while that of its square has a limit.
        t = jnp.maximum(t, self.t0 + max(_INSIDE * (self.t1 - self.t0), 1e-6 * abs(self.t0)))
        one = jnp.ones_like(t)
        variance, growth = jax.jvp(lambda t: self.sigma(t) ** 2, (t,), (one,))
        alpha, rate = jax.jvp(self.alpha, (t,), (one,))
        return jnp.sqrt(jnp.maximum(growth - 2 * rate / alpha * variance, 0))

    def transition(self, t: Time, x0: Point) -> tuple[Point, Scalar]:
        r"""Mean $\alpha(t)\,x_0$, shape `(dim,)`, and standard deviation $\sigma(t)$, shape `()`,
        of $x_t$."""
        return self.alpha(t) * x0, self.sigma(t)

    def log_noise_ratio(self, t: Time) -> Scalar:
        r"""The logarithm of the noise-to-signal ratio, $\ell(t) = \log(\sigma^2(t) / \alpha^2(t))$.

        Its derivative is $\ell'(t) = g^2(t)/\sigma^2(t)$, so that $\ell$ is the distribution function of
        times drawn with density proportional to $g^2/\sigma^2$.
        """
        return 2 * (jnp.log(self.sigma(t)) - jnp.log(self.alpha(t)))

    def time_at_log_noise_ratio(self, ratio: Scalar) -> Scalar:
        r"""The time $t$ at which $\ell(t)$ has a given value, found by bisection to machine precision if
        a process has no closed form."""

        # In log t, because ell falls like log t towards t0 and data sits there.
        def halve(_, bracket):
            low, high = bracket
            middle = (low + high) / 2
            below = self.log_noise_ratio(self.t0 + jnp.exp(middle)) < ratio
            return jnp.where(below, middle, low), jnp.where(below, high, middle)

        ratio = jnp.asarray(ratio)
        span = self.t1 - self.t0
        start = (jnp.full_like(ratio, math.log(span * 1e-12)), jnp.full_like(ratio, math.log(span)))
        low, high = jax.lax.fori_loop(0, 60, halve, start)
        t = self.t0 + jnp.exp((low + high) / 2)
        # A bisection has no derivative: dt/dl = sigma^2 / g^2 is put in its place.
        slope = jax.lax.stop_gradient(self.sigma(t) ** 2 / self.diffusion(t) ** 2)
        return jax.lax.stop_gradient(t) + (ratio - jax.lax.stop_gradient(ratio)) * slope

    def graded_time(self, u: Time) -> Scalar:
        r"""The time at a fraction $u \in [0, 1]$ of the way from $t_0$ to $t_1$, graded for every
        numerical grid.

        The process is an Ornstein--Uhlenbeck process in the time
        $\tau = \tfrac12\log(1 + \sigma^2/\alpha^2)$, in which steps follow $\tau = \tau_1 u^3$. Scores
        grow like $1/\sigma^2$ towards $t_0$, and so does the density of these times.
        """
        u = jnp.asarray(u)
        end = 0.5 * np.log1p(np.exp(at_time(self.log_noise_ratio, self.t1)))
        tau = end * u**3
        t = self.time_at_log_noise_ratio(jnp.log(jnp.expm1(2 * jnp.maximum(tau, 1e-30))))
        return jnp.where(u <= 0, self.t0, jnp.where(u >= 1, self.t1, t))


def at_time(function: Any, t: float) -> float:
    """A function of time at a number, as a number, in double precision, also while JAX traces."""
    with jax.ensure_compile_time_eval(), jax.enable_x64(True):
        return float(function(jnp.asarray(t, float)))


def at_times(function: Any, process: AbstractProcess, t: np.ndarray) -> Any:
    """`function(process, t)` at every number of a grid, as `at_time`, in one program: sixty small
    ones take seconds to compile."""
    with jax.ensure_compile_time_eval(), jax.enable_x64(True):
        # A process that holds arrays may be asked for their values, which a program does not know.
        holds_arrays = any(map(eqx.is_array, jax.tree.leaves(process)))
        compute = _op_by_op if holds_arrays else _at_once
        return jax.tree.map(np.asarray, compute(function, process, jnp.asarray(t, float)))


def _op_by_op(function, process, t):
    return jax.vmap(lambda t: function(process, t))(t)


_at_once = eqx.filter_jit(_op_by_op)


def _graded(process, u):
    return process.graded_time(u)


def graded_times(process: AbstractProcess, num_steps: int) -> np.ndarray:
    r"""The times of `num_steps` steps from $t_1$ down to $t_0$ by `graded_time`, shape `(n + 1,)`."""
    return at_times(_graded, process, np.linspace(1.0, 0.0, num_steps + 1))


def levels(process: AbstractProcess, t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    r"""$\alpha$ and $\sigma$ at the times of a grid, in double precision."""
    return at_times(_levels, process, t)


def _levels(process, t):
    return process.alpha(t), process.sigma(t)


def check_signal(process: AbstractProcess) -> None:
    """Refuses an end at which no signal is left: drift and diffusion would be infinite there."""
    if not at_time(process.alpha, process.t1) > 1e-9:
        raise ValueError(
            f"`t1` = {process.t1} leaves no signal: alpha vanishes there and the drift is infinite; "
            "end a little earlier, as with `t1=0.999`."
        )


@eqx.filter_custom_jvp
def variance(process: AbstractProcess, t: Time) -> Scalar:
    r"""The variance $\sigma^2(t)$ of the transition, with a derivative that is finite at $t_0$ too.

    Through $\sigma$ it would be $0 \cdot \infty$ there; $(\sigma^2)' =
    2\,\tfrac{\alpha'}{\alpha}\,\sigma^2 + g^2$.
    """
    return process.sigma(t) ** 2


@variance.def_jvp
def _variance_jvp(primals, tangents):
    (process, t), (_, dt) = primals, tangents
    v = variance(process, t)
    alpha, rate = jax.jvp(process.alpha, (t,), (jnp.ones_like(t),))
    return v, (2 * rate / alpha * v + process.diffusion(t) ** 2) * dt
