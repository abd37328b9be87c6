r"""The law of the probability-flow ODE on a grid: corners of cells carried to the prior.

The flow maps the cell $C$ at $t_0$ to an image $\Phi(C)$ at $t_1$, and $P(x_{t_0} \in C) =
\int_{\Phi(C)} \pi$. Neighbours share their corners, so no mass is lost or counted twice and no
divergence is needed. The masses of image cells are signed: where a step of the integrator folds the
grid, the folds cancel.
"""

import diffrax
import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._model import model_dtype
from .._process import AbstractProcess
from .._types import ScoreModel
from .._warning import warn
from .._window import GridDensity, Window, product_grid
from .evaluate import check_grid, coarser, in_two_resolutions, is_traced, on_points
from .frame import frame_of
from .prior import prior_in_images

# Beyond this error there is a warning.
_USELESS = 0.1


def _largest(error):
    """The norm of the step controller: that of the corner which is carried worst."""
    return jnp.abs(error).max()


@eqx.filter_jit
def _carry(model, frame, dtype, corners, tolerance, adjoint):
    """The corners in $x$ at $t_1$, having started in $z$ at $t_0$, shape `(n, dim)`, NaN where the
    solver gave up."""

    def velocity(tau, z, _):
        t = frame.time(tau)
        t_model = t.astype(dtype)
        score = on_points(lambda x: model.score(t_model, x), frame.place(t, z), dtype)
        return frame.velocity(score, t, z)

    start, end = (jnp.asarray(tau, corners.dtype) for tau in (0.0, frame.end))
    controller = diffrax.PIDController(rtol=tolerance, atol=tolerance / frame.scale, norm=_largest)
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(velocity),
        diffrax.Tsit5(),
        start,
        end,
        end * 1e-5,
        corners,
        stepsize_controller=controller,
        max_steps=4096,
        throw=False,
        adjoint=adjoint,
    )
    arrived = solution.result == diffrax.RESULTS.successful
    z = jnp.where(arrived, solution.ys[-1], jnp.nan)  # pyright: ignore
    return frame.place(jnp.asarray(frame.process.t1, z.dtype), z)


def ode_cell_masses(
    model: ScoreModel,
    process: AbstractProcess,
    window: Window,
    refine: int,
    tolerance: float,
    adjoint: diffrax.AbstractAdjoint,
) -> Float[Array, "..."]:
    """The masses that the flow brings into the cells of the window at $t_0$, at one resolution.

    Pure in the model: `jax.jit` and `jax.vmap` go through, and as `adjoint` allows, `jax.grad` or
    `jax.jvp`. It computes in the default precision.
    """
    frame = frame_of(process, window)
    edges = (window.edges(refine) - frame.centre) / frame.scale
    corners = jnp.asarray(product_grid(edges, window.dim), float)
    carried = _carry(
        model, frame, model_dtype(model), corners, jnp.asarray(tolerance, float), adjoint
    )
    grid = carried.reshape(*[len(edges)] * window.dim, window.dim)
    return window.merge(prior_in_images(process.prior, grid), refine)


def grid_density_ode(
    model: ScoreModel,
    process: AbstractProcess,
    window: Window | None = None,
    *,
    refine: int = 2,
    tolerance: float = 1e-4,
) -> GridDensity:
    r"""The distribution of the exact probability-flow ODE at $t_0$, as probabilities of cells.

    Integrates $dx/dt = f - \tfrac12 g^2 s$ from the corners of every cell at $t_0$ to $t_1$ with Tsit5,
    in coordinates in which the window and the prior stand still, and then integrates the prior over the
    images of the cells.

    The function can be traced: `jax.jit`, `jax.vmap` and `jax.grad` (reverse mode only) apply to it with
    respect to the arrays of the model, in the default precision and without checks of values.

    **Arguments:**

    - `model`: has `score(t, x)`.
    - `process`: gives $f$, $g$ and the prior.
    - `window`: the cells of the result, `Window()` by default.
    - `refine`: each cell is divided into `refine` x `refine` cells for the computation, at least 2.
    - `tolerance`: tolerance of one step, absolute in units of $x$ at $t_0$ and relative, for the corner
      with the largest error.

    **Returns:** a `GridDensity`: Richardson's extrapolation of this computation and one with half the
    refinement. Its `error` comes from their difference and from a third computation at a tenth of the
    tolerance. Warns if it exceeds 0.1.

    **Raises:** `ValueError` for invalid arguments, or if the window holds no mass; `FloatingPointError`
    if the score is not finite along the flow.

    **Example:**

    ```python
    p_ode = fpflow.grid_density_ode(model, process, fpflow.Window(nodes=16))
    ```
    """
    window = Window() if window is None else window
    check_grid(model, process, window, refine=refine)
    if not 0 < tolerance < 1:
        raise ValueError(f"`tolerance` must lie in (0, 1), got {tolerance}.")
    traced = is_traced(model, process, window.dim)
    # Reverse mode costs a little even where nobody asks for it.
    adjoint = diffrax.RecursiveCheckpointAdjoint() if traced else diffrax.ForwardMode()

    def masses(refine, _, tolerance=tolerance):
        return ode_cell_masses(model, process, window, refine, tolerance, adjoint)

    def tight():
        return masses(coarser(refine, 1)[0], 1, tolerance / 10)

    found = in_two_resolutions(masses, refine, 1, window, traced, tight)
    if not traced and found.error > _USELESS:
        warn(
            f"the density of the ODE on the grid may have an error of {found.error:.2g} in total "
            "variation: its features are finer than the cells; raise `refine` or the number of nodes "
            "of the window."
        )
    return found
