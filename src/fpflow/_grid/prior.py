"""The masses of the prior in the cells of a grid and in their images."""

from typing import Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy
from jaxtyping import Array, Float

from .._process import IsotropicGaussian
from .._types import Point, Scalar
from .._window import product_grid
from .gaussian import gaussian_over_intervals, gaussian_over_quadrilaterals


@runtime_checkable
class Prior(Protocol):
    """Any distribution with a density at one point."""

    def log_prob(self, x: Point) -> Scalar: ...


def prior_in_cells(prior: Prior, edges: np.ndarray, dim: int) -> np.ndarray:
    """The prior over the cells between `edges` along every axis; what lies beyond them is left out."""
    if isinstance(prior, IsotropicGaussian):
        line = np.diff(scipy.special.ndtr(edges / prior.std))
        return line if dim == 1 else np.outer(line, line)
    # Another prior by a two-point Gauss rule.
    middle, half = (edges[1:] + edges[:-1]) / 2, np.diff(edges) / 2
    nodes = (middle[:, None] + half[:, None] * np.array([-1, 1]) / 3**0.5).ravel()
    with jax.ensure_compile_time_eval(), jax.enable_x64(True):
        points = jnp.asarray(product_grid(nodes, dim))
        density = np.exp(np.asarray(jax.vmap(prior.log_prob)(points)))
    blocks = density.reshape([len(middle), 2] * dim).sum(tuple(range(1, 2 * dim, 2)))
    return blocks * (half if dim == 1 else np.outer(half, half))


@eqx.filter_jit
def prior_in_images(prior: Prior, grid: Float[Array, "..."]) -> Float[Array, "..."]:
    """The prior over the images of cells, signed. A Gaussian's is exact: beyond the edge of the data
    the flow of a steep network stretches a cell to hundreds of times the prior's width."""
    flat = grid.ndim == 2
    if isinstance(prior, IsotropicGaussian):
        z = grid / prior.std
        return gaussian_over_intervals(z) if flat else gaussian_over_quadrilaterals(z)
    log_prob = jax.vmap(prior.log_prob)
    return (
        _over_intervals(log_prob, grid) if flat else _over_quadrilaterals(jax.vmap(log_prob), grid)
    )


def _over_intervals(log_prob, ends):
    """Another prior over intervals, by a two-point Gauss rule."""
    half, middle = (ends[1:] - ends[:-1]) / 2, (ends[1:] + ends[:-1]) / 2
    values = sum(jnp.exp(log_prob(middle + sign * half / 3**0.5)) for sign in (-1, 1))
    return half[:, 0] * values


def _over_quadrilaterals(log_prob, grid):
    """Another prior over cells, each two signed triangles, at the middles of their sides."""

    def triangle(a, b, c):
        u, v = b - a, c - a
        area = (u[..., 0] * v[..., 1] - u[..., 1] * v[..., 0]) / 2
        return area * sum(jnp.exp(log_prob((p + q) / 2)) for p, q in ((a, b), (b, c), (c, a))) / 3

    a, b, c, d = grid[:-1, :-1], grid[1:, :-1], grid[1:, 1:], grid[:-1, 1:]
    return triangle(a, b, c) + triangle(a, c, d)
