r"""The density of what a chain of kernels really draws."""

import equinox as eqx
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float

from .._devices import check_mesh
from .._model import Transformed, densities_in_units
from .._process import AbstractProcess
from .._sample import AbstractChain
from .._types import ArrayLike, PotentialModel, PRNGKey, ScoreModel
from .filter import TwistedFilter, noising_steps
from .points import checked_points, how_many, is_traced, shown_values
from .sde import asked_budget, check_found
from .units import Budget, estimate


class LogProbChain(eqx.Module):
    r"""$\log p_\text{chain}$ at points, in nats.

    **Attributes:** those of `LogProbSDE`, without `step_error` and `method`. There is no `step_error`
    because the steps are part of the distribution.
    """

    value: Float[Array, "*n"]
    standard_error: Float[Array, "*n"]
    effective_sample_size: Float[Array, "*n"]
    reliable: Bool[Array, "*n"]

    def __repr__(self) -> str:
        return shown_values(self, self.standard_error, how_many(self.reliable))


@densities_in_units
def log_prob_chain(
    chain: AbstractChain,
    model: ScoreModel | Transformed,
    process: AbstractProcess,
    x: ArrayLike,
    *,
    target_error: float | None = None,
    num_paths: int | None = None,
    twist: PotentialModel | None = None,
    mesh: Mesh | None = None,
    progress: bool | None = None,
    key: PRNGKey,
) -> LogProbChain:
    r"""The log density of the distribution that a chain draws from, its steps included, without bias in
    $p$.

    $$p_\text{chain}(x_0) = E_F\Bigl[\pi(x_n) \prod_k \frac{q(x_{k-1} \mid x_k)}{F(x_k \mid x_{k-1})}
    \Bigr]$$

    over noising paths, with one evaluation of the score per step and no derivative: any score that can
    be evaluated will do. If there is a potential, the paths are resampled along the way; see
    `TwistedFilter`.

    **Arguments:**

    - `chain`: an `AbstractChain` such as `GaussianChain`, `EulerMaruyama(quiet_end=False)` or
      `Ancestral(quiet_end=False)`.
    - `model`: has `score(t, x)` for one point.
    - `process`: gives the noising kernels $F$ and the prior.
    - `x`: points of shape `(n, dim)`.
    - `target_error`, `num_paths`: as for `log_prob_sde`.
    - `twist`: an object with `potential(t, x)`, about $\log p$ up to a constant at each time; by default
      the model, if it has one. A poor twist only increases the variance.
    - `mesh`, `progress`, `key`: as for `log_prob_sde`.

    **Returns:** a `LogProbChain` in the precision of the model.

    **Raises:** `ValueError` for invalid arguments, and for a chain with a step that adds no noise;
    `FloatingPointError` if the score is not finite. Warns as `log_prob_sde` does.

    **Example:**

    ```python
    chain = fpflow.GaussianChain(0.1, num_steps=20)
    x = jnp.zeros((3, 2))
    log_p = fpflow.log_prob_chain(chain, model, process, x, key=jax.random.key(0))
    ```
    """
    check_mesh(mesh)
    if not isinstance(chain, AbstractChain):
        raise ValueError(
            f"`chain` must be an `fpflow.AbstractChain` such as `fpflow.GaussianChain()`, got {chain!r}."
        )
    budget = asked_budget(target_error, num_paths)
    points = checked_points(model, process, x)
    noising_steps(chain, process, points.dtype)  # refused before anything compiles
    unit = TwistedFilter(chain=chain, twist=twist).plain(model)
    if unit.twist_of(model) is None:
        unit = TwistedFilter(chain=chain, num_paths=1)  # nothing binds the paths: each is a unit
    if is_traced((model, points, key)) and num_paths is None:
        budget = Budget(64, None)
    asked = {"mesh": mesh, "progress": progress, "key": key}
    found = estimate(unit, unit, budget, model, process, points, name="log p_chain", **asked)
    if not is_traced(found):
        check_found(found, budget, "log p_chain")
    return LogProbChain(
        found.value, found.standard_error, found.effective_sample_size, found.reliable
    )
