"""Distances between two sets of samples in any dimension, with the floor that noise gives them."""

import dataclasses
from collections.abc import Callable

import numpy as np
import scipy

from .._errors import mean_and_error, student
from .._shown import shown_fields
from .._types import ArrayLike


@dataclasses.dataclass(frozen=True)
class SampleDistance:
    r"""A squared distance between two distributions, estimated from samples.

    **Attributes:**

    - `value`: the distance between the two sets, in units of $x^2$.
    - `standard_error`: the standard error of `value - floor` as an estimate of the squared distance
      between the distributions, from the samples and, if any, the projections. A square near zero is not
      normally distributed; there the error is up to twice too wide.
    - `floor`: the distance expected between two sets of this size from one distribution, computed from
      halves of either set. Sets from distributions that are far apart add less than the floor.
    - `floor_error`: the standard error of `value - floor` for equal distributions. The distributions
      differ if `value - floor` is more than two or three of these.
    """

    value: float
    standard_error: float
    floor: float
    floor_error: float

    __repr__ = shown_fields


def _checked(x: ArrayLike, y: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.asarray(x, float), np.asarray(y, float)
    for name, points in (("x", x), ("y", y)):
        if points.ndim != 2 or len(points) < 4:
            raise ValueError(
                f"`{name}` must hold at least four points, shape (n, dim), got {points.shape}."
            )
        if not np.isfinite(points).all():
            raise ValueError(f"`{name}` holds NaN or Inf.")
    if x.shape[1] != y.shape[1]:
        raise ValueError(
            f"`x` and `y` must have the same dimension, got {x.shape[1]} and {y.shape[1]}."
        )
    return x, y


# Ways to halve either set.
_SPLITS = 8


def _between_halves(
    distance: Callable[[np.ndarray, np.ndarray], float], x: np.ndarray, y: np.ndarray
) -> tuple[float, float]:
    """The floor and its standard error as that of one value: halves have twice the squared noise of the
    whole, and neither depends on the laws' being equal."""
    rng, found = np.random.default_rng(0), []
    for points in (x, y):
        for _ in range(_SPLITS):
            order = rng.permutation(len(points))
            found.append(distance(points[order[::2]], points[order[1::2]]) / 2)
    return float(np.mean(found)), float(np.std(found, ddof=1) * student(2 * _SPLITS - 2))


def _with_error(value: float, floor: float, null: float, first_order: float) -> SampleDistance:
    r"""With the error of equal laws, and that of laws apart, from that of what is linear in the samples
    as these see it.

    The samples' own noise makes the linear part too wide by twice the variance of equal laws, of which
    the square takes back one. Where the noise has few directions, $k$ as of a $\chi^2$ with this mean
    and deviation, the value and the linear part are small by the same chance: ten variances more for one
    direction, found by measuring, and as many times fewer for several, keep the promise.
    """
    directions = max(2 * (floor / null) ** 2, 1.0) if null > 0 else 1.0
    square = max(first_order**2 + (10 / directions - 1) * null**2, null**2)
    return SampleDistance(value, square**0.5, floor, null)


def _sliced(x: np.ndarray, y: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """The squared distances of the projections, each the mean over merged quantiles."""
    n = max(len(x), len(y))
    level = (np.arange(n) + 0.5) / n

    def quantiles(points):
        ordered = np.sort(directions.T @ points.T)
        return ordered[:, np.floor(level * len(points)).astype(int)]

    return ((quantiles(x) - quantiles(y)) ** 2).mean(1)


def _sampling_variance(x: np.ndarray, y: np.ndarray, directions: np.ndarray) -> float:
    r"""The variance that drawing `x` again gives their mean over directions: that of the mean of the
    Kantorovich potential $\varphi' = 2(x - T(x))$, with $T$ the monotone map onto `y`."""
    mean_potential, n = np.zeros(len(x)), len(x)
    matching = np.floor((np.arange(n) + 0.5) / n * len(y)).astype(int)
    for direction in directions.T:
        projected = x @ direction
        order = np.argsort(projected)
        ordered = projected[order]
        slope = 2 * (ordered - np.sort(y @ direction)[matching])
        steps = np.diff(ordered) * (slope[1:] + slope[:-1]) / 2
        mean_potential[order] += np.concatenate([[0], np.cumsum(steps)])
    return float((mean_potential / directions.shape[1]).var(ddof=1) / n)


# Directions of the floor, which hardly differs between them: at least so many, and in each dimension, as
# fewer give it a larger error than the value has (by a tenth with 64 in 20 dimensions).
_FEW, _FEW_EACH = 64, 8


def sliced_w2(
    x: ArrayLike, y: ArrayLike, *, num_projections: int = 256, seed: int = 0
) -> SampleDistance:
    r"""The sliced $W_2^2$: `dim` times the mean over directions $\theta$ of the $W_2^2$ of
    $\theta\cdot x$.

    The factor `dim` makes it $\|m\|^2$ for a shift by $m$, like $W_2^2$ itself.

    **Arguments:**

    - `x`, `y`: samples of shapes `(n, dim)` and `(m, dim)`.
    - `num_projections`: number of random directions.
    - `seed`: the seed of the directions, a whole number.

    **Returns:** a `SampleDistance` with the standard error from samples and directions.

    **Raises:** `ValueError` for samples that are not finite or do not fit.
    """
    x, y = _checked(x, y)
    directions = np.random.default_rng(seed).normal(size=(x.shape[1], num_projections))
    directions /= np.linalg.norm(directions, axis=0)
    values = x.shape[1] * _sliced(x, y, directions)
    few = directions[:, : max(_FEW, _FEW_EACH * x.shape[1])]
    floor, null = _between_halves(lambda a, b: x.shape[1] * float(_sliced(a, b, few).mean()), x, y)
    over_directions = values.var(ddof=1) / num_projections if x.shape[1] > 1 else 0.0
    drawn = [_sampling_variance(a, b, directions) for a, b in ((x, y), (y, x))]
    error = (over_directions + x.shape[1] ** 2 * sum(drawn)) ** 0.5
    return _with_error(float(values.mean()), floor, null, float(error))


def w2_moments(x: ArrayLike, y: ArrayLike) -> SampleDistance:
    r"""A lower bound on $W_2^2$ from means and covariances alone, exact for Gaussians:

    $$\|m_x - m_y\|^2 + \mathrm{tr}\bigl(A + B - 2 (A^{1/2} B A^{1/2})^{1/2}\bigr).$$

    It sees no difference beyond second moments, but its noise falls as $1/n$ in any dimension.

    **Arguments:**

    - `x`, `y`: samples of shapes `(n, dim)` and `(m, dim)`.

    **Returns:** a `SampleDistance`. The standard error comes from leaving out one of twenty groups at a
    time; the floor is that of two sets of this size from one distribution.

    **Raises:** `ValueError` for samples that are not finite or do not fit.

    ??? cite "Reference"
        Gelbrich, Math. Nachr. 147 (1990) 185.
    """
    x, y = _checked(x, y)

    def bures(a, b):
        covariances = [np.atleast_2d(np.cov(points.T)) for points in (a, b)]
        values, axes = np.linalg.eigh(covariances[0])
        root = (axes * np.sqrt(np.maximum(values, 0))) @ axes.T
        cross = np.linalg.eigvalsh(root @ covariances[1] @ root)
        spread = sum(np.trace(c) for c in covariances) - 2 * np.sqrt(np.maximum(cross, 0)).sum()
        return float(((a.mean(0) - b.mean(0)) ** 2).sum() + spread)

    return _with_error(bures(x, y), *_between_halves(bures, x, y), _jackknife(bures, x, y))


def _jackknife(
    distance: Callable[[np.ndarray, np.ndarray], float], x: np.ndarray, y: np.ndarray
) -> float:
    """The standard error of a smooth function of both sets, each with one group of twenty left out."""
    variance = 0.0
    for k, points in enumerate((x, y)):
        groups = np.array_split(np.arange(len(points)), min(20, len(points) // 2))
        kept = [np.delete(points, rows, 0) for rows in groups]
        found = [distance(rest, y) if k == 0 else distance(x, rest) for rest in kept]
        variance += np.var(found) * (len(groups) - 1)
    return float(variance**0.5)


def w2_samples(x: ArrayLike, y: ArrayLike, *, max_points: int = 2000) -> SampleDistance:
    r"""$W_2^2$ between two sets of samples from the exact transport plan.

    The distance between empirical measures is too large by an amount that falls only as $n^{-2/d}$. In
    high dimensions compare `value` with `floor`, or use `sliced_w2`.

    **Arguments:**

    - `x`, `y`: samples of shapes `(n, dim)` and `(m, dim)`.
    - `max_points`: how many points of each set are used, in eight groups; the time grows with the cube
      of this number.

    **Returns:** a `SampleDistance`: the mean over eight pairs of groups, the distance between groups
    from one distribution, and the standard error of their difference.

    **Raises:** `ValueError` for samples that are not finite or do not fit.
    """
    import ot  # looks for every array library as it loads

    x, y = (points[:max_points] for points in _checked(x, y))

    def distance(a, b):
        costs = scipy.spatial.distance.cdist(a, b, "sqeuclidean")
        return float(ot.emd2([], [], costs, numItermax=10**7))  # pyright: ignore

    count = min(8, min(len(x), len(y)) // 2 * 2)
    xs, ys = (np.array_split(points, count) for points in (x, y))
    # In two pairs of groups what each group adds by itself is in value and floor alike, and cancels.
    values, floors = [], []
    for i in range(0, count, 2):
        values.append((distance(xs[i], ys[i]) + distance(xs[i + 1], ys[i + 1])) / 2)
        floors.append((distance(xs[i], xs[i + 1]) + distance(ys[i], ys[i + 1])) / 2)
    _, error = mean_and_error(np.subtract(values, floors))
    return SampleDistance(float(np.mean(values)), error, float(np.mean(floors)), error)
