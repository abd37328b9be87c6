r"""The law of the probability-flow ODE on a grid: corners of cells carried to the prior.

The flow maps the cell $C$ at $t_0$ to an image $\Phi(C)$ at $t_1$, and $P(x_{t_0} \in C) =
\int_{\Phi(C)} \pi$. Neighbours share their corners, so no mass is lost or counted twice and no
divergence is needed. Image cells are cut into two triangles with signed areas: where a step of the
integrator folds the grid, the folds cancel.
"""

import warnings

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .._dynamics import flow_velocity, graded_times
from .._model import model_dtype
from .._types import Process, ScoreModel
from .._window import GridDensity, Window, product_grid
from .evaluate import check_grid, coarser, extrapolated, on_points

# Steps at first and at most, the error beyond which there are more, and that of a warning.
_FEWEST, _MOST = 40, 640
_DOUBTFUL, _USELESS = 0.02, 0.1


@eqx.filter_jit
def _carry(model, process, dtype, corners, times):
    """The corners at $t_1$, having started at $t_0$, shape `(n, dim)`."""

    def velocity(t, x, _):
        t_model = t.astype(dtype)
        return on_points(lambda x: flow_velocity(model, process, t_model, x), x, dtype)

    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(velocity),
        diffrax.Tsit5(),
        times[0],
        times[-1],
        None,
        corners,
        stepsize_controller=diffrax.StepTo(times),
        max_steps=len(times),
    )
    return solution.ys[-1]  # pyright: ignore


def _mass_in_window(model, process, window, refine, num_steps):
    edges = window.edges(refine)
    corners = product_grid(edges, window.dim)
    times = graded_times(process.t0, process.t1, num_steps)[::-1].copy()
    with jax.enable_x64(True):
        carried = _carry(
            model, process, model_dtype(model), jnp.asarray(corners), jnp.asarray(times)
        )
        grid = carried.reshape(*[len(edges)] * window.dim, window.dim)
        cells = np.asarray((_intervals if window.dim == 1 else _quadrilaterals)(process, grid))
    return window.merge(cells, refine)


def _intervals(process, ends):
    """The prior over the images of intervals, signed, by a two-point Gauss rule."""
    half, middle = (ends[1:] - ends[:-1]) / 2, (ends[1:] + ends[:-1]) / 2
    prior = jax.vmap(process.prior.log_prob)
    values = sum(jnp.exp(prior(middle + sign * half / 3**0.5)) for sign in (-1, 1))
    return half[:, 0] * values


def _quadrilaterals(process, grid):
    """The prior over the images of cells, each two signed triangles, at the middles of their sides."""
    prior = jax.vmap(jax.vmap(process.prior.log_prob))

    def triangle(a, b, c):
        u, v = b - a, c - a
        area = (u[..., 0] * v[..., 1] - u[..., 1] * v[..., 0]) / 2
        return area * sum(jnp.exp(prior((p + q) / 2)) for p, q in ((a, b), (b, c), (c, a))) / 3

    a, b, c, d = grid[:-1, :-1], grid[1:, :-1], grid[1:, 1:], grid[:-1, 1:]
    return triangle(a, b, c) + triangle(a, c, d)


def grid_density_ode(
    model: ScoreModel,
    process: Process,
    window: Window | None = None,
    *,
    refine: int = 2,
    num_steps: int | None = None,
) -> GridDensity:
    r"""The law of the exact probability-flow ODE at $t_0$ as probabilities of cells.

    Integrates $dx/dt = f - \tfrac12 g^2 s$ from the corners of every cell at $t_0$ to $t_1$ by
    Tsit5 and the prior over the images of the cells.

    **Arguments:**

    - `model`: has `score(t, x)`.
    - `process`: gives $f$, $g$ and the prior.
    - `window`: the cells of the result, `Window()` by default.
    - `refine`: each cell is cut into `refine` x `refine` for the computation, at least 2.
    - `num_steps`: time steps, cubically graded towards $t_0$; six score evaluations each. By default
      40, doubled up to 640 while `error` is above 0.02 and falls: steep scores need them.

    **Returns:** a `GridDensity`: Richardson's extrapolation of this computation and one with half
    the refinement and half the steps; `error` comes from their difference. Warns where it stays
    above 0.1, which is no result.

    **Raises:** `ValueError` for bad arguments; `FloatingPointError` if the score is not finite
    along the flow.
    """
    window = Window() if window is None else window
    steps = _FEWEST if num_steps is None else num_steps
    check_grid(model, process, window, refine=refine, num_steps=steps)

    def with_steps(steps: int) -> GridDensity:
        fine = _mass_in_window(model, process, window, refine, steps)
        coarse = _mass_in_window(model, process, window, *coarser(refine, steps))
        return extrapolated(fine, coarse, refine, window)

    found, before = with_steps(steps), np.inf
    while num_steps is None and steps < _MOST and _DOUBTFUL < found.error < before / 2:
        steps, before = 2 * steps, found.error
        found = with_steps(steps)
    if found.error > _USELESS:
        warnings.warn(
            f"the density of the ODE on the grid may be off by {found.error:.2g} in total variation "
            f"with {steps} steps: the score is steep or the cells are coarse; raise `num_steps` or the "
            "nodes of the window.",
            stacklevel=2,
        )
    return found
