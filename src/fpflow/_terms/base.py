"""What a term of a loss is."""

import abc
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from .._blocks import block_mean
from .._model import given
from .._noising import Noised
from .._process import AbstractProcess
from .._types import PRNGKey, Scalar

# A number, or a function of the step, such as the schedules of optax.
Weight = float | Scalar | Callable[[Int[Array, ""]], Any]


class AbstractTerm(eqx.Module):
    """A mean over a noised batch that training reduces, with its weight in the loss.

    `check` raises an error, before anything compiles, if the model lacks what the term needs.
    """

    weight: eqx.AbstractVar[Weight]

    @abc.abstractmethod
    def __call__(
        self, model: Any, process: AbstractProcess, noised: Noised, *, key: PRNGKey
    ) -> Scalar:
        """The term before its weight, shape `()`."""

    def check(self, model: Any) -> None:
        """Raises `ValueError` if the term cannot be computed for a model."""


def weight_at(weight: Weight, step: Int[Array, ""]) -> Scalar:
    """The weight at a step."""
    return jnp.asarray(weight(step) if callable(weight) else weight)


def some_of(noised: Noised, num_points: int) -> Noised:
    """So many points of a batch, spread over its times."""
    # Times are stratified in order, once or, with pairs, twice: a stride keeps them spread.
    stride = max(noised.t.shape[0] // num_points, 1)
    return jax.tree.map(lambda a: a[::stride], noised)


def weights_over_time(
    weighting: Callable[[AbstractProcess, Any], Scalar], process: AbstractProcess, noised: Noised
) -> Array:
    r"""$\lambda(t)$ times the weights that make a mean over the batch one over uniform times."""
    return noised.weight * jax.vmap(lambda t: weighting(process, t))(noised.t)


def mean_over(
    function: Callable[..., Any], model: Any, rows: tuple, weight: Array, condition: Any
) -> Scalar:
    """The weighted mean of `function(model, *row)`, which needs derivatives and so few rows at once."""

    def terms(model, rows):
        rows, weight, condition = rows
        return weight * at_points(function, model, *rows, condition=condition)

    return block_mean(terms, model, (rows, weight, condition), size=1024)


def at_points(function: Callable[..., Any], model: Any, *rows: Any, condition: Any) -> Any:
    """`function(model, *row)` at every row, of the model given the row's condition where there are
    conditions."""
    if condition is None:
        return jax.vmap(lambda *row: function(model, *row))(*rows)
    return jax.vmap(lambda c, *row: function(given(model, c), *row))(condition, *rows)
