"""Predictor steps in time, with Langevin steps at each time."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float

from .._model import check_counts
from .._process import AbstractProcess, levels
from .._types import ArrayLike, PRNGKey, ScoreModel
from .base import AbstractSampler, SampleInfo
from .chain import AbstractChain, Kernels
from .steps import chosen_steps, finer_steps, step_times

_STEPS = 200


class PredictorCorrector(AbstractSampler):
    r"""Langevin steps at each time, followed by a reverse diffusion step to the next time.

    The corrector takes `num_corrections` steps $x \leftarrow x + \varepsilon\,s + \sqrt{2
    \varepsilon}\,z$ with $\varepsilon = 2\,(r\,\|z\| / \|s\|)^2$; $r$ is the signal-to-noise
    ratio and the norms are means over the block, as in the paper. The predictor goes from $t$ to $s$ by

    $$x_s = (2 - a)\,x_t + G^2\,s(t, x_t) + G\,z, \qquad a = \frac{\alpha_t}{\alpha_s}, \quad
    G^2 = \sigma_t^2 - a^2 \sigma_s^2,$$

    without noise in the last step; `predictor` puts any chain in its place, such as `DDIM` for the
    probability-flow ODE with Langevin corrections. The corrector leaves a bias of order $r^2$, which
    more steps do not remove.

    **Arguments:**

    - `num_steps`: number of steps, graded by `process.graded_time`; 200 by default.
    - `signal_to_noise`: the ratio $r$, positive.
    - `num_corrections`: number of Langevin steps at each time.
    - `step_grid`: your own times instead, decreasing from `t1` to `t0`, shape `(n + 1,)`.
    - `predictor`: a chain whose steps, with its own times, take the place of the predictor's.

    **Raises:** `ValueError` for an invalid number, ratio or grid, or for steps beside a predictor.

    **Example:**

    ```python
    sampler = fpflow.PredictorCorrector(500, signal_to_noise=0.1)
    ```

    ??? cite "Reference"
        Song et al., *Score-based generative modeling through stochastic differential equations*,
        ICLR 2021, arXiv 2011.13456, Algorithms 2 to 5 and Appendix E.
    """

    num_steps: int | None = eqx.field(default=None, static=True)
    signal_to_noise: float = eqx.field(default=0.1, static=True)
    num_corrections: int = eqx.field(default=1, static=True)
    step_grid: ArrayLike | None = eqx.field(default=None, static=True)
    predictor: AbstractChain | None = None

    def __post_init__(self):
        if self.predictor is None:
            self.num_steps, self.step_grid = chosen_steps(self.num_steps, self.step_grid, _STEPS)
        elif self.num_steps is not None or self.step_grid is not None:
            raise ValueError(
                "`num_steps` and `step_grid` are those of the default predictor; give them to "
                "`predictor` instead."
            )
        (self.num_corrections,) = check_counts(num_corrections=self.num_corrections)
        if not (self.signal_to_noise > 0 and np.isfinite(self.signal_to_noise)):
            raise ValueError(
                f"`signal_to_noise` must be positive and finite, got {self.signal_to_noise}."
            )
        self.signal_to_noise = float(self.signal_to_noise)

    def __call__(
        self,
        model: ScoreModel,
        process: AbstractProcess,
        x1: Float[Array, "n dim"],
        *,
        key: PRNGKey,
    ) -> tuple[Float[Array, "n dim"], SampleInfo]:
        kernels = (
            _reverse_diffusion(process, self.num_steps, self.step_grid, x1.dtype)
            if self.predictor is None
            else self.predictor.kernels(process, x1.dtype)
        )

        def correct(x, key, t):
            score = jax.vmap(lambda x: model.score(t, x))(x)
            z = jr.normal(key, x.shape, x.dtype)
            ratio = _mean_norm(z) / _mean_norm(score)
            size = 2 * (self.signal_to_noise * ratio) ** 2
            return x + size * score + jnp.sqrt(2 * size) * z

        def step(x, row):
            number, t, ratio, pull, noise = row
            key_predict, key_correct = jr.split(jr.fold_in(key, number))
            for k in range(self.num_corrections):
                x = correct(x, jr.fold_in(key_correct, k), t)
            z = jr.normal(key_predict, x.shape, x.dtype)
            score = jax.vmap(lambda x: model.score(t, x))(x)
            return ratio * x + pull * score + noise * z, None

        columns = (kernels.times[:-1], kernels.ratio, kernels.pull, kernels.noise)
        rows = [jnp.asarray(column, x1.dtype) for column in columns]
        number = len(kernels.ratio)
        x0, _ = jax.lax.scan(step, x1, (jnp.arange(number), *rows))
        evaluations = number * (1 + self.num_corrections)
        return x0, SampleInfo(jnp.asarray(evaluations), jnp.asarray(True))

    def finer(self, factor: int) -> "PredictorCorrector":
        """The same sampler with `factor` times as many steps; the ratio stays the same."""
        if self.predictor is not None:
            return dataclasses.replace(self, predictor=self.predictor.finer(factor))
        return dataclasses.replace(self, **finer_steps(self.num_steps, self.step_grid, factor))


def _reverse_diffusion(
    process: AbstractProcess, num_steps: int | None, step_grid: ArrayLike | None, dtype: Any
) -> Kernels:
    """The predictor of the paper, without noise in the last step."""
    times = step_times(process, num_steps, step_grid, dtype)
    alpha, sigma = levels(process, times)
    a = alpha[:-1] / alpha[1:]
    pull = np.maximum(sigma[:-1] ** 2 - (a * sigma[1:]) ** 2, 0)
    noise = np.sqrt(pull) * (np.arange(len(a)) < len(a) - 1)
    return Kernels(times, 2 - a, pull, noise)


def _mean_norm(x: Float[Array, "n dim"]) -> Float[Array, ""]:
    return jnp.mean(jnp.linalg.norm(x, axis=1))
