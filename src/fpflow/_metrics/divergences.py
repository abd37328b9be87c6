"""Divergences between two masses on a window, and how far the masses' own errors move them."""

from collections.abc import Callable

import numpy as np

from .._types import ArrayLike
from .._window import GridDensity, Window
from .result import Estimate, both_masses, check_mass

# Of cells with less, neither grid density knows more than the order of magnitude.
_KNOWN = 1e-9
_LEAST = 1e-12


def _with_floor(divergence: Callable[[np.ndarray, np.ndarray], float], a, b, window) -> Estimate:
    return _estimate(divergence, a, b, *both_masses(a, b, window))


def _estimate(
    divergence: Callable[[np.ndarray, np.ndarray], float], a, b, p, q, window
) -> Estimate:
    value = divergence(p, q)

    def plain(law, mass):
        if isinstance(law, GridDensity) and law.unextrapolated is not None:
            return check_mass("unextrapolated", law.unextrapolated, window)
        return mass

    moved = abs(value - divergence(plain(a, p), plain(b, q)))
    numbers = [law.num_points if isinstance(law, GridDensity) else None for law in (a, b)]
    if numbers == [None, None]:
        return Estimate(value, moved, "floor")
    noise, floor = _counting(divergence, (p, q), numbers, value)
    return Estimate(value, float(np.hypot(moved, noise)), floor=floor)


# Times that histograms are drawn again; their deviation is known to two per cent.
_DRAWS = 1024


def _counting(
    divergence: Callable[[np.ndarray, np.ndarray], float],
    masses: tuple[np.ndarray, np.ndarray],
    numbers: list[int | None],
    value: float,
) -> tuple[float, float]:
    """The standard error of counting, and what histograms of one law are apart: of the law that is no
    histogram, or of both together. The error is that between equal laws, unless these are told apart."""
    rng = np.random.default_rng(0)

    def drawn(laws) -> np.ndarray:
        def again(law, count):
            if count is None:
                return law
            return rng.multinomial(count, law.ravel()).reshape(law.shape) / count

        return np.array([divergence(*map(again, laws, numbers)) for _ in range(_DRAWS)])

    exact = [mass for mass, count in zip(masses, numbers, strict=True) if count is None]
    one = exact[0] if exact else np.average(masses, axis=0, weights=numbers)  # pyright: ignore
    equal = drawn((one, one))
    floor, error = float(equal.mean()), float(equal.std(ddof=1))
    if abs(value - floor) > 3 * error:
        error = max(error, float(drawn(masses).std(ddof=1)))
    return error, floor


def total_variation(
    a: ArrayLike | GridDensity, b: ArrayLike | GridDensity, window: Window | None = None
) -> Estimate:
    r"""$\tfrac12\sum_i |p_i - q_i|$ between two masses on a window, between zero and one.

    **Arguments:**

    - `a`, `b`: masses of the window's shape that sum to one, or `GridDensity` objects.
    - `window`: the window of both; by default that of `a` or `b` if they carry one, else `Window()`.

    **Returns:** an `Estimate` whose error is how far the masses without extrapolation move the value.
    With a histogram it is the standard error of counting, and `floor` is the value expected for equal
    distributions. `value - floor` is then zero within two errors for equal distributions, but does not
    measure how far apart different ones are.

    **Raises:** `ValueError` as for `w2_grid`.
    """
    return _with_floor(lambda p, q: float(np.abs(p - q).sum() / 2), a, b, window)


def hellinger(
    a: ArrayLike | GridDensity, b: ArrayLike | GridDensity, window: Window | None = None
) -> Estimate:
    r"""The Hellinger distance $\bigl(1 - \sum_i \sqrt{p_i q_i}\bigr)^{1/2}$, between zero and one.

    Arguments, result and errors are as for `total_variation`.
    """

    def distance(p, q):
        return float(np.sqrt(((np.sqrt(p) - np.sqrt(q)) ** 2).sum() / 2))

    return _with_floor(distance, a, b, window)


def kl_divergence(
    a: ArrayLike | GridDensity, b: ArrayLike | GridDensity, window: Window | None = None
) -> Estimate:
    r"""The Kullback--Leibler divergence $\sum_i p_i \log(p_i / q_i)$ of `a` from `b`, in nats.

    Cells with $p_i < 10^{-9}$ are left out and $q_i$ is taken to be at least $10^{-12}$, because no grid
    density knows its tails better. If more than 1e-4 of `a` lies in such cells of `b`, the value is a
    lower bound and the error is infinite. Arguments, result and errors are as for `total_variation`.
    """

    def divergence(p, q):
        known = p > _KNOWN
        return float((p[known] * np.log(p[known] / np.maximum(q[known], _LEAST))).sum())

    p, q, window = both_masses(a, b, window)
    found = _estimate(divergence, a, b, p, q, window)
    unknown = p[q < _LEAST].sum()
    return Estimate(found.value, np.inf, "lower bound") if unknown > 1e-4 else found
