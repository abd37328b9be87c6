r"""From many independent unbiased estimates of a density to its logarithm and an error that holds.

Each estimator of the sampler's density makes *units*: an antithetic pair of paths, or one particle
filter. A unit is an unbiased estimate of $p(x)$, and units are independent. Their number is
chosen by a first set of them and the value is that of a second set: a set that misses the heavy paths
looks good, so that stopping where the error looks small selects what is wrong.
"""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array

from .._devices import over_devices
from .._process import AbstractProcess
from .._types import PRNGKey
from .points import in_blocks, is_traced

# Evaluations of the model side by side: wide enough for the matrix products.
LANES = 2048
# Paths of one point that are followed side by side; the others come one such chunk after another.
CHUNK = 16
# The first set has about so many paths, and at least so many units: a variance of fewer is no guide.
_FIRST, _FIRST_UNITS = 32, 8

# The mean of n weights e^A with A of variance v is normal to a skewness gamma(v, n); with the error
# times 1 + gamma / 2, two errors held the truth in 93 to 98 % of runs with gamma below one, A normal.
_SKEWED, _MOST_SKEWED = 1.0, 4.0
# Of n normal logarithms the skewness is 0 +- sqrt(6 / n); where weights have no variance it is two.
_LONG_TAIL, _NARROW = 0.75, 0.1
# Weights of which fewer than a twentieth are effective.
_MOST_SPREAD = 19.0


class AbstractUnit(eqx.Module):
    """How one unbiased estimate of $p(x)$ is drawn."""

    num_paths: eqx.AbstractVar[int]

    @abc.abstractmethod
    def tables(self, process: AbstractProcess, dtype: Any) -> Any:
        """What does not depend on the point or the key, worked out before anything compiles."""

    @abc.abstractmethod
    def draw(
        self, model: Any, process: AbstractProcess, tables: Any, x: Array, key: PRNGKey
    ) -> Array:
        """The logarithms of the estimate and of one that steps make larger errors in, shape `(2,)`."""


class UnitSums(eqx.Module):
    r"""Running sums of the units $e^{\ell - m}$, $m$ the largest $\ell$ so far, and of $\ell$ itself."""

    largest: Array
    weight: Array
    square: Array
    plain: Array
    first: Array
    log: Array
    log_square: Array
    log_cube: Array

    def add(self, logs: Array) -> "UnitSums":
        """With units more, `logs` of shape `(units, 2)`."""
        largest = jnp.maximum(self.largest, logs.max())
        old = jnp.exp(self.largest - largest)
        weight, plain = jnp.moveaxis(jnp.exp(logs - largest), -1, 0)
        first = jnp.where(jnp.isfinite(self.largest), self.first, logs[0, 0])
        apart = jax.lax.stop_gradient(logs[:, 0] - first)
        return UnitSums(
            largest,
            self.weight * old + weight.sum(),
            self.square * old**2 + jnp.sum(weight**2),
            self.plain * old + plain.sum(),
            first,
            self.log + apart.sum(),
            self.log_square + jnp.sum(apart**2),
            self.log_cube + jnp.sum(apart**3),
        )


class UnitMean(eqx.Module):
    r"""The mean of the units of one point.

    **Attributes:**

    - `value`: its logarithm, corrected for the bias of a logarithm.
    - `spread`: the relative variance of one unit.
    - `log_variance`, `log_skewness`: the variance of $\ell$ and its skewness.
    - `plain`: the logarithm of the mean of the coarser estimates.
    """

    value: Array
    spread: Array
    log_variance: Array
    log_skewness: Array
    plain: Array


def mean_of(sums: UnitSums, count: Array) -> UnitMean:
    """What `count` units say together."""
    mean = sums.weight / count
    variance = jnp.maximum(sums.square / count - mean**2, 0) * count / (count - 1)
    spread = jax.lax.stop_gradient(variance / mean**2)
    middle, square = sums.log / count, sums.log_square / count
    log_variance = jnp.maximum(square - middle**2, 0) * count / (count - 1)
    cube = sums.log_cube / count - 3 * middle * square + 2 * middle**3
    tiny = jnp.finfo(middle.dtype).eps * (1 + square)  # of round-off alone no skewness is known
    log_skewness = jnp.where(log_variance > tiny, cube / (log_variance + tiny) ** 1.5, 0)
    value = sums.largest + jnp.log(mean)
    bias = spread / (2 * count)
    plain = sums.largest + jnp.log(sums.plain / count)
    return UnitMean(value + bias, spread, log_variance, log_skewness, plain)


def skewness(log_variance: Array, count: Array) -> Array:
    r"""That of the mean of so many $e^A$ with $A$ normal, $(e^v + 2)\sqrt{(e^v - 1) / n}$."""
    grown = jnp.exp(jnp.minimum(log_variance, 20.0))
    return (grown + 2) * jnp.sqrt((grown - 1) / count)


def stated_error(found: UnitMean, log_variance: Array, count: Array) -> Array:
    """The standard error of `value`, such that two of it hold the truth in 95 % of runs: with the root
    of Student's factor at two deviations and the allowance for a skewed mean."""
    freedom = count - 1
    student = 1 + 1.25 / freedom + 1.53 / freedom**2
    skewed = jnp.minimum(skewness(log_variance, count), _MOST_SKEWED)
    return jnp.sqrt(found.spread / count) * student * (1 + skewed / 2)


def is_reliable(first: UnitMean, second: UnitMean, count: Array) -> Array:
    """Whether the first set finds the weights even enough for the `count` units of the second, whose
    logarithms have no long tail upwards, beyond which heavier weights would lie."""
    even = skewness(first.log_variance, count) < _SKEWED
    short = (second.log_skewness < _LONG_TAIL) & (first.log_skewness < 2 * _LONG_TAIL)
    short = short | (second.spread < _NARROW)  # a tail of nearly equal weights moves nothing
    return even & short & (jnp.maximum(first.spread, second.spread) < _MOST_SPREAD)


def units_needed(first: UnitMean, target: float, most: Array) -> Array:
    """How many units reach an error of `target` and are enough to be believed, by the first set."""
    count = first.spread / target**2
    for _ in range(3):  # the allowances shrink as the number grows
        count = jnp.clip(count, 16.0, most)
        ratio = stated_error(first, first.log_variance, count) / target
        count = count * jnp.maximum(ratio**2, 0.25)
    grown = jnp.exp(jnp.minimum(first.log_variance, 20.0))
    believed = ((grown + 2) / (0.8 * _SKEWED)) ** 2 * (grown - 1)
    return jnp.clip(jnp.ceil(jnp.maximum(1.1 * count, believed)), 16.0, most)


@eqx.filter_jit
def sums_block(unit, model, process, tables, num_chunks, chunk, mesh, key, index, x):
    """The sums of `num_chunks * chunk` units at each of a block of points."""

    def one_point(index, x):
        point_key = jr.fold_in(key, index)

        def more(number, sums):
            keys = jax.vmap(lambda i: jr.fold_in(point_key, i))(number * chunk + jnp.arange(chunk))
            return sums.add(jax.vmap(lambda key: unit.draw(model, process, tables, x, key))(keys))

        zero = jnp.zeros((), x.dtype)
        start = UnitSums(jnp.full_like(zero, -jnp.inf), zero, zero, zero, zero, zero, zero, zero)
        return jax.lax.fori_loop(0, num_chunks, more, start)

    return over_devices(jax.vmap(one_point), mesh)(index, x)


class Budget(eqx.Module):
    """How many paths a point gets.

    **Attributes:**

    - `num_paths`: so many; or at most so many where there is a target.
    - `target_error`: the standard error to reach, in nats.
    """

    num_paths: int
    target_error: float | None


class Found(eqx.Module):
    """What both sets of units say about each point, all of shape `(n,)`."""

    value: Array
    standard_error: Array
    effective_sample_size: Array
    reliable: Array
    # The coarser estimate of the second set, and the value of the first.
    plain: Array
    first: Array


def estimate(
    unit: AbstractUnit,
    first_unit: AbstractUnit,
    budget: Budget,
    model: Any,
    process: AbstractProcess,
    points: Array,
    *,
    name: str,
    mesh: Mesh | None,
    progress: bool | None,
    key: PRNGKey,
) -> Found:
    """The mean of units at points: a first set by `first_unit` finds how many a second set needs."""
    per_unit = unit.num_paths
    most = max(-(-budget.num_paths // per_unit), 2)
    chunk = min(max(CHUNK // per_unit, 1), most)
    few = max(min(-(-_FIRST // per_unit), -(-most // 4)), _FIRST_UNITS)
    few = -(-few // chunk) * chunk
    key_first, key_second = jr.split(key)
    traced = is_traced((model, points, key))

    def sums(unit, counts, key, word):
        """Those of as many chunks as the neediest point of a block needs."""
        tables = unit.tables(process, points.dtype)
        chunks = -(-counts // chunk)
        order = np.argsort(chunks, kind="stable")

        def block(index, x):
            own = order[np.minimum(np.asarray(index), len(order) - 1)]
            # An array, so that more units compile nothing new; a loop that is differentiated needs to
            # know the number.
            number = chunks[own].max()
            looped = int(number) if traced else jnp.asarray(number)
            at = jnp.asarray(own)
            return sums_block(unit, model, process, tables, looped, chunk, mesh, key, at, x), (
                jnp.full(len(own), number * chunk)
            )

        width = max(LANES // (chunk * per_unit), 1)
        found = in_blocks(block, points[order], width, word, progress, mesh)
        return jax.tree.map(lambda v: v[np.argsort(order)], found)

    found, count = sums(first_unit, np.full(len(points), few), key_first, f"{name}, first set")
    first = mean_of(found, count)
    counts = np.full(len(points), most)
    if budget.target_error is not None and not traced:
        needed = units_needed(first, budget.target_error, jnp.asarray(float(most)))
        counts = np.nan_to_num(np.asarray(needed), nan=few).astype(int)
    total, used = sums(unit, counts, key_second, name)
    second = mean_of(total, used)
    pooled = (first.log_variance * (count - 1) + second.log_variance * (used - 1)) / (
        count + used - 2
    )
    return Found(
        second.value,
        stated_error(second, pooled, used),
        used * per_unit / (1 + per_unit * second.spread),
        is_reliable(first, second, used),
        second.plain,
        first.value,
    )
