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

    error = abs(value - divergence(plain(a, p), plain(b, q)))
    sides = ((a, p, lambda mass: divergence(mass, q)), (b, q, lambda mass: divergence(p, mass)))
    for law, own, other in sides:
        if isinstance(law, GridDensity) and law.unextrapolated is None and law.error > 1e-9:
            error += _counting_error(own, float(law.error), other, value)
    return Estimate(value, error, "floor")


def _counting_error(
    mass: np.ndarray,
    total_variation: float,
    divergence: Callable[[np.ndarray], float],
    value: float,
) -> float:
    """How far counting again moves a divergence from a histogram, whose number of points follows from
    its expected total variation."""
    count = np.sqrt(mass).sum() ** 2 / (2 * np.pi * total_variation**2)
    rng = np.random.default_rng(0)
    again = [rng.multinomial(round(count), mass.ravel()) / round(count) for _ in range(8)]
    moves = [divergence(counts.reshape(mass.shape)) - value for counts in again]
    return float(np.sqrt(np.mean(np.square(moves))))


def total_variation(
    a: ArrayLike | GridDensity, b: ArrayLike | GridDensity, window: Window | None = None
) -> Estimate:
    r"""$\tfrac12\sum_i |p_i - q_i|$ between two masses on a window, between zero and one.

    **Arguments:**

    - `a`, `b`: masses of the window's shape that sum to one, or `GridDensity` objects.
    - `window`: the window of both; that of `a` or `b` where they carry one, else `Window()`.

    **Returns:** an `Estimate` whose error is how far the masses without extrapolation move it, and
    for a histogram how far counting again would.

    **Raises:** `ValueError` as `w2_grid` does.
    """
    return _with_floor(lambda p, q: float(np.abs(p - q).sum() / 2), a, b, window)


def hellinger(
    a: ArrayLike | GridDensity, b: ArrayLike | GridDensity, window: Window | None = None
) -> Estimate:
    r"""The Hellinger distance $\bigl(1 - \sum_i \sqrt{p_i q_i}\bigr)^{1/2}$, between zero and one.

    Arguments, result and errors are those of `total_variation`.
    """

    def distance(p, q):
        return float(np.sqrt(((np.sqrt(p) - np.sqrt(q)) ** 2).sum() / 2))

    return _with_floor(distance, a, b, window)


def kl_divergence(
    a: ArrayLike | GridDensity, b: ArrayLike | GridDensity, window: Window | None = None
) -> Estimate:
    r"""The Kullback--Leibler divergence $\sum_i p_i \log(p_i / q_i)$ of `a` from `b`, in nats.

    Cells with $p_i < 10^{-9}$ are left out and $q_i$ is taken to be at least $10^{-12}$, because no
    grid density knows its tails better; where more than 1e-4 of `a` lies in such cells of `b`
    the value is a lower bound, and the error infinite. Arguments, result and errors are those of
    `total_variation`.
    """

    def divergence(p, q):
        known = p > _KNOWN
        return float((p[known] * np.log(p[known] / np.maximum(q[known], _LEAST))).sum())

    p, q, window = both_masses(a, b, window)
    found = _estimate(divergence, a, b, p, q, window)
    unknown = p[q < _LEAST].sum()
    return Estimate(found.value, np.inf, "lower bound") if unknown > 1e-4 else found
