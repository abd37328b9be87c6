"""Our own optimisers: transformations of optax, with a learning rate that knows the length of
training."""

import abc
import functools
import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

from .._types import Scalar, shown
from .schedule import AbstractSchedule, Cosine

# A number, a schedule that knows the number of steps, or one of optax: a function of the step.
LearningRate = float | Scalar | AbstractSchedule | Callable[[Any], Any]


class OptimiserState(eqx.Module):
    """Steps done, and what the optimiser remembers."""

    count: Int[Array, ""]
    moments: Any


class AbstractOptimiser(eqx.Module):
    """A direction and a learning rate, used like any `optax.GradientTransformation`: `update` returns
    what is added to the parameters."""

    learning_rate: eqx.AbstractVar[LearningRate]

    @abc.abstractmethod
    def moments(self, params: Any) -> Any:
        """What the optimiser remembers before the first step."""

    @abc.abstractmethod
    def direction(self, gradient: Any, state: Any) -> tuple[Any, Any]:
        """The direction of steepest ascent as the optimiser sees it, and what it remembers next."""

    def init(self, params: Any) -> OptimiserState:
        """The state before the first step."""
        return OptimiserState(jnp.array(0), self.moments(params))

    def update(
        self,
        updates: Any,
        state: OptimiserState,
        params: Any = None,
        *,
        num_steps: Any = None,
        **extra: Any,
    ) -> tuple[Any, OptimiserState]:
        """The step to add, and the new state; `num_steps` is needed by the schedules of fpflow."""
        del params, extra
        rate, moments = self.learning_rate, state.moments
        if isinstance(rate, AbstractSchedule):
            if num_steps is None:
                raise ValueError(
                    f"the learning rate {type(rate).__name__} needs `update(..., num_steps=)`, which "
                    "`fpflow.train` passes; elsewhere, and inside `optax.chain`, use a number or an "
                    "optax schedule."
                )
            renew = rate.renews(state.count, num_steps)
            fresh = self.moments(updates)
            moments = jax.tree.map(lambda new, old: jnp.where(renew, new, old), fresh, moments)
            now = rate.rate(state.count, num_steps)
        else:
            now = jnp.asarray(rate(state.count) if callable(rate) else rate)
        direction, moments = self.direction(updates, moments)
        step = jax.tree.map(lambda d: -now.astype(d.dtype) * d, direction)
        return step, OptimiserState(state.count + 1, moments)


def check_rate(rate: Any) -> None:
    """Refuses a learning rate that is none."""
    if not callable(rate) and not isinstance(rate, AbstractSchedule):
        number = isinstance(rate, int | float) and math.isfinite(rate) and rate > 0
        if not (number or isinstance(rate, jax.Array)):
            raise ValueError(
                "`learning_rate` must be a positive number, a schedule such as `Cosine()`, or a "
                f"function of the step, got {rate!r}."
            )


def check_optimiser(optimiser: Any) -> Any:
    """Any transformation of optax, taken whole.

    **Raises:** `ValueError` for what is none.
    """
    if isinstance(optimiser, type) or not (
        callable(getattr(optimiser, "init", None)) and callable(getattr(optimiser, "update", None))
    ):
        raise ValueError(
            "`optimiser` must be an `optax.GradientTransformation` such as `optax.adam(1e-3)` or "
            f"`fpflow.Soap()`, got {shown(optimiser)}."
        )
    if isinstance(optimiser, AbstractOptimiser):
        return optimiser
    return _with_extras(optimiser)


@functools.lru_cache(maxsize=16)
def _with_extras(optimiser: optax.GradientTransformation) -> Any:
    # Once for each: another wrapper would compile the step anew.
    return optax.with_extra_args_support(optimiser)


class Adam(AbstractOptimiser):
    r"""Steps along $m / (\sqrt v + \epsilon)$, element by element: `optax.adam` with a learning rate
    that may reset the moments.

    **Arguments:**

    - `learning_rate`: a number, `Cosine()`, `Staged()`, or an optax schedule.
    - `b1`, `b2`: decay rates of the running means $m$ of the gradient and $v$ of its square.
    - `eps`: $\epsilon$.

    ??? cite "Reference"
        Kingma and Ba, *Adam*, ICLR 2015, arXiv 1412.6980.
    """

    learning_rate: LearningRate = Cosine(peak=3e-3)
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8

    def __check_init__(self):
        check_rate(self.learning_rate)

    def _transformation(self) -> optax.GradientTransformation:
        return optax.scale_by_adam(self.b1, self.b2, self.eps)

    def moments(self, params: Any) -> Any:
        """Moments of zero."""
        return self._transformation().init(params)

    def direction(self, gradient: Any, state: Any) -> tuple[Any, Any]:
        """The direction of `optax.scale_by_adam`."""
        return self._transformation().update(gradient, state)


class SoapState(eqx.Module):
    """Moments, and for every matrix the two covariances of its gradient with their eigenvectors."""

    count: Int[Array, ""]
    mean: Any
    square: Any
    covariances: Any
    axes: Any


class Soap(AbstractOptimiser):
    r"""Adam in the slowly rotating eigenbasis of Shampoo's preconditioner.

    For a matrix with gradient $G$, $L = \overline{G G^\top}$ and $R = \overline{G^\top G}$ have
    eigenvectors $Q_L$, $Q_R$, which are updated every few steps by one step of orthogonal iteration.
    Adam runs on $Q_L^\top G Q_R$. Vectors, and sides longer than `largest`, are not rotated.

    **Arguments:**

    - `learning_rate`: a number, `Cosine()`, `Staged()`, or an optax schedule.
    - `b1`, `b2`: decay rates of the running means of the gradient and of its square.
    - `memory`: decay rate of the running means $L$ and $R$.
    - `every`: number of steps between two updates of the eigenvectors.
    - `largest`: the longest side for which eigenvectors are kept.
    - `eps`: keeps the quotient finite.

    ??? cite "Reference"
        Vyas et al., *SOAP: improving and stabilizing Shampoo using Adam*, ICLR 2025, arXiv 2409.11321.
    """

    learning_rate: LearningRate = Cosine(peak=1e-2)
    b1: float = 0.95
    b2: float = 0.99
    memory: float = 0.99
    every: int = 10
    largest: int = 512
    eps: float = 1e-8

    def __check_init__(self):
        check_rate(self.learning_rate)

    def _sides(self, p: Array) -> tuple[bool, bool]:
        """Which sides of a parameter get eigenvectors."""
        if p.ndim != 2:
            return False, False
        return tuple(1 < side <= self.largest for side in p.shape)  # pyright: ignore

    def moments(self, params: Any) -> SoapState:
        """Moments of zero and unrotated axes."""

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

    def direction(self, gradient: Any, state: SoapState) -> tuple[Any, SoapState]:
        """Adam's direction in the rotated axes, rotated back."""
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
