"""The second-order sampler of EDM, for any process."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float

from .._process import AbstractProcess, levels
from .._types import ArrayLike, PRNGKey, ScoreModel
from .base import AbstractSampler, SampleInfo
from .steps import chosen_steps, finer_steps, step_times

_STEPS = 50


class EDMHeun(AbstractSampler):
    r"""Heun steps of the probability-flow ODE in $y = x/\alpha$ and $r = \sigma/\alpha$, with noise
    added before each step.

    $$\frac{dy}{dr} = -r\,\alpha\,s(t, \alpha y).$$

    Before a step from $r$, noise with standard deviation $\sqrt{\hat r^2 - r^2}$ raises the noise level
    to $\hat r = (1 + \gamma)\,r$, where $\gamma = \min(\text{churn} / n, \sqrt 2 - 1)$ if $r$ lies in
    `[churn_min, churn_max]` and zero otherwise. The step to $r = 0$ is an Euler step.

    **Arguments:**

    - `num_steps`: number $n$ of steps, graded by `process.graded_time`; 50 by default.
    - `churn`: noise added over the whole path, not negative; zero gives the ODE. No noise is added above
      the $r$ of `t1`.
    - `churn_min`, `churn_max`: the range in which noise is added, in units of $r = \sigma/\alpha$.
    - `noise`: the standard deviation of the added noise, in units of the correct one.
    - `step_grid`: your own times instead, decreasing from `t1` to `t0`, shape `(n + 1,)`.

    **Raises:** `ValueError` for an invalid number of steps or grid, or negative settings.

    **Example:**

    ```python
    sampler = fpflow.EDMHeun(40, churn=10.0)
    ```

    ??? cite "Reference"
        Karras, Aittala, Aila and Laine, *Elucidating the design space of diffusion-based generative
        models*, NeurIPS 2022, arXiv 2206.00364, Algorithm 2.
    """

    num_steps: int | None = eqx.field(default=None, static=True)
    churn: float = eqx.field(default=0.0, static=True)
    churn_min: float = eqx.field(default=0.0, static=True)
    churn_max: float = eqx.field(default=float("inf"), static=True)
    noise: float = eqx.field(default=1.0, static=True)
    step_grid: ArrayLike | None = eqx.field(default=None, static=True)

    def __post_init__(self):
        self.num_steps, self.step_grid = chosen_steps(self.num_steps, self.step_grid, _STEPS)
        for name in ("churn", "churn_min", "churn_max", "noise"):
            value = getattr(self, name)
            if not (value >= 0 and (np.isfinite(value) or name == "churn_max")):
                raise ValueError(f"`{name}` must be finite and not negative, got {value}.")
            setattr(self, name, float(value))
        if self.churn_max < self.churn_min:
            raise ValueError(
                f"`churn_max` must be at least `churn_min` = {self.churn_min}, got {self.churn_max}."
            )

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
        r = sigma / alpha
        now = _State(times[:-1], alpha[:-1], r[:-1])
        following = _State(times[1:], alpha[1:], r[1:])
        lifted, added = self._lifted(process, now)

        def slope(at, y):
            score = jax.vmap(lambda x: model.score(at.t, x))(at.alpha * y)
            return -at.r * at.alpha * score

        def euler(y, row):
            number, lifted, following, added = row
            if self.churn > 0:
                z = jr.normal(jr.fold_in(key, number), y.shape, y.dtype)
                y = y + added * z
            k = slope(lifted, y)
            return y + (following.r - lifted.r) * k, y, k

        def heun(y, row):
            _, lifted, following, _ = row
            guess, y, k = euler(y, row)
            mean = (k + slope(following, guess)) / 2
            return y + (following.r - lifted.r) * mean, None

        rows = jax.tree.map(
            lambda column: jnp.asarray(column, x1.dtype), (lifted, following, added)
        )
        rows = (jnp.arange(len(added)), *rows)
        to_zero = int(r[-1] == 0)
        num_heun = len(added) - to_zero
        y, _ = jax.lax.scan(heun, x1 / rows[1].alpha[0], jax.tree.map(lambda a: a[:num_heun], rows))  # pyright: ignore
        if to_zero:
            y, _, _ = euler(y, jax.tree.map(lambda a: a[-1], rows))
        evaluations = jnp.asarray(2 * num_heun + to_zero)
        return rows[2].alpha[-1] * y, SampleInfo(evaluations, jnp.asarray(True))  # pyright: ignore

    def _lifted(self, process: AbstractProcess, now: "_State") -> tuple["_State", np.ndarray]:
        """Where each step starts after noise of the deviations that come with it, in double
        precision."""
        within = (now.r >= self.churn_min) & (now.r <= self.churn_max)
        share = np.where(within, min(self.churn / len(now.r), np.sqrt(2) - 1), 0.0)
        r = np.minimum((1 + share) * now.r, now.r[0])
        moved = r > now.r
        if not moved.any():
            return now, np.zeros_like(r)
        with jax.ensure_compile_time_eval(), jax.enable_x64(True):
            found = jax.vmap(process.time_at_log_noise_ratio)(jnp.asarray(2 * np.log(r)))
        t = np.where(moved, np.asarray(found), now.t)
        added = self.noise * np.sqrt(np.maximum(r**2 - now.r**2, 0))
        return _State(t, levels(process, t)[0], r), added

    def finer(self, factor: int) -> "EDMHeun":
        """The same sampler with `factor` times as many steps; the added noise stays the same."""
        return dataclasses.replace(self, **finer_steps(self.num_steps, self.step_grid, factor))


class _State(eqx.Module):
    """A time, its alpha and its ratio of noise to signal."""

    t: Any
    alpha: Any
    r: Any
