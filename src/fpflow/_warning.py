"""Warnings that point at the line of the user and not into the library."""

import sys
import warnings

_LIBRARY = __name__.partition(".")[0]
# What stands between a call and the function or class that was called.
_WRAPPERS = ("equinox", "jax", "jaxtyping", "beartype")


def warn(message: str) -> None:
    """Warns at the line that called the outermost function of the library that is running."""
    frame, level, caller, inside = sys._getframe(1), 2, 2, True
    while frame is not None:
        package = frame.f_globals.get("__name__", "").partition(".")[0]
        if package == _LIBRARY or (inside and package in _WRAPPERS):
            caller, inside = level + 1, True
        else:
            inside = False
        frame, level = frame.f_back, level + 1
    warnings.warn(message, stacklevel=caller)
