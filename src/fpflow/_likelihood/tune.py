"""The variance of a chain's kernels, chosen by the weights that it makes."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array

from .._process import AbstractProcess, at_time
from .._sample import GaussianChain
from .._types import ArrayLike, PotentialModel, PRNGKey, ScoreModel
from .filter import NoisingSteps, log_normal, noising_steps
from .points import checked_points

# Candidates, in units of the variance of the points; neighbours lie a factor 1.5 apart.
_CANDIDATES = np.geomspace(1e-5, 1e3, 49)
_PATHS = 16


def tuned_chain(
    chain: GaussianChain,
    model: ScoreModel,
    process: AbstractProcess,
    x: ArrayLike,
    *,
    diagonal: bool = False,
    key: PRNGKey,
) -> GaussianChain:
    r"""The chain with the variance $c$ that makes its weights most even.

    Along noising paths from the points, it takes the $c$ that minimises the variance of $\sum_k \log
    q(x_{k-1} \mid x_k) - \log F(x_k \mid x_{k-1})$. The scores along the paths are reused for all
    candidates.

    **Arguments:**

    - `chain`: the chain that gives the steps.
    - `model`: has `score(t, x)` for one point.
    - `process`: gives the noising kernels $F$.
    - `x`: a few hundred points of the data or samples, shape `(n, dim)`.
    - `diagonal`: whether each coordinate has its own $c$.
    - `key`: a `jax.random.key`.

    **Returns:** a `GaussianChain`.

    **Raises:** `ValueError` for invalid arguments.

    **Example:**

    ```python
    points = jax.random.normal(jax.random.key(0), (200, 2))
    chain = fpflow.tuned_chain(fpflow.GaussianChain(), model, process, points, key=key)
    ```

    ??? cite "Reference"
        The variance of log weights as a criterion: Richter and Berner, ICLR 2024, arXiv 2307.01198.
    """
    points = checked_points(model, process, x)
    # A single point, or equal ones, say nothing of a width; the process does.
    unit = jnp.maximum(jnp.var(points), 0.01 * at_time(process.sigma, process.t1) ** 2)
    candidates = unit * jnp.asarray(_CANDIDATES, points.dtype)
    steps = jax.vmap(
        lambda c: noising_steps(dataclasses.replace(chain, variance=c), process, points.dtype)
    )(candidates)
    scatter = _scatter(model, steps, points, diagonal, key)
    return dataclasses.replace(chain, variance=candidates[jnp.argmin(scatter, 0)])


def even_steps(
    chain: GaussianChain,
    model: PotentialModel,
    process: AbstractProcess,
    points: Array,
    key: PRNGKey,
) -> GaussianChain:
    r"""The chain with as many steps, so placed that each adds about the same variance to the weights.

    A step of size $h$ adds a variance $a h^2$, so that the sum over a given number of steps is least
    where the steps are as dense as $\sqrt a$. Long steps add a higher power of $h$, for which the root
    goes too far, and further with each call; the cube root settles in two. A tenth of the steps stay
    where they were.
    """
    rows = noising_steps(chain, process, points.dtype)
    root = np.cbrt(np.asarray(added(model, rows, points, key), float))
    density = np.cumsum(0.9 * root / max(root.sum(), 1e-300) + 0.1 / len(root))
    count = np.linspace(0, 1, len(root) + 1)
    index = np.interp(count, np.concatenate([[0], density / density[-1]]), count)
    times = np.concatenate([np.asarray(rows.below, float)[:1], np.asarray(rows.above, float)])
    grid = np.interp(index, count, times)
    grid[0], grid[-1] = process.t0, process.t1
    return dataclasses.replace(chain, num_steps=None, step_grid=tuple(grid[::-1].tolist()))


@eqx.filter_jit
def added(model, steps: NoisingSteps, points, key):
    """The variance over paths that each step adds to the log weight twisted by the model, shape
    `(n,)`."""

    def path(x, key):
        def step(carry, row):
            y, u = carry
            number, row = row
            noise = jr.normal(jr.fold_in(key, number), y.shape, y.dtype)
            new = row.scale * y + row.spread * noise
            mean = row.ratio * new + row.pull * model.score(row.above, new)
            u_new = model.potential(row.above, new)
            gain = log_normal(y, mean, row.noise) - log_normal(new, row.scale * y, row.spread)
            return (new, u_new), gain + u_new - u

        start = (x, jnp.asarray(model.potential(steps.below[0], x), x.dtype))
        return jax.lax.scan(step, start, (jnp.arange(len(steps.scale)), steps))[1]

    keys = jr.split(key, (len(points), _PATHS))
    found = jax.vmap(lambda x, keys: jax.vmap(lambda key: path(x, key))(keys))(points, keys)
    return found.var(1).mean(0)


@eqx.filter_jit
def _scatter(model, steps: NoisingSteps, points, diagonal, key):
    """The variance over paths of the log weights, for each candidate, and each coordinate if these have
    their own."""
    base: NoisingSteps = jax.tree.map(lambda v: v[0], steps)
    noise = jnp.moveaxis(steps.noise, 0, 1)

    def log_weight(x, key):
        def step(carry, row):
            y, log_w = carry
            number, row, noise = row
            z = jr.normal(jr.fold_in(key, number), y.shape, y.dtype)
            new = row.scale * y + row.spread * z
            miss = y - row.ratio * new - row.pull * model.score(row.above, new)
            gain = -((miss / noise[:, None]) ** 2) / 2 - jnp.log(noise[:, None]) + z**2 / 2
            gain = gain + jnp.log(row.spread)
            return (new, log_w + (gain if diagonal else gain.sum(1))), None

        shape = (len(_CANDIDATES), x.size) if diagonal else (len(_CANDIDATES),)
        rows = (jnp.arange(len(noise)), base, noise)
        (_, log_w), _ = jax.lax.scan(step, (x, jnp.zeros(shape, x.dtype)), rows)
        return log_w

    keys = jr.split(key, (len(points), _PATHS))
    found = jax.vmap(lambda x, keys: jax.vmap(lambda key: log_weight(x, key))(keys))(points, keys)
    return found.var(1).mean(0)
