"""How results show themselves: numbers to the digits that their errors leave, in a few lines."""

import dataclasses
import math
import sys
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jax.core import Tracer

_SHOWN = 6


def in_notebook() -> bool:
    """Whether what is printed and drawn goes to the cells of a notebook."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return hasattr(shell, "kernel")


def rounded(value: float, error: float) -> str:
    """A number and its error, both to the last digit that the error leaves: one digit of the error, or
    two where it begins with a one."""
    if not (math.isfinite(value) and math.isfinite(error) and error > 0):
        return f"{value:.4g}" if error == 0 else f"{value:.4g} ± {error:.1g}"
    mantissa, exponent = f"{error:.1e}".split("e")
    last = int(exponent) - (mantissa[0] == "1")  # the power of ten of the last digit
    first = math.floor(math.log10(max(abs(value), error)))
    if first - last > 8:  # errors near round-off: digits enough
        return f"{value:.6g} ± {error:.1g}"
    if -4 < first < 6 and last > -10:
        value = round(value, -last) + 0.0  # no negative zero
        return f"{value:.{max(-last, 0)}f} ± {round(error, -last):.{max(-last, 0)}f}"
    unit, digits = 10.0**first, max(first - last, 0)
    return f"({value / unit:.{digits}f} ± {error / unit:.{digits}f})e{first:+03d}"


def shown_fields(self: Any) -> str:
    """The `repr` of a result, as a method of its class: small numbers whole, large arrays by shape and
    range."""
    names = getattr(self, "_fields", None) or [f.name for f in dataclasses.fields(self)]
    parts = [f"{name}={_shown_part(getattr(self, name))}" for name in names]
    return f"{type(self).__name__}({', '.join(parts)})"


def _shown_part(value: Any) -> str:
    """A field in a few characters."""
    if isinstance(value, Tracer) or value is None:
        return "traced" if value is not None else "None"
    if isinstance(value, jax.Array | np.ndarray | np.generic | float):
        return _shown_array(np.asarray(value))
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name}: {_shown_part(v)}" for name, v in value.items()) + "}"
    if type(value).__repr__ is eqx.Module.__repr__:
        return type(value).__name__
    return str(value)


def _shown_array(value: np.ndarray) -> str:
    if value.ndim == 0 and np.issubdtype(value.dtype, np.number):
        return f"{value:.4g}"
    if value.size <= _SHOWN:
        return np.array2string(value, precision=4, separator=", ", floatmode="maxprec")
    shape = " x ".join(str(n) for n in value.shape)
    if not np.issubdtype(value.dtype, np.number):
        return f"<{shape} {value.dtype}>"
    finite = value[np.isfinite(value)]
    span = f"{finite.min():.4g} to {finite.max():.4g}" if finite.size else "none finite"
    return f"<{shape}: {span}>"
