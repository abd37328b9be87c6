r"""$W_2^2$ between the densities that two masses stand for, without the cells' own contribution.

Masses on the centres of cells cannot move by less than a cell: between laws that differ by a shift
$\delta$ below the cell width $h$ they are about $\delta h$ apart, not $\delta^2$. What is computed here
has no such floor.
"""

import numpy as np
import scipy

from .._types import ArrayLike
from .._window import GridDensity, Window
from .result import Estimate, W2Result, both_masses

# Keeps empty regions connected; far below any mass that matters.
_VACUUM = 1e-14


def w2_continuous(
    a: ArrayLike | GridDensity, b: ArrayLike | GridDensity, window: Window | None = None
) -> Estimate:
    r"""$W_2^2$ between two densities known by their cells, without the floor that the cells cause.

    On a line both densities are taken as constant within cells. In the plane the value is the first
    order in the difference of the distributions,

    $$W_2^2 \approx \int \bar p\,\|\nabla\phi\|^2, \qquad -\nabla\cdot(\bar p\,\nabla\phi) = p - q,$$

    with the mean $\bar p$ of both on the faces between cells. The error is of second order in the cell
    width. The function is meant for distributions that are closer to each other than the size of their
    features. For others use `w2_grid`, whose floor then does not matter.

    **Arguments:**

    - `a`, `b`, `window`: as for `w2_grid`.

    **Returns:** an `Estimate`. Its error is how far the value moves with cells of twice the width, plus
    a sixth of the difference between these and cells of four times the width: five times the error that
    cells of this width leave for smooth densities. In the plane, the change with another mean of the two
    densities (the logarithmic mean) is added, and all of the value that comes from where the first order
    does not hold: where the density changes by a factor of e along the displacement.

    **Raises:** `ValueError` as for `w2_grid`.

    ??? cite "Reference"
        Benamou and Brenier, Numer. Math. 84 (2000) 375; Peyre, *Comparison between W2 distance and
        H-1 norm*, ESAIM COCV 24 (2018) 1489.
    """
    p, q, window = both_masses(a, b, window)
    double, (wide_p, wide_q) = _cells_of_twice_the_width(window, p, q)
    widest, (widest_p, widest_q) = _cells_of_twice_the_width(double, wide_p, wide_q)
    cells = ((p, q, window), (wide_p, wide_q, double), (widest_p, widest_q, widest))
    if window.dim == 1:
        value, coarse, coarser = (_on_a_line(a, b, w) for a, b, w in cells)
        other, far = value, 0.0
    else:
        (value, far), (coarse, _), (coarser, _) = (
            _first_order(a, b, w, _arithmetic) for a, b, w in cells
        )
        other, _ = _first_order(p, q, window, _logarithmic)
    # Where two widths happen to agree the third says how large the error may be.
    error = abs(value - coarse) + abs(coarse - coarser) / 6 + abs(value - other) + far
    return Estimate(value, error, "loose bracket")


def within_cells(found: Estimate, cells: W2Result, window: Window) -> Estimate:
    r"""A bracket of $W_2^2$ without cells, no wider than that with cells allows: mass is within half a
    diagonal of the centre of its cell, so that the two $W_2$ differ by at most one. Where the two do
    not meet, the first was wrong, and this is the one with cells."""
    diagonal = window.cell_width * window.dim**0.5
    least, most = max(cells.lower**0.5 - diagonal, 0.0) ** 2, (cells.upper**0.5 + diagonal) ** 2
    low, high = found.value - found.error, found.value + found.error
    if least <= low and high <= most:
        return found
    low, high = (
        (max(low, least), min(high, most)) if least <= high and low <= most else (least, most)
    )
    return Estimate((low + high) / 2, (high - low) / 2, found.kind)


def _cells_of_twice_the_width(
    window: Window, *masses: np.ndarray
) -> tuple[Window, list[np.ndarray]]:
    """Two and two, with an empty cell at the end where their number is odd."""
    odd, half = window.nodes % 2, (window.nodes + 1) // 2
    if half < 2:  # no wider cells fit
        return window, list(masses)
    low = window.low + window.cell_width / 2
    double = Window(low, low + 2 * (half - 1) * window.cell_width, half, window.dim)
    return double, [window.merge(np.pad(mass, (0, odd)), 2) for mass in masses]


def _on_a_line(p: np.ndarray, q: np.ndarray, window: Window) -> float:
    """The quantile functions are linear between the merged levels: Simpson's rule is exact."""
    edges = window.edges()
    levels = [np.concatenate([[0.0], np.cumsum(mass)]).clip(0, 1) for mass in (p, q)]
    cuts = np.unique(np.concatenate(levels))
    low, high = cuts[:-1], cuts[1:]

    def apart(level):
        # Strictly inside a piece, so that the flat parts of a distribution function do not matter.
        a, b = (_quantile(level, own, edges) for own in levels)
        return a - b

    # A linear function is known from two inner points.
    left, right = apart(low + (high - low) / 4), apart(high - (high - low) / 4)
    middle, slope = (left + right) / 2, right - left
    return float(((high - low) * (middle**2 + slope**2 / 3)).sum())


def _quantile(level: np.ndarray, levels: np.ndarray, edges: np.ndarray) -> np.ndarray:
    cell = np.clip(np.searchsorted(levels, level, side="right") - 1, 0, len(edges) - 2)
    share = levels[cell + 1] - levels[cell]
    fraction = np.divide(level - levels[cell], share, out=np.zeros_like(level), where=share > 0)
    return edges[cell] + fraction.clip(0, 1) * (edges[cell + 1] - edges[cell])


def _arithmetic(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    return (p + q) / 2


def _logarithmic(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """$(p - q) / (\\log p - \\log q)$, by its series where both are close."""
    p, q = np.maximum(p, _VACUUM), np.maximum(q, _VACUUM)
    ratio = np.log(p / q)
    close = np.abs(ratio) < 1e-4
    return np.where(close, (p + q) / 2, (p - q) / np.where(close, 1.0, ratio))


def _first_order(p: np.ndarray, q: np.ndarray, window: Window, mean) -> tuple[float, float]:
    """The value, and the part of it from faces along whose displacement the density changes by a factor
    of e: they are not close there, as where mass crosses a vacuum."""
    weight, width = mean(p, q), window.cell_width
    index = np.arange(p.size).reshape(p.shape)
    pairs = [(np.delete(index, -1, k).ravel(), np.delete(index, 0, k).ravel()) for k in range(2)]
    i, j = (np.concatenate(ends) for ends in zip(*pairs, strict=True))
    ends = np.maximum(weight.ravel(), _VACUUM)
    c = np.maximum((weight.ravel()[i] + weight.ravel()[j]) / 2, _VACUUM) / width**2
    entries = np.concatenate([c, c, -c, -c])
    row, column = np.concatenate([i, j, i, j]), np.concatenate([i, j, j, i])
    laplacian = scipy.sparse.coo_matrix((entries, (row, column)), shape=(p.size, p.size)).tocsc()
    change = (p - q).ravel()
    # The potential is fixed at one cell, because it is known up to a constant.
    potential = np.append(0.0, scipy.sparse.linalg.spsolve(laplacian[1:, 1:], change[1:]))
    apart = potential[j] - potential[i]
    steep = np.abs(apart * np.log(ends[j] / ends[i])) > width**2
    return float(potential @ change), float((c * apart**2)[steep].sum())
