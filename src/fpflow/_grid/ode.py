r"""The law of the probability-flow ODE on a grid: corners of cells carried to the prior.

The flow maps the cell $C$ at $t_0$ to an image $\Phi(C)$ at $t_1$, and $P(x_{t_0} \in C) =
\int_{\Phi(C)} \pi$. Neighbours share their corners, so no mass is lost or counted twice and no
divergence is needed. The masses of image cells are signed: where a step of the integrator folds the
grid, the folds cancel.
"""

import warnings

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy

from .._dynamics import flow_velocity
from .._model import model_dtype
from .._process import AbstractProcess, IsotropicGaussian
from .._types import ScoreModel
from .._window import GridDensity, Window, product_grid
from .evaluate import check_grid, coarser, extrapolated, on_points

# Beyond this error there is a warning.
_USELESS = 0.1


def _largest(error):
    """The norm of the step controller: that of the corner which is carried worst."""
    return jnp.abs(error).max()


@eqx.filter_jit
def _carry(model, process, dtype, corners, tolerance):
    """The corners at $t_1$, having started at $t_0$, shape `(n, dim)`, NaN where the solver gave up."""

    def velocity(t, x, _):
        t_model = t.astype(dtype)
        return on_points(lambda x: flow_velocity(model, process, t_model, x), x, dtype)

    start, end = (jnp.asarray(t, corners.dtype) for t in (process.t0, process.t1))
    controller = diffrax.PIDController(rtol=tolerance, atol=tolerance, norm=_largest)
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(velocity), diffrax.Tsit5(), start, end, (end - start) * 1e-5, corners,
        stepsize_controller=controller, max_steps=4096, throw=False, adjoint=diffrax.ForwardMode(),
    )  # fmt: skip
    arrived = solution.result == diffrax.RESULTS.successful
    return jnp.where(arrived, solution.ys[-1], jnp.nan)  # pyright: ignore


def _mass_in_window(model, process, window, refine, tolerance):
    edges = window.edges(refine)
    corners = product_grid(edges, window.dim)
    with jax.enable_x64(True):
        carried = _carry(
            model, process, model_dtype(model), jnp.asarray(corners), jnp.asarray(tolerance)
        )
        grid = carried.reshape(*[len(edges)] * window.dim, window.dim)
        cells = _masses(process.prior, grid)
    return window.merge(cells, refine)


def _masses(prior, grid):
    """The prior over the images of the cells, signed. A Gaussian's is exact: beyond the edge of the data
    the flow of a steep network stretches a cell to hundreds of times the prior's width."""
    if isinstance(prior, IsotropicGaussian):
        z = np.asarray(grid) / prior.std
        if z.ndim == 2:
            return np.diff(scipy.special.ndtr(z[:, 0]))
        return _gaussian_over_quadrilaterals(z)
    log_prob = jax.vmap(prior.log_prob)
    if grid.ndim == 2:
        return np.asarray(_over_intervals(log_prob, grid))
    return np.asarray(_over_quadrilaterals(jax.vmap(log_prob), grid))


def _gaussian_over_quadrilaterals(z):
    """The standard normal law over quadrilaterals, from that over the triangles of each side and the
    origin: neighbours share their sides."""
    along, across = _gaussian_at_origin(z[:-1], z[1:]), _gaussian_at_origin(z[:, :-1], z[:, 1:])
    return along[:, :-1] + across[1:] - along[:, 1:] - across[:-1]


def _gaussian_at_origin(p, q):
    r"""The standard normal law over the triangle $0pq$, signed.

    In polar coordinates $\tfrac{1}{2\pi}\int (1 - e^{-h^2/2\cos^2\theta})\,d\theta$, with the side's
    distance $h$ from the origin: an angle and two of Owen's $T$.
    """
    tiny = 1e-150  # a side through the origin: divides, and does not overflow
    side = q - p
    length = np.maximum(np.linalg.norm(side, axis=-1), tiny)
    cross = p[..., 0] * q[..., 1] - p[..., 1] * q[..., 0]
    h = np.maximum(np.abs(cross) / length, tiny)
    ends = [(point * side).sum(-1) / length / h for point in (p, q)]
    angle = np.arctan2(np.abs(cross), (p * q).sum(-1)) / (2 * np.pi)
    first, last = (scipy.special.owens_t(h, end) for end in ends)
    return np.sign(cross) * (angle - last + first)


def _over_intervals(log_prob, ends):
    """Another prior over intervals, by a two-point Gauss rule."""
    half, middle = (ends[1:] - ends[:-1]) / 2, (ends[1:] + ends[:-1]) / 2
    values = sum(jnp.exp(log_prob(middle + sign * half / 3**0.5)) for sign in (-1, 1))
    return half[:, 0] * values


def _over_quadrilaterals(log_prob, grid):
    """Another prior over cells, each two signed triangles, at the middles of their sides."""

    def triangle(a, b, c):
        u, v = b - a, c - a
        area = (u[..., 0] * v[..., 1] - u[..., 1] * v[..., 0]) / 2
        return area * sum(jnp.exp(log_prob((p + q) / 2)) for p, q in ((a, b), (b, c), (c, a))) / 3

    a, b, c, d = grid[:-1, :-1], grid[1:, :-1], grid[1:, 1:], grid[:-1, 1:]
    return triangle(a, b, c) + triangle(a, c, d)


def grid_density_ode(
    model: ScoreModel,
    process: AbstractProcess,
    window: Window | None = None,
    *,
    refine: int = 2,
    tolerance: float = 1e-4,
) -> GridDensity:
    r"""The law of the exact probability-flow ODE at $t_0$ as probabilities of cells.

    Integrates $dx/dt = f - \tfrac12 g^2 s$ from the corners of every cell at $t_0$ to $t_1$ by
    Tsit5 and the prior over the images of the cells.

    **Arguments:**

    - `model`: has `score(t, x)`.
    - `process`: gives $f$, $g$ and the prior.
    - `window`: the cells of the result, `Window()` by default.
    - `refine`: each cell is cut into `refine` x `refine` for the computation, at least 2.
    - `tolerance`: of one step, absolute and relative, for the corner that is carried worst.

    **Returns:** a `GridDensity`: Richardson's extrapolation of this computation and one with half
    the refinement; `error` comes from their difference. Warns where it is above 0.1.

    **Raises:** `ValueError` for bad arguments; `FloatingPointError` if the score is not finite
    along the flow.

    **Example:**

    ```python
    p_ode = fpflow.grid_density_ode(model, process, fpflow.Window(nodes=16))
    ```
    """
    window = Window() if window is None else window
    check_grid(model, process, window, refine=refine)
    if not 0 < tolerance < 1:
        raise ValueError(f"`tolerance` must lie in (0, 1), got {tolerance}.")
    fine, coarse = (
        _mass_in_window(model, process, window, cut, tolerance)
        for cut in (refine, coarser(refine, 1)[0])
    )
    found = extrapolated(fine, coarse, refine, window)
    if found.error > _USELESS:
        warnings.warn(
            f"the density of the ODE on the grid may be off by {found.error:.2g} in total variation: "
            "its features are finer than the cells; raise `refine` or the nodes of the window.",
            stacklevel=2,
        )
    return found
