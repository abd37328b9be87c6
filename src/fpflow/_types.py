"""Shapes and callables that every room shares."""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import jax.typing
from jaxtyping import Array, Float, Key

# Whatever `numpy.asarray` takes.
ArrayLike = jax.typing.ArrayLike | Sequence[Any]

Scalar = Float[Array, ""]
Time = Float[jax.typing.ArrayLike, ""]
Point = Float[Array, " dim"]
PRNGKey = Key[Array, ""]


@runtime_checkable
class ScoreModel(Protocol):
    r"""Anything with a score $s(t, x) \approx \nabla \log p(t, x)$ at one point."""

    def score(self, t: Any, x: Any) -> Any: ...


@runtime_checkable
class PotentialModel(ScoreModel, Protocol):
    r"""A score model whose score is the gradient of a potential $u(t, x)$."""

    def potential(self, t: Any, x: Any) -> Any: ...


@runtime_checkable
class JetModel(PotentialModel, Protocol):
    """A potential that knows all its derivatives of the Fokker--Planck equation in one pass."""

    def jet(self, t: Any, x: Any) -> Any: ...


@runtime_checkable
class DataLaw(Protocol):
    """Anything that draws `n` points, shape `(n, dim)`, from a key, or a pair of points and their
    conditions, shape `(n, ...)`."""

    def sample(self, key: Any, n: Any) -> Any: ...


def shown(value: Any) -> str:
    """What was given where an object of another kind belongs, with the hint that a class wants."""
    if isinstance(value, type):
        return f"the class {value.__name__}; make an object of it: {value.__name__}(...)"
    return repr(value)
