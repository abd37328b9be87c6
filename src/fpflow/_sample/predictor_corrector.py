"""Predictor steps in time, with Langevin steps at each time."""

import dataclasses

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
from .steps import chosen_steps, finer_steps, step_times

_STEPS = 200


class PredictorCorrector(AbstractSampler):
    r"""Langevin steps at each time, followed by a reverse diffusion step to the next time.

    The corrector takes `num_corrections` steps $x \leftarrow x + \varepsilon\,s + \sqrt{2
    \varepsilon}\,z$ with $\varepsilon = 2\,(r\,\|z\| / \|s\|)^2$; $r$ is the signal-to-noise
    ratio and the norms are means over the block, as in the paper. The predictor goes from $t$ to $s$ by

    $$x_s = (2 - a)\,x_t + G^2\,s(t, x_t) + G\,z, \qquad a = \frac{\alpha_t}{\alpha_s}, \quad
    G^2 = \sigma_t^2 - a^2 \sigma_s^2,$$

    without noise in the last step. The corrector leaves a bias of order $r^2$, which more steps do not
    remove.

    **Arguments:**

    - `num_steps`: number of steps, graded by `process.graded_time`; 200 by default.
    - `signal_to_noise`: the ratio $r$, positive.
    - `num_corrections`: number of Langevin steps at each time.
    - `step_grid`: your own times instead, decreasing from `t1` to `t0`, shape `(n + 1,)`.

    **Raises:** `ValueError` for an invalid number, ratio or grid.

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

    def __post_init__(self):
        self.num_steps, self.step_grid = chosen_steps(self.num_steps, self.step_grid, _STEPS)
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
        times = step_times(process, self.num_steps, self.step_grid, x1.dtype)
        alpha, sigma = levels(process, times)
        a = alpha[:-1] / alpha[1:]
        pull = np.maximum(sigma[:-1] ** 2 - (a * sigma[1:]) ** 2, 0)
        noise = np.sqrt(pull) * (np.arange(len(a)) < len(a) - 1)

        def correct(x, key, t):
            score = jax.vmap(lambda x: model.score(t, x))(x)
            z = jr.normal(key, x.shape, x.dtype)
            ratio = _mean_norm(z) / _mean_norm(score)
            size = 2 * (self.signal_to_noise * ratio) ** 2
            return x + size * score + jnp.sqrt(2 * size) * z

        def step(x, row):
            number, t, a, pull, noise = row
            key_predict, key_correct = jr.split(jr.fold_in(key, number))
            for k in range(self.num_corrections):
                x = correct(x, jr.fold_in(key_correct, k), t)
            z = jr.normal(key_predict, x.shape, x.dtype)
            score = jax.vmap(lambda x: model.score(t, x))(x)
            return (2 - a) * x + pull * score + noise * z, None

        rows = [jnp.asarray(column, x1.dtype) for column in (times[:-1], a, pull, noise)]
        x0, _ = jax.lax.scan(step, x1, (jnp.arange(len(a)), *rows))
        evaluations = len(a) * (1 + self.num_corrections)
        return x0, SampleInfo(jnp.asarray(evaluations), jnp.asarray(True))

    def finer(self, factor: int) -> "PredictorCorrector":
        """The same sampler with `factor` times as many steps; the ratio stays the same."""
        return dataclasses.replace(self, **finer_steps(self.num_steps, self.step_grid, factor))


def _mean_norm(x: Float[Array, "n dim"]) -> Float[Array, ""]:
    return jnp.mean(jnp.linalg.norm(x, axis=1))
