"""The chain whose kernels are exact for Gaussian data."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float

from .._process import AbstractProcess, levels
from .._types import ArrayLike
from .chain import AbstractChain, Kernels
from .steps import chosen_steps, finer_steps, step_times

_STEPS = 100


class GaussianChain(AbstractChain):
    r"""Steps that are exact, noise included, if the data are Gaussian with variance $c$.

    With $a = \alpha_t/\alpha_s$ and the variance $v = \sigma_t^2 - a^2\sigma_s^2$ of the noising step
    from $s$ to $t$,

    $$x_s = \frac{x_t + v\,s(t, x_t)}{a} + \sqrt{v\,\frac{\alpha_s^2 c + \sigma_s^2}
    {\alpha_t^2 c + \sigma_t^2}}\,z.$$

    The mean is that of the exact posterior for any data (Tweedie's formula), and $c$ stands for the
    variance of the data in their finest directions. `tuned_chain` chooses it for a model.

    **Arguments:**

    - `variance`: $c$, one number or one for each coordinate, shape `(dim,)`, in units of $x^2$.
    - `num_steps`: number of steps, graded by `process.graded_time`; 100 by default.
    - `step_grid`: your own times instead, decreasing from `t1` to `t0`, shape `(n + 1,)`.

    **Raises:** `ValueError` for an invalid number of steps or grid, or a variance that is not positive.

    **Example:**

    ```python
    sampler = fpflow.GaussianChain(0.05)
    ```

    ??? cite "Reference"
        Bao et al., *Analytic-DPM*, ICLR 2022, arXiv 2201.06503, choose the variances of the kernels by
        the likelihood.
    """

    variance: Float[Array, "..."] | float = 1.0
    num_steps: int | None = eqx.field(default=None, static=True)
    step_grid: ArrayLike | None = eqx.field(default=None, static=True)

    def __post_init__(self):
        self.num_steps, self.step_grid = chosen_steps(self.num_steps, self.step_grid, _STEPS)
        if not isinstance(self.variance, Tracer):
            found = np.asarray(self.variance, float)
            if found.ndim > 1 or not (np.isfinite(found).all() and (found > 0).all()):
                raise ValueError(
                    "`variance` must be positive, one number or one for each coordinate, got "
                    f"{self.variance}."
                )

    def kernels(self, process: AbstractProcess, dtype) -> Kernels:
        """The kernels of the chain for a process, in the precision `dtype`."""
        times = step_times(process, self.num_steps, self.step_grid, dtype)
        alpha, sigma = levels(process, times)
        ratio = alpha[1:] / alpha[:-1]
        gained = sigma[:-1] ** 2 - (sigma[1:] / ratio) ** 2
        real = jax.dtypes.canonicalize_dtype(dtype)  # times may be asked for in more digits
        c = jnp.asarray(self.variance, real)
        column = (-1, *[1] * c.ndim)
        signal, own, gain = (
            jnp.asarray(v, real).reshape(column) for v in (alpha**2, sigma**2, gained)
        )
        wide = signal * c + own
        times, ratio, pull = (np.asarray(v, dtype) for v in (times, ratio, ratio * gained))
        return Kernels(times, ratio, pull, jnp.sqrt(gain * wide[1:] / wide[:-1]))

    def finer(self, factor: int) -> "GaussianChain":
        """The same sampler with `factor` times as many steps."""
        return dataclasses.replace(self, **finer_steps(self.num_steps, self.step_grid, factor))
