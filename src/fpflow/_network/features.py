r"""What a network is told of the time."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float

from .._model import check_counts
from .._types import PRNGKey, Time

# Noise below a hundredth of the data's width is one to a network.
_LEAST = 1e-2


def noise_ratio(tau: Time) -> Array:
    r"""$\sigma / (\alpha\sqrt c) = \sqrt{e^{2\tau} - 1}$, of the frame's time, from a hundredth on."""
    return jnp.sqrt(jnp.expm1(2 * tau) + _LEAST**2)


class NoiseFeatures(eqx.Module):
    r"""Cosines and sines of $\log\bigl(\sigma / (\alpha\sqrt c)\bigr)$, the log noise ratio.

    Given time itself, a network would have to learn that a thousandth near $t_0$ matters as much as a
    thousandth at $t_1$. The argument is the time $\tau$ of the frame, which `in_frame` computes from
    $t$.

    **Arguments:**

    - `num_frequencies`: number of frequencies, evenly spaced; the largest completes one turn per factor
      of two in noise.

    **Example:**

    ```python
    features = fpflow.NoiseFeatures(8)(0.3)
    ```
    """

    num_frequencies: int = eqx.field(default=16, static=True)

    def __check_init__(self):
        check_counts(num_frequencies=self.num_frequencies)

    @property
    def size(self) -> int:
        """The number of features: the log noise ratio itself, cosines and sines."""
        return 2 * self.num_frequencies + 1

    def __call__(self, tau: Time) -> Float[Array, " features"]:
        """The features at one time of the frame, shape `(size,)`."""
        level = jnp.log(noise_ratio(jnp.asarray(tau)))
        frequency = jnp.arange(1, self.num_frequencies + 1) / self.num_frequencies
        angle = 2 * jnp.pi / jnp.log(2.0) * frequency.astype(level.dtype) * level
        return jnp.concatenate([level[None] / 4, jnp.cos(angle), jnp.sin(angle)])


class Embedding(eqx.Module):
    """The features of the time, and a condition where there is one, as one vector."""

    features: NoiseFeatures
    first: eqx.nn.Linear
    last: eqx.nn.Linear
    condition_dim: int = eqx.field(static=True)

    def __init__(self, width: int, num_frequencies: int, condition_dim: int, key: PRNGKey):
        key_first, key_last = jr.split(key)
        self.features = NoiseFeatures(num_frequencies)
        size = self.features.size + condition_dim
        self.first = eqx.nn.Linear(size, width, key=key_first)
        self.last = eqx.nn.Linear(width, width, key=key_last)
        self.condition_dim = condition_dim

    def __call__(self, tau: Time, condition: Any) -> Float[Array, " width"]:
        """The vector at one time and condition."""
        told = self.features(tau).astype(self.first.weight.dtype)
        if self.condition_dim:
            if condition is None or jnp.shape(condition) != (self.condition_dim,):
                shape = None if condition is None else jnp.shape(condition)
                raise ValueError(
                    f"`condition` must be an array of shape ({self.condition_dim},) for this network, "
                    f"got {shape}; use `fpflow.given(model, condition)`, or train it on data with "
                    "conditions."
                )
            told = jnp.concatenate([told, jnp.asarray(condition, told.dtype)])
        elif condition is not None:
            raise ValueError(
                "`condition` was given to a network that was made without `condition_dim`."
            )
        return jax.nn.silu(self.last(jax.nn.silu(self.first(told))))
