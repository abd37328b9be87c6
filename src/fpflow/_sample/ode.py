"""The probability-flow ODE."""

import dataclasses

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._dynamics import flow_velocity
from .._process import AbstractProcess, levels
from .._types import ArrayLike, PRNGKey, ScoreModel
from .base import AbstractSampler, SampleInfo
from .solve import Controller, check_controller, finer_controller, solve
from .steps import chosen_steps, finer_steps, step_times

# Heun takes two evaluations a step. On the mixture half of these steps already stay within the sampling
# noise of 200,000 points; Euler's method needs far more for that.
_STEPS = 100
EITHER = (
    "give either `stepsize_controller`, which chooses its own steps, or `num_steps` or "
    "`step_grid`, not both."
)


class ODE(AbstractSampler):
    r"""The probability-flow ODE, $dx = \bigl(f - \tfrac12 g^2 s\bigr)\,dt$.

    If the width $w = \sqrt{\alpha^2 + \sigma^2}$ more than doubles from $t_0$ to $t_1$, the same
    equation is solved in $y = x/w$, as $dy = -\tfrac{g^2}{2w}\bigl(s + y/w\bigr)\,dt$.

    **Arguments:**

    - `solver`: a diffrax solver for ordinary differential equations.
    - `num_steps`: number of steps, graded by `process.graded_time`; 100 by default.
    - `step_grid`: your own times instead, decreasing from `t1` to `t0`, shape `(n + 1,)`.
    - `stepsize_controller`: a diffrax controller for adaptive steps instead of both, such as
      `diffrax.PIDController(rtol=1e-5, atol=1e-5)`.

    **Raises:** `ValueError` for an invalid number of steps or grid, for more than one choice of steps,
    or for adaptive steps with a solver that has no error estimate.

    **Example:**

    ```python
    sampler = fpflow.ODE(diffrax.Tsit5(), num_steps=30)
    ```

    ??? cite "Reference"
        Song et al., *Score-based generative modeling through stochastic differential equations*,
        ICLR 2021, arXiv 2011.13456.
    """

    solver: diffrax.AbstractSolver = diffrax.Heun()
    num_steps: int | None = eqx.field(default=None, static=True)
    step_grid: ArrayLike | None = eqx.field(default=None, static=True)
    stepsize_controller: Controller | None = None

    def __post_init__(self):
        if not isinstance(self.solver, diffrax.AbstractSolver) or isinstance(
            self.solver, diffrax.AbstractSRK | diffrax.AbstractFosterLangevinSRK
        ):
            raise ValueError(
                "`solver` must be a diffrax solver for ordinary differential equations, such as "
                f"`diffrax.Heun()`, got {self.solver!r}."
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
        del key  # no noise on the way
        times = step_times(process, self.num_steps or 1, self.step_grid, x1.dtype)
        alpha, sigma = levels(process, times[[0, -1]])
        wide, narrow = np.hypot(alpha, sigma)
        if wide < 2 * narrow:

            def drift(tau, x, _):
                return -jax.vmap(lambda x: flow_velocity(model, process, -tau, x))(x)

            return solve(diffrax.ODETerm(drift), self.solver, self.stepsize_controller, times, x1)

        # The noise explodes: in units of its width w a point hardly moves where all is noise, while
        # steps of x would multiply their errors over many powers of ten.
        def drift_in_widths(tau, y, _):
            half_g2 = process.diffusion(-tau) ** 2 / 2
            w = jnp.hypot(process.alpha(-tau), process.sigma(-tau)).astype(y.dtype)
            return half_g2 / w * (jax.vmap(lambda y: model.score(-tau, w * y))(y) + y / w)

        terms = diffrax.ODETerm(drift_in_widths)
        y0, info = solve(terms, self.solver, self.stepsize_controller, times, x1 / wide)
        return narrow * y0, info

    def finer(self, factor: int) -> "ODE":
        """The same sampler with `factor` times as many steps."""
        if self.stepsize_controller is not None:
            controller = finer_controller(self.stepsize_controller, factor)
            return dataclasses.replace(self, stepsize_controller=controller)
        return dataclasses.replace(self, **finer_steps(self.num_steps, self.step_grid, factor))
