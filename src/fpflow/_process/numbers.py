"""Settings that are plain numbers."""

import math
from typing import Any

import equinox as eqx
import numpy as np
from jax.core import Tracer


def as_number(value: Any) -> float:
    """A Python float from any real number, those of numpy and JAX included, so that a process never
    holds an array: it would be traced where its settings are looked at."""
    if isinstance(value, Tracer):
        raise ValueError(
            "the settings of a process must be concrete numbers, got a traced value; create the "
            "process outside of `jax.jit`, `jax.vmap` and `jax.grad`."
        )
    try:
        array = np.asarray(value)
        if array.shape != () or array.dtype.kind not in "fiu":
            raise TypeError
        return float(array)
    except (TypeError, ValueError):
        raise ValueError(f"a setting must be one real number, got {value!r}.") from None


def number(default: float | None = None) -> Any:
    """A field that holds a plain number; without a default it must be given."""
    if default is None:
        return eqx.field(converter=as_number)
    return eqx.field(default=default, converter=as_number)


def check_numbers(module: Any, positive: tuple[str, ...] = ()) -> None:
    """Refuses settings that are not finite, times in the wrong order, and what must be positive and
    is not."""
    for name, value in vars(module).items():
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"`{name}` must be finite, got {value}.")
    for name in positive:
        if not getattr(module, name) > 0:
            raise ValueError(f"`{name}` must be positive, got {getattr(module, name)}.")
    if hasattr(module, "t1") and not module.t1 > module.t0:
        raise ValueError(f"`t1` must lie after `t0` = {module.t0}, got {module.t1}.")
