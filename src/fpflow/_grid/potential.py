"""The law that a potential itself is."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from .._model import model_dtype
from .._process import AbstractProcess
from .._types import PotentialModel
from .._window import GridDensity, Window, product_grid
from .evaluate import check_grid, on_points
from .frame import MARGIN


def grid_density_potential(
    model: PotentialModel, process: AbstractProcess, window: Window, *, refine: int = 4
) -> GridDensity:
    r"""Cell probabilities of $p_\theta = e^{u(t_0, \cdot)} / Z$, the density of the potential as an
    energy-based model. Neither sampler draws from it unless the potential solves the Fokker--Planck
    equation.

    **Arguments:**

    - `model`: has `potential(t, x)`.
    - `process`: gives $t_0$.
    - `window`: the window, in dimension one or two.
    - `refine`: number of points of the midpoint rule per side of a cell.

    **Returns:** a `GridDensity`. Its `error` is the distance to the result with half of `refine`, and
    its `outside` is the mass in a margin around the window. If the potential stays large far away, $Z$
    itself is not known.

    **Raises:** `ValueError` for invalid arguments, or a model without a potential; `FloatingPointError`
    if the potential is not finite.

    **Example:**

    ```python
    potential = fpflow.PotentialMLP(dim=2, key=jax.random.key(0))
    law = fpflow.grid_density_potential(potential, process, fpflow.Window(nodes=16))
    ```
    """
    check_grid(model, process, window, refine=refine)
    if not isinstance(model, PotentialModel):
        raise ValueError(
            f"`model` must have a method `potential(t, x)`, got {type(model).__name__}."
        )
    cells = max(int(np.ceil(MARGIN / window.cell_width)), 1)
    room = cells * window.cell_width
    wide = Window(window.low - room, window.high + room, window.nodes + 2 * cells, window.dim)
    t0 = jnp.asarray(process.t0, model_dtype(model))
    inner = (slice(cells, -cells),) * window.dim

    def masses(refine: int) -> np.ndarray:
        edges = wide.edges(refine)
        points = product_grid((edges[1:] + edges[:-1]) / 2, wide.dim)
        u = np.asarray(_potentials(model, t0, jnp.asarray(points, t0.dtype)), float)
        if not np.isfinite(u).all():
            raise FloatingPointError(
                f"`model.potential` is not finite at {int((~np.isfinite(u)).sum())} of {u.size} points."
            )
        height = np.exp(u - u.max()).reshape((wide.nodes * refine,) * wide.dim)
        mass = wide.merge(height, refine)
        return mass / mass.sum()

    fine, coarse = masses(refine), masses(max(refine // 2, 1))
    outside = 1 - float(fine[inner].sum())
    mass, other = (m[inner] / m[inner].sum() for m in (fine, coarse))
    return GridDensity(mass, outside, float(np.abs(mass - other).sum() / 2), window, other)


@eqx.filter_jit
def _potentials(model, t, points):
    return on_points(lambda x: model.potential(t, x), points, points.dtype)
