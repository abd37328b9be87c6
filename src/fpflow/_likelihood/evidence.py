r"""Lower bounds of $\log p_\text{SDE}$ from the same paths."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jax.sharding import Mesh
from jaxtyping import Array, Float

from .._devices import check_mesh, over_devices
from .._errors import student
from .._model import Transformed, check_counts, densities_in_units
from .._process import AbstractProcess
from .._types import ArrayLike, PRNGKey, ScoreModel
from .paths import noising_grid, path_exponents
from .points import checked_points, in_blocks, shown_values
from .units import CHUNK, LANES


class EvidenceBound(eqx.Module):
    r"""A lower bound on $\log p_\text{SDE}$ at points, in nats.

    **Attributes:**

    - `value`: $E \log \tfrac1K \sum_k e^{A_k}$, shape `(n,)`.
    - `standard_error`: the standard error of `value`, shape `(n,)`.
    """

    value: Float[Array, "*n"]
    standard_error: Float[Array, "*n"]

    def __repr__(self) -> str:
        return shown_values(self, self.standard_error)


@eqx.filter_jit
def _evidence_block(model, process, grid, num_groups, importance, mesh, key, index, x):
    def one_point(index, x):
        point_key = jr.fold_in(key, index)

        def group(number):
            keys = jax.vmap(lambda i: jr.fold_in(point_key, i))(
                number * importance + jnp.arange(importance)
            )
            exponents = jax.vmap(
                lambda key: path_exponents(model, process, grid, x, key, antithetic=False)
            )(keys)
            return jax.nn.logsumexp(exponents[:, 0, 0]) - jnp.log(importance)

        bounds = jax.lax.map(
            group, jnp.arange(num_groups), batch_size=max(min(CHUNK // importance, num_groups), 1)
        )
        return EvidenceBound(
            bounds.mean(), bounds.std(ddof=1) / num_groups**0.5 * student(num_groups - 1)
        )

    return over_devices(jax.vmap(one_point), mesh)(index, x)


@densities_in_units
def evidence_bound(
    model: ScoreModel | Transformed,
    process: AbstractProcess,
    x: ArrayLike,
    *,
    num_importance: int = 1,
    num_groups: int = 64,
    num_steps: int = 200,
    mesh: Mesh | None = None,
    progress: bool | None = None,
    key: PRNGKey,
) -> EvidenceBound:
    r"""A lower bound on $\log p_\text{SDE}$ that becomes tighter as $K$ grows.

    $$E\,\log\frac1K\sum_{k=1}^K e^{A_k} \le \log p_\text{SDE}(x),$$

    with the exponents $A$ of `ResidualPaths` along independent paths. $K = 1$ gives the bound of Song et
    al.; with growing $K$ the bound rises towards $\log p_\text{SDE}$.

    **Arguments:** as for `log_prob_sde`, and

    - `num_importance`: the number of paths $K$ in a group.
    - `num_groups`: number of groups of $K$ paths over which the expectation is taken, at least two.

    **Returns:** an `EvidenceBound`.

    **Raises:** `ValueError` for invalid arguments.

    ??? cite "Reference"
        Song et al., *Maximum likelihood training of score-based diffusion models*, NeurIPS 2021, arXiv
        2101.09258; Burda et al., *Importance weighted autoencoders*, ICLR 2016, arXiv 1509.00519.
    """
    check_counts(num_importance=num_importance, num_groups=num_groups, num_steps=num_steps)
    check_mesh(mesh)
    if num_groups < 2:
        raise ValueError(
            "`num_groups` must be at least 2, so that their spread gives an error estimate."
        )
    points = checked_points(model, process, x)
    grid = noising_grid(process, num_steps, points.dtype)

    def block(index, x):
        return _evidence_block(
            model, process, grid, num_groups, num_importance, mesh, key, index, x
        )

    width = max(LANES // min(CHUNK, num_groups * num_importance), 1)
    return in_blocks(block, points, width, "evidence bound", progress, mesh)
