"""From a law to the probabilities of cells: counting, integrating, normalising."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from .._types import Point, Scalar
from .._window import GridDensity, Window


def check_dim(window: Window, dim: int) -> None:
    """Refuses a window of another dimension than a law's."""
    if window.dim != dim:
        raise ValueError(
            f"the window has dimension {window.dim} and the distribution dimension {dim}; windows "
            "exist in dimension 1 and 2: `Window(dim=...)`."
        )


def count_in_cells(x: np.ndarray, window: Window) -> np.ndarray:
    """How many of the points, shape `(n, dim)`, lie in each cell; those beyond are left out."""
    check_dim(window, x.shape[1])
    cell = np.floor((x - window.edges()[0]) / window.cell_width).astype(int)
    cell = cell[((cell >= 0) & (cell < window.nodes)).all(1)]
    flat = np.ravel_multi_index(tuple(cell.T), window.shape)
    return np.bincount(flat, minlength=window.nodes**window.dim).reshape(window.shape).astype(float)


def histogram_density(counts: np.ndarray, total: float, window: Window) -> GridDensity:
    r"""A histogram as a density; `error` is its expected total variation, $\tfrac12\sum_i
    \sqrt{2 p_i(1-p_i)/\pi n}$."""
    inside = counts.sum()
    if inside == 0:
        raise ValueError(f"none of {int(total)} points lies in {window}; choose another window.")
    p = counts / inside
    error = float(np.sqrt(2 * p * (1 - p) / (np.pi * inside)).sum() / 2)
    return GridDensity(p, float(1 - inside / total), error, window, num_points=int(inside))


def as_density(
    mass: np.ndarray, error: float, window: Window, coarser: np.ndarray | None = None
) -> GridDensity:
    """Masses of cells scaled to one; what they lack of it lies outside. `coarser` are those of a rule
    that shows their error."""
    inside = mass.sum()
    other = None if coarser is None else coarser / coarser.sum()
    return GridDensity(mass / inside, float(max(1 - inside, 0.0)), error, window, other)


def quadrature(log_prob: Callable[[Point], Scalar], window: Window) -> GridDensity:
    """Cell integrals by Gauss--Legendre of two orders; their difference is the error."""

    def integrate(order: int) -> np.ndarray:
        nodes, weights = np.polynomial.legendre.leggauss(order)
        edges = window.edges()
        axis = (edges[:-1, None] + window.cell_width * (nodes + 1) / 2).ravel()
        with jax.enable_x64(True):
            grid = jnp.stack(jnp.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)
            density = np.asarray(jnp.exp(jax.jit(jax.vmap(log_prob))(grid)))
        blocks = density.reshape(window.nodes, order, window.nodes, order)
        return np.einsum("iajb,a,b->ij", blocks, weights, weights) * (window.cell_width / 2) ** 2

    mass, coarser = integrate(8), integrate(6)
    return as_density(mass, float(np.abs(mass - coarser).sum() / 2), window, coarser)
