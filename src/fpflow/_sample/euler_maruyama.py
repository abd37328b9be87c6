"""Euler--Maruyama, with or without noise at the end."""

import dataclasses

import equinox as eqx
import numpy as np
from jax.core import Tracer

from .._dynamics import check_eta
from .._process import AbstractProcess
from .._types import ArrayLike
from .chain import AbstractChain, Kernels
from .solve import Eta
from .steps import chosen_steps, finer_steps, rates, step_times

_STEPS = 400


class EulerMaruyama(AbstractChain):
    r"""Euler--Maruyama steps for the family of `SDE`, by default without noise in the last step.

    $$x_{k+1} = x_k - h_k\bigl[f - \tfrac12(1 + \eta^2) g^2 s\bigr](t_k, x_k)
    + \eta\,g(t_k)\sqrt{h_k}\,z_k, \qquad h_k = t_k - t_{k+1}.$$

    **Arguments:**

    - `eta`: $\eta \ge 0$; one gives the reverse SDE, zero the probability-flow ODE.
    - `num_steps`: number of steps, graded by `process.graded_time`; 400 by default.
    - `step_grid`: your own times instead, decreasing from `t1` to `t0`, shape `(n + 1,)`.
    - `quiet_end`: whether to omit the noise in the last step; with this noise the chain has a density,
      `log_prob_chain`.

    **Raises:** `ValueError` for an invalid number of steps or grid.

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

    def kernels(self, process: AbstractProcess, dtype) -> Kernels:
        """The kernels of the chain for a process, in the precision `dtype`."""
        times = step_times(process, self.num_steps, self.step_grid, dtype)
        h, (rate, g) = -np.diff(times), rates(process, times[:-1])
        loud = np.ones_like(h)
        loud[-1] = not self.quiet_end
        eta = self.eta if isinstance(self.eta, Tracer) else np.asarray(self.eta, dtype)
        times, ratio, full, noise = (
            np.asarray(part, dtype)
            for part in (times, 1 - h * rate, h * g**2 / 2, loud * g * np.sqrt(h))
        )
        return Kernels(times, ratio, (1 + eta**2) * full, eta * noise)

    def finer(self, factor: int) -> "EulerMaruyama":
        """The same sampler with `factor` times as many steps."""
        return dataclasses.replace(self, **finer_steps(self.num_steps, self.step_grid, factor))
