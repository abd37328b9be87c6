"""Chains of Gaussian kernels: one evaluation of the score, one draw of noise, a step."""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float

from .._process import AbstractProcess, levels
from .._shown import shown_fields
from .._types import PRNGKey, ScoreModel
from .base import AbstractSampler, SampleInfo
from .steps import step_times


class Kernels(eqx.Module):
    r"""The kernels $q(x_s \mid x_t) = N(a\,x_t + b\,s(t, x_t),\; c^2)$ of a chain, starting at $t_1$.

    **Attributes:**

    - `times`: decreasing from $t_1$, shape `(n + 1,)`.
    - `ratio`, `pull`: $a$ and $b$ of each step, shape `(n,)`.
    - `noise`: the standard deviations $c$, shape `(n,)`, or `(n, dim)` if they differ by direction.
    """

    times: Float[np.ndarray | Array, " times"]
    ratio: Float[np.ndarray | Array, " steps"]
    pull: Float[np.ndarray | Array, " steps"]
    noise: Float[np.ndarray | Array, "steps *dim"]

    @property
    def quiet(self) -> bool:
        """Whether it is known that no step adds noise."""
        return isinstance(self.noise, np.ndarray) and not self.noise.any()


class AbstractChain(AbstractSampler):
    """A sampler whose steps are all Gaussian kernels, so that its density can be computed.

    `sample` draws from it, `chain_paths` also keeps the points along the way, and `log_prob_chain`
    computes the log density of the distribution it draws from, steps included.

    **Example:**

    ```python
    class Overdispersed(fpflow.AbstractChain):
        steps: int = eqx.field(default=100, static=True)

        def kernels(self, process, dtype):
            return fpflow.GaussianChain(2.0, self.steps).kernels(process, dtype)

        def finer(self, factor):
            return Overdispersed(factor * self.steps)
    ```
    """

    @abc.abstractmethod
    def kernels(self, process: AbstractProcess, dtype: Any) -> Kernels:
        """The kernels of the chain for a process, in the precision `dtype`."""

    def __call__(
        self,
        model: ScoreModel,
        process: AbstractProcess,
        x1: Float[Array, "n dim"],
        *,
        key: PRNGKey,
    ) -> tuple[Float[Array, "n dim"], SampleInfo]:
        kernels = self.kernels(process, x1.dtype)
        x0, _ = jax.lax.scan(_step(model, kernels, key, keep=False), x1, _rows(kernels))
        return x0, SampleInfo(jnp.asarray(len(kernels.ratio)), jnp.asarray(True))


class ChainPaths(eqx.Module):
    r"""Samples of a chain, with the path that led to each of them.

    **Attributes:**

    - `times`: decreasing from $t_1$, shape `(n + 1,)`.
    - `x`: the points at these times, shape `(n + 1, num_samples, dim)`; the last are the samples.
    """

    times: Float[Array, " times"]
    x: Float[Array, "times num_samples dim"]

    __repr__ = shown_fields


@eqx.filter_jit
def run_chain(
    chain: AbstractChain,
    model: ScoreModel,
    process: AbstractProcess,
    x1: Float[Array, "n dim"],
    key: PRNGKey,
) -> ChainPaths:
    """The whole way of points from the prior, by the noise that `sample` would draw."""
    kernels = chain.kernels(process, x1.dtype)
    _, x = jax.lax.scan(_step(model, kernels, key, keep=True), x1, _rows(kernels))
    return ChainPaths(jnp.asarray(kernels.times), jnp.concatenate([x1[None], x]))


def _rows(kernels: Kernels) -> tuple[Array, ...]:
    parts = (kernels.times[:-1], kernels.ratio, kernels.pull, kernels.noise)
    return jnp.arange(len(kernels.ratio)), *(jnp.asarray(part) for part in parts)


def _step(model: ScoreModel, kernels: Kernels, key: PRNGKey, keep: bool):
    """Each step has noise of its own number."""

    def step(x, row):
        number, t, ratio, pull, noise = row
        x_next = ratio * x + pull * jax.vmap(lambda x: model.score(t, x))(x)
        if not kernels.quiet:
            x_next = x_next + noise * jr.normal(jr.fold_in(key, number), x.shape, x.dtype)
        return x_next, (x_next if keep else jnp.zeros((0,)))

    return step


def posterior_kernels(
    process: AbstractProcess,
    eta: float,
    num_steps: int | None,
    step_grid: Any,
    dtype: Any,
    quiet_end: bool = True,
) -> Kernels:
    r"""Steps from $t$ to $s$ that keep the marginals of every $x_0$.

    With $\hat z = -\sigma_t\,s(t, x_t)$ and $\hat x_0 = (x_t - \sigma_t \hat z) / \alpha_t$,

    $$x_s = \alpha_s \hat x_0 + \sqrt{\sigma_s^2 - c^2}\,\hat z + c\,z, \qquad
    c = \eta\,\frac{\sigma_s}{\sigma_t}
    \sqrt{\sigma_t^2 - \Bigl(\frac{\alpha_t}{\alpha_s}\Bigr)^2 \sigma_s^2}.$$

    At $\sigma_s = 0$ nothing is left to draw; without a quiet end the last step has the noise of the
    noising step, $c = \eta\,\alpha_s\sigma_t/\alpha_t$, and the same mean.
    """
    times = step_times(process, num_steps, step_grid, dtype)
    alpha, sigma = levels(process, times)
    ratio = alpha[1:] / alpha[:-1]
    rest = np.maximum(sigma[:-1] ** 2 - (sigma[1:] / ratio) ** 2, 0)
    noise = eta * sigma[1:] / sigma[:-1] * np.sqrt(rest)
    kept = np.sqrt(np.maximum(sigma[1:] ** 2 - noise**2, 0))
    # Of x_s = ratio x + pull s + noise z, before rounding: the two parts of pull nearly cancel.
    pull = ratio * sigma[:-1] ** 2 - kept * sigma[:-1]
    if not quiet_end:
        noise[-1] = eta * ratio[-1] * sigma[-2]
    return Kernels(*(np.asarray(part, dtype) for part in (times, ratio, pull, noise)))
