r"""The law of the reverse SDE on a grid: its Fokker--Planck equation by finite volumes.

In reverse time the density $q$ obeys $\partial_\tau q = -\nabla\cdot(v q) + D\Delta q$ with
$v = g^2 s - f$ and $D = g^2/2$. Between neighbouring centres at distance $d$ the flux is that of
Scharfetter and Gummel,

$$J = \frac Dd\,\bigl(B(-w)\,q_i - B(w)\,q_{i+1}\bigr), \qquad w = \frac1D\int v\cdot dl, \qquad
B(w) = \frac{w}{e^w - 1},$$

which keeps mass exactly and the stationary law exactly. For a potential the integral of $s$ is a
difference of values; for a bare score it is taken by a two-point Gauss rule.
"""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._dynamics import check_eta
from .._model import model_dtype
from .._process import AbstractProcess, graded_times
from .._types import PotentialModel, ScoreModel
from .._window import GridDensity, Window
from .evaluate import check_grid, coarser, extrapolated, on_points

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


def _edges_of(model, process, eta, dtype, t, centres, points, dim):
    """The integrals of $v$ between neighbouring centres along each axis; that axis comes first."""
    n, width = len(centres), centres[1] - centres[0]
    shape = (n,) * dim
    pull = (1 + eta**2) / 2 * process.diffusion(t) ** 2
    t_model = t.astype(dtype)

    def along(axis: int) -> Float[Array, "..."]:
        shift = jnp.zeros(dim, centres.dtype).at[axis].set(width)

        def drift(fraction):
            move = points + fraction * shift
            f = jax.vmap(process.drift, (None, 0))(t, move)[..., axis].reshape(shape)
            return jnp.moveaxis(f, axis, 0)[:-1]

        def score(fraction):
            s = on_points(lambda x: model.score(t_model, x)[axis], points + fraction * shift, dtype)
            return jnp.moveaxis(s.reshape(shape), axis, 0)[:-1]

        if isinstance(model, PotentialModel):
            u = jnp.moveaxis(potential, axis, 0)
            rise = u[1:] - u[:-1]
        else:
            gauss = (0.5 - 0.5 / 3**0.5, 0.5 + 0.5 / 3**0.5)
            rise = width / 2 * sum(score(fraction) for fraction in gauss)
        return pull * rise - width * drift(0.5)

    if isinstance(model, PotentialModel):
        potential = on_points(lambda x: model.potential(t_model, x), points, dtype).reshape(shape)
    return [along(axis) for axis in range(dim)]


@eqx.filter_jit
def _solve(model, process, eta, dtype, centres, times, dim, keep):
    """The masses at the last time, or with `keep` at all of them."""
    width = centres[1] - centres[0]
    points = jnp.stack(jnp.meshgrid(*[centres] * dim, indexing="ij"), -1).reshape(-1, dim)
    q = jnp.exp(jax.vmap(process.prior.log_prob)(points)).reshape((len(centres),) * dim)

    def step(q, pair):
        t, dt = pair.mean(), pair[0] - pair[1]
        first, *second = _edges_of(model, process, eta, dtype, t, centres, points, dim)
        diffusivity = (eta * process.diffusion(t)) ** 2 / 2
        if dim == 1:
            q = _sweep(q, first, diffusivity, width, dt)
        else:
            q = _sweep(q, first, diffusivity, width, dt / 2)
            q = _sweep(q.T, second[0], diffusivity, width, dt).T
            q = _sweep(q, first, diffusivity, width, dt / 2)
        return q, q if keep else None

    pairs = jnp.stack([times[:-1], times[1:]], axis=1)
    q = q / q.sum()
    last, along = jax.lax.scan(step, q, pairs)
    return last if along is None else jnp.concatenate([q[None], along])


def _padded(model, process, eta, window, refine, num_steps, margin, keep):
    """Times, masses on the window with its margin, the centres there, and cells of the margin."""
    pad = int(np.ceil(margin / window.cell_width))
    nodes = window.nodes + 2 * pad
    half = window.cell_width / (2 * refine)
    reach = (pad + 0.5) * window.cell_width
    centres = np.linspace(window.low - reach + half, window.high + reach - half, nodes * refine)
    times = graded_times(process, num_steps)
    # Float64 within this block only: small steps would drown in the round-off of float32.
    with jax.enable_x64(True):
        q = _solve(
            model, process, jnp.asarray(eta, float), model_dtype(model), jnp.asarray(centres),
            jnp.asarray(times), window.dim, keep,
        )  # fmt: skip
    return times, np.asarray(q), centres, pad * refine


def _mass_in_window(model, process, eta, window, refine, num_steps, margin):
    _, q, _, pad = _padded(model, process, eta, window, refine, num_steps, margin, keep=False)
    inner = slice(pad, pad + window.nodes * refine)
    return window.merge(q[(inner,) * window.dim], refine)


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
    `(n + 1, cells, ...)` on the refined window with its margin, and the centres along an axis."""
    check_grid(model, process, window, refine=refine + 1, num_steps=num_steps)
    times, q, centres, _ = _padded(
        model, process, 1.0, window, refine, num_steps, margin, keep=True
    )
    return times[::-1], q[::-1], centres


def grid_density_sde(
    model: ScoreModel,
    process: AbstractProcess,
    window: Window | None = None,
    *,
    eta: float = 1.0,
    refine: int = 2,
    num_steps: int = 120,
    margin: float = 1.5,
) -> GridDensity:
    r"""The law of the exact reverse SDE at $t_0$ as probabilities of cells, free of sampling noise.

    Solves $\partial_\tau q + \nabla\cdot((g^2 s - f) q) = \tfrac12 g^2\Delta q$ from the prior by
    Scharfetter--Gummel fluxes and Strang-split implicit steps, second order in cells and in time.

    **Arguments:**

    - `model`: has `score(t, x)`; where it has `potential(t, x)` too, that is used instead.
    - `process`: gives $f$, $g$ and the prior.
    - `window`: the cells of the result, `Window()` by default.
    - `eta`: positive; other members of the family of `sample_sde`, whose equation has the velocity
      $\tfrac12(1 + \eta^2) g^2 s - f$ and the diffusion $\tfrac12\eta^2 g^2$.
    - `refine`: each cell is cut into `refine` x `refine` for the computation, at least 2.
    - `num_steps`: time steps, cubically graded towards $t_0$.
    - `margin`: width computed beyond the window on each side, in units of $x$; nothing leaves
      through its far end.

    **Returns:** a `GridDensity`: Richardson's extrapolation of this computation and one with half
    the refinement and half the steps; `error` comes from their difference.

    **Raises:** `ValueError` for bad arguments; `FloatingPointError` if the score is not finite
    somewhere on the grid.

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
    fine = _mass_in_window(model, process, eta, window, refine, num_steps, margin)
    coarse = _mass_in_window(model, process, eta, window, *coarser(refine, num_steps), margin)
    return extrapolated(fine, coarse, refine, window)
