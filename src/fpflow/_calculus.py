"""Exact derivatives at one point: divergence, Laplacian, and the jet of a potential."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ._types import Point, PotentialModel, Scalar, Time


def divergence(field: Callable[[Point], Point], x: Point) -> Scalar:
    r"""The exact divergence $\nabla\cdot v(x) = \sum_i \partial_i v_i(x)$ of a vector field.

    **Arguments:**

    - `field`: a function of one point, shape `(dim,)` to `(dim,)`.
    - `x`: one point, shape `(dim,)`.

    **Returns:** the divergence, shape `()`.
    """
    _, push = jax.linearize(field, x)
    return jnp.trace(jax.vmap(push)(jnp.eye(x.size, dtype=x.dtype)))


def laplacian(function: Callable[[Point], Scalar], x: Point) -> Scalar:
    r"""The exact Laplacian $\Delta u(x) = \nabla\cdot\nabla u(x)$ of a scalar function.

    **Arguments:**

    - `function`: a function of one point, shape `(dim,)` to `()`.
    - `x`: one point, shape `(dim,)`.

    **Returns:** the Laplacian, shape `()`.
    """
    return divergence(jax.grad(function), x)


def curl(field: Callable[[Point], Point], x: Point) -> Scalar:
    r"""The curl $\partial_1 v_2 - \partial_2 v_1$ of a field in the plane; zero for a gradient.

    **Arguments:**

    - `field`: a function of one point, shape `(2,)` to `(2,)`.
    - `x`: one point, shape `(2,)`.

    **Returns:** the curl, shape `()`.
    """
    if x.shape != (2,):
        raise ValueError(f"`x` must be one point of the plane, shape (2,), got {x.shape}.")
    jacobian = jax.jacfwd(field)(x)
    return jacobian[1, 0] - jacobian[0, 1]


class PotentialJet(NamedTuple):
    r"""What the Fokker--Planck residual needs of $u$ at one point."""

    value: Float[Array, "*batch"]
    time_derivative: Float[Array, "*batch"]
    gradient: Float[Array, "*batch dim"]
    laplacian: Float[Array, "*batch"]


def potential_jet(model: PotentialModel, t: Time, x: Point) -> PotentialJet:
    r"""The value, $\partial_t u$, $\nabla u$ and $\Delta u$ of a potential at one point.

    A model that has a method `jet(t, x)` of its own computes them in one pass; every other model
    is differentiated exactly: forward in $t$, and forward over reverse in $x$.

    **Arguments:**

    - `model`: has `potential(t, x)`.
    - `t`: time, shape `()`.
    - `x`: one point, shape `(dim,)`.

    **Returns:** a `PotentialJet` of shapes `()`, `()`, `(dim,)`, `()`.
    """
    if hasattr(model, "jet"):
        return model.jet(t, x)  # pyright: ignore[reportAttributeAccessIssue]
    t = jnp.asarray(t, x.dtype)
    value, time_derivative = jax.jvp(lambda t: model.potential(t, x), (t,), (jnp.ones_like(t),))
    gradient, push = jax.linearize(jax.grad(lambda x: model.potential(t, x)), x)
    hessian = jax.vmap(push)(jnp.eye(x.size, dtype=x.dtype))
    return PotentialJet(value, time_derivative, gradient, jnp.trace(hessian))
