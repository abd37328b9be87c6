"""The Fokker--Planck equation as a penalty, of a potential and of a score."""

from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr

from .._devices import shared_out
from .._noising import Noised
from .._process import AbstractProcess
from .._residual import ExactScoreSquare, ExactSquare, ResidualSquare, ScoreSquare
from .._times import strata
from .._types import PotentialModel, PRNGKey, Scalar
from .base import AbstractTerm, Weight, mean_over, some_of, weights_over_time
from .weighting import Weighting, noise_weighting


def _needs_potential(term: AbstractTerm, model: Any) -> None:
    if not isinstance(model, PotentialModel):
        raise ValueError(
            f"`{type(term).__name__}` needs a model with `potential(t, x)`, got "
            f"{type(model).__name__}; use `PotentialMLP`, or `ScoreFokkerPlanck` for a score."
        )


class FokkerPlanck(AbstractTerm):
    r"""$E\,\lambda(t)\,r^2$ over $t \sim U(t_0, t_1)$ and $x \sim p_t$: the residual where samplers go.

    The points are the noised data of the batch, with its times and weights, so small times are well
    sampled.

    **Arguments:**

    - `weight`: $w_R$, a number or a function of the step.
    - `num_points`: number of points of the batch that are used.
    - `square`: how $r^2$ is computed: `ExactSquare()`, or with probes in high dimensions.
    - `weighting`: $\lambda$, a function `(process, t)`.
    """

    weight: Weight = 1.0
    num_points: int = 1024
    square: ResidualSquare = ExactSquare()
    weighting: Weighting = noise_weighting

    def check(self, model: Any) -> None:
        _needs_potential(self, model)

    def __call__(
        self, model: Any, process: AbstractProcess, noised: Noised, *, key: PRNGKey
    ) -> Scalar:
        some = some_of(noised, self.num_points)
        weight = weights_over_time(self.weighting, process, some)

        def square(m, t, x, key):
            return self.square(m, process, t, x, key)

        keys = jr.split(key, len(some.t))
        return mean_over(square, model, (some.t, some.x, keys), weight, some.condition)


class UniformFokkerPlanck(AbstractTerm):
    r"""$\tilde R = E\,r^2$ over $t \sim U(t_0, t_1)$ and $x \sim U(\Omega)$, as in the paper.

    **Arguments:**

    - `weight`: $w_R$, a number or a function of the step.
    - `num_points`: number of collocation points drawn at each step.
    - `low`, `high`: $\Omega = [\text{low}, \text{high}]^d$.
    - `square`: how $r^2$ is computed: `ExactSquare()`, or with probes in high dimensions.
    """

    weight: Weight = 1.0
    num_points: int = 5000
    low: float = -3.5
    high: float = 3.5
    square: ResidualSquare = ExactSquare()

    def check(self, model: Any) -> None:
        _needs_potential(self, model)

    def __call__(
        self, model: Any, process: AbstractProcess, noised: Noised, *, key: PRNGKey
    ) -> Scalar:
        key_time, key_place, key_square = jr.split(key, 3)
        t = process.t0 + (process.t1 - process.t0) * strata(key_time, self.num_points)
        shape = (self.num_points, noised.x.shape[1])
        x = jr.uniform(key_place, shape, noised.x.dtype, self.low, self.high)
        row = jnp.arange(self.num_points) % len(noised.t)
        condition = jax.tree.map(lambda c: c[row], noised.condition)
        t, x = shared_out((t, x))

        def square(m, t, x, key):
            return self.square(m, process, t, x, key)

        keys = jr.split(key_square, len(t))
        return mean_over(square, model, (t, x, keys), jnp.ones_like(t), condition)


class ScoreFokkerPlanck(AbstractTerm):
    r"""$E\,\lambda(t)\,\|\rho\|^2$ over $t \sim U(t_0, t_1)$ and $x \sim p_t$, with the residual $\rho$
    of the score equation, which needs no potential.

    **Arguments:**

    - `weight`: a number, or a function of the step.
    - `num_points`: number of points of the batch that are used; each needs third derivatives of a
      potential, or second derivatives of a score.
    - `weighting`: $\lambda$, a function `(process, t)`.
    - `square`: how $\|\rho\|^2$ is computed: `ExactScoreSquare()`, or the cheaper, biased
      `ProbedScoreSquare()`.

    ??? cite "Reference"
        Lai et al., *FP-Diffusion: improving score-based diffusion models by enforcing the underlying
        score Fokker--Planck equation*, ICML 2023, arXiv 2210.04296.
    """

    weight: Weight = 1.0
    num_points: int = 256
    weighting: Weighting = noise_weighting
    square: ScoreSquare = ExactScoreSquare()

    def __call__(
        self, model: Any, process: AbstractProcess, noised: Noised, *, key: PRNGKey
    ) -> Scalar:
        some = some_of(noised, self.num_points)
        # rho has the units of a score per time: one more sigma^2 makes it comparable to r^2.
        weight = weights_over_time(self.weighting, process, some) * some.std**2

        def square(m, t, x, key):
            return self.square(m, process, t, x, key)

        keys = jr.split(key, len(some.t))
        return mean_over(square, model, (some.t, some.x, keys), weight, some.condition)
