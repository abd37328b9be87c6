"""The frame of a grid, in which the window and the prior stand still together."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._process import AbstractProcess, Frame, at_time
from .._types import Scalar, Time
from .._window import Window

# Width computed beyond the window, in units of x, unless told.
MARGIN = 1.5
# The prior has about unit variance in the frame, where the window and its margin reach this far from
# the centre: the mass beyond is 1e-12. Of the paper's window and process it makes c = 1/2.
_REACH = 50**0.5


class GridFrame(Frame):
    r"""The frame of a grid: the window stands still at $z = (x - m) / \sqrt c$, and so does the prior.

    **Attributes:**

    - `end`: $\tau$ at $t_1$.
    """

    end: float = 0.0

    def time(self, tau: Time) -> Scalar:
        r"""$t(\tau)$, within $[t_0, t_1]$."""
        # log(c (e^{2 tau} - 1)) without an overflow.
        tau = jnp.maximum(tau, 1e-30)
        ratio = 2 * jnp.log(self.scale) + 2 * tau + jnp.log(-jnp.expm1(-2 * tau))
        t = self.process.time_at_log_noise_ratio(ratio)
        t = jnp.where(tau >= self.end, self.process.t1, t)
        return jnp.clip(t, self.process.t0, self.process.t1)

    def velocity(
        self, score: Float[Array, "*batch dim"], t: Time, z: Float[Array, "*batch dim"]
    ) -> Float[Array, "*batch dim"]:
        r"""The velocity $dz/d\tau = -z - \lambda s$ of the probability-flow ODE."""
        return -z - self.spread(t) * score


def frame_of(process: AbstractProcess, window: Window, margin: float = MARGIN) -> GridFrame:
    r"""The frame in which the window and its margin reach as far as the prior does."""
    centre = (window.low + window.high) / 2
    scale = ((window.high - window.low) / 2 + margin) / _REACH
    ratio = at_time(process.log_noise_ratio, process.t1)
    return GridFrame(process, centre, scale, float(np.logaddexp(0, ratio - 2 * np.log(scale)) / 2))


@eqx.filter_jit
def _along(frame, taus):
    times = jax.vmap(frame.time)(taus)
    return times, jax.vmap(frame.shift)(times), jax.vmap(frame.spread)(times)


def along(frame: GridFrame, taus: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    r"""Times, $\alpha m$ and $\lambda$ at each of `taus`, in double precision, also while JAX traces."""
    with jax.ensure_compile_time_eval(), jax.enable_x64(True):
        times, shift, spread = _along(frame, jnp.asarray(taus))
        return np.asarray(times), np.asarray(shift), np.asarray(spread)
