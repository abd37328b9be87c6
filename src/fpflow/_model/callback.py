"""Scores that another framework computes."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .._types import Point, ScoreModel, Time
from .check import check_counts, model_dtype


class ValuesOnly(ValueError):
    """A derivative was asked of what gives values only."""


class ScoreCallback(eqx.Module):
    """What `from_callback` makes: a score, or another prediction, of one point, whose batches leave
    jax."""

    function: Callable[[Any, Any], Any] = eqx.field(static=True)
    dim: int = eqx.field(static=True)

    def score(self, t: Time, x: Point) -> Point:
        """The row of the function's batch that belongs to this point."""
        x = jnp.asarray(x)

        @jax.custom_jvp
        def values(t, x):
            sent = [_bits(part) for part in (t, x)]
            shape = jax.ShapeDtypeStruct(sent[1].shape, sent[1].dtype)
            found = jax.pure_callback(self._on_batch, shape, *sent, vmap_method="broadcast_all")
            return jax.lax.bitcast_convert_type(found, x.dtype)

        @values.defjvp
        def _(primals, tangents):
            raise ValuesOnly(
                "a score from `from_callback` has no derivatives, and they are needed here: use "
                "`log_prob_chain`, `importance_sample` with a chain, or `log_prob_sde` with "
                "`method=fpflow.TwistedFilter(chain, twist=fpflow.distil_potential(...))`."
            )

        return values(jnp.asarray(t, x.dtype), x)

    def __call__(self, t: Time, x: Point) -> Point:
        """The same, so that it is a prediction for `from_noise_prediction` and its kin."""
        return self.score(t, x)

    def _on_batch(self, t: Any, x: Any) -> np.ndarray:
        """All leading axes as one batch, out and back."""
        x, t = _from_bits(x), _from_bits(t)
        found = _as_numpy(self.function(t.reshape(-1), x.reshape(-1, self.dim)))
        if found.shape != (t.size, self.dim):
            raise ValueError(
                f"`function` must return shape ({t.size}, {self.dim}), got {found.shape}."
            )
        found = np.ascontiguousarray(found, x.dtype).reshape(x.shape)
        return found if x.dtype != np.float64 else found.view(np.uint32).reshape(*x.shape, 2)


def _bits(x: Any) -> Any:
    """Double precision as pairs of whole numbers: jax calls back in threads of its own, where its
    precision is the default one, and would round what it hands over, or refuse what it gets back."""
    return jax.lax.bitcast_convert_type(x, jnp.uint32) if x.dtype == jnp.float64 else x


def _from_bits(x: Any) -> np.ndarray:
    x = np.asarray(x)
    if x.dtype != np.uint32:
        return x
    return np.ascontiguousarray(x).view(np.float64).reshape(x.shape[:-1])


def _as_numpy(value: Any) -> np.ndarray:
    """An array, or a tensor of torch that may remember its gradient or lie on another device."""
    for name in ("detach", "cpu"):
        value = getattr(value, name, lambda value=value: value)()
    return np.asarray(value)


def from_callback(function: Callable[[Any, Any], Any], dim: int) -> ScoreCallback:
    r"""A model made from a function of another framework, such as numpy or torch, that takes whole
    batches.

    The model gives values but no derivatives. This is enough for the samplers, `log_prob_chain`,
    `importance_sample` with a chain, densities on grids and those parts of `gap_report` that need no
    derivatives. Functions that need them, such as `log_prob_ode`, raise an error before they start.

    **Arguments:**

    - `function`: takes times of shape `(n,)` and points of shape `(n, dim)`, both numpy arrays, and
      returns scores of shape `(n, dim)` as an array or a torch tensor. It must depend on its arguments
      alone, which a network in training mode with dropout does not.
    - `dim`: the dimension of a point.

    **Returns:** a model with `score(t, x)`. If `function` predicts noise, data, $v$ or a velocity, pass
    the model on: `from_noise_prediction(from_callback(network, dim), process)`.

    **Raises:** `ValueError` if `function` is not a function, fails on two points or returns another
    shape, or if `dim` is invalid.

    **Example:**

    ```python
    model = fpflow.from_callback(lambda t, x: -2 * x, dim=2)
    x = fpflow.sample_ode(model, process, 10, key=jax.random.key(0))
    ```
    """
    (dim,) = check_counts(dim=dim)
    if not callable(function):
        raise ValueError(f"`function` must be a function of (t, x), got {function!r}.")
    model = ScoreCallback(function, dim)
    dtype = model_dtype(model)
    try:
        model._on_batch(np.full(2, 0.5, dtype), np.full((2, dim), 0.5, dtype))
    except Exception as error:
        raise ValueError(f"`function` fails on two points of shape (2, {dim}): {error}") from error
    return model


def has_derivatives(model: ScoreModel, dim: int) -> bool:
    """Whether the score can be differentiated in the point."""
    x = jax.ShapeDtypeStruct((dim,), model_dtype(model))
    try:
        eqx.filter_eval_shape(lambda x: jax.jvp(lambda x: model.score(x[0], x), (x,), (x,)), x)
    except ValuesOnly:
        return False
    return True
