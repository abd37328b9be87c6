r"""What a change of variables is: a map of points, its inverse and its log-Jacobian."""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._types import Point, PRNGKey, Scalar
from ..datasets import draw


class AbstractTransform(eqx.Module):
    r"""A smooth invertible map $y = T(x)$ of points, from the data to what a network sees.

    $$\log p_X(x) = \log p_Y(T(x)) + \log\Bigl|\det\frac{\partial T}{\partial x}\Bigr|.$$

    All methods take one point of shape `(dim,)`, except that `transform.check(x)` tells which points of
    an array have no image.
    """

    @abc.abstractmethod
    def forward(self, x: Point) -> Point:
        """$y = T(x)$."""

    @abc.abstractmethod
    def inverse(self, y: Point) -> Point:
        """$x = T^{-1}(y)$."""

    @abc.abstractmethod
    def log_det(self, x: Point) -> Scalar:
        r"""$\log|\det\partial T/\partial x|$ at $x$, in nats."""

    @abc.abstractmethod
    def check(self, x: Float[Array, "n dim"]) -> None:
        """Refuses points that have no image.

        **Raises:** `ValueError` that names them.
        """


def mapped(
    transform: AbstractTransform | None, x: Float[Array | np.ndarray, "n dim"]
) -> Float[Array, "n dim"]:
    """Points forward, as they are without a transform.

    **Raises:** `ValueError` for points that have no image.
    """
    points = jnp.asarray(x, jnp.result_type(float))
    if transform is None:
        return points
    transform.check(points)
    return jax.vmap(transform.forward)(points)


class TransformedLaw(eqx.Module):
    """A law of points seen through a transform, their conditions through another.

    **Arguments:**

    - `data`: has `sample(key, n)`.
    - `transform`: of the points.
    - `condition_transform`: of their conditions, or `None`.
    """

    data: Any
    transform: AbstractTransform
    condition_transform: AbstractTransform | None = None

    def sample(self, key: PRNGKey, n: int) -> Any:
        """`n` draws, mapped."""
        x, condition = draw(self.data, key, n)
        y = jax.vmap(self.transform.forward)(x)
        if condition is None:
            return y
        if self.condition_transform is not None:
            condition = jax.vmap(self.condition_transform.forward)(condition)
        return y, condition
