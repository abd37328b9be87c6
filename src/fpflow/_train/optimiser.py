"""Optimisers: objects with `init(params)` and `update(gradient, state)`, as in optax."""

from typing import Any, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int


@runtime_checkable
class Optimiser(Protocol):
    """What `train` asks of an optimiser: `Adam()`, `Soap()`, or any transformation of optax that
    scales by one, such as `optax.scale_by_lion()`; the learning rate is the schedule's."""

    init: Any
    update: Any


class Adam(eqx.Module):
    r"""Steps along $m / (\sqrt v + \epsilon)$, element by element.

    **Arguments:**

    - `b1`, `b2`: memories of the means $m$ of the gradient and $v$ of its square.
    - `eps`: $\epsilon$.

    ??? cite "Reference"
        Kingma and Ba, *Adam*, ICLR 2015, arXiv 1412.6980.
    """

    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8

    def _transformation(self) -> optax.GradientTransformation:
        return optax.scale_by_adam(self.b1, self.b2, self.eps)

    def init(self, params: Any) -> Any:
        """Moments of zero."""
        return self._transformation().init(params)

    def update(self, gradient: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        """The step to subtract, and the new state."""
        return self._transformation().update(gradient, state, params)


class SoapState(eqx.Module):
    """Moments, and for every matrix the two covariances of its gradient with their eigenvectors."""

    count: Int[Array, ""]
    mean: Any
    square: Any
    covariances: Any
    axes: Any


class Soap(eqx.Module):
    r"""Adam in the slowly turning eigenbasis of Shampoo's preconditioner.

    For a matrix with gradient $G$, $L = \overline{G G^\top}$ and $R = \overline{G^\top G}$ have
    eigenvectors $Q_L$, $Q_R$, renewed every few steps by one step of orthogonal iteration; Adam runs on
    $Q_L^\top G Q_R$. Vectors and sides longer than `largest` are left as they are.

    **Arguments:**

    - `b1`, `b2`: memories of the means of the gradient and of its square.
    - `memory`: that of $L$ and $R$.
    - `every`: steps between two renewals of the eigenvectors.
    - `largest`: the longest side that gets eigenvectors.
    - `eps`: keeps the quotient finite.

    ??? cite "Reference"
        Vyas et al., *SOAP: improving and stabilizing Shampoo using Adam*, ICLR 2025, arXiv 2409.11321.
    """

    b1: float = 0.95
    b2: float = 0.99
    memory: float = 0.99
    every: int = 10
    largest: int = 512
    eps: float = 1e-8

    def _sides(self, p: Array) -> tuple[bool, bool]:
        """Which sides of a parameter get eigenvectors."""
        if p.ndim != 2:
            return False, False
        return tuple(1 < side <= self.largest for side in p.shape)  # pyright: ignore

    def init(self, params: Any) -> SoapState:
        """Moments of zero and the axes as they are."""

        def square_matrices(make):
            return [
                tuple(
                    make(side, dtype=p.dtype) if kept else None
                    for side, kept in zip((*p.shape, 0, 0), self._sides(p), strict=False)
                )
                for p in jax.tree.leaves(params)
            ]

        zeros = jax.tree.map(jnp.zeros_like, params)
        covariances = square_matrices(lambda n, dtype: jnp.zeros((n, n), dtype))
        return SoapState(jnp.array(0), zeros, zeros, covariances, square_matrices(jnp.eye))

    def update(self, gradient: Any, state: SoapState, params: Any = None) -> tuple[Any, SoapState]:
        """The step to subtract, and the new state."""
        del params
        count = state.count + 1

        def mixed(memory):
            return lambda old, new: memory * old + (1 - memory) * new

        gradients, tree = jax.tree.flatten(gradient)
        outer = [
            tuple(
                None if old is None else mixed(self.memory)(old, side @ side.T)
                for old, side in zip(both, (g, g.T), strict=True)
            )
            for both, g in zip(state.covariances, gradients, strict=True)
        ]

        def renewed(axes):
            return jax.tree.map(lambda q, c: jnp.linalg.qr(c @ q)[0], axes, outer)

        renew = count % self.every == 1 % self.every
        axes = jax.lax.cond(renew, renewed, lambda axes: axes, state.axes)
        mean = jax.tree.map(mixed(self.b1), state.mean, gradient)

        def step(m, v, g, sides):
            v = mixed(self.b2)(v, _turned(g, sides) ** 2)
            scale = jnp.sqrt(v / (1 - self.b2**count)) + self.eps
            return _turned_back(_turned(m, sides) / (1 - self.b1**count) / scale, sides), v

        columns = zip(
            jax.tree.leaves(mean), jax.tree.leaves(state.square), gradients, axes, strict=True
        )
        steps, squares = zip(*(step(*column) for column in columns), strict=True)
        new = SoapState(count, mean, jax.tree.unflatten(tree, squares), outer, axes)
        return jax.tree.unflatten(tree, steps), new


def _turned(g: Array, sides: tuple) -> Array:
    """Components along the axes."""
    left, right = sides
    g = g if left is None else left.T @ g
    return g if right is None else g @ right


def _turned_back(g: Array, sides: tuple) -> Array:
    """The matrix with these components."""
    left, right = sides
    g = g if left is None else left @ g
    return g if right is None else g @ right.T
