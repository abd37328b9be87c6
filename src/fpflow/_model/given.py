"""A model at one condition, and a model of arrays of any shape, as models of points."""

import math
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array

from .._calculus import PotentialJet, differentiated_jet
from .._transform import mapped
from .._types import JetModel, Point, PotentialModel, Scalar, Time
from .transformed import Transformed


class GivenScore(eqx.Module):
    """What `given` makes of a model with a score; the condition is an array like a weight."""

    model: Any
    condition: Array

    @property
    def dim(self) -> int | None:
        """The dimension of a point, if the model knows it."""
        return getattr(self.model, "dim", None)

    def score(self, t: Time, x: Point) -> Point:
        """$s(t, x, c)$."""
        return self.model.score(t, x, self.condition)


class GivenPotential(eqx.Module):
    """What `given` makes of a model with a potential."""

    model: Any
    condition: Array

    @property
    def dim(self) -> int | None:
        """The dimension of a point, if the model knows it."""
        return getattr(self.model, "dim", None)

    def score(self, t: Time, x: Point) -> Point:
        """$s(t, x, c)$."""
        return self.model.score(t, x, self.condition)

    def potential(self, t: Time, x: Point) -> Scalar:
        """$u(t, x, c)$."""
        return self.model.potential(t, x, self.condition)

    def jet(self, t: Time, x: Point) -> PotentialJet:
        """The jet of the potential, by the model's own where it has one."""
        if isinstance(self.model, JetModel):
            return self.model.jet(t, x, self.condition)  # pyright: ignore
        return differentiated_jet(self, t, x)


def given(model: Any, condition: Any) -> GivenScore | GivenPotential | Transformed:
    """A conditional model at one condition: an ordinary model for samplers, densities and reports.

    The condition is an array leaf, so another condition does not recompile anything, and `jax.vmap` can
    run over a thousand.

    **Arguments:**

    - `model`: has `score(t, x, condition)`, and `potential(t, x, condition)` if it has a potential; or
      is `Transformed`.
    - `condition`: an array, shape `(condition_dim,)`, in the units of the data.

    **Returns:** a model with `score(t, x)`, and `potential(t, x)` if `model` has a potential.

    **Raises:** `ValueError` if `model` has no score, or if a transform does not take the condition.

    **Example:**

    ```python
    model = fpflow.PotentialMLP(dim=2, condition_dim=1, key=jax.random.key(0))
    x = fpflow.sample_ode(fpflow.given(model, [0.3]), process, 100, key=jax.random.key(1))
    ```
    """
    if isinstance(model, Transformed):
        if model.condition_transform is not None:
            condition = _in_variables(
                model.condition_transform, jnp.atleast_1d(jnp.asarray(condition))
            )
        return Transformed(given(model.model, condition), model.transform)
    if not callable(getattr(model, "score", None)):
        raise ValueError(
            f"`model` must have a method `score(t, x, condition)`, got {type(model).__name__}."
        )
    kind = GivenPotential if isinstance(model, PotentialModel) else GivenScore
    return kind(model, jnp.asarray(condition))


def _in_variables(transform: Any, condition: Array) -> Array:
    """One condition as its network sees it."""
    if condition.ndim != 1:
        raise ValueError(
            f"`condition` must be one condition, shape (condition_dim,), got {condition.shape}; for "
            "several, use `jax.vmap`."
        )
    try:
        return mapped(transform, condition[None])[0]
    except ValueError as error:
        raise ValueError(f"`condition` = {condition}, taken as one point: {error}") from error


class RaveledScore(eqx.Module):
    """What `Raveled` makes of a model with a score."""

    model: Any
    shape: tuple[int, ...] = eqx.field(static=True)

    @property
    def dim(self) -> int:
        """The number of entries."""
        return math.prod(self.shape)

    def score(self, t: Time, x: Point, *condition: Array) -> Point:
        """The score of the array, as a vector."""
        return self.model.score(t, x.reshape(self.shape), *condition).ravel()


class RaveledPotential(eqx.Module):
    """What `Raveled` makes of a model with a potential."""

    model: Any
    shape: tuple[int, ...] = eqx.field(static=True)

    @property
    def dim(self) -> int:
        """The number of entries."""
        return math.prod(self.shape)

    def score(self, t: Time, x: Point, *condition: Array) -> Point:
        """The score of the array, as a vector."""
        return self.model.score(t, x.reshape(self.shape), *condition).ravel()

    def potential(self, t: Time, x: Point, *condition: Array) -> Scalar:
        """The potential of the array."""
        return self.model.potential(t, x.reshape(self.shape), *condition)


def Raveled(model: Any, shape: tuple[int, ...]) -> RaveledScore | RaveledPotential:
    """Makes a model of arrays, such as images, a model of points.

    **Arguments:**

    - `model`: has `score(t, x)` for `x` of the given shape, which returns that shape, or is such a
      function.
    - `shape`: the shape of one array, such as `(channels, height, width)`.

    **Returns:** a model whose points are vectors with `prod(shape)` entries; reshape the data to
    `(n, -1)`.

    **Raises:** `ValueError` for an invalid shape, or if `model` has no score.

    **Example:**

    ```python
    model = fpflow.Raveled(fpflow.ScoreFunction(lambda t, x: -x), (1, 8, 8))
    x = fpflow.sample_ode(model, process, 10, key=jax.random.key(0)).reshape(-1, 1, 8, 8)
    ```
    """
    shape = tuple(shape)
    if not shape or not all(isinstance(n, int) and n > 0 for n in shape):
        raise ValueError(f"`shape` must be positive whole numbers such as (1, 8, 8), got {shape}.")
    if not callable(getattr(model, "score", None)):
        hint = "; wrap a function in `fpflow.ScoreFunction`" if callable(model) else ""
        raise ValueError(
            f"`model` must have a method `score(t, x)`, got {type(model).__name__}{hint}."
        )
    return (RaveledPotential if isinstance(model, PotentialModel) else RaveledScore)(model, shape)
