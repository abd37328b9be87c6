r"""The density of the reverse SDE at points: a mean over forward noising paths."""

import warnings

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float

from .._devices import check_mesh, over_devices
from .._model import check_counts
from .._process import AbstractProcess
from .._types import ArrayLike, PRNGKey, ScoreModel
from .paths import CHUNK, LANES, noising_grid, path_exponents
from .points import checked_points, in_blocks, is_traced

# Below this share of effective paths the spread of the weights is itself badly known.
_RELIABLE_SHARE = 0.1
_RELIABLE_PATHS = 16


class LogProbSDE(eqx.Module):
    r"""$\log p_\text{SDE}$ at points, in nats.

    **Attributes:**

    - `value`: corrected for the bias of the logarithm of a mean, shape `(n,)`.
    - `standard_error`: of the paths, shape `(n,)`.
    - `step_error`: how far the extrapolation to infinitely many times moves `value`, shape `(n,)`: an
      upper estimate of the error of the time grid.
    - `effective_sample_size`: $(\sum w)^2 / \sum w^2$ of the path weights, at most `num_paths`,
      shape `(n,)`.
    - `reliable`: where the weights are even enough for `standard_error` to be believed: a tenth of the
      paths are effective, and sixteen of them (half of them, where there are fewer), shape `(n,)`.
    """

    value: Float[Array, "*n"]
    standard_error: Float[Array, "*n"]
    step_error: Float[Array, "*n"]
    effective_sample_size: Float[Array, "*n"]
    reliable: Bool[Array, "*n"]


class _Sums(eqx.Module):
    """Running sums of the weights $e^{A - m}$, $m$ their largest exponent so far."""

    largest: Array
    weight: Array
    plain: Array
    square: Array
    pair_square: Array

    def add(self, exponents: Array) -> "_Sums":
        """With pairs of paths more, `exponents` of shape `(pairs, signs, 2)`."""
        largest = jnp.maximum(self.largest, exponents.max())
        old = jnp.exp(self.largest - largest)
        weight, plain = jnp.moveaxis(jnp.exp(exponents - largest), -1, 0)
        return _Sums(
            largest,
            self.weight * old + weight.sum(),
            self.plain * old + plain.sum(),
            self.square * old**2 + jnp.sum(weight**2),
            self.pair_square * old**2 + jnp.sum(weight.mean(1) ** 2),
        )


@eqx.filter_jit
def _log_prob_block(model, process, grid, num_chunks, chunk, mesh, key, index, x):
    pairs = chunk // 2

    def one_point(index, x):
        point_key = jr.fold_in(key, index)

        def more(number, sums):
            keys = jax.vmap(lambda i: jr.fold_in(point_key, i))(number * pairs + jnp.arange(pairs))
            exponents = jax.vmap(
                lambda key: path_exponents(model, process, grid, x, key, antithetic=True)
            )(keys)
            return sums.add(exponents)

        zero = jnp.zeros((), x.dtype)
        start = _Sums(jnp.full_like(zero, -jnp.inf), zero, zero, zero, zero)
        sums = jax.lax.fori_loop(0, num_chunks, more, start)
        num_paths, num_pairs = num_chunks * chunk, num_chunks * pairs
        mean = sums.weight / num_paths
        variance = jnp.maximum(sums.pair_square / num_pairs - mean**2, 0) / (num_pairs - 1)
        relative = variance / mean**2
        error = jnp.sqrt(jax.lax.stop_gradient(relative))
        effective = sums.weight**2 / sums.square
        return LogProbSDE(
            sums.largest + jnp.log(mean) + relative / 2,
            error,
            jnp.abs(jnp.log(sums.plain / sums.weight)),
            effective,
            effective
            >= jnp.maximum(
                _RELIABLE_SHARE * num_paths, jnp.minimum(_RELIABLE_PATHS, num_paths / 2)
            ),
        )

    return over_devices(jax.vmap(one_point), mesh)(index, x)


def log_prob_sde(
    model: ScoreModel,
    process: AbstractProcess,
    x: ArrayLike,
    *,
    num_paths: int = 128,
    num_steps: int = 200,
    target_error: float | None = None,
    mesh: Mesh | None = None,
    progress: bool | None = None,
    key: PRNGKey,
) -> LogProbSDE:
    r"""The log density at $t_0$ of what the exact reverse SDE makes of the prior, in any dimension.

    $$p_\text{SDE}(x) = E\,e^{A}, \qquad
    A = u(t_0, x) + \int_{t_0}^T r(t, Y_t)\,dt + \log\pi(Y_T) - u(T, Y_T),$$

    over noising paths $dY = f\,dt + g\,dW$ from $Y_{t_0} = x$, with the log-Fokker--Planck residual $r$
    of the potential $u$; for a score without a potential, over the same paths,
    $A = \log\pi(Y_T) + \int (\nabla\cdot v + s\cdot f - \tfrac12 g^2\|s\|^2)\,dt - \int s\circ dY$
    with $v = f - \tfrac12 g^2 s$. For an exact score all paths weigh the same. Paths are drawn by the
    process's exact transitions, in antithetic pairs.

    **Arguments:**

    - `model`: has `score(t, x)` for one point; where it has `potential(t, x)` too, that is used.
    - `process`: gives $f$, $g$, the transition and the prior.
    - `x`: points of shape `(n, dim)`.
    - `num_paths`: paths from each point; rounded up to an even number, and beyond 64 to a multiple
      of 64. The standard error falls with its root.
    - `num_steps`: times of a path, cubically graded towards $t_0$.
    - `target_error`: where given, points whose standard error is larger are computed again with as
      many paths as that takes, at least 1024 and at most 77 times `num_paths`.
    - `mesh`: a `jax.sharding.Mesh` of devices that share the points.
    - `progress`: a progress bar; by default only on a terminal.
    - `key`: a `jax.random.key`.

    **Returns:** a `LogProbSDE` in the precision of the model.

    **Raises:** `ValueError` for bad arguments; `FloatingPointError` where the score is not finite. Warns
    where the weights are too uneven for the standard error to be believed.

    **Example:**

    ```python
    found = fpflow.log_prob_sde(model, process, jnp.zeros((3, 2)), key=jax.random.key(0))
    found.value, found.standard_error, found.reliable
    ```
    """
    check_counts(num_paths=num_paths, num_steps=num_steps)
    check_mesh(mesh)
    if num_paths < 4:
        raise ValueError(f"`num_paths` must be at least 4, two antithetic pairs, got {num_paths}.")
    if target_error is not None and not target_error > 0:
        raise ValueError(f"`target_error` must be positive, got {target_error}.")
    points = checked_points(model, process, x)
    num_points = len(points)
    grid = noising_grid(process, num_steps, points.dtype)

    def with_paths(count: int, chunk: int, points: Array, key: PRNGKey) -> LogProbSDE:
        # The number of chunks is an array, so that more paths compile nothing new; a loop that is
        # differentiated needs to know it.
        chunks = -(-count // chunk)
        if not is_traced((model, points)):
            chunks = jnp.asarray(chunks)

        def block(index, x):
            return _log_prob_block(model, process, grid, chunks, chunk, mesh, key, index, x)

        width = max(LANES // chunk, 1)
        return in_blocks(block, points, min(width, num_points), "log p_SDE", progress, mesh)

    result = with_paths(num_paths, min(num_paths + num_paths % 2, CHUNK), points, key)
    if target_error is not None and not is_traced(result):
        error = np.asarray(result.standard_error)
        need = 1.2 * num_paths * np.minimum(error / target_error, 8) ** 2
        short = np.flatnonzero(error > target_error)
        # Points of like need together, a few at a time with many paths each.
        chunk = 16 * CHUNK
        width = LANES // chunk
        short = short[np.argsort(need[short])]
        for number, first in enumerate(range(0, len(short), width)):
            group = short[first : first + width]
            another = jr.fold_in(key, 2**31 + number)
            again = with_paths(int(need[group].max()), chunk, points[group], another)
            result = jax.tree.map(lambda old, new, g=group: old.at[g].set(new), result, again)
    if is_traced(result):
        return result
    if not bool(jnp.isfinite(result.value).all()):
        raise FloatingPointError(
            f"log p_SDE is not finite at {int((~jnp.isfinite(result.value)).sum())} of {len(points)} "
            "points: the score is not finite along the noising paths."
        )
    if target_error is not None and bool((result.standard_error > 2 * target_error).any()):
        warnings.warn(
            f"the standard error stays above `target_error` = {target_error} at "
            f"{int((result.standard_error > target_error).sum())} of {len(points)} points; raise "
            "`num_paths`.",
            stacklevel=2,
        )
    if not bool(result.reliable.all()):
        bad = int((~result.reliable).sum())
        warnings.warn(
            f"log p_SDE is unreliable at {bad} of {len(points)} points: too few of the paths are "
            "effective; raise `num_paths`, or distrust the score there. See `.reliable` and "
            "`.effective_sample_size`.",
            stacklevel=2,
        )
    return result
