"""Denoising diffusion implicit models."""

import dataclasses

import equinox as eqx

from .._process import AbstractProcess
from .._types import ArrayLike
from .chain import AbstractChain, Kernels, posterior_kernels
from .steps import chosen_steps, finer_steps

_STEPS = 100


class DDIM(AbstractChain):
    r"""Steps from the predicted data and the predicted noise, with a part $\eta$ of the noise drawn
    anew.

    With $\hat z = -\sigma_t\,s(t, x_t)$ and $\hat x_0 = (x_t - \sigma_t \hat z)/\alpha_t$,

    $$x_s = \alpha_s \hat x_0 + \sqrt{\sigma_s^2 - c^2}\,\hat z + c\,z, \qquad
    c = \eta\,\frac{\sigma_s}{\sigma_t}
    \sqrt{\sigma_t^2 - \Bigl(\frac{\alpha_t}{\alpha_s}\Bigr)^2 \sigma_s^2}.$$

    **Arguments:**

    - `num_steps`: number of steps, graded by `process.graded_time`; 100 by default.
    - `eta`: $0 \le \eta \le 1$; zero gives Euler's method for the probability-flow ODE in $x/\alpha$ and
      $\sigma/\alpha$, one gives `Ancestral`.
    - `step_grid`: your own times instead, decreasing from `t1` to `t0`, shape `(n + 1,)`.

    **Raises:** `ValueError` for an invalid number of steps or grid, or `eta` out of range.

    **Example:**

    ```python
    sampler = fpflow.DDIM(50)
    ```

    ??? cite "Reference"
        Song, Meng and Ermon, *Denoising diffusion implicit models*, ICLR 2021, arXiv 2010.02502.
    """

    num_steps: int | None = eqx.field(default=None, static=True)
    eta: float = eqx.field(default=0.0, static=True)
    step_grid: ArrayLike | None = eqx.field(default=None, static=True)

    def __post_init__(self):
        self.num_steps, self.step_grid = chosen_steps(self.num_steps, self.step_grid, _STEPS)
        if not 0 <= self.eta <= 1:
            raise ValueError(f"`eta` must lie between 0 and 1, got {self.eta}.")
        self.eta = float(self.eta)

    def kernels(self, process: AbstractProcess, dtype) -> Kernels:
        """The kernels of the chain for a process, in the precision `dtype`."""
        return posterior_kernels(process, self.eta, self.num_steps, self.step_grid, dtype)

    def finer(self, factor: int) -> "DDIM":
        """The same sampler with `factor` times as many steps."""
        return dataclasses.replace(self, **finer_steps(self.num_steps, self.step_grid, factor))
