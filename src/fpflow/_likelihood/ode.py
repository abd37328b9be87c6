r"""The density of the probability-flow ODE at points: the change of variables along the flow."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from .._calculus import Divergence, Exact
from .._calculus import divergence as exact_divergence
from .._devices import check_mesh, over_devices
from .._dynamics import flow_velocity
from .._errors import student
from .._model import Transformed, check_counts, densities_in_units
from .._process import AbstractProcess
from .._residual import log_fp_residual
from .._types import ArrayLike, JetModel, Point, PotentialModel, PRNGKey, Scalar, ScoreModel, Time
from .._warning import warn
from .points import checked_points, in_blocks, is_traced, shown_values

# A point that needs more has a score that no tolerance follows.
_MOST_STEPS = 4096
# Nats by which two tolerances may differ without a word.
_LOOSE = 0.1


class ThroughResidual(eqx.Module):
    r"""The divergence of the flow, computed from the residual of a potential.

    Along the flow $\nabla\cdot v = r - \tfrac{d}{dt} u(t, x_t)$, so that $\log p_\text{ODE}(x) = u(t_0,
    x) + \int r\,dt + \log\pi(x_T) - u(T, x_T)$. This is a second route to the same number; its integral
    vanishes for an exact potential.
    """


class LogProbODE(eqx.Module):
    r"""$\log p_\text{ODE}$ at points, in nats.

    **Attributes:**

    - `value`: the log density, shape `(n,)`.
    - `standard_error`: the standard error of the divergence estimate, shape `(n,)`; zero if the
      divergence is exact.
    - `solver_error`: the distance to the solution at ten times the tolerance, shape `(n,)`. It shows the
      size of the step error of `value` and usually exceeds it, but is not a bound.
    - `num_steps`, `num_rejected`: numbers of accepted and rejected steps of the solver, shape `(n,)`.
    """

    value: Float[Array, "*n"]
    standard_error: Float[Array, "*n"]
    solver_error: Float[Array, "*n"]
    num_steps: Int[Array, "*n"]
    num_rejected: Int[Array, "*n"]

    def __repr__(self) -> str:
        return shown_values(self, self.standard_error + self.solver_error)


def _velocity_and_divergence(model, process, method, t, x, probes):
    r"""$v = f - \tfrac12 g^2 s$ and one estimate of $\nabla\cdot v$ a probe."""
    if isinstance(method, ThroughResidual):
        return flow_velocity(model, process, t, x), log_fp_residual(model, process, t, x)[None]
    if isinstance(method, Exact) and isinstance(model, JetModel):
        jet = model.jet(t, x)
        score, spread = jet.gradient, jet.laplacian[None]
    else:
        score, spread = method(lambda x: model.score(t, x), x, probes)
    half_g2 = process.diffusion(t) ** 2 / 2
    spread_drift = exact_divergence(lambda x: process.drift(t, x), x)
    return process.drift(t, x) - half_g2 * score, spread_drift - half_g2 * spread


def _solve(model, process, method, solver, controller, x, probes):
    """Estimates of $\\log p$ of one point, shape `(estimates,)`, NaN where the solver gave up, and the
    counts of its steps."""

    def rate(t, state, _):
        return _velocity_and_divergence(model, process, method, t, state[0], probes)

    size = 1 if isinstance(method, Exact | ThroughResidual) else len(probes)
    start, end = jnp.asarray(process.t0, x.dtype), jnp.asarray(process.t1, x.dtype)
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(rate),
        solver,
        start,
        end,
        None,
        (x, jnp.zeros(size, x.dtype)),
        stepsize_controller=controller,
        max_steps=_MOST_STEPS,
        throw=False,
    )
    end_x, integral = (y[-1] for y in solution.ys)  # pyright: ignore
    value = process.prior.log_prob(end_x) + integral
    if isinstance(method, ThroughResidual):
        value = value + model.potential(start, x) - model.potential(end, end_x)
    arrived = solution.result == diffrax.RESULTS.successful
    value = jnp.where(arrived, value, jnp.nan)
    return value, solution.stats["num_accepted_steps"], solution.stats["num_rejected_steps"]


@eqx.filter_jit
def _block(model, process, method, solver, tolerance, mesh, key, index, x):
    def one_point(index, x):
        probes = None
        if not isinstance(method, ThroughResidual):
            probes = method.probes(jr.fold_in(key, index), x)

        def at_tolerance(loosened):
            limit = loosened * tolerance
            controller = diffrax.PIDController(rtol=limit, atol=limit)
            return _solve(model, process, method, solver, controller, x, probes)

        estimates, accepted, rejected = at_tolerance(1)
        loose, _, _ = at_tolerance(10)
        loose = jax.lax.stop_gradient(loose)
        value, size = estimates.mean(), estimates.size
        noise = jnp.zeros_like(value)
        if size > 1:
            noise = jax.lax.stop_gradient(estimates).std(ddof=1) / size**0.5 * student(size - 1)
        error = jnp.abs(jax.lax.stop_gradient(value) - loose.mean())
        return LogProbODE(value, noise, error, accepted, rejected)

    return over_devices(jax.vmap(one_point), mesh)(index, x)


@densities_in_units
def log_prob_ode(
    model: ScoreModel | Transformed,
    process: AbstractProcess,
    x: ArrayLike,
    *,
    divergence: Divergence | ThroughResidual | None = None,
    tolerance: float | None = None,
    solver: diffrax.AbstractAdaptiveSolver | None = None,
    batch_size: int = 2048,
    mesh: Mesh | None = None,
    progress: bool | None = None,
    key: PRNGKey | None = None,
) -> LogProbODE:
    r"""The log density at $t_0$ of the distribution that the exact probability-flow ODE generates from
    the prior.

    $$\log p_\text{ODE}(x) = \log\pi(x_T) + \int_{t_0}^T \nabla\cdot v(t, x_t)\,dt, \qquad
    \dot x_t = v = f - \tfrac12 g^2 s, \quad x_{t_0} = x,$$

    computed by an adaptive solver that takes separate steps for each point. The result is differentiable
    in `x` and in the parameters of `model`.

    **Arguments:**

    - `model`: has `score(t, x)` for one point.
    - `process`: gives $f$, $g$ and the prior.
    - `x`: points of shape `(n, dim)`.
    - `divergence`: `Exact()` (default); `Hutchinson(num_probes)` with fewer probes than dimensions,
      whose cost does not grow with `dim`; or `ThroughResidual()`, the identity for potentials.
    - `tolerance`: relative and absolute tolerance of the solver; by default 1e-5 in single and 1e-9 in
      double precision.
    - `solver`: a diffrax solver with an error estimate; by default `diffrax.Tsit5()`, or
      `diffrax.Dopri8()` in double precision.
    - `batch_size`: number of points held in the memory of a device at once; does not change the result.
    - `mesh`: a `jax.sharding.Mesh` of devices that share the points.
    - `progress`: whether to show a progress bar; by default on a terminal or in a notebook.
    - `key`: a `jax.random.key` for the probes; only `Hutchinson` needs it.

    **Returns:** a `LogProbODE` in the precision of the model.

    **Raises:** `ValueError` for invalid arguments; `FloatingPointError` if the score is not finite or
    the solver gives up. Warns if `solver_error` exceeds 0.1 nats.

    **Example:**

    ```python
    found = fpflow.log_prob_ode(model, process, jnp.zeros((3, 2)))
    found.value, found.solver_error
    ```

    ??? cite "Reference"
        Chen et al., *Neural ordinary differential equations*, NeurIPS 2018, arXiv 1806.07366; Song et
        al., ICLR 2021, arXiv 2011.13456.
    """
    method = Exact() if divergence is None else divergence
    check_counts(batch_size=batch_size)
    check_mesh(mesh)
    if isinstance(method, ThroughResidual) and not isinstance(model, PotentialModel):
        raise ValueError(
            "`divergence=ThroughResidual()` needs a model with `potential(t, x)`, got "
            f"{type(model).__name__}; use `Exact()` or `Hutchinson()`."
        )
    if key is None:
        if not isinstance(method, Exact | ThroughResidual):
            raise ValueError(f"`key` is needed for the probes of {type(method).__name__}.")
        key = jr.key(0)
    points = checked_points(model, process, x)
    double = points.dtype == jnp.float64
    if tolerance is None:
        tolerance = 1e-9 if double else 1e-5
    if not 0 < tolerance < 1:
        raise ValueError(f"`tolerance` must lie in (0, 1), got {tolerance}.")
    limit = jnp.asarray(tolerance, points.dtype)
    solver = solver or (diffrax.Dopri8() if double else diffrax.Tsit5())

    def block(index, x):
        return _block(model, process, method, solver, limit, mesh, key, index, x)

    result = in_blocks(block, points, batch_size, "log p_ODE", progress, mesh)
    if not is_traced(result) and not bool(jnp.isfinite(result.value).all()):
        bad = int((~jnp.isfinite(result.value)).sum())
        raise FloatingPointError(
            f"log p_ODE is not finite at {bad} of {len(points)} points: the score is not finite along "
            f"the flow, or the solver gave up after {_MOST_STEPS} steps; raise `tolerance`."
        )
    loose = 0 if is_traced(result) else int((result.solver_error > _LOOSE).sum())
    if loose:
        warn(
            f"log p_ODE is known to no better than {_LOOSE} nats at {loose} of {len(points)} points: "
            "the solver's values at two tolerances differ by up to "
            f"{float(result.solver_error.max()):.2g}; lower `tolerance`, or do not trust the score "
            "there."
        )
    return result


# Reverse mode through a solver takes ten seconds to compile and costs three solutions; forward mode one
# for every dimension.
_FORWARD_UP_TO = 4


def flow_score(
    model: ScoreModel, process: AbstractProcess, t: Time, x: Point, num_steps: int = 40
) -> Point:
    r"""$\nabla\log p_\text{ODE}(t, x)$ of one point at any time, on a fixed grid of `num_steps` steps
    from $t$ to $t_1$."""
    if x.size > _FORWARD_UP_TO:
        reverse = diffrax.RecursiveCheckpointAdjoint()
        return jax.grad(_flow_log_prob, 3)(model, process, t, x, num_steps, reverse)
    return jax.jacfwd(_flow_log_prob, 3)(model, process, t, x, num_steps, diffrax.ForwardMode())


def _flow_log_prob(model, process, t, x, num_steps, adjoint) -> Scalar:
    span = process.t1 - t

    # In c with time t + span c^3, which keeps its digits when t is close to the end.
    def rate(c, state, _):
        now = t + span * c**3
        probes = jnp.eye(x.size, dtype=x.dtype)
        change = _velocity_and_divergence(model, process, Exact(), now, state[0], probes)
        return tuple(3 * c**2 * span * part for part in change)

    cuts = jnp.linspace(0, 1, num_steps + 1, dtype=x.dtype)
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(rate),
        diffrax.Tsit5(),
        cuts[0],
        cuts[-1],
        None,
        (x, jnp.zeros(1, x.dtype)),
        stepsize_controller=diffrax.StepTo(cuts),
        max_steps=num_steps + 1,
        adjoint=adjoint,
    )
    end, integral = (y[-1] for y in solution.ys)  # pyright: ignore
    return process.prior.log_prob(end) + integral[0]
