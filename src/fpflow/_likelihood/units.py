r"""Units: independent unbiased estimates of a density, drawn in two sets at every point.

Each estimator of the sampler's density makes *units*: an antithetic pair of paths, or one particle
filter. Their number is chosen by a first set of them and the value is that of a second set: a set that
misses the heavy paths looks good, so that stopping where the error looks small selects what is wrong.
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
from .average import AbstractAverage, MeanOfWeights, UnitSums
from .points import in_blocks, is_traced

# Evaluations of the model side by side: wide enough for the matrix products.
LANES = 2048
# Paths of one point that are followed side by side; the others come one such chunk after another.
CHUNK = 16
# What a row costs beside its chunks, in chunks; measured in the plane.
_ROW = 0.1
# The first set has about so many paths.
_FIRST = 32


class AbstractUnit(eqx.Module):
    """How one unbiased estimate of $p(x)$ is drawn."""

    num_paths: eqx.AbstractVar[int]

    @property
    def average(self) -> AbstractAverage:
        """How the units are combined into one value."""
        return MeanOfWeights()

    def bare(self) -> "AbstractUnit":
        """What `draw` needs besides the tables; a program is compiled for it once."""
        return self

    @abc.abstractmethod
    def tables(self, process: AbstractProcess, dtype: Any) -> Any:
        """Everything that depends neither on the point nor on the key, computed before anything
        compiles."""

    def shared(
        self, model: Any, process: AbstractProcess, points: Array, mesh: Mesh | None
    ) -> Array:
        """What all units of a point lack alike of both logarithms, shape `(n, 2)`."""
        del model, process, mesh
        return jnp.zeros((len(points), 2), points.dtype)

    @abc.abstractmethod
    def draw(
        self, model: Any, process: AbstractProcess, tables: Any, x: Array, key: PRNGKey
    ) -> Array:
        """The logarithms of the estimate and of another in which the steps cause larger errors, shape
        `(2,)`."""


@eqx.filter_jit
def sums_block(unit, model, process, tables, num_chunks, chunk, mesh, key, index, start, x):
    """The sums of `num_chunks * chunk` units at each of a block of points, from chunk `start` on."""

    def one_point(index, start, x):
        point_key = jr.fold_in(key, index)

        def more(number, sums):
            keys = jax.vmap(lambda i: jr.fold_in(point_key, i))(
                (start + number) * chunk + jnp.arange(chunk)
            )
            return sums.add(jax.vmap(lambda key: unit.draw(model, process, tables, x, key))(keys))

        return jax.lax.fori_loop(0, num_chunks, more, UnitSums.none(x))

    return over_devices(jax.vmap(one_point), mesh)(index, start, x)


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
    num_paths: Array
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
    average = unit.average
    few = max(min(-(-_FIRST // per_unit), -(-most // 4)), average.least)
    few = -(-few // chunk) * chunk
    key_first, key_second = jr.split(key)
    traced = is_traced((model, points, key))

    def sums(unit, counts, key, word):
        """Those of at least so many units, in turns of equal length: a needy point has many."""
        tables = unit.tables(process, points.dtype)
        chunks = -(-counts // chunk)
        turn = _turn(chunks)
        turns = -(-chunks // turn)
        owner = np.repeat(np.arange(len(points)), turns)
        start = turn * (np.arange(len(owner)) - np.repeat(np.cumsum(turns) - turns, turns))
        # An array, so that more units compile nothing new; a loop that is differentiated needs to
        # know the number.
        looped = turn if traced else jnp.asarray(turn)

        def block(index, x):
            row = np.minimum(np.asarray(index), len(owner) - 1)
            at = (jnp.asarray(owner[row]), jnp.asarray(start[row]))
            return sums_block(unit.bare(), model, process, tables, looped, chunk, mesh, key, *at, x)

        width = max(LANES // (chunk * per_unit), 1)
        found = in_blocks(block, points[owner], width, word, progress, mesh)
        total = _merged(found, jnp.asarray(owner), len(points), turn * chunk)
        return total, jnp.asarray(turns * turn * chunk)

    found, count = sums(first_unit, np.full(len(points), few), key_first, f"{name}, first set")
    counts = np.full(len(points), most)
    if budget.target_error is not None and not traced:
        needed = _needed(average, found, count, budget.target_error, jnp.asarray(float(most)))
        counts = np.nan_to_num(np.asarray(needed), nan=few).astype(int)
    total, used = sums(unit, counts, key_second, name)
    shared = unit.shared(model, process, points, mesh)
    return _summed_up(average, per_unit, found, count, total, used, shared)


def _turn(chunks: np.ndarray) -> int:
    """Chunks of a row, such that all rows together cost least."""

    def cost(turn: int) -> float:
        return float(np.sum(-(-chunks // turn)) * (turn + _ROW))

    return min((int(turn) for turn in np.unique(chunks)), key=cost)


# In programs of their own, because op by op they take longer to compile than all the paths.
_merged = eqx.filter_jit(UnitSums.merged)


@eqx.filter_jit
def _needed(average, found, count, target, most):
    return average.needed(average.mean(found, count), count, target, most)


@eqx.filter_jit
def _summed_up(average, per_unit, found, count, total, used, shared) -> Found:
    """By the sums and counts of both sets, and what their units share."""
    first, second = average.mean(found, count), average.mean(total, used)
    freedom = count + used - 2
    pooled = (first.log_variance * (count - 1) + second.log_variance * (used - 1)) / freedom
    return Found(
        second.value + shared[:, 0],
        average.error(second, pooled, used, freedom),
        used * per_unit / (1 + per_unit * second.spread),
        average.reliable(first, second, pooled, used),
        used * per_unit,
        second.plain + shared[:, 1],
        first.value + shared[:, 0],
    )
