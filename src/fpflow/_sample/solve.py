r"""Differential equations from noise to data.

Everything is integrated forward in $\tau = -t$. Unlike $T - t$ this keeps the digits of small
times, where the steps are smallest and the score is largest.
"""

from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
from jaxtyping import Array, Float

from .._dynamics import family_drift
from .._process import AbstractProcess
from .._types import PRNGKey, ScoreModel
from .base import SampleInfo

_LEVY_AREAS = (
    diffrax.BrownianIncrement,
    diffrax.SpaceTimeLevyArea,
    diffrax.SpaceTimeTimeLevyArea,
)
# Solvers without a tableau whose evaluations a step are known.
_ONCE_A_STEP = (diffrax.Euler, diffrax.EulerHeun)
_MOST_STEPS = 65536

Controller = diffrax.AbstractStepSizeController
Eta = float | Float[jax.typing.ArrayLike, ""]


class StepNoise(diffrax.AbstractBrownianPath):
    """Brownian noise of steps that are never divided, drawn from the ends of the step.

    This is `diffrax.UnsafeBrownianPath`, which diffrax refuses to differentiate: reverse mode takes
    each step again. The same step has the same noise here, so that it may.
    """

    shape: jax.ShapeDtypeStruct = eqx.field(static=True)
    levy_area: Any = eqx.field(static=True)
    key: PRNGKey

    @property
    def t0(self):  # pyright: ignore
        return -jnp.inf

    @property
    def t1(self):  # pyright: ignore
        return jnp.inf

    def evaluate(self, t0: Any, t1: Any = None, left: bool = True, use_levy: bool = False) -> Any:
        path = diffrax.UnsafeBrownianPath(self.shape, self.key, self.levy_area)
        return path.evaluate(t0, t1, left, use_levy)


def check_controller(controller: Any, solver: diffrax.AbstractSolver) -> None:
    """Refuses step sizes that are chosen by no error, or by one that the solver does not estimate."""
    if controller is None:
        return
    fixed = (diffrax.ConstantStepSize, diffrax.StepTo)
    if not isinstance(controller, Controller) or isinstance(controller, fixed):
        raise ValueError(
            "`stepsize_controller` must choose steps by their error, as `diffrax.PIDController` does, "
            f"got {type(controller).__name__}; to set your own steps, pass `step_grid`."
        )
    tableau = getattr(solver, "tableau", None)
    estimates = getattr(tableau, "b_error", None) is not None
    if not (estimates or isinstance(solver, diffrax.AbstractAdaptiveSolver)):
        raise ValueError(
            "`stepsize_controller` needs a solver with an error estimate, such as `diffrax.Heun()` "
            f"for the ODE and `diffrax.ShARK()` for the SDE, got {type(solver).__name__}."
        )


def finer_controller(controller: Controller, factor: int) -> Controller:
    """Tolerances that ask a method of second order for `factor` times as many steps."""
    if not isinstance(controller, diffrax.PIDController):
        raise ValueError(
            "only a `diffrax.PIDController` can be made finer, got "
            f"`stepsize_controller` = {type(controller).__name__}."
        )
    return eqx.tree_at(lambda c: (c.rtol, c.atol), controller, replace_fn=lambda v: v / factor**2)


def solve(
    terms: Any,
    solver: diffrax.AbstractSolver,
    controller: Controller | None,
    times: np.ndarray,
    x1: Float[Array, "n dim"],
) -> tuple[Float[Array, "n dim"], SampleInfo]:
    """One block of points from `times[0]` to `times[-1]`, and what was done."""
    at = _given(times, x1.dtype)
    start, end = -at[0], -at[-1]
    solution = diffrax.diffeqsolve(
        terms,
        solver,
        start,
        end,
        None if controller is None else (end - start) * 1e-4,
        x1,
        stepsize_controller=diffrax.StepTo(-at) if controller is None else controller,
        max_steps=len(times) if controller is None else _MOST_STEPS,
        throw=False,
        adjoint=diffrax.RecursiveCheckpointAdjoint(),
    )
    num_steps = jnp.asarray(solution.stats["num_steps"])
    evaluations = _evaluations(solver, num_steps, isinstance(terms, diffrax.ODETerm))
    success = solution.result == diffrax.RESULTS.successful
    return jnp.asarray(solution.ys)[-1], SampleInfo(evaluations, jnp.asarray(success))


def _given(times: Any, dtype: Any) -> Array:
    """Times as if they came from outside: what the compiler works out of constants is rounded otherwise,
    and the noise of adaptive steps hangs on the last bit of a time."""
    return jax.lax.optimization_barrier(jnp.asarray(times, dtype))


def _evaluations(solver: Any, num_steps: Array, is_ode: bool) -> Array:
    """Evaluations of the score in so many steps; -1 where the solver does not tell."""
    if isinstance(solver, _ONCE_A_STEP):
        return num_steps
    tableau = getattr(solver, "tableau", None)
    if isinstance(solver, diffrax.AbstractSRK):
        return len(solver.tableau.b_sol) * num_steps
    if isinstance(solver, diffrax.AbstractERK) and isinstance(tableau, diffrax.ButcherTableau):
        if is_ode and tableau.fsal:  # the last evaluation of a step is the first of the next
            return tableau.num_stages * num_steps - (num_steps - 1)
        return tableau.num_stages * num_steps
    return jnp.full_like(num_steps, -1)


def reverse_sde(
    model: ScoreModel,
    process: AbstractProcess,
    eta: Eta,
    solver: diffrax.AbstractSolver,
    controller: Controller | None,
    times: np.ndarray,
    x1: Float[Array, "n dim"],
    key: PRNGKey,
) -> tuple[Float[Array, "n dim"], SampleInfo]:
    """One block of points by a member of the family of equations."""
    dtype = x1.dtype
    eta = jnp.asarray(eta, dtype)

    def drift(tau, x, _):
        return -jax.vmap(lambda x: family_drift(model, process, eta, -tau, x))(x)

    def diffusion(tau, x, _):
        g = eta * process.diffusion(-tau).astype(dtype)
        return lx.DiagonalLinearOperator(jnp.broadcast_to(g, x.shape))

    needed = getattr(solver, "minimal_levy_area", diffrax.BrownianIncrement)
    area = next(area for area in _LEVY_AREAS if issubclass(area, needed))
    struct = jax.ShapeDtypeStruct(x1.shape, dtype)
    if controller is None:
        path = StepNoise(shape=struct, levy_area=area, key=key)
    else:
        # Rejected steps need a path that can be asked again between its points.
        tolerance = float(process.t1 - process.t0) * 1e-5
        start, end = -_given(times[0], dtype), -_given(times[-1], dtype)
        path = diffrax.VirtualBrownianTree(start, end, tolerance, struct, key, levy_area=area)
    terms = diffrax.MultiTerm(diffrax.ODETerm(drift), diffrax.ControlTerm(diffusion, path))
    return solve(terms, solver, controller, times, x1)
