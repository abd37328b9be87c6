r"""The density of the reverse SDE at points: a mean over forward noising paths."""

import warnings

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Bool, Float

from .._calculus import divergence
from .._dynamics import graded_times
from .._model import check_counts
from .._process import mean_scale
from .._residual import log_fp_residual
from .._types import ArrayLike, PotentialModel, PRNGKey, Process, ScoreModel
from .points import checked_points, in_blocks, is_traced

# Evaluations of the model side by side: wide enough for the matrix products.
_LANES = 4096
# Paths of one point that are followed side by side; the others come one such chunk after another.
_CHUNK = 64
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


class EvidenceBound(eqx.Module):
    r"""A lower bound of $\log p_\text{SDE}$ at points, in nats.

    **Attributes:**

    - `value`: $E \log \tfrac1K \sum_k e^{A_k}$, shape `(n,)`.
    - `standard_error`: of `value`, shape `(n,)`.
    """

    value: Float[Array, "*n"]
    standard_error: Float[Array, "*n"]


class _Grid(eqx.Module):
    """Times from $t_0$ to $t_1$ and the exact transition of each step, $y' = a y + b + c z$."""

    times: Array
    scale: Array
    shift: Array
    noise: Array


def _grid(process: Process, num_steps: int, dtype) -> _Grid:
    times = graded_times(process.t0, process.t1, num_steps)[::-1].copy()
    # In double precision: the variance of a short step is a difference of close numbers.
    with jax.enable_x64(True):
        t = jnp.asarray(times)
        a = jax.vmap(lambda t: mean_scale(process, t))(t)
        b, std = jax.vmap(lambda t: process.transition(t, jnp.zeros(1)))(t)
        scale = a[1:] / a[:-1]
        shift = b[1:, 0] - scale * b[:-1, 0]
        noise = jnp.sqrt(jnp.maximum(std[1:] ** 2 - (scale * std[:-1]) ** 2, 0))
        parts = [np.asarray(part) for part in (t, scale, shift, noise)]
    return _Grid(*(jnp.asarray(part, dtype) for part in parts))


def _integrands(model, process, t, y):
    r"""What $A$ integrates at one point: its rate in time; for a bare score also $s$, $\nabla s$ and
    $\partial_t s$."""
    if isinstance(model, PotentialModel):
        return (log_fp_residual(model, process, t, y),)
    score, push = jax.linearize(model.score, t, y)
    basis = jnp.eye(y.size, dtype=y.dtype)
    jacobian = jax.vmap(lambda e: push(jnp.zeros_like(t), e))(basis).T
    motion = push(jnp.ones_like(t), jnp.zeros_like(y))
    drift, half_g2 = process.drift(t, y), process.diffusion(t) ** 2 / 2
    spread_drift = divergence(lambda y: process.drift(t, y), y)
    rate = spread_drift - half_g2 * jnp.trace(jacobian) + drift @ score - half_g2 * score @ score
    return rate, score, jacobian, motion


def _gained(dt, dy, before, now):
    r"""The part of $A$ from one step of one path: the trapezoidal rule in time and, along the chord
    $\Delta$, the rule with end derivatives for the field $s$ at the step's middle time,

    $$\int s \circ dY \approx \tfrac12 (s_0 + s_1)\cdot\Delta
    - \tfrac1{12}\Delta\cdot(J_1 - J_0)\Delta - \tfrac h6 (\dot s_1 - \dot s_0)\cdot\Delta.$$

    What it misses has mean zero to second order in $h$.
    """
    gain = dt / 2 * (before[0] + now[0])
    if len(now) == 1:
        return gain
    ends = (before[1] + now[1]) @ dy / 2
    bend = dy @ (now[2] - before[2]) @ dy / 12 + dt / 6 * (now[3] - before[3]) @ dy
    return gain - ends + bend


def path_exponents(model, process, grid: _Grid, x, key, antithetic: bool):
    r"""$A$ along forward noising paths from `x`, shape `(signs, 2)`: extrapolated from all times and
    every second one, and from all times alone.

    For a potential $A = u(t_0, x) + \int r\,dt + \log\pi(Y_T) - u(T, Y_T)$. For a bare score
    $A = \log\pi(Y_T) + \int (\nabla\cdot v + s\cdot f - \tfrac12 g^2\|s\|^2)\,dt - \int s\circ dY$,
    with $v = f - \tfrac12 g^2 s$: the Stratonovich integral needs no noise of its own, and rules of high
    order take it where Ito's sum would have strong order one half.
    """
    signs = jnp.asarray([1, -1] if antithetic else [1], x.dtype)
    integrands = jax.vmap(lambda t, y: _integrands(model, process, t, y), (None, 0))
    gained = jax.vmap(_gained, (None, 0, 0, 0))
    start = jnp.broadcast_to(x, (len(signs), x.size))
    first = integrands(grid.times[0], start)

    def step(carry, row):
        y, before, anchor, total, halved = carry
        index, t_old, t, scale, shift, noise = row
        z = signs[:, None] * jr.normal(jr.fold_in(key, index), (x.size,), x.dtype)
        new = scale * y + shift + noise * z
        now = integrands(t, new)
        total = total + gained(t - t_old, new - y, before, now)
        t_anchor, y_anchor, at_anchor = anchor
        longer = halved + gained(t - t_anchor, new - y_anchor, at_anchor, now)
        even = (index % 2 == 1) | (index == len(grid.noise) - 1)
        anchor, halved = jax.tree.map(
            lambda a, b: jnp.where(even, a, b), ((t, new, now), longer), (anchor, halved)
        )
        return (new, now, anchor, total, halved), None

    zero = jnp.zeros(len(signs), x.dtype)
    rows = (
        jnp.arange(len(grid.noise)), grid.times[:-1], grid.times[1:], grid.scale, grid.shift,
        grid.noise,
    )  # fmt: skip
    carry = (start, first, (grid.times[0], start, first), zero, zero)
    (end, _, _, total, halved), _ = jax.lax.scan(step, carry, rows)
    edge = jax.vmap(process.prior.log_prob)(end)
    if isinstance(model, PotentialModel):
        t0, t1 = grid.times[0], grid.times[-1]
        edge = edge + model.potential(t0, x) - jax.vmap(lambda y: model.potential(t1, y))(end)
    # Both rules are of second order in mean.
    return edge[:, None] + jnp.stack([total + (total - halved) / 3, total], axis=1)


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
def _log_prob_block(model, process, grid, num_chunks, chunk, key, index, x):
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
        error = jnp.sqrt(variance) / mean
        effective = sums.weight**2 / sums.square
        return LogProbSDE(
            sums.largest + jnp.log(mean) + error**2 / 2,
            error,
            jnp.abs(jnp.log(sums.plain / sums.weight)),
            effective,
            effective
            >= jnp.maximum(
                _RELIABLE_SHARE * num_paths, jnp.minimum(_RELIABLE_PATHS, num_paths / 2)
            ),
        )

    return jax.vmap(one_point)(index, x)


def log_prob_sde(
    model: ScoreModel,
    process: Process,
    x: ArrayLike,
    *,
    num_paths: int = 128,
    num_steps: int = 200,
    target_error: float | None = None,
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
    - `progress`: a progress bar; by default only on a terminal.
    - `key`: a `jax.random.key`.

    **Returns:** a `LogProbSDE` in the precision of the model.

    **Raises:** `ValueError` for bad arguments; `FloatingPointError` where the score is not finite. Warns
    where the weights are too uneven for the standard error to be believed.
    """
    check_counts(num_paths=num_paths, num_steps=num_steps)
    if num_paths < 4:
        raise ValueError(f"`num_paths` must be at least 4, two antithetic pairs, got {num_paths}.")
    if target_error is not None and not target_error > 0:
        raise ValueError(f"`target_error` must be positive, got {target_error}.")
    points = checked_points(model, process, x)
    num_points = len(points)
    grid = _grid(process, num_steps, points.dtype)

    def with_paths(count: int, chunk: int, points: Array, key: PRNGKey) -> LogProbSDE:
        # The number of chunks is an array, so that more paths compile nothing new.
        chunks = jnp.asarray(-(-count // chunk))

        def block(index, x):
            return _log_prob_block(model, process, grid, chunks, chunk, key, index, x)

        width = min(max(_LANES // chunk, 1), num_points)
        return in_blocks(block, points, width, "log p_SDE", progress)

    result = with_paths(num_paths, min(num_paths + num_paths % 2, _CHUNK), points, key)
    if target_error is not None and not is_traced(result):
        error = np.asarray(result.standard_error)
        need = 1.2 * num_paths * np.minimum(error / target_error, 8) ** 2
        short = np.flatnonzero(error > target_error)
        # Points of like need together, a few at a time with many paths each.
        chunk = 16 * _CHUNK
        width = _LANES // chunk
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


@eqx.filter_jit
def _evidence_block(model, process, grid, num_groups, importance, key, index, x):
    def one_point(index, x):
        point_key = jr.fold_in(key, index)

        def group(number):
            keys = jax.vmap(lambda i: jr.fold_in(point_key, i))(
                number * importance + jnp.arange(importance)
            )
            exponents = jax.vmap(
                lambda key: path_exponents(model, process, grid, x, key, antithetic=False)
            )(keys)
            return jax.nn.logsumexp(exponents[:, 0, 0]) - jnp.log(importance)

        bounds = jax.lax.map(
            group, jnp.arange(num_groups), batch_size=max(min(_CHUNK // importance, num_groups), 1)
        )
        return EvidenceBound(bounds.mean(), bounds.std(ddof=1) / num_groups**0.5)

    return jax.vmap(one_point)(index, x)


def evidence_bound(
    model: ScoreModel,
    process: Process,
    x: ArrayLike,
    *,
    num_importance: int = 1,
    num_groups: int = 64,
    num_steps: int = 400,
    progress: bool | None = None,
    key: PRNGKey,
) -> EvidenceBound:
    r"""A lower bound of $\log p_\text{SDE}$, tighter the larger $K$ is.

    $$E\,\log\frac1K\sum_{k=1}^K e^{A_k} \le \log p_\text{SDE}(x),$$

    with the $A$ of `log_prob_sde` along independent paths. $K = 1$ is the bound of Song et al.; it
    grows with $K$ towards $\log p_\text{SDE}$.

    **Arguments:** as for `log_prob_sde`, and

    - `num_importance`: $K$.
    - `num_groups`: how many groups of $K$ paths the expectation is taken over, at least two.

    **Returns:** an `EvidenceBound`.

    **Raises:** `ValueError` for bad arguments.

    ??? cite "Reference"
        Song et al., *Maximum likelihood training of score-based diffusion models*, NeurIPS 2021, arXiv
        2101.09258; Burda et al., *Importance weighted autoencoders*, ICLR 2016, arXiv 1509.00519.
    """
    check_counts(num_importance=num_importance, num_groups=num_groups, num_steps=num_steps)
    if num_groups < 2:
        raise ValueError("`num_groups` must be at least 2, so that their spread gives an error.")
    points = checked_points(model, process, x)
    grid = _grid(process, num_steps, points.dtype)

    def block(index, x):
        return _evidence_block(model, process, grid, num_groups, num_importance, key, index, x)

    width = min(max(_LANES // min(_CHUNK, num_groups * num_importance), 1), len(points))
    return in_blocks(block, points, width, "evidence bound", progress)
