r"""A model behind a change of variables, and what is asked of one in the units of its data."""

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array

from .._transform import AbstractTransform, TransformedLaw, mapped
from .._types import DataLaw
from ..datasets import Points, as_data, draw


class Transformed(eqx.Module):
    r"""A model of $y = T(x)$ that is trained, sampled and evaluated in the units of $x$.

    The process noises $y$. Samples are returned as $T^{-1}(y)$, and every log density gains
    $\log|\det\partial T/\partial x|$, so that it integrates to one over $x$. Scores, residuals and grids
    use the network's own variables; `model.model` gives access to them.

    **Arguments:**

    - `model`: has `score(t, y)`, and `potential(t, y)` if it has a potential.
    - `transform`: an `AbstractTransform`, such as `Standardise.of(data)`.
    - `condition_transform`: an `AbstractTransform` of the conditions of a conditional model, or `None`.

    **Raises:** `ValueError` if one of them is something else.

    **Example:**

    ```python
    data = jax.random.normal(jax.random.key(0), (500, 2)) * jnp.array([1.0, 300.0])
    network = fpflow.PotentialMLP(dim=2, key=jax.random.key(1))
    model = fpflow.Transformed(network, fpflow.Standardise.of(data))
    trained = fpflow.train(model, process, data, num_steps=20, key=jax.random.key(2)).model
    x = fpflow.sample_sde(trained, process, 100, key=jax.random.key(3))
    log_p = fpflow.log_prob_ode(trained, process, x[:5]).value
    ```
    """

    model: Any
    transform: AbstractTransform
    condition_transform: AbstractTransform | None = None

    def __check_init__(self):
        kinds = (("transform", self.transform), ("condition_transform", self.condition_transform))
        for name, transform in kinds:
            wanted = isinstance(transform, AbstractTransform)
            if not wanted and not (name == "condition_transform" and transform is None):
                raise ValueError(
                    f"`{name}` must be a transform such as `fpflow.Standardise.of(data)`, got "
                    f"{transform!r}."
                )

    @property
    def dim(self) -> int | None:
        """The dimension of a point, if the model knows it."""
        return getattr(self.model, "dim", None)

    def law(self, data: Any) -> DataLaw:
        """The data as the network sees them; points are transformed once."""
        law = as_data(data)
        if not isinstance(law, Points):
            # Draws without an image would become NaN within a compiled step.
            self.transform.check(draw(law, jr.key(0), 1024)[0])
            return TransformedLaw(law, self.transform, self.condition_transform)
        condition = law.condition
        if condition is not None and self.condition_transform is not None:
            condition = mapped(self.condition_transform, condition)
        return Points(mapped(self.transform, law.points), condition)


F = TypeVar("F", bound=Callable)


def samples_in_units(function: F) -> F:
    """A sampler's function that takes a `Transformed` model too and returns $T^{-1}$ of its samples."""

    @functools.wraps(function)
    def in_units(*arguments: Any, **options: Any) -> Any:
        if not _is_transformed(arguments, options):
            return function(*arguments, **options)
        asked = inspect.signature(function).bind(*arguments, **options).arguments
        outer = asked["model"]
        return jax.vmap(outer.transform.inverse)(function(**{**asked, "model": outer.model}))

    return cast(F, in_units)


def densities_in_units(function: F) -> F:
    """A function of `model` and `x` with a `value` in nats that takes a `Transformed` model too."""

    @functools.wraps(function)
    def in_units(*arguments: Any, **options: Any) -> Any:
        if not _is_transformed(arguments, options):
            return function(*arguments, **options)
        asked = inspect.signature(function).bind(*arguments, **options).arguments
        outer, x = asked["model"], jnp.asarray(asked["x"])
        if x.ndim != 2:
            raise ValueError(
                f"`x` must hold points, shape (n, dim), got {x.shape}; give one point as `x[None]`."
            )
        inner = {**asked, "model": outer.model, "x": mapped(outer.transform, x)}
        found = function(**inner)
        return eqx.tree_at(lambda f: f.value, found, found.value + log_dets(outer, x))

    return cast(F, in_units)


def log_dets(model: Transformed, x: Array) -> Array:
    """The log-Jacobian at points, shape `(n,)`."""
    return jax.vmap(model.transform.log_det)(jnp.asarray(x, jnp.result_type(float)))


def _is_transformed(arguments: tuple, options: dict[str, Any]) -> bool:
    return any(isinstance(value, Transformed) for value in (*arguments, *options.values()))
