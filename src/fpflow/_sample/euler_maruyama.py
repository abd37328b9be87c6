"""Euler--Maruyama, with or without noise at the end."""

import dataclasses

import diffrax
import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float

from .._dynamics import check_eta
from .._process import AbstractProcess
from .._types import ArrayLike, PRNGKey, ScoreModel
from .base import AbstractSampler, SampleInfo
from .solve import Eta, reverse_sde
from .steps import chosen_steps, finer_steps, step_times

_STEPS = 400


class EulerMaruyama(AbstractSampler):
    r"""Euler--Maruyama steps of the family of `SDE`, by default without noise in the last one.

    $$x_{k+1} = x_k - h_k\bigl[f - \tfrac12(1 + \eta^2) g^2 s\bigr](t_k, x_k)
    + \eta\,g(t_k)\sqrt{h_k}\,z_k, \qquad h_k = t_k - t_{k+1}.$$

    **Arguments:**

    - `eta`: $\eta \ge 0$: one is the reverse SDE, zero the probability-flow ODE.
    - `num_steps`: steps graded by `process.graded_time`; 400 by default.
    - `step_grid`: times of one's own instead, falling from `t1` to `t0`, shape `(n + 1,)`.
    - `quiet_end`: whether the last step adds no noise.

    **Raises:** `ValueError` for a bad number or grid.

    **Example:**

    ```python
    sampler = fpflow.EulerMaruyama(step_grid=fpflow.paper.step_grid())
    ```

    ??? cite "Reference"
        Song et al., *Score-based generative modeling through stochastic differential equations*,
        ICLR 2021, arXiv 2011.13456, Appendix G.
    """

    eta: Eta = 1.0
    num_steps: int | None = eqx.field(default=None, static=True)
    step_grid: ArrayLike | None = eqx.field(default=None, static=True)
    quiet_end: bool = eqx.field(default=True, static=True)

    def __post_init__(self):
        if not isinstance(self.eta, Tracer):
            check_eta(float(np.asarray(self.eta)))
        self.num_steps, self.step_grid = chosen_steps(self.num_steps, self.step_grid, _STEPS)

    def __call__(
        self,
        model: ScoreModel,
        process: AbstractProcess,
        x1: Float[Array, "n dim"],
        *,
        key: PRNGKey,
    ) -> tuple[Float[Array, "n dim"], SampleInfo]:
        times = step_times(process, self.num_steps, self.step_grid, x1.dtype)
        quiet_from = None
        if self.quiet_end:
            # Just before the last step begins, so that round-off cannot move it.
            quiet_from = -np.inf
            if len(times) > 2:
                quiet_from = -(times[-2] + 1e-3 * (times[-3] - times[-2]))
            quiet_from = jnp.asarray(quiet_from, x1.dtype)
        return reverse_sde(
            model, process, self.eta, diffrax.Euler(), None, times, x1, quiet_from, key
        )

    def finer(self, factor: int) -> "EulerMaruyama":
        """The same with `factor` times as many steps."""
        return dataclasses.replace(self, **finer_steps(self.num_steps, self.step_grid, factor))
