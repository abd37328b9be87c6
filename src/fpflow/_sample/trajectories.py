"""Whole paths of the probability-flow ODE."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._dynamics import flow_velocity
from .._model import check_counts, check_key, check_score, model_dim, model_dtype
from .._process import AbstractProcess, graded_times
from .._shown import shown_fields
from .._types import PRNGKey, ScoreModel


@eqx.filter_jit
def _solve_trajectories(model, process, shape, times, key):
    x = process.prior.sample(key, shape).astype(times.dtype)

    def drift(tau, x, _):
        return -jax.vmap(lambda x: flow_velocity(model, process, -tau, x))(x)

    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(drift),
        diffrax.Tsit5(),
        -times[0],
        -times[-1],
        None,
        x,
        saveat=diffrax.SaveAt(ts=-times),
        max_steps=65536,
        throw=False,
        stepsize_controller=diffrax.PIDController(rtol=1e-4, atol=1e-4),
        adjoint=diffrax.ForwardMode(),
    )
    return jnp.asarray(solution.ys), solution.result == diffrax.RESULTS.successful


class Trajectories(eqx.Module):
    r"""Points that move along the probability-flow ODE.

    **Attributes:**

    - `times`: decreasing from $t_1$ to $t_0$, shape `(num_times,)`.
    - `x`: the points at these times, shape `(num_times, num_samples, dim)`.
    """

    times: Float[Array, " num_times"]
    x: Float[Array, "num_times num_samples dim"]

    __repr__ = shown_fields


def ode_trajectories(
    model: ScoreModel,
    process: AbstractProcess,
    num_samples: int,
    *,
    num_times: int = 101,
    dim: int | None = None,
    key: PRNGKey,
) -> Trajectories:
    r"""Whole paths of the probability-flow ODE $dx = (f - \tfrac12 g^2 s)\,dt$ from noise to data.

    **Arguments:**

    - `model`: has `score(t, x)` for one point.
    - `process`: gives $f$, $g$ and the prior.
    - `num_samples`: number of paths; they all share the same adaptive steps.
    - `num_times`: number of times to keep, graded as $t_0 + (t_1 - t_0)(1 - i/n)^3$.
    - `dim`: the dimension, if neither `model.dim` nor the score determines it.
    - `key`: a `jax.random.key`.

    **Returns:** `Trajectories`.

    **Raises:** `ValueError` for invalid arguments, `FloatingPointError` if a point is not finite.
    """
    num_samples, num_times = check_counts(num_samples=num_samples, num_times=num_times)
    if num_times < 2:
        raise ValueError(f"`num_times` must be at least 2, for the two ends, got {num_times}.")
    check_key(key)
    dim = model_dim(model, dim)
    check_score(model, process, dim)
    grid = graded_times(process, num_times - 1)
    times = jnp.asarray(grid, model_dtype(model))
    x, fine = _solve_trajectories(model, process, (num_samples, dim), times, key)
    if not (fine and bool(jnp.isfinite(x).all())):
        raise FloatingPointError(
            "an ODE trajectory is not finite or the solver gave up: the score is too steep for the "
            "solver."
        )
    return Trajectories(times, x)
