"""What can be known about a user's model before anything compiles."""

import numbers
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from .._process import AbstractProcess, Frame, check_process, same_noise
from .._types import Point, Scalar
from .transformed import Transformed


def model_dtype(model: Any) -> np.dtype:
    """The precision a model computes in: that of its arrays, or the default if it holds none."""
    leaves = jax.tree.leaves(eqx.filter(model, eqx.is_inexact_array))
    return jnp.result_type(*leaves) if leaves else jnp.result_type(float)


def _score_shape(model: Any, dim: int, dtype: Any) -> tuple[int, ...]:
    t, x = jax.ShapeDtypeStruct((), dtype), jax.ShapeDtypeStruct((dim,), dtype)
    return eqx.filter_eval_shape(model.score, t, x).shape


def model_dim(model: Any, dim: int | None) -> int:
    """The dimension of a model's points: as given, as the model says, or the only one it takes.

    **Raises:** `ValueError` where the dimension cannot be told.
    """
    if dim is None:
        dim = getattr(model, "dim", None)
    if dim is not None:
        if dim != int(dim) or dim < 1:
            raise ValueError(f"`dim` must be a whole number of at least 1, got {dim}.")
        return int(dim)
    check_has_score(model)

    def takes(candidate: int) -> bool:
        try:
            return _score_shape(model, candidate, model_dtype(model)) == (candidate,)
        except Exception:
            return False

    fitting = [candidate for candidate in range(1, 65) if takes(candidate)]
    if len(fitting) != 1:
        raise ValueError(
            "the dimension of the points cannot be determined from `model.score`, which accepts "
            f"{len(fitting) or 'none'} of the dimensions 1 to 64; pass `dim=`."
        )
    return fitting[0]


def check_has_score(model: Any) -> None:
    """Refuses what is no model."""
    if isinstance(model, Transformed):
        raise ValueError(
            "`model` is `Transformed`, and this function works in the network's own variables: pass "
            "`model.model`, and the points as `jax.vmap(model.transform.forward)(x)`."
        )
    if not callable(getattr(model, "score", None)):
        hint = "; wrap a function in `fpflow.ScoreFunction`" if callable(model) else ""
        raise ValueError(
            f"`model` must have a method `score(t, x)`, got {type(model).__name__}{hint}."
        )


def check_score(model: Any, process: AbstractProcess, dim: int) -> None:
    """Refuses a score that fails, has another shape or is not finite at one point.

    **Raises:** `ValueError` that says which.
    """
    check_process(process)
    check_has_score(model)
    own = _own_process(model)
    if own is not None and not same_noise(own, process):
        raise ValueError(
            f"`model` is in the frame of another process, {own}, got {process}: its score is for "
            "points noised by the former; pass the former."
        )
    dtype = model_dtype(model)
    try:
        shape = _score_shape(model, dim, dtype)
    except (TypeError, ValueError) as error:
        hint = ""
        if isinstance(error, jax.errors.TracerArrayConversionError):
            hint = (
                " write it with `jax.numpy`, which JAX can trace, instead of `numpy`, or pass it "
                "through `fpflow.from_callback`."
            )
        raise ValueError(
            f"`model.score` fails at points of shape ({dim},):{hint or f' {error}'}"
        ) from error
    if shape != (dim,):
        raise ValueError(f"`model.score` must return shape ({dim},), got {shape}.")
    score = score_at(model, jnp.asarray(process.t1, dtype), jnp.full(dim, 0.5, dtype))
    if isinstance(score, Tracer):
        return  # under a transformation there are no values to look at
    if not np.isfinite(np.asarray(score)).all():
        raise ValueError(f"`model.score` must be finite, got {score} at t = {process.t1}, x = 0.5.")


@eqx.filter_jit
def score_at(model: Any, t: Scalar, x: Point) -> Point:
    """The score at one point, in one program."""
    return model.score(t, x)


def _own_process(model: Any) -> AbstractProcess | None:
    """That of a model in a frame, also within `given` and `Raveled`; a traced one is unknown."""
    while model is not None:
        frame = getattr(model, "frame", None)
        if isinstance(frame, Frame):
            traced = any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(frame))
            return None if traced else frame.process
        model = getattr(model, "model", None)
    return None


def check_counts(**counts: Any) -> tuple[int, ...]:
    """The settings as they came, as plain integers; refused unless they are whole numbers of at least
    one."""
    for name, value in counts.items():
        if not isinstance(value, numbers.Integral) or value < 1:
            raise ValueError(f"`{name}` must be a whole number of at least 1, got {value!r}.")
        if value >= 2**31:  # what a counter of jax holds
            raise ValueError(f"`{name}` must be at most {2**31 - 1}, got {value}.")
    return tuple(int(value) for value in counts.values())


def check_key(key: Any) -> None:
    """Refuses what is no random key."""
    dtype = getattr(key, "dtype", None)
    if dtype is None or not (jnp.issubdtype(dtype, jax.dtypes.prng_key) or dtype == jnp.uint32):
        raise ValueError(
            f"`key` must be a `jax.random.key`, got {key!r}; write `key=jax.random.key(0)`."
        )


def check_dims(name: str, dim: int, model: Any) -> None:
    """Refuses points of another dimension than a model says it has."""
    own = getattr(model, "dim", None)
    if own is not None and own != dim:
        raise ValueError(f"`{name}` has dimension {dim} and the model dimension {own}.")
