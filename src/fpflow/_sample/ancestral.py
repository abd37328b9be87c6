"""Ancestral sampling."""

import dataclasses

import equinox as eqx

from .._process import AbstractProcess
from .._types import ArrayLike
from .chain import AbstractChain, Kernels, posterior_kernels
from .steps import chosen_steps, finer_steps

_STEPS = 400


class Ancestral(AbstractChain):
    r"""Draws each step from its posterior given the predicted data, as in DDPM.

    The step from $t$ to $s$ draws from $p(x_s \mid x_t, \hat x_0)$ with
    $\hat x_0 = (x_t + \sigma_t^2\,s(t, x_t)) / \alpha_t$, for any $\alpha$ and $\sigma$. This is `DDIM`
    with $\eta = 1$. The last step returns $\hat x_0$ unless it has noise.

    **Arguments:**

    - `num_steps`: number of steps, graded by `process.graded_time`; 400 by default.
    - `step_grid`: your own times instead, decreasing from `t1` to `t0`, shape `(n + 1,)`.
    - `quiet_end`: whether to omit the noise in the last step; with this noise the chain has a density,
      `log_prob_chain`.

    **Raises:** `ValueError` for an invalid number of steps or grid.

    **Example:**

    ```python
    sampler = fpflow.Ancestral(1000)
    ```

    ??? cite "Reference"
        Ho, Jain and Abbeel, *Denoising diffusion probabilistic models*, NeurIPS 2020,
        arXiv 2006.11239.
    """

    num_steps: int | None = eqx.field(default=None, static=True)
    step_grid: ArrayLike | None = eqx.field(default=None, static=True)
    quiet_end: bool = eqx.field(default=True, static=True)

    def __post_init__(self):
        self.num_steps, self.step_grid = chosen_steps(self.num_steps, self.step_grid, _STEPS)

    def kernels(self, process: AbstractProcess, dtype) -> Kernels:
        """The kernels of the chain for a process, in the precision `dtype`."""
        return posterior_kernels(
            process, 1.0, self.num_steps, self.step_grid, dtype, self.quiet_end
        )

    def finer(self, factor: int) -> "Ancestral":
        """The same sampler with `factor` times as many steps."""
        return dataclasses.replace(self, **finer_steps(self.num_steps, self.step_grid, factor))
