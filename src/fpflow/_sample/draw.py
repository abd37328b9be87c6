"""Samples of both laws: the reverse SDE and the probability-flow ODE, from noise to data.

Everything is integrated forward in $\\tau = -t$. Unlike $T - t$ this keeps the digits of small
times, where the steps are smallest and the score is largest.
"""

from typing import Literal

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import lineax as lx
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float
from tqdm import tqdm

from .._blocks import in_cache
from .._devices import check_mesh, num_devices, over_devices
from .._dynamics import check_eta, family_drift, flow_velocity
from .._model import check_counts, check_key, check_score, model_dim, model_dtype
from .._process import AbstractProcess, graded_times
from .._types import ArrayLike, PRNGKey, ScoreModel
from .._window import GridDensity, Window
from ..datasets import count_in_cells, histogram_density

# Samples that share one state, one key and, under an adaptive solver, one step size. Fixed, so
# that results do not depend on `batch_size`.
_BLOCK = 4096

_LEVY_AREAS = (
    diffrax.BrownianIncrement,
    diffrax.SpaceTimeLevyArea,
    diffrax.SpaceTimeTimeLevyArea,
)

Law = Literal["ode", "sde"]

# Heun and ShARK: two evaluations a step. On the mixture half of these steps already stay within the
# sampling noise of 200,000 points; Euler's methods need 400 steps (SDE) and more (ODE) for that.
_DEFAULT_STEPS = {"ode": 100, "sde": 200}
_DEFAULT_SOLVERS = {"ode": diffrax.Heun(), "sde": diffrax.ShARK()}


@eqx.filter_jit
def _solve_blocks(
    model, process, law, eta, solver, controller, times, quiet_from, shape, mesh, keys
):  # fmt: skip
    """One block of samples a key, shape `(len(keys) * n, dim)`, and whether all went well."""
    dtype = times.dtype
    start, end = -times[0], -times[-1]
    adaptive = not isinstance(controller, diffrax.StepTo)

    def dynamics(t, x):
        if law == "ode":
            return flow_velocity(model, process, t, x)
        return family_drift(model, process, eta, t, x)

    def terms(key):
        def drift(tau, x, _):
            return -jax.vmap(lambda x: dynamics(-tau, x))(x)

        if law == "ode":
            return diffrax.ODETerm(drift)

        def diffusion(tau, x, _):
            g = eta * process.diffusion(-tau).astype(dtype)
            if quiet_from is not None:
                g = jnp.where(tau < quiet_from, g, 0)
            return lx.DiagonalLinearOperator(jnp.broadcast_to(g, x.shape))

        needed = getattr(solver, "minimal_levy_area", diffrax.BrownianIncrement)
        area = next(area for area in _LEVY_AREAS if issubclass(area, needed))
        struct = jax.ShapeDtypeStruct(shape, dtype)
        if adaptive:
            # Rejected steps need a path that can be asked again between its points.
            tolerance = float(process.t1 - process.t0) * 1e-5
            path = diffrax.VirtualBrownianTree(start, end, tolerance, struct, key, levy_area=area)
        else:
            path = diffrax.UnsafeBrownianPath(struct, key, levy_area=area)
        return diffrax.MultiTerm(diffrax.ODETerm(drift), diffrax.ControlTerm(diffusion, path))

    def one_block(key):
        key_prior, key_path = jr.split(key)
        x = process.prior.sample(key_prior, shape).astype(dtype)
        solution = diffrax.diffeqsolve(
            terms(key_path), solver, start, end, None if not adaptive else (end - start) * 1e-4, x,
            stepsize_controller=controller, max_steps=65536 if adaptive else len(times),
            throw=False, adjoint=diffrax.ForwardMode(),
        )  # fmt: skip
        return solution.ys[-1], solution.result == diffrax.RESULTS.successful  # pyright: ignore

    x, fine = over_devices(jax.vmap(one_block), mesh)(keys)
    return x.reshape(-1, shape[1]), jnp.all(fine) & jnp.isfinite(x).all()


def _times(process, num_steps, step_grid, dtype) -> np.ndarray:
    """The step grid, decreasing from `t1`, checked."""
    if step_grid is None:
        (num_steps,) = check_counts(num_steps=num_steps)
        grid = graded_times(process, num_steps)
    elif num_steps is not None:
        raise ValueError("give either `num_steps` or `step_grid`, not both.")
    else:
        grid = np.asarray(step_grid, float)
        if grid.ndim != 1 or len(grid) < 2 or not np.isfinite(grid).all():
            raise ValueError(f"`step_grid` must be finite times, shape (n + 1,), got {grid.shape}.")
    rounded = grid.astype(dtype)
    if not (rounded[1:] < rounded[:-1]).all():
        raise ValueError(
            f"`step_grid` must fall strictly from `t1` to `t0`, got {grid[:2]} ... {grid[-2:]}, "
            f"which does not in {np.dtype(dtype).name}."
        )
    if abs(grid[0] - process.t1) > 1e-6 * process.t1 or grid[-1] < process.t0:
        raise ValueError(
            f"`step_grid` must start at `t1` = {process.t1} and end no lower than `t0` = "
            f"{process.t0}, got {grid[0]} and {grid[-1]}."
        )
    return grid


def _batches(
    model, process, num_samples, law, *, eta=1.0, num_steps, step_grid, solver,
    stepsize_controller, last_step_noise, dim, batch_size, mesh, progress, key,
):  # fmt: skip
    """Yields the samples in batches, after checking every argument."""
    if batch_size is None:
        batch_size = _BLOCK if in_cache() else 64 * _BLOCK
    num_samples, batch_size = check_counts(num_samples=num_samples, batch_size=batch_size)
    check_key(key)
    check_mesh(mesh)
    check_eta(eta)
    dim = model_dim(model, dim)
    check_score(model, process, dim)
    dtype = model_dtype(model)
    solver = solver or _DEFAULT_SOLVERS[law]
    if stepsize_controller is None and step_grid is None and num_steps is None:
        num_steps = _DEFAULT_STEPS[law]
    if stepsize_controller is not None and not (num_steps is None and step_grid is None):
        raise ValueError(
            "give either `stepsize_controller`, which chooses its own steps, or `num_steps` or "
            "`step_grid`, not both."
        )
    grid = _times(process, 1 if stepsize_controller is not None else num_steps, step_grid, dtype)
    times = jnp.asarray(grid, dtype)
    quiet_from = None
    if not last_step_noise:
        if type(solver) is not diffrax.Euler:
            raise ValueError(
                "`last_step_noise=False` is defined for `solver=diffrax.Euler()` only."
            )
        # Just before the last step begins, so that round-off cannot move it.
        quiet_from = -(grid[-2] + 1e-3 * (grid[-3] - grid[-2])) if len(grid) > 2 else -jnp.inf
        quiet_from = jnp.asarray(quiet_from, dtype)
    controller = stepsize_controller or diffrax.StepTo(-times)

    shape = (min(num_samples, _BLOCK), dim)
    num_blocks = -(-num_samples // shape[0])
    devices = num_devices(mesh)
    num_batches = -(-num_blocks // (max(batch_size // shape[0], 1) * devices))
    per_batch = -(-num_blocks // (num_batches * devices)) * devices
    disable = None if progress is None else not progress
    with tqdm(total=num_samples, unit="sample", desc=f"sample {law}", disable=disable) as bar:
        for first in range(0, num_blocks, per_batch):
            # The last batch is as wide as the others, so that nothing compiles twice.
            keys = jax.vmap(lambda i: jr.fold_in(key, i))(first + jnp.arange(per_batch))
            x, fine = _solve_blocks(
                model, process, law, jnp.asarray(eta, dtype), solver, controller, times, quiet_from,
                shape, mesh, keys,
            )  # fmt: skip
            if not fine:
                raise FloatingPointError(
                    f"an {law.upper()} sample is not finite or the solver gave up: the score may be "
                    "too stiff for the steps; raise `num_steps`, or pass a `stepsize_controller`."
                )
            x = x[: num_samples - first * shape[0]]
            bar.update(len(x))
            yield np.asarray(x)


def sample_ode(
    model: ScoreModel,
    process: AbstractProcess,
    num_samples: int,
    *,
    num_steps: int | None = None,
    step_grid: ArrayLike | None = None,
    solver: diffrax.AbstractSolver | None = None,
    stepsize_controller: diffrax.AbstractStepSizeController | None = None,
    dim: int | None = None,
    batch_size: int | None = None,
    mesh: Mesh | None = None,
    progress: bool | None = None,
    key: PRNGKey,
) -> Float[Array, "num_samples dim"]:
    r"""Samples by the probability-flow ODE, from the prior at $t_1$ to data at $t_0$.

    $$dx = \bigl(f - \tfrac12 g^2 s\bigr)\,dt, \qquad x_{t_1} \sim \pi.$$

    **Arguments:**

    - `model`: has `score(t, x)` for one point.
    - `process`: gives $f$, $g$ and the prior.
    - `num_samples`: how many points.
    - `num_steps`: steps of the default grid $t_0 + (t_1 - t_0)(1 - i/n)^3$; 100 by default.
    - `step_grid`: times of one's own, falling from `t1` to `t0`, shape `(n + 1,)`.
    - `solver`: a diffrax solver; `diffrax.Heun()` by default.
    - `stepsize_controller`: a diffrax controller such as
      `diffrax.PIDController(rtol=1e-5, atol=1e-5)` for adaptive steps, instead of a grid.
    - `dim`: the dimension, where neither `model.dim` nor the score tells it.
    - `batch_size`: points in memory of a device at once, in whole blocks of 4096; by default one
      block on a processor, whose cache holds no more, and 64 on other devices. It changes no result.
    - `mesh`: a `jax.sharding.Mesh` of devices that share the blocks; it changes no result.
    - `progress`: a progress bar; by default only on a terminal.
    - `key`: a `jax.random.key`.

    **Returns:** points of shape `(num_samples, dim)` in the precision of the model.

    **Raises:** `ValueError` for bad arguments, `FloatingPointError` if a sample is not finite.

    **Example:**

    ```python
    x = fpflow.sample_ode(model, process, 1000, key=jax.random.key(0))
    ```

    ??? cite "Reference"
        Song et al., *Score-based generative modeling through stochastic differential equations*,
        ICLR 2021, arXiv 2011.13456.
    """
    return jnp.concatenate(list(_batches(
        model, process, num_samples, "ode", num_steps=num_steps, step_grid=step_grid,
        solver=solver, stepsize_controller=stepsize_controller,
        last_step_noise=True, dim=dim, batch_size=batch_size, mesh=mesh, progress=progress, key=key,
    )))  # fmt: skip


def sample_sde(
    model: ScoreModel,
    process: AbstractProcess,
    num_samples: int,
    *,
    eta: float = 1.0,
    num_steps: int | None = None,
    step_grid: ArrayLike | None = None,
    solver: diffrax.AbstractSolver | None = None,
    stepsize_controller: diffrax.AbstractStepSizeController | None = None,
    last_step_noise: bool = True,
    dim: int | None = None,
    batch_size: int | None = None,
    mesh: Mesh | None = None,
    progress: bool | None = None,
    key: PRNGKey,
) -> Float[Array, "num_samples dim"]:
    r"""Samples by the reverse SDE, from the prior at $t_1$ to data at $t_0$.

    $$dx = (f - g^2 s)\,dt + g\,d\bar W, \qquad x_{t_1} \sim \pi,$$

    or by another member of the family that has the same marginals for the exact score,
    $dx = \bigl[f - \tfrac12(1 + \eta^2) g^2 s\bigr]dt + \eta\,g\,d\bar W$.

    **Arguments:** as for `sample_ode`, except

    - `eta`: $\eta \ge 0$: one is the reverse SDE, zero the probability-flow ODE.
    - `num_steps`: 200 by default.
    - `solver`: a diffrax solver for additive noise, `diffrax.ShARK()` by default; also
      `diffrax.SRA1()`, `diffrax.SEA()`, and `diffrax.Euler()`, which is Euler--Maruyama here.
    - `stepsize_controller`: needs a solver with an error estimate, such as `diffrax.ShARK()`; the
      noise then comes from a `diffrax.VirtualBrownianTree`, which is several times slower.
    - `last_step_noise`: whether the last step adds noise; leaving it out needs Euler--Maruyama.

    **Returns:** points of shape `(num_samples, dim)` in the precision of the model.

    **Raises:** `ValueError` for bad arguments, `FloatingPointError` if a sample is not finite.

    **Example:**

    ```python
    x = fpflow.sample_sde(model, process, 1000, eta=1.0, key=jax.random.key(0))
    ```

    ??? cite "Reference"
        Anderson, *Reverse-time diffusion equation models*, Stoch. Proc. Appl. 12 (1982) 313.
    """
    return jnp.concatenate(list(_batches(
        model, process, num_samples, "sde", eta=eta, num_steps=num_steps, step_grid=step_grid,
        solver=solver, stepsize_controller=stepsize_controller,
        last_step_noise=last_step_noise, dim=dim, batch_size=batch_size, mesh=mesh,
        progress=progress, key=key,
    )))  # fmt: skip


def sample_histogram(
    model: ScoreModel,
    process: AbstractProcess,
    num_samples: int,
    window: Window | None = None,
    *,
    law: Law,
    eta: float = 1.0,
    num_steps: int | None = None,
    step_grid: ArrayLike | None = None,
    solver: diffrax.AbstractSolver | None = None,
    stepsize_controller: diffrax.AbstractStepSizeController | None = None,
    last_step_noise: bool = True,
    batch_size: int | None = None,
    mesh: Mesh | None = None,
    progress: bool | None = None,
    key: PRNGKey,
) -> GridDensity:
    """Counts samples into the cells of a window without keeping them.

    **Arguments:** as for `sample_ode` and `sample_sde`, and

    - `window`: the cells, `Window()` by default.
    - `law`: `"ode"` or `"sde"`.

    **Returns:** a `GridDensity` whose `error` is the expected total variation of counting; the
    samples are those that `sample_ode` or `sample_sde` would return.

    **Raises:** as they do, and `ValueError` for another law or when no sample is in the window.
    """
    if law not in ("ode", "sde"):
        raise ValueError(f'`law` must be "ode" or "sde", got {law!r}.')
    window = Window() if window is None else window
    counts = np.zeros(window.shape)
    for x in _batches(
        model, process, num_samples, law, eta=eta, num_steps=num_steps, step_grid=step_grid,
        solver=solver, stepsize_controller=stepsize_controller,
        last_step_noise=last_step_noise, dim=window.dim, batch_size=batch_size, mesh=mesh,
        progress=progress, key=key,
    ):  # fmt: skip
        counts += count_in_cells(x, window)
    return histogram_density(counts, num_samples, window)
