r"""A bound of the gap for any score, from the density of the SDE on a grid.

$q = p_\text{SDE}$ moves with the velocity $v + \tfrac12 g^2(\nabla\log q - s)$, the paper's equation
(9), and $p_\text{ODE}$ with $v$, from the same prior. For two points that start as one and move with the
one and the other, Gronwall's lemma bounds their distance; its root mean square over $q$ bounds $W_2$.
"""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .._dynamics import flow_velocity
from .._model import check_counts, model_dtype
from .._process import AbstractProcess
from .._shown import shown_fields
from .._types import ScoreModel
from .._window import Window, product_grid
from .theorem import SOLID, rises, some_of_history, stretch


@dataclasses.dataclass(frozen=True)
class GapBound:
    r"""A bound of the gap, and what it consists of.

    **Attributes:**

    - `times`: the times at which it is computed, shape `(times,)`.
    - `lipschitz`: the one-sided Lipschitz constant $L(t)$ of the flow run towards the data, per unit of
      time.
    - `mismatch`: $(E_q\|\nabla\log q - s\|^2)^{1/2}$, in units of $1/x$.
    - `distance`: $D = (\int\tfrac12 g^2 E_q\|\nabla\log q - s\|^2\,dt)^{1/2}$; $D^2$ is the
      Kullback--Leibler divergence of the SDE's paths from noising paths of its own samples, in nats.
    - `bound`: of $W_2$, in units of $x$.
    """

    times: np.ndarray
    lipschitz: np.ndarray
    mismatch: np.ndarray
    distance: float
    bound: float

    __repr__ = shown_fields


def gap_bound(
    model: ScoreModel,
    process: AbstractProcess,
    window: Window | None = None,
    *,
    refine: int = 1,
    num_steps: int = 120,
    num_times: int = 80,
    margin: float = 1.5,
) -> GapBound:
    r"""A bound on the gap by how far the score is from that of the SDE's own density.

    $$W_2(p_\text{ODE}, p_\text{SDE}) \le \int \tfrac12 g^2 e^{\Lambda(t)}
    \bigl(E_q\|\nabla\log q_t - s\|^2\bigr)^{1/2} dt, \qquad \Lambda(t) = \int_{t_0}^t L.$$

    It needs no potential and no residual: it is the first half of Theorem 1, for scores with a curl too.
    Where the score is that of the SDE's own density it is zero.

    **Arguments:**

    - `model`: has `score(t, x)`.
    - `process`: gives $f$, $g$ and the prior.
    - `window`, `refine`, `num_steps`, `margin`: as for `grid_density_sde`.
    - `num_times`: at how many of its times the constants are computed.

    **Returns:** a `GapBound`. Suprema are over the grid and integrals use the trapezoidal rule, so the
    numbers are those of a discretised problem.

    **Raises:** `ValueError` for invalid settings.

    **Example:**

    ```python
    fpflow.gap_bound(model, process, fpflow.Window(nodes=32)).bound
    ```

    ??? cite "Reference"
        Deveney et al., arXiv 2311.15996, equation (9) and the proof of Theorem 1.
    """
    (num_times,) = check_counts(num_times=num_times)
    window = Window() if window is None else window
    times, densities, axes = some_of_history(
        model, process, window, num_times, refine=refine, num_steps=num_steps, margin=margin
    )
    dtype, rows = model_dtype(model), []
    for t, q, axis in zip(times, densities, axes, strict=True):
        x = jnp.asarray(product_grid(axis, window.dim), dtype)
        score, stretched = (
            np.asarray(a, float) for a in _fields(model, process, jnp.asarray(t, dtype), x)
        )
        square = _mean_square(q, score.reshape(*q.shape, window.dim), axis[1] - axis[0])
        rows.append((stretched[q.ravel() > SOLID].max(), square))
    lipschitz, square = np.array(rows).T
    half_g2 = np.array([float(process.diffusion(jnp.asarray(t))) ** 2 / 2 for t in times])
    speed = half_g2 * np.exp(rises(times, lipschitz)) * np.sqrt(square)
    return GapBound(
        times,
        lipschitz,
        np.sqrt(square),
        float(np.trapezoid(half_g2 * square, times)) ** 0.5,
        float(np.trapezoid(speed, times)),
    )


@eqx.filter_jit
def _fields(model, process, t, x):
    def at_point(x):
        jacobian = jax.jacfwd(lambda x: -flow_velocity(model, process, t, x))(x)
        return model.score(t, x), stretch(jacobian)

    return jax.lax.map(at_point, x, batch_size=min(4096, len(x)))


def _mean_square(q, score, width):
    r"""$E_q\|\nabla\log q - s\|^2$ by differences across the faces between solid cells."""
    solid, log_q, total = q > SOLID, np.log(np.maximum(q, 1e-300)), 0.0
    for axis in range(q.ndim):
        before, after = (
            (lambda a, k=axis: np.delete(a, -1, k)),
            (lambda a, k=axis: np.delete(a, 0, k)),
        )
        along = score[..., axis]
        apart = np.diff(log_q, axis=axis) / width - (before(along) + after(along)) / 2
        weight = np.where(before(solid) & after(solid), (before(q) + after(q)) / 2, 0)
        total += float((weight * apart**2).sum())
    return total
