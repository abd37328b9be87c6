"""Shapes and callables that every room shares."""

from typing import Protocol, runtime_checkable

from jax.typing import ArrayLike
from jaxtyping import Array, Float, Key

Scalar = Float[ArrayLike, ""]
Time = Float[ArrayLike, ""]
Point = Float[Array, " dim"]
PRNGKey = Key[Array, ""]


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
