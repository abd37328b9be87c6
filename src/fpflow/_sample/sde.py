"""The reverse SDE and the family around it."""

import dataclasses

import diffrax
import equinox as eqx
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float

from .._dynamics import check_eta
from .._process import AbstractProcess
from .._types import ArrayLike, PRNGKey, ScoreModel
from .base import AbstractSampler, SampleInfo
from .ode import EITHER
from .solve import Controller, Eta, check_controller, finer_controller, reverse_sde
from .steps import chosen_steps, finer_steps, step_times

_STEPS = 200


class SDE(AbstractSampler):
    r"""The reverse SDE, $dx = (f - g^2 s)\,dt + g\,d\bar W$, or another member of the family that has
    the same marginals if the score is exact,

    $$dx = \bigl[f - \tfrac12(1 + \eta^2) g^2 s\bigr]dt + \eta\,g\,d\bar W.$$

    **Arguments:**

    - `eta`: $\eta \ge 0$; one gives the reverse SDE, zero the probability-flow ODE.
    - `solver`: a diffrax solver for additive noise, such as `diffrax.ShARK()`, `diffrax.SRA1()` and
      `diffrax.SEA()`; `diffrax.Euler()` is Euler--Maruyama.
    - `num_steps`: number of steps, graded by `process.graded_time`; 200 by default.
    - `step_grid`: your own times instead, decreasing from `t1` to `t0`, shape `(n + 1,)`.
    - `stepsize_controller`: a diffrax controller for adaptive steps instead of both. It needs a solver
      with an error estimate, such as `diffrax.ShARK()`; the noise then comes from a
      `diffrax.VirtualBrownianTree`, which is several times slower.

    **Raises:** `ValueError` for an invalid number of steps or grid, for more than one choice of steps,
    or for a solver that does not fit.

    **Example:**

    ```python
    sampler = fpflow.SDE(eta=0.5, num_steps=400)
    ```

    ??? cite "Reference"
        Anderson, *Reverse-time diffusion equation models*, Stoch. Proc. Appl. 12 (1982) 313.
    """

    eta: Eta = 1.0
    solver: diffrax.AbstractSolver = diffrax.ShARK()
    num_steps: int | None = eqx.field(default=None, static=True)
    step_grid: ArrayLike | None = eqx.field(default=None, static=True)
    stepsize_controller: Controller | None = None

    def __post_init__(self):
        if not isinstance(self.eta, Tracer):
            check_eta(float(np.asarray(self.eta)))
        # Itô's and Stratonovich's equations are one where noise is additive.
        kinds = diffrax.AbstractItoSolver | diffrax.AbstractStratonovichSolver
        if not isinstance(self.solver, kinds) or isinstance(
            self.solver, diffrax.AbstractFosterLangevinSRK
        ):
            raise ValueError(
                "`solver` must be a diffrax solver for stochastic differential equations, such as "
                f"`diffrax.ShARK()`, got {self.solver!r}."
            )
        check_controller(self.stepsize_controller, self.solver)
        if self.stepsize_controller is None:
            self.num_steps, self.step_grid = chosen_steps(self.num_steps, self.step_grid, _STEPS)
        elif not (self.num_steps is None and self.step_grid is None):
            raise ValueError(EITHER)

    def __call__(
        self,
        model: ScoreModel,
        process: AbstractProcess,
        x1: Float[Array, "n dim"],
        *,
        key: PRNGKey,
    ) -> tuple[Float[Array, "n dim"], SampleInfo]:
        times = step_times(process, self.num_steps or 1, self.step_grid, x1.dtype)
        return reverse_sde(
            model, process, self.eta, self.solver, self.stepsize_controller, times, x1, key
        )

    def finer(self, factor: int) -> "SDE":
        """The same sampler with `factor` times as many steps."""
        if self.stepsize_controller is not None:
            controller = finer_controller(self.stepsize_controller, factor)
            return dataclasses.replace(self, stepsize_controller=controller)
        return dataclasses.replace(self, **finer_steps(self.num_steps, self.step_grid, factor))
