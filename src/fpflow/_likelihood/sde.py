r"""The density of the reverse SDE at points: a mean over forward noising paths."""

import dataclasses
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float

from .._devices import check_mesh
from .._model import Transformed, check_counts, densities_in_units
from .._process import AbstractProcess
from .._sample import GaussianChain
from .._types import ArrayLike, PotentialModel, PRNGKey, ScoreModel
from .._warning import warn
from .filter import TwistedFilter
from .paths import (
    NoisingGrid,
    noising_grid,
    path_exponents,
    shared_errors,
    smooth_paths,
)
from .points import checked_points, how_many, in_blocks, is_traced, shown_values
from .tune import even_steps, tuned_chain
from .units import LANES, AbstractUnit, Budget, Found, estimate


class LogProbSDE(eqx.Module):
    r"""$\log p_\text{SDE}$ at points, in nats.

    **Attributes:**

    - `value`: the log density, corrected for the bias of the logarithm of a mean, shape `(n,)`.
    - `standard_error`: the standard error from the finite number of paths, shape `(n,)`; the page on
      reliability says how often two of it cover the truth.
    - `step_error`: the part of the time-step error that remains if this error falls with the step size,
      from the difference between two time grids, shape `(n,)`. For a particle filter it also contains
      the noise of both.
    - `effective_sample_size`: the number of equal weights whose mean would be as accurate, shape `(n,)`.
    - `reliable`: where the weights are even enough for `standard_error` to be trusted, judged by the
      variance over paths that do not enter `value` and by the spread of all paths, shape `(n,)`.
    - `method`: the name of the method that drew the paths.
    """

    value: Float[Array, "*n"]
    standard_error: Float[Array, "*n"]
    step_error: Float[Array, "*n"]
    effective_sample_size: Float[Array, "*n"]
    reliable: Bool[Array, "*n"]
    method: str = eqx.field(static=True)

    def __repr__(self) -> str:
        return shown_values(self, self.standard_error, how_many(self.reliable, self.method))


class ResidualPaths(AbstractUnit):
    r"""Antithetic pairs of noising paths along which the Fokker--Planck residual is integrated.

    $$p_\text{SDE}(x) = E\,e^{A}, \qquad
    A = u(t_0, x) + \int_{t_0}^T r(t, Y_t)\,dt + \log\pi(Y_T) - u(T, Y_T),$$

    over noising paths $dY = f\,dt + g\,dW$ from $Y_{t_0} = x$, with the log-Fokker--Planck residual $r$
    of the potential $u$. For a score without a potential, over the same paths, $A = \log\pi(Y_T) + \int
    (\nabla\cdot v + s\cdot f - \tfrac12 g^2\|s\|^2)\,dt - \int s\circ dY$ with $v = f - \tfrac12 g^2 s$.
    For an exact score all paths have equal weights. The method needs second derivatives, one for each
    dimension.

    **Arguments:**

    - `num_steps`: number of times per path, cubically graded towards $t_0$.
    """

    num_steps: int = eqx.field(default=32, static=True)
    num_paths: int = eqx.field(default=2, static=True, init=False)

    def __check_init__(self):
        check_counts(num_steps=self.num_steps)

    def tables(self, process: AbstractProcess, dtype: Any) -> NoisingGrid:
        """The times of the paths and the steps between them."""
        return noising_grid(process, self.num_steps, dtype)

    def shared(
        self, model: Any, process: AbstractProcess, points: Array, mesh: Mesh | None
    ) -> Array:
        """The error of sums over the times that is the same for every path."""
        if not isinstance(model, PotentialModel):  # its mean is small, and most of it in the noise
            return super().shared(model, process, points, mesh)
        smooth = smooth_paths(process, self.num_steps, points.dtype)

        def block(_, x):
            return shared_errors(model, process, smooth, mesh, x)

        return in_blocks(block, points, LANES, "log p_SDE, times", False, mesh)

    def draw(
        self, model: Any, process: AbstractProcess, tables: NoisingGrid, x: Array, key: PRNGKey
    ) -> Array:
        """The logarithm of the mean over a pair of paths: extrapolated, and from all times alone."""
        exponents = path_exponents(model, process, tables, x, key, antithetic=True)
        return jax.nn.logsumexp(exponents, axis=0) - math.log(2)


# Above so many dimensions a filter over kernels, without derivatives. A guess: the costs of both at
# one error cross somewhere between two dimensions and sixty-four, and were not measured in between.
_DERIVATIVES_UP_TO = 8
_TARGET, _MOST = 0.05, 2560
# By so much the times of paths may grow by themselves, where more than so many points need them.
_MOST_FINER, _FEW_COARSE = 4, 0.05
# Steps of the filter's chains in the first and the second set.
_COARSE, _FINE = 32, 48
# Filters that a budget must hold for the second set to have half as many of twice the size, which take a
# tenth to a fifth fewer paths to an error, but eight at least.
_ENOUGH = 16
# Points whose median tells what the steps of a filter do to all.
_ENOUGH_POINTS = 8


@densities_in_units
def log_prob_sde(
    model: ScoreModel | Transformed,
    process: AbstractProcess,
    x: ArrayLike,
    *,
    target_error: float | None = None,
    num_paths: int | None = None,
    num_steps: int | None = None,
    method: ResidualPaths | TwistedFilter | None = None,
    mesh: Mesh | None = None,
    progress: bool | None = None,
    key: PRNGKey,
) -> LogProbSDE:
    r"""The log density at $t_0$ of the distribution that the exact reverse SDE generates from the prior,
    in any dimension.

    The density is the mean weight of noising paths that start at $x$. These are `ResidualPaths`; in more
    than eight dimensions, if the model has a potential, they come from a `TwistedFilter` over a tuned
    `GaussianChain`. A first set of paths determines how many are needed and whether the weights are even
    enough; the value is that of a second set. Filters instead begin with eight, whose variance says how
    many more are needed, and twice as large ones are drawn where their logarithms are too wide.

    **Arguments:**

    - `model`: has `score(t, x)` for one point; if it also has `potential(t, x)`, the potential is used.
    - `process`: gives $f$, $g$, the transition and the prior.
    - `x`: points of shape `(n, dim)`.
    - `target_error`: the standard error to reach at each point, 0.05 nats by default, with at most
      `num_paths` paths, 2560 by default.
    - `num_paths`: without `target_error`, the number of paths per point in the second set, in whole
      units: pairs, or filters of 128 paths, of 256 if there are 2048 or more.
    - `num_steps`: number of times per path. The default is 32 with a potential and 64 for a score alone,
      two or four times as many if `step_error` exceeds twice the target at more than a twentieth of the
      points, as it does near data with fine structure. For a filter it is 48, placed where its weights
      need them.
    - `method`: a `ResidualPaths` or a `TwistedFilter` to use instead of the choice above. The first set
      of a filter, which serves `step_error`, uses the steps of its chain and the second set twice as
      many; by default the first set uses two thirds as many as the second.
    - `mesh`: a `jax.sharding.Mesh` of devices that share the points.
    - `progress`: whether to show a progress bar; by default on a terminal or in a notebook.
    - `key`: a `jax.random.key`.

    Under `jax.jit` and `jax.grad` the number of paths cannot depend on computed values: every point gets
    `num_paths` paths, 64 by default.

    **Returns:** a `LogProbSDE` in the precision of the model.

    **Raises:** `ValueError` for invalid arguments; `FloatingPointError` if the score is not finite.
    Warns if the weights are too uneven for the standard error to be trusted, if the target is not
    reached, or if the steps of the paths are too coarse.

    **Example:**

    ```python
    found = fpflow.log_prob_sde(model, process, jnp.zeros((3, 2)), key=jax.random.key(0))
    found.value, found.standard_error, found.reliable
    ```

    ??? cite "Reference"
        Huang, Lim and Courville, *A variational perspective on diffusion-based generative models and
        score matching*, NeurIPS 2021, arXiv 2106.02808, give the weight as a Feynman--Kac formula.
    """
    check_mesh(mesh)
    budget = asked_budget(target_error, num_paths)
    points = checked_points(model, process, x)
    first, second = _methods(method, num_steps, budget, model, process, points, key)
    if is_traced((model, points, key)) and num_paths is None:
        budget = Budget(64, None)
    asked = {"name": "log p_SDE", "mesh": mesh, "progress": progress, "key": key}
    found = estimate(second, first, budget, model, process, points, **asked)
    if isinstance(second, ResidualPaths) and not is_traced(found):
        most = second.num_steps * (_MOST_FINER if num_steps is None and method is None else 1)
        while _too_coarse(found, budget) and second.num_steps < most:
            first = second = ResidualPaths(2 * second.num_steps)
            found = estimate(second, first, budget, model, process, points, **asked)
    other = found.plain if isinstance(second, ResidualPaths) else found.first
    apart = jnp.abs(found.value - other) * remaining(first, second, process)
    result = LogProbSDE(
        found.value,
        found.standard_error,
        apart,
        found.effective_sample_size,
        found.reliable,
        type(second).__name__,
    )
    if not is_traced(found):
        check_found(found, budget, "log p_SDE")
        if isinstance(second, ResidualPaths):
            _check_steps(np.asarray(apart), second.num_steps, _step_limit(budget))
        elif np.isfinite(left := remaining(first, second, process)):
            _check_common_steps(np.asarray(found.value - found.first) * left, budget)
    return result


def _check_steps(apart: np.ndarray, num_steps: int, limit: float) -> None:
    """Warns where the times of paths move a value by more than they may."""
    if (apart > limit).any():
        warn(
            f"the finite steps of the paths change log p_SDE by more than {limit:.3g} nats at "
            f"{(apart > limit).sum()} of {len(apart)} points, by up to {apart.max():.2g}: the score "
            f"changes quickly along the paths; raise `num_steps` above {num_steps}. See `.step_error`."
        )


def _check_common_steps(apart: np.ndarray, budget: Budget) -> None:
    """Warns where those of a filter do at most points alike: at one point they drown in its noise."""
    middle = float(np.median(apart))
    noise = 1.25 * float(np.std(apart)) / max(len(apart) - 1, 1) ** 0.5
    target = _TARGET if budget.target_error is None else budget.target_error
    if len(apart) >= _ENOUGH_POINTS and abs(middle) > max(target, 2 * noise):
        warn(
            f"the finite steps of the chain change log p_SDE by about {middle:.2g} nats, which "
            "`standard_error` does not contain; raise `num_steps`, or the steps of `method`."
        )


def _step_limit(budget: Budget) -> float:
    """What steps may move a value by, in nats: twice the error that the paths may have."""
    return 2 * (_TARGET if budget.target_error is None else budget.target_error)


def _too_coarse(found: Found, budget: Budget) -> bool:
    """Whether half the times of the paths would move more than a twentieth of the values by more than
    they may be."""
    apart = np.abs(np.asarray(found.value - found.plain))
    return bool((apart > _step_limit(budget)).mean() > _FEW_COARSE)


def asked_budget(target_error: float | None, num_paths: int | None) -> Budget:
    """What was asked for, in the words of a `Budget`."""
    if num_paths is not None:
        check_counts(num_paths=num_paths)
        if num_paths < 4:
            raise ValueError(
                f"`num_paths` must be at least 4, two antithetic pairs, got {num_paths}."
            )
    if target_error is not None and not target_error > 0:
        raise ValueError(f"`target_error` must be positive, got {target_error}.")
    if num_paths is None:
        return Budget(_MOST, _TARGET if target_error is None else target_error)
    return Budget(num_paths, target_error)


def remaining(first: AbstractUnit, second: AbstractUnit, process: AbstractProcess) -> float:
    """What is left of an error of first order in the steps, in units of what finer ones took away."""
    if not (isinstance(first, TwistedFilter) and isinstance(second, TwistedFilter)):
        return 1.0  # the extrapolation of paths is from half as many times
    coarse, fine = first.num_steps(process), second.num_steps(process)
    return coarse / (fine - coarse) if fine > coarse else math.inf


def _methods(
    method: Any,
    num_steps: int | None,
    budget: Budget,
    model: Any,
    process: AbstractProcess,
    points: Array,
    key: PRNGKey,
) -> tuple[AbstractUnit, AbstractUnit]:
    """Those of the first and the second set."""
    if num_steps is not None:
        check_counts(num_steps=num_steps)
    if method is None:
        by_filter = isinstance(model, PotentialModel) and points.shape[1] > _DERIVATIVES_UP_TO
        if by_filter:
            fine = num_steps or _FINE
            coarse = max(fine * _COARSE // _FINE, 1)
            some = points[:16]
            few, many = (_filter(steps, model, process, some, key) for steps in (coarse, fine))
            return few, many.larger() if budget.units(many) >= _ENOUGH else many
        method = ResidualPaths(num_steps or (32 if isinstance(model, PotentialModel) else 64))
    elif num_steps is not None:
        raise ValueError("`num_steps` applies to the default method; pass it to `method` instead.")
    if isinstance(method, ResidualPaths):
        return method, method
    if not isinstance(method, TwistedFilter):
        raise ValueError(
            f"`method` must be a `ResidualPaths` or a `TwistedFilter`, got {method!r}."
        )
    method = method.plain(model)
    return method, dataclasses.replace(method, chain=method.chain.finer(2))


def _filter(
    num_steps: int, model: PotentialModel, process: AbstractProcess, some: Array, key: PRNGKey
) -> TwistedFilter:
    """With a variance for each coordinate and steps where the weights need them."""

    def tuned(chain: GaussianChain) -> GaussianChain:
        return tuned_chain(chain, model, process, some, diagonal=True, key=key)

    chain = tuned(GaussianChain(num_steps=num_steps))
    for _ in range(2):
        chain = tuned(even_steps(chain, model, process, some, key))
    return TwistedFilter(chain=chain)


def check_found(found: Found, budget: Budget, name: str) -> None:
    """Refuses what is not finite, and warns of what should not be believed."""
    num = len(found.value)
    finite = np.isfinite(np.asarray(found.value))
    if not finite.all():
        raise FloatingPointError(
            f"{name} is not finite at {int((~finite).sum())} of {num} points: the score is not finite "
            "somewhere on the noising paths."
        )
    target = budget.target_error
    above = (
        np.full(num, False) if target is None else np.asarray(found.standard_error) > 1.5 * target
    )
    if above.any():
        paths = np.asarray(found.num_paths)[above]
        cure = (
            f"raise `num_paths` above {budget.num_paths}"
            if paths.max() >= budget.num_paths
            else "a first set of paths underestimated how many are needed; a lower `target_error` asks "
            "for more"
        )
        warn(
            f"the standard error stays above 1.5 times `target_error` = {target} at {above.sum()} of "
            f"{num} points, which used up to {paths.max()} paths; {cure}."
        )
    bad = int((~np.asarray(found.reliable)).sum())
    if bad:
        warn(
            f"{name} is unreliable at {bad} of {num} points: the weights of the paths are too uneven "
            "for its standard error to be trusted; raise `num_paths`, or do not trust the score "
            "there. See `.reliable` and `.effective_sample_size`."
        )
