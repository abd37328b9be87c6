r"""The law of the reverse SDE on a grid: its Fokker--Planck equation by finite volumes.

In the coordinates $z$ and the time $\tau$ of `GridFrame` the density $q$ obeys, run backwards,
$\partial_\tau q = -\nabla\cdot(v q) + D\Delta q$ with $v = z + 2\lambda s$ and $D = 1$ for every
process. Between neighbouring centres at distance $d$ the flux is that of Scharfetter and Gummel,

$$J = \frac Dd\,\bigl(B(-w)\,q_i - B(w)\,q_{i+1}\bigr), \qquad w = \frac1D\int v\cdot dl, \qquad
B(w) = \frac{w}{e^w - 1},$$

which keeps mass exactly and the stationary law exactly. For a potential the integral of $\lambda s$ is a
difference of values; for a bare score it is taken by a two-point Gauss rule.
"""

import dataclasses
import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._dynamics import check_eta
from .._model import model_dtype
from .._process import AbstractProcess
from .._types import PotentialModel, ScoreModel
from .._window import GridDensity, Window
from .evaluate import check_grid, in_two_resolutions, is_traced, on_points
from .frame import MARGIN, GridFrame, along, frame_of
from .prior import prior_in_cells

_GAMMA = 2 - 2**0.5


def _bernoulli(w: Array) -> Array:
    """$w / (e^w - 1)$, by its series where the quotient loses digits."""
    small = jnp.abs(w) < 1e-4
    return jnp.where(small, 1 - w / 2 + w**2 / 12, w / jnp.expm1(jnp.where(small, 1.0, w)))


def thomas(lower: Array, diagonal: Array, upper: Array, rhs: Array) -> Array:
    """Tridiagonal systems along the first axis, one a column, without pivoting.

    Six times faster than `lax.linalg.tridiagonal_solve` on a CPU, because each of its few
    operations runs over a whole row of systems; diagonal dominance makes pivoting needless.
    """

    def down(carry, row):
        c, d = carry
        a, b, u, f = row
        scale = 1 / (b - a * c)
        new = (u * scale, (f - a * d) * scale)
        return new, new

    def up(x, row):
        c, d = row
        x = d - c * x
        return x, x

    zero = jnp.zeros_like(rhs[0])
    _, rows = jax.lax.scan(down, (zero, zero), (lower, diagonal, upper, rhs))
    return jax.lax.scan(up, zero, rows, reverse=True)[1]


def _sweep(q: Array, edge: Array, diffusivity: Array, width: Array, dt: Array) -> Array:
    r"""One TR-BDF2 step of the flux along the first axis: second order, damps stiff modes, and
    keeps the sum of every column."""
    w = edge / diffusivity
    rate = diffusivity / width**2
    out, back = rate * _bernoulli(-w), rate * _bernoulli(w)
    zero = jnp.zeros_like(q[:1])
    lower = jnp.concatenate([zero, out])
    upper = jnp.concatenate([back, zero])
    loss = jnp.concatenate([out, zero]) + jnp.concatenate([zero, back])

    flux = out * q[:-1] - back * q[1:]
    change = jnp.concatenate([zero, flux]) - jnp.concatenate([flux, zero])
    half = _GAMMA / 2 * dt
    solve = functools.partial(thomas, -half * lower, 1 + half * loss, -half * upper)
    middle = solve(q + half * change)
    weight = 1 / (_GAMMA * (2 - _GAMMA))
    return solve(weight * middle - (weight - 1) * q)


def _edges_of(model, eta, dtype, t, place, spread, z, dim):
    """The integrals of $v$ between neighbouring centres along each axis; that axis comes first."""
    n, width = len(z), z[1] - z[0]
    shape = (n,) * dim
    points = place(jnp.stack(jnp.meshgrid(*[z] * dim, indexing="ij"), -1).reshape(-1, dim))
    t_model = t.astype(dtype)
    pull = 1 + eta**2
    middle = ((z[1:] + z[:-1]) / 2).reshape(-1, *[1] * (dim - 1))

    def along(axis: int) -> Float[Array, "..."]:
        shift = jnp.zeros(dim, z.dtype).at[axis].set(spread * width)

        def score(fraction):
            s = on_points(lambda x: model.score(t_model, x)[axis], points + fraction * shift, dtype)
            return jnp.moveaxis(s.reshape(shape), axis, 0)[:-1]

        if isinstance(model, PotentialModel):
            u = jnp.moveaxis(potential, axis, 0)
            rise = u[1:] - u[:-1]
        else:
            gauss = (0.5 - 0.5 / 3**0.5, 0.5 + 0.5 / 3**0.5)
            rise = spread * width / 2 * sum(score(fraction) for fraction in gauss)
        return pull * rise + width * middle

    if isinstance(model, PotentialModel):
        potential = on_points(lambda x: model.potential(t_model, x), points, dtype).reshape(shape)
    return [along(axis) for axis in range(dim)]


@eqx.filter_jit
def _solve(model, eta, dtype, z, q, steps, keep):
    """The masses after the last step, or with `keep` from the first on, starting from `q`."""
    dim, width = q.ndim, z[1] - z[0]
    within = jnp.pad(jnp.ones([n - 2 for n in q.shape], q.dtype), 1)

    @jax.checkpoint  # in reverse mode a step is done again rather than kept
    def step(q, now):
        t, shift, spread, dtau = now
        first, *second = _edges_of(
            model, eta, dtype, t, lambda z: shift + spread * z, spread, z, dim
        )
        if dim == 1:
            q = _sweep(q, first, eta**2, width, dtau)
        else:
            q = _sweep(q, first, eta**2, width, dtau / 2)
            q = _sweep(q.T, second[0], eta**2, width, dtau).T
            q = _sweep(q, first, eta**2, width, dtau / 2)
        # What comes to the outermost cells has left. Held there, it would be pushed back in: in x the
        # far end closes in on the window, past places from which the score leads elsewhere.
        q = q * within
        return q, q if keep else None

    last, kept = jax.lax.scan(step, q, steps)
    return last if kept is None else jnp.concatenate([q[None], kept])


@dataclasses.dataclass(frozen=True)
class _Grid:
    """The window and its margin in the frame, and the steps from the prior to the data."""

    frame: GridFrame
    dim: int
    edges: np.ndarray  # z along an axis
    inner: slice  # the cells of the window
    taus: np.ndarray

    @property
    def centres(self) -> np.ndarray:
        return (self.edges[1:] + self.edges[:-1]) / 2

    def start(self) -> np.ndarray:
        """The masses of the prior; what the grid does not hold of them is missing."""
        _, shift, spread = along(self.frame, self.taus[:1])
        prior = self.frame.process.prior
        return prior_in_cells(prior, shift[0] + spread[0] * self.edges, self.dim)

    def run(self, model: ScoreModel, eta: float, keep: bool) -> Array:
        steps = (*along(self.frame, (self.taus[:-1] + self.taus[1:]) / 2), -np.diff(self.taus))
        arrays = (eta, self.centres, self.start(), steps)
        eta_, centres, start, steps = jax.tree.map(lambda a: jnp.asarray(a, float), arrays)
        return _solve(model, eta_, model_dtype(model), centres, start, steps, keep)


def _grid_of(process, window, refine, num_steps, margin) -> _Grid:
    # At least one cell, for the outermost ones let all mass leave.
    pad = max(int(np.ceil(margin / window.cell_width)), 1)
    reach = (pad + 0.5) * window.cell_width
    cells = (window.nodes + 2 * pad) * refine
    frame = frame_of(process, window, margin)
    edges = np.linspace(window.low - reach, window.high + reach, cells + 1)
    inner = slice(pad * refine, cells - pad * refine)
    taus = frame.end * np.linspace(1.0, 0.0, num_steps + 1) ** 3
    return _Grid(frame, window.dim, (edges - frame.centre) / frame.scale, inner, taus)


def sde_cell_masses(
    model: ScoreModel,
    process: AbstractProcess,
    eta: float,
    window: Window,
    refine: int,
    num_steps: int,
    margin: float,
) -> Float[Array, "..."]:
    """The masses that the reverse SDE brings into the cells of the window at $t_0$, at one resolution.

    Pure in the model: `jax.jit`, `jax.vmap` and `jax.grad` go through. It computes in the default
    precision.
    """
    grid = _grid_of(process, window, refine, num_steps, margin)
    q = grid.run(model, eta, keep=False)
    return window.merge(q[(grid.inner,) * window.dim], refine)


def density_history(
    model: ScoreModel,
    process: AbstractProcess,
    window: Window,
    *,
    refine: int,
    num_steps: int,
    margin: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The law of the reverse SDE at all times of its grid, from $t_0$ on: times `(n + 1,)`, masses
    `(n + 1, cells, ...)` on the refined window with its margin, and the centres along an axis in $x$,
    `(n + 1, cells)`, for the grid moves and widens with the process."""
    check_grid(model, process, window, refine=refine + 1, num_steps=num_steps)
    grid = _grid_of(process, window, refine, num_steps, margin)
    with jax.enable_x64(True):
        q = np.asarray(grid.run(model, 1.0, keep=True))
    times, shift, spread = along(grid.frame, grid.taus)
    centres = shift[:, None] + spread[:, None] * grid.centres
    return times[::-1], q[::-1], centres[::-1]


def grid_density_sde(
    model: ScoreModel,
    process: AbstractProcess,
    window: Window | None = None,
    *,
    eta: float = 1.0,
    refine: int = 2,
    num_steps: int = 120,
    margin: float = MARGIN,
) -> GridDensity:
    r"""The distribution of the exact reverse SDE at $t_0$, as probabilities of cells, free of sampling
    noise.

    Solves $\partial_\tau q + \nabla\cdot((g^2 s - f) q) = \tfrac12 g^2\Delta q$ from the prior with
    Scharfetter--Gummel fluxes and Strang-split implicit steps, of second order in cells and in time. The
    grid moves and widens with the process, so that it always contains the prior.

    The function can be traced: `jax.jit`, `jax.vmap` and `jax.grad` apply to it with respect to the
    arrays of the model, in the default precision and without checks of values.

    **Arguments:**

    - `model`: has `score(t, x)`; if it also has `potential(t, x)`, the potential is used instead.
    - `process`: gives $f$, $g$ and the prior.
    - `window`: the cells of the result, `Window()` by default.
    - `eta`: positive; values other than one select other members of the family of `sample_sde`, whose
      equation has the velocity $\tfrac12(1 + \eta^2) g^2 s - f$ and the diffusion $\tfrac12\eta^2 g^2$.
    - `refine`: each cell is divided into `refine` x `refine` cells for the computation, at least 2.
    - `num_steps`: number of time steps, cubically graded towards $t_0$.
    - `margin`: the width of the region computed beyond the window on each side at $t_0$, in units of
      $x$. Mass that leaves through its outer edge does not return and counts as `outside`.

    **Returns:** a `GridDensity`: Richardson's extrapolation of this computation and one with half the
    refinement and half the steps. Its `error` comes from their difference.

    **Raises:** `ValueError` for invalid arguments, or if the window holds no mass; `FloatingPointError`
    if the score is not finite somewhere on the grid.

    **Example:**

    ```python
    p_sde = fpflow.grid_density_sde(model, process, fpflow.Window(nodes=16))
    ```

    ??? cite "Reference"
        Scharfetter and Gummel, IEEE Trans. Electron Devices 16 (1969) 64; Chang and Cooper,
        J. Comput. Phys. 6 (1970) 1.
    """
    window = Window() if window is None else window
    check_grid(model, process, window, refine=refine, num_steps=num_steps)
    check_eta(eta)
    if eta == 0:
        raise ValueError("`eta` = 0 is the probability-flow ODE: use `grid_density_ode`.")
    if not margin >= 0:
        raise ValueError(f"`margin` must not be negative, got {margin}.")

    def masses(refine, num_steps):
        return sde_cell_masses(model, process, eta, window, refine, num_steps, margin)

    traced = is_traced(model, process, window.dim)
    return in_two_resolutions(masses, refine, num_steps, window, traced)
