"""The exact Wasserstein distance on a window: network simplex on short arcs, certified by duality."""

import warnings

import numpy as np
import scipy

from .._types import ArrayLike
from .._window import GridDensity, Window
from .result import W2Result, both_masses, centre_costs
from .sinkhorn import Sinkhorn

# Masses below the simplex's own round-off take part in the certificate, not in the plan.
_NEGLIGIBLE = 1e-15


def _arcs(p: np.ndarray, q: np.ndarray, window: Window, radius: float):
    """Squared distances of the arcs within `radius` between the cells that carry mass: sparse, or
    dense where that is all of them.

    A cell far from all mass on the other side gets longer arcs, half a radius beyond the nearest.
    """
    centres = np.stack(np.meshgrid(*[window.centres()] * 2, indexing="ij"), -1).reshape(-1, 2)
    sources, targets = centres[p.ravel() > 0], centres[q.ravel() > 0]
    if radius >= 2**0.5 * (window.high - window.low):
        return scipy.spatial.distance.cdist(sources, targets, "sqeuclidean")
    reach = radius * (1 + 1e-9)
    near = scipy.spatial.KDTree(sources).sparse_distance_matrix(
        scipy.spatial.KDTree(targets), reach, output_type="coo_matrix"
    )
    ahead = _long_arcs(sources, targets[_solid(q)], targets, radius)
    back = _long_arcs(targets, sources[_solid(p)], sources, radius)[::-1]
    # As one number a pair, because `np.unique` of columns is ten times slower.
    row, column = np.concatenate([ahead, back], axis=1)
    row, column = np.divmod(np.unique(row * len(targets) + column), len(targets))
    long = ((sources[row] - targets[column]) ** 2).sum(1) > reach**2
    row, column = np.append(near.row, row[long]), np.append(near.col, column[long])
    cost = ((sources[row] - targets[column]) ** 2).sum(1)
    return scipy.sparse.coo_matrix((cost, (row, column)), shape=(len(sources), len(targets)))


def _solid(mass: np.ndarray) -> np.ndarray:
    """Which of the cells that carry mass carry enough of it to receive what comes from afar."""
    mass = mass[mass > 0]
    return mass >= 1e-3 * mass.mean()


def _long_arcs(cells: np.ndarray, solid: np.ndarray, others: np.ndarray, radius: float):
    """Pairs (cell, other) for the cells further than half a radius from all solid mass."""
    distance, _ = scipy.spatial.KDTree(solid).query(cells)
    far = np.flatnonzero(distance > radius / 2)
    reached = scipy.spatial.KDTree(others).query_ball_point(cells[far], distance[far] + radius / 2)
    counts = [len(ball) for ball in reached]
    column = np.concatenate([np.asarray(ball, int) for ball in reached] or [np.empty(0, int)])
    return np.stack([np.repeat(far, counts), column])


def conjugate(potential: np.ndarray, window: Window) -> np.ndarray:
    r"""$\min_i (\|x_i - y_j\|^2 - u_i)$ over all centres, one axis after the other, exactly."""
    costs = centre_costs(window)
    along_first = np.min(costs[:, :, None] - potential[:, None, :], axis=0)
    return np.min(along_first[:, None, :] + costs[None], axis=2)


def w2_grid(
    a: ArrayLike | GridDensity,
    b: ArrayLike | GridDensity,
    window: Window | None = None,
    *,
    method: Sinkhorn | None = None,
    radius: float = 0.7,
) -> W2Result:
    r"""$W_2^2$ between two masses on a window, with each cell's mass at its centre.

    The network simplex runs on arcs no longer than `radius`. The optimal dual of that smaller problem,
    made feasible for all arcs by a conjugate, certifies the value from below. If these arcs cannot carry
    the mass, or the certificate does not meet the value, arcs twice as long are tried, and finally all
    arcs.

    **Arguments:**

    - `a`, `b`: masses of the window's shape that sum to one, or `GridDensity` objects.
    - `window`: the window of both; by default that of `a` or `b` if they carry one, else `Window()`.
    - `method`: `None` for the exact value, `Sinkhorn()` for a bracket computed with ott-jax.
    - `radius`: the first arc length tried, in units of $x$.

    **Returns:** a `W2Result` in units of $x^2$; for the exact method `upper` equals `value` and `lower`
    agrees with it to round-off.

    **Raises:** `ValueError` for masses that are NaN, negative, not normalised or of another shape,
    or for densities on different windows.

    **Example:**

    ```python
    window = fpflow.Window(nodes=16)
    p, q = (fpflow.datasets.circles(), fpflow.datasets.gaussian_mixture())
    distance = fpflow.w2_grid(p.cell_probabilities(window), q.cell_probabilities(window))
    ```

    ??? cite "Reference"
        Bonneel et al., *Displacement interpolation using Lagrangian mass transport*, ACM Trans.
        Graph. 30 (2011), as in POT: Flamary et al., JMLR 22 (2021) 78.
    """
    p, q, window = both_masses(a, b, window)
    if window.dim == 1 and method is None:
        return _monotone(p, q, window)
    if method is not None:
        if window.dim == 1:
            raise ValueError(
                "`method` is for windows in the plane; on a line the exact value is a sum."
            )
        return method.solve(p, q, window)
    if not radius > 0:
        raise ValueError(f"`radius` must be positive, got {radius}.")
    radius = max(radius, window.cell_width)
    reach = 2**0.5 * (window.high - window.low)
    # Twice the radius is four times the arcs; beyond that, all arcs at once are faster.
    for arcs in (radius, 2 * radius, reach):
        result = _solve(p, q, window, arcs)
        if result is not None and (_is_tight(result) or arcs >= reach):
            return result
    raise RuntimeError("the network simplex found no plan; try `method=Sinkhorn()`.")


def _monotone(p: np.ndarray, q: np.ndarray, window: Window) -> W2Result:
    """On a line the monotone plan is the best: a sum over the merged quantiles of both masses."""
    quantiles = np.unique(np.concatenate([np.cumsum(p), np.cumsum(q)]).clip(0, 1))
    share = np.diff(np.concatenate([[0.0], quantiles]))
    middle = quantiles - share / 2
    x = window.centres()
    last = len(x) - 1  # cumulative sums may end a round-off below one
    source = x[np.searchsorted(np.cumsum(p), middle).clip(max=last)]
    target = x[np.searchsorted(np.cumsum(q), middle).clip(max=last)]
    value = float(share @ (source - target) ** 2)
    return W2Result(value, value, value)


def _is_tight(result: W2Result) -> bool:
    # The simplex works to 1e-12 on costs and masses of order one.
    return result.value - result.lower <= 1e-9 * (1 + result.value)


def _solve(p: np.ndarray, q: np.ndarray, window: Window, radius: float) -> W2Result | None:
    import ot  # looks for every array library as it loads

    a, b = (np.where(mass > _NEGLIGIBLE, mass, 0) for mass in (p, q))
    with warnings.catch_warnings():
        # "Infeasible" is answered by a larger radius. No other warnings: another thread may have some.
        warnings.filterwarnings("ignore", module=r"ot\.")
        cost = _arcs(a, b, window, radius)
        # `ot.emd2` would take twice as long: it prepares a gradient, arc by arc.
        _, log = ot.emd(a[a > 0] / a.sum(), b[b > 0] / b.sum(), cost, numItermax=10**7, log=True)
    if log.get("warning"):
        return None
    u, v = np.full(window.shape, -np.inf), np.full(window.shape, -np.inf)
    u[a > 0], v[b > 0] = log["u"], log["v"]
    lower = max(_dual_value(p, q, u, window), _dual_value(q, p, v, window))
    value = float(log["cost"])
    return W2Result(value, min(lower, value), value)


def _dual_value(p: np.ndarray, q: np.ndarray, u: np.ndarray, window: Window) -> float:
    """The dual objective of a potential on the side of `p`, made feasible for every arc."""
    v = np.where(q > 0, conjugate(u, window), -np.inf)
    u = conjugate(v, window)
    return float((u * p).sum() + (v[q > 0] * q[q > 0]).sum())
