"""Exact derivatives at one point: divergence, Laplacian, and the jet of a potential."""

from collections.abc import Callable
from typing import NamedTuple, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float

from ._types import JetModel, Point, PotentialModel, PRNGKey, Scalar, Time


def divergence(field: Callable[[Point], Point], x: Point) -> Scalar:
    r"""The exact divergence $\nabla\cdot v(x) = \sum_i \partial_i v_i(x)$ of a vector field.

    **Arguments:**

    - `field`: a function of one point, shape `(dim,)` to `(dim,)`.
    - `x`: one point, shape `(dim,)`.

    **Returns:** the divergence, shape `()`.
    """
    _, push = jax.linearize(field, x)
    return jnp.trace(jax.vmap(push)(jnp.eye(x.size, dtype=x.dtype)))


@runtime_checkable
class Divergence(Protocol):
    """A way to compute the divergence of a field: `Exact()` or `Hutchinson()`.

    `probes` draws what stays fixed along a path. Calling the object gives the field and one estimate of
    its divergence per probe.
    """

    def probes(self, key: PRNGKey, x: Point) -> Array: ...

    def __call__(
        self, field: Callable[[Point], Point], x: Point, probes: Array
    ) -> tuple[Point, Float[Array, " estimates"]]: ...


class Exact(eqx.Module):
    r"""The divergence as the sum of `dim` forward derivatives, a single estimate without error."""

    def probes(self, key: PRNGKey, x: Point) -> Array:
        """The coordinate directions, shape `(dim, dim)`."""
        del key
        return jnp.eye(x.size, dtype=x.dtype)

    def __call__(self, field: Callable[[Point], Point], x: Point, probes: Array):
        """The field, shape `(dim,)`, and its divergence, shape `(1,)`."""
        value, push = jax.linearize(field, x)
        return value, jnp.trace(jax.vmap(push)(probes))[None]


class Hutchinson(eqx.Module):
    r"""The unbiased estimates $\epsilon^\top (\nabla v)\,\epsilon$ with $\epsilon$ uniform on the
    sphere of radius $\sqrt d$.

    They vary no more than estimates with Rademacher signs. In few dimensions these signs often repeat
    each other, so that their spread is zero and their mean is wrong.

    **Arguments:**

    - `num_probes`: number of independent estimates, at least four, because their spread gives the error.

    **Raises:** `ValueError` for fewer than four probes, and if there are no more dimensions than probes,
    where `Exact()` costs no more and has no error.

    ??? cite "Reference"
        Hutchinson, Commun. Stat. Simul. Comput. 19 (1990) 433; Grathwohl et al., *FFJORD*, ICLR
        2019, arXiv 1810.01367.
    """

    num_probes: int = 8

    def __check_init__(self):
        if self.num_probes < 4:
            raise ValueError(
                "`num_probes` must be at least 4, so that their spread gives an error estimate, got "
                f"{self.num_probes}."
            )

    def probes(self, key: PRNGKey, x: Point) -> Array:
        """Points on the sphere, shape `(num_probes, dim)`."""
        if x.size <= self.num_probes:
            raise ValueError(
                f"{self.num_probes} probes in dimension {x.size} cost no less than `fpflow.Exact()`, "
                "which has no error; use that instead."
            )
        z = jr.normal(key, (self.num_probes, x.size), x.dtype)
        return z * (x.size**0.5 / jnp.linalg.norm(z, axis=1, keepdims=True))

    def __call__(self, field: Callable[[Point], Point], x: Point, probes: Array):
        """The field, shape `(dim,)`, and the estimates, shape `(num_probes,)`."""
        value, push = jax.linearize(field, x)
        return value, jnp.sum(jax.vmap(push)(probes) * probes, axis=1)


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
        raise ValueError(f"`x` must be one point in the plane, shape (2,), got {x.shape}.")
    jacobian = jax.jacfwd(field)(x)
    return jacobian[1, 0] - jacobian[0, 1]


class PotentialJet(NamedTuple):
    r"""What the Fokker--Planck residual needs to know about $u$ at one point."""

    value: Float[Array, "*batch"]
    time_derivative: Float[Array, "*batch"]
    gradient: Float[Array, "*batch dim"]
    laplacian: Float[Array, "*batch"]


def potential_jet(model: PotentialModel, t: Time, x: Point) -> PotentialJet:
    r"""The value, $\partial_t u$, $\nabla u$ and $\Delta u$ of a potential at one point.

    A model with its own method `jet(t, x)` computes them in one pass. Every other model is
    differentiated exactly: forward in $t$, and forward over reverse in $x$.

    **Arguments:**

    - `model`: has `potential(t, x)`.
    - `t`: time, shape `()`.
    - `x`: one point, shape `(dim,)`.

    **Returns:** a `PotentialJet` with shapes `()`, `()`, `(dim,)`, `()`.
    """
    return model.jet(t, x) if isinstance(model, JetModel) else differentiated_jet(model, t, x)


def differentiated_jet(model: PotentialModel, t: Time, x: Point) -> PotentialJet:
    """The jet of any potential by exact derivatives."""
    t = jnp.asarray(t, x.dtype)
    value, time_derivative = jax.jvp(lambda t: model.potential(t, x), (t,), (jnp.ones_like(t),))
    gradient, push = jax.linearize(jax.grad(lambda x: model.potential(t, x)), x)
    hessian = jax.vmap(push)(jnp.eye(x.size, dtype=x.dtype))
    return PotentialJet(value, time_derivative, gradient, jnp.trace(hessian))
