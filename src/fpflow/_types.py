"""Shapes and callables that every room shares."""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import jax.typing
from jaxtyping import Array, Float, Key

# Whatever `numpy.asarray` takes.
ArrayLike = jax.typing.ArrayLike | Sequence[Any]

Scalar = Float[jax.typing.ArrayLike, ""]
Time = Float[jax.typing.ArrayLike, ""]
Point = Float[Array, " dim"]
PRNGKey = Key[Array, ""]


@runtime_checkable
class Process(Protocol):
    """What a noising process must offer; `AbstractProcess` says what each part means."""

    t0: Any
    t1: Any
    prior: Any

    def drift(self, t, x): ...

    def diffusion(self, t): ...

    def transition(self, t, x0): ...


@runtime_checkable
class ScoreModel(Protocol):
    r"""Anything with a score $s(t, x) \approx \nabla \log p(t, x)$ at one point."""

    def score(self, t, x): ...


@runtime_checkable
class PotentialModel(ScoreModel, Protocol):
    r"""A score model whose score is the gradient of a potential $u(t, x)$."""

    def potential(self, t, x): ...


@runtime_checkable
class DataLaw(Protocol):
    """Anything that draws `n` points, shape `(n, dim)`, from a key."""

    def sample(self, key, n): ...
