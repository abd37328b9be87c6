"""Learning rates along a training."""

import abc
import math

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


class AbstractSchedule(eqx.Module):
    """A learning rate that depends on the total number of steps."""

    @abc.abstractmethod
    def rate(self, step: Int[Array, ""], num_steps: Int[Array, ""]) -> Float[Array, ""]:
        """The learning rate at a step of `num_steps`, shape `()`."""

    def renews(self, step: Int[Array, ""], num_steps: Int[Array, ""]) -> Bool[Array, ""]:
        """Whether the optimiser resets its moments before this step; never by default."""
        del num_steps
        return step < 0


class Cosine(AbstractSchedule):
    r"""A learning rate that rises linearly for `warmup` steps and then falls as a cosine.

    **Arguments:**

    - `peak`: the largest rate.
    - `warmup`: number of steps of the linear rise.
    - `final`: the last rate, as a fraction of `peak`.
    """

    peak: float = 3e-3
    warmup: int = 200
    final: float = 1e-3

    def __check_init__(self):
        if not (self.peak > 0 and math.isfinite(self.peak)):
            raise ValueError(f"`peak` must be positive and finite, got {self.peak}.")
        if not self.warmup >= 0:
            raise ValueError(f"`warmup` must not be negative, got {self.warmup}.")
        if not 0 <= self.final <= 1:
            raise ValueError(
                f"`final`, a fraction of `peak`, must lie in [0, 1], got {self.final}."
            )

    def rate(self, step: Int[Array, ""], num_steps: Int[Array, ""]) -> Float[Array, ""]:
        """The learning rate at a step of `num_steps`."""
        rise = (step + 1) / (self.warmup + 1)
        phase = jnp.clip((step - self.warmup) / jnp.maximum(num_steps - self.warmup, 1), 0, 1)
        fall = self.final + (1 - self.final) * (1 + jnp.cos(jnp.pi * phase)) / 2
        return self.peak * jnp.minimum(rise, fall)


class Staged(AbstractSchedule):
    r"""Constant learning rates, one after another; the optimiser is reset at the start of each.

    **Arguments:**

    - `rates`: the learning rate of each stage.
    - `shares`: the fraction of all steps that each stage takes; they sum to one.
    """

    rates: tuple[float, ...] = (1e-3, 1e-4, 1e-5)
    shares: tuple[float, ...] = (0.25, 0.65, 0.10)

    def __check_init__(self):
        if len(self.rates) != len(self.shares) or not math.isclose(sum(self.shares), 1):
            raise ValueError(
                f"`shares` must sum to one, with one share per rate, got {self.shares}."
            )
        if not all(rate > 0 and math.isfinite(rate) for rate in self.rates):
            raise ValueError(f"`rates` must be positive and finite, got {self.rates}.")
        if not all(share >= 0 for share in self.shares):
            raise ValueError(f"`shares` must not be negative, got {self.shares}.")

    def _starts(self, num_steps: Int[Array, ""]) -> Int[Array, " stages"]:
        begun = jnp.asarray([sum(self.shares[:k]) for k in range(len(self.shares))])
        return jnp.round(begun * num_steps).astype(int)

    def rate(self, step: Int[Array, ""], num_steps: Int[Array, ""]) -> Float[Array, ""]:
        """The learning rate at a step of `num_steps`."""
        stage = jnp.sum(step >= self._starts(num_steps)) - 1
        return jnp.asarray(self.rates)[stage]

    def renews(self, step: Int[Array, ""], num_steps: Int[Array, ""]) -> Bool[Array, ""]:
        """Whether the optimiser resets its moments before this step."""
        return jnp.any(step == self._starts(num_steps)[1:])
