"""Chains of Gaussian kernels: one evaluation of the score, one draw of noise, a step."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float

from .._process import AbstractProcess
from .._types import PRNGKey, ScoreModel
from .base import SampleInfo
from .steps import levels


def posterior_chain(
    model: ScoreModel,
    process: AbstractProcess,
    eta: float,
    times: np.ndarray,
    x1: Float[Array, "n dim"],
    key: PRNGKey,
) -> tuple[Float[Array, "n dim"], SampleInfo]:
    r"""Steps from $t$ to $s$ that keep the marginals of every $x_0$.

    With $\hat z = -\sigma_t\,s(t, x_t)$ and $\hat x_0 = (x_t - \sigma_t \hat z) / \alpha_t$,

    $$x_s = \alpha_s \hat x_0 + \sqrt{\sigma_s^2 - c^2}\,\hat z + c\,z, \qquad
    c = \eta\,\frac{\sigma_s}{\sigma_t}
    \sqrt{\sigma_t^2 - \Bigl(\frac{\alpha_t}{\alpha_s}\Bigr)^2 \sigma_s^2}.$$
    """
    alpha, sigma = levels(process, times)
    ratio = alpha[1:] / alpha[:-1]
    rest = np.maximum(sigma[:-1] ** 2 - (sigma[1:] / ratio) ** 2, 0)
    noise = eta * sigma[1:] / sigma[:-1] * np.sqrt(rest)
    kept = np.sqrt(np.maximum(sigma[1:] ** 2 - noise**2, 0))
    # Of x_s = ratio x + pull s + noise z, before rounding: the two parts of pull nearly cancel.
    pull = ratio * sigma[:-1] ** 2 - kept * sigma[:-1]
    return kernels(model, times, ratio, pull, noise, x1, key)


def kernels(
    model: ScoreModel,
    times: np.ndarray,
    ratio: np.ndarray,
    pull: np.ndarray,
    noise: np.ndarray,
    x1: Float[Array, "n dim"],
    key: PRNGKey,
) -> tuple[Float[Array, "n dim"], SampleInfo]:
    """Steps `ratio x + pull s(t, x) + noise z`, with noise of their own numbers."""
    quiet = not noise.any()

    def step(x, row):
        number, t, ratio, pull, noise = row
        x_next = ratio * x + pull * jax.vmap(lambda x: model.score(t, x))(x)
        if not quiet:
            x_next = x_next + noise * jr.normal(jr.fold_in(key, number), x.shape, x.dtype)
        return x_next, None

    rows = [jnp.asarray(column, x1.dtype) for column in (times[:-1], ratio, pull, noise)]
    x0, _ = jax.lax.scan(step, x1, (jnp.arange(len(ratio)), *rows))
    return x0, SampleInfo(jnp.asarray(len(ratio)), jnp.asarray(True))
