r"""Units: independent unbiased estimates of a density, drawn in two sets at every point.

Each estimator of the sampler's density makes *units*: an antithetic pair of paths, or one particle
filter. Their number is chosen by a first set of them and the value is that of a second set: a set that
misses the heavy paths looks good, so that stopping where the error looks small selects what is wrong.
Units whose logarithms are nearly normal grow instead, once, by the variance of the first few.
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
from .average import AbstractAverage, MeanOfWeights, UnitMean, UnitSums
from .points import in_blocks, is_traced

# Evaluations of the model side by side: wide enough for the matrix products.
LANES = 2048
# Paths of one point that are followed side by side; the others come one such chunk after another.
CHUNK = 16
# What a row costs beside its chunks, in chunks; measured in the plane.
_ROW = 0.1
# The first set has about so many paths.
_FIRST = 32
# So many times the least number more, and those that asked for them are no part of the value: where they
# are skew, a high one asks for many, among which it counts little, and the value is too low.
_MANY = 8
# A larger part of the target that units do not lessen is not made good by more of them.
_MOST_LEFT = 0.8
# Times that they may ask, and how much more when they ask again, which spares further times.
_ROUNDS, _AGAIN = 4, 1.1


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

    def larger(self) -> "AbstractUnit":
        """A unit of twice as many paths, if units can grow."""
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

    def units(self, unit: AbstractUnit) -> int:
        """How many units of a kind it holds, two at least."""
        return max(-(-self.num_paths // unit.num_paths), 2)


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
    """The mean of units at points: a first set by `first_unit` finds how many a second set needs, unless
    that may grow."""
    average, every, target = unit.average, np.arange(len(points)), budget.target_error
    most = budget.units(unit)
    few = max(min(-(-_FIRST // unit.num_paths), -(-most // 4)), average.least)
    key_first, key_second = jr.split(key)
    asked = _Asked(model, process, points, mesh, progress, name, budget)
    few, most = np.full(len(every), few), np.full(len(every), most)
    drawn = asked.drawn(first_unit, every, few, key_first, f"{name}, first set")
    first = _mean(average, drawn)
    adaptive = target is not None and not is_traced((model, points, key))
    if adaptive and average.may_grow and most[0] >= 2 * average.least:
        second = asked.drawn(unit, every, np.full_like(most, 2 * average.least), key_second, name)
        return asked.completed(second, first, key_second)
    counts = most
    if adaptive and not average.may_grow:
        needed = _needed_at_first(average, first, drawn.count, target, jnp.asarray(most, float))
        counts = np.nan_to_num(np.asarray(needed), nan=few[0]).astype(int)
    second = asked.drawn(unit, every, counts, key_second, name)
    judge, freedom = _judge_of_both(
        average, first, drawn.count, _mean(average, second), second.count
    )
    return asked.found(second, first, judge, freedom)


class _Drawn(eqx.Module):
    """Units at some of the points: their sums, and how many they are."""

    unit: AbstractUnit
    rows: np.ndarray
    sums: UnitSums
    count: Array

    def grown(self, few: np.ndarray, more: "_Drawn", anew: np.ndarray) -> "_Drawn":
        """With more units at those with the numbers `few`, and without those before where `anew`."""
        kept = np.setdiff1d(np.arange(len(self.rows)), few[anew])
        owner = np.concatenate([kept, few])
        order = np.argsort(owner, kind="stable")
        sums, count = jax.tree.map(
            lambda a, b: jnp.concatenate([a[kept], b])[order],
            (self.sums, self.count),
            (more.sums, more.count),
        )
        sums = _merged(sums, jnp.asarray(owner[order]), len(self.rows), count)
        count = self.count.at[few[anew]].set(0).at[few].add(more.count)
        return _Drawn(self.unit, self.rows, sums, count)


class _Asked(eqx.Module):
    """Points, and what is asked of them."""

    model: Any
    process: AbstractProcess
    points: Array
    mesh: Mesh | None
    progress: bool | None
    name: str
    budget: Budget

    def drawn(
        self, unit: AbstractUnit, rows: np.ndarray, counts: np.ndarray, key: PRNGKey, word: str
    ) -> _Drawn:
        """At least so many units at each of the rows, in turns of equal length: a needy point has
        many."""
        model, process, points, mesh = self.model, self.process, self.points, self.mesh
        tables = unit.tables(process, points.dtype)
        chunk = min(max(CHUNK // unit.num_paths, 1), self.budget.units(unit))
        width = max(LANES // (chunk * unit.num_paths), 1)
        chunks = -(-counts // chunk)
        # Filters are few and long; rows of pairs fill many blocks, and cost the same in any.
        together = width if unit.average.may_grow else 1
        turn = _turn(chunks, together)
        turns = -(-chunks // turn)
        place = np.repeat(np.arange(len(rows)), turns)
        start = turn * (np.arange(len(place)) - np.repeat(np.cumsum(turns) - turns, turns))
        padded = np.minimum(np.arange(_padded(len(place), together)), len(place) - 1)
        owner, start = rows[place[padded]], start[padded]
        # An array, so that more units compile nothing new; a loop that is differentiated needs to
        # know the number.
        looped = turn if is_traced((model, points, key)) else jnp.asarray(turn)

        def block(index, x):
            row = np.minimum(np.asarray(index), len(owner) - 1)
            at = (jnp.asarray(owner[row]), jnp.asarray(start[row]))
            return sums_block(unit.bare(), model, process, tables, looped, chunk, mesh, key, *at, x)

        sums = in_blocks(block, points[owner], width, word, self.progress, mesh)
        sums = jax.tree.map(lambda v: v[: len(place)], sums)
        sums = _merged(sums, jnp.asarray(place), len(rows), jnp.asarray(turn * chunk))
        return _Drawn(unit, rows, sums, jnp.asarray(turns * turn * chunk))

    def found(self, drawn: _Drawn, first: UnitMean, judge: UnitMean, freedom: Array) -> Found:
        """What units say, with the error that `judge` gives them."""
        unit = drawn.unit
        shared = unit.shared(self.model, self.process, self.points[drawn.rows], self.mesh)
        mean = _mean(unit.average, drawn)
        return _summed_up(
            unit.average, unit.num_paths, first, mean, judge, freedom, drawn.count, shared
        )

    def grown(
        self, drawn: _Drawn, judge: UnitMean, freedom: Array, where: np.ndarray, key: PRNGKey
    ) -> tuple[_Drawn, UnitMean, Array]:
        """With as many more units as reach the target, and what to judge them by. Where many were drawn
        anew, they know their variance better than those that asked for them, and may ask again."""
        average, target = drawn.unit.average, self.budget.target_error
        assert target is not None
        most = float(self.budget.units(drawn.unit))
        known = np.zeros(len(drawn.rows), bool)
        for round_key in jr.split(key, _ROUNDS):
            goal = jnp.sqrt(target**2 - jnp.minimum(average.left(judge), _MOST_LEFT * target) ** 2)
            wanted = np.asarray(_needed(average, judge, goal, jnp.asarray(most), freedom))
            count = np.asarray(drawn.count)
            few = np.flatnonzero(where & (wanted > count))
            if not len(few):
                break
            asked = np.where(known, np.minimum(np.ceil(_AGAIN * wanted), most), wanted)[few]
            missing = asked - count[few]
            anew = (missing >= _MANY * average.least) & ~known[few]
            counts = np.where(anew, wanted[few], missing).astype(int)
            more = self.drawn(drawn.unit, drawn.rows[few], counts, round_key, f"{self.name}, more")
            drawn = drawn.grown(few, more, anew)
            known[few] |= anew
            judge, freedom = _judge_again(
                average, judge, freedom, drawn.sums, drawn.count, jnp.asarray(known)
            )
        return drawn, judge, freedom

    def completed(self, drawn: _Drawn, first: UnitMean, key: PRNGKey) -> Found:
        """As far as the budget goes, with as many more units as these ask for, and with larger ones
        alone where the cumulants of these are not believed."""
        unit, average, target = drawn.unit, drawn.unit.average, self.budget.target_error
        assert target is not None
        key_more, key_larger, key = jr.split(key, 3)
        judge, freedom = _judge(average, drawn.sums, drawn.count)
        found = self.found(drawn, first, judge, freedom)
        # All is decided by these units, but for outliers: to give up what looks wide after more is to
        # keep what is low.
        most = jnp.asarray(float(self.budget.units(unit)))
        reached = jnp.maximum(target, _error(average, judge, most, freedom))
        wide = ~found.reliable | (average.left(judge) > reached / 2)
        grown, judge, freedom = self.grown(drawn, judge, freedom, np.asarray(~wide), key_more)
        if grown is not drawn:
            drawn, found = grown, self.found(grown, first, judge, freedom)
            wide = wide | (average.correction(_mean(average, drawn)) > reached)
        few, larger = np.flatnonzero(np.asarray(wide)), unit.larger()
        most = self.budget.units(larger)
        if not len(few) or most < 2 * average.least:
            return found
        counts = np.full(len(few), 2 * average.least)
        word = f"{self.name}, larger"
        drawn = self.drawn(larger, drawn.rows[few], counts, key_larger, word)
        new = self.completed(drawn, jax.tree.map(lambda v: v[few], first), key)
        return jax.tree.map(lambda a, b: a.at[few].set(b), found, new)


def _padded(num: int, width: int) -> int:
    """To a power of two where they do not fill one block, as each number of rows compiles anew."""
    return num if num >= width else 1 << (num - 1).bit_length()


def _turn(chunks: np.ndarray, width: int) -> int:
    """Chunks of a row, such that all rows together, so many at a time, cost least."""

    def cost(turn: int) -> float:
        rows = int(np.sum(-(-chunks // turn)))
        return -(-rows // width) * (turn + _ROW)

    most = int(chunks.max())
    shares = (-(-most // k) for k in range(1, width + 1))
    return min(sorted({*(int(n) for n in np.unique(chunks)), *shares}), key=cost)


# In programs of their own, because op by op they take longer to compile than all the paths.
_merged = eqx.filter_jit(UnitSums.merged)


@eqx.filter_jit
def _mean_of(average, sums, count) -> UnitMean:
    return average.mean(sums, count)


def _mean(average: AbstractAverage, drawn: _Drawn) -> UnitMean:
    return _mean_of(average, drawn.sums, drawn.count)


@eqx.filter_jit
def _judge(average, sums, count) -> tuple[UnitMean, Array]:
    return average.supported(average.mean(sums, count), count)


@eqx.filter_jit
def _judge_again(average, judge, freedom, sums, count, known) -> tuple[UnitMean, Array]:
    new = average.seen_again(judge, freedom, average.mean(sums, count), count)
    return jax.tree.map(lambda a, b: jnp.where(known, a, b), new, (judge, freedom))


@eqx.filter_jit
def _judge_of_both(average, first, few, second, count) -> tuple[UnitMean, Array]:
    """By the variance of the logarithms of two sets."""
    known, more = few - 1, count - 1
    variance = (first.log_variance * known + second.log_variance * more) / (known + more)
    judge = eqx.tree_at(lambda m: m.log_variance, second, variance)
    return average.supported(judge, known + more + 1)


@eqx.filter_jit
def _needed(average, mean, target, most, freedom):
    return average.needed(mean, target, most, freedom)


@eqx.filter_jit
def _needed_at_first(average, first, few, target, most):
    return average.needed(average.reckoned(first, few), target, most)


@eqx.filter_jit
def _error(average, judge, count, freedom):
    return average.error(judge, count, freedom)


@eqx.filter_jit
def _summed_up(average, per_unit, first, second, judge, freedom, used, shared) -> Found:
    error = jnp.hypot(average.error(judge, used, freedom), average.left(judge))
    return Found(
        second.value + shared[:, 0],
        jnp.maximum(error, average.correction(second)),
        used * per_unit / (1 + per_unit * second.spread),
        average.reliable(first, second, judge.log_variance, used),
        used * per_unit,
        second.plain + shared[:, 1],
        first.value + shared[:, 0],
    )
