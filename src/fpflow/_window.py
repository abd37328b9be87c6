"""The line or square of cells on which densities are compared, and a density given on it."""

import dataclasses
from typing import TypeVar

import equinox as eqx
import numpy as np
from jaxtyping import Array

from ._shown import shown_fields

AnyArray = TypeVar("AnyArray", np.ndarray, Array)


@dataclasses.dataclass(frozen=True)
class Window:
    r"""Cells of width $h$ centred on a grid with `nodes` points per side, in dimension one or two.

    The nodes run from `low` to `high` in every direction, ends included, so that
    $h = (\text{high} - \text{low}) / (\text{nodes} - 1)$ and the cells reach $h/2$ beyond the
    outermost nodes. The default is the grid of the paper.

    **Arguments:**

    - `low`, `high`: the outermost nodes, in units of $x$.
    - `nodes`: number of nodes per side, at least 2.
    - `dim`: the dimension, 1 or 2.

    **Raises:** `ValueError` if the window is empty or has another dimension.
    """

    low: float = -3.5
    high: float = 3.5
    nodes: int = 64
    dim: int = 2

    def __post_init__(self):
        if not (np.isfinite(self.low) and np.isfinite(self.high) and self.high > self.low):
            raise ValueError(f"`high` must be above `low` = {self.low}, got {self.high}.")
        if self.nodes != int(self.nodes) or self.nodes < 2:
            raise ValueError(f"`nodes` must be a whole number of at least 2, got {self.nodes}.")
        if self.dim not in (1, 2):
            raise ValueError(f"`dim` of a window must be 1 or 2, got {self.dim}.")

    @property
    def cell_width(self) -> float:
        """The width $h$ of a cell."""
        return (self.high - self.low) / (self.nodes - 1)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of a mass on this window, indexed `[x1, x2]` in the plane."""
        return (self.nodes,) * self.dim

    def points(self) -> np.ndarray:
        """The nodes as points, shape `(nodes**dim, dim)`."""
        return product_grid(self.centres(), self.dim)

    def centres(self) -> np.ndarray:
        """The nodes along one axis, shape `(nodes,)`."""
        return np.linspace(self.low, self.high, self.nodes)

    def edges(self, refine: int = 1) -> np.ndarray:
        """The cell edges along one axis, with each cell divided into `refine`, shape
        `(nodes * refine + 1,)`."""
        half = self.cell_width / 2
        return np.linspace(self.low - half, self.high + half, self.nodes * refine + 1)

    def merge(self, fine: AnyArray, refine: int) -> AnyArray:
        """Sums over blocks of `refine` cells per side."""
        blocks = fine.reshape([n for size in fine.shape for n in (size // refine, refine)])
        return blocks.sum(tuple(range(1, 2 * self.dim, 2)))  # pyright: ignore


def product_grid(axis: np.ndarray, dim: int) -> np.ndarray:
    """All points with coordinates from `axis`, first coordinate slowest, `(len(axis)**dim, dim)`."""
    return np.stack(np.meshgrid(*[axis] * dim, indexing="ij"), -1).reshape(-1, dim)


class GridDensity(eqx.Module):
    r"""A distribution as probabilities of the cells of a window.

    The numbers are numpy arrays, or JAX arrays under `jax.jit`, `jax.vmap` and `jax.grad`.

    **Attributes:**

    - `mass`: probabilities of the cells given that $x$ lies in the window, with the shape of the window;
      they sum to one.
    - `outside`: the probability outside the window.
    - `error`: an estimate of the total variation between `mass` and the truth. For a grid density it is
      the error of the finer of two refinements, estimated from both, plus that of the solver for the
      ODE, plus the negative mass that was cut off: an overestimate for the extrapolated `mass`. For a
      histogram it is the expected noise of counting; for a data distribution, the error of quadrature.
    - `window`: the window itself.
    - `unextrapolated`: the mass of the finer refinement alone, if there are two, moved by the solver's
      own error; for a quadrature, that of the coarser rule. A distance changes by its floor if this mass
      takes the place of `mass`.
    - `num_points`: of a histogram, how many points were counted in the window.
    """

    mass: np.ndarray | Array
    outside: float | Array
    error: float | Array
    window: Window = eqx.field(static=True)
    unextrapolated: np.ndarray | Array | None = None
    num_points: int | None = eqx.field(default=None, static=True)

    __repr__ = shown_fields
