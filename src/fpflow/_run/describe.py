"""Settings as plain values: for people to read, and to tell whether two runs are the same."""

import dataclasses
import functools
import hashlib
import inspect
import json
import os
import pathlib
import platform
import sys
import types
from importlib import metadata
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

_PLAIN = (bool, int, float, str, np.ndarray, jax.Array)

_LIBRARY = pathlib.Path(__file__).parent.parent


def describe(value: Any, inside: tuple[int, ...] = ()) -> Any:
    """Plain values for JSON that differ where results may.

    Dataclasses and modules become their fields with their kind; small arrays lists, large ones their
    shape, type and SHA-256; functions their name, code, defaults and what they close over; other objects
    their kind and attributes; what is not finite its name.
    """
    if id(value) in inside:
        return {"kind": type(value).__name__, "seen": True}
    inside = (*inside, id(value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {
            f.name: describe(getattr(value, f.name), inside) for f in dataclasses.fields(value)
        }
        return {"kind": type(value).__name__, **fields}
    if isinstance(value, dict):
        return {str(key): describe(item, inside) for key, item in value.items()}
    if isinstance(value, set | frozenset):
        return sorted((describe(item, inside) for item in value), key=json.dumps)
    if isinstance(value, list | tuple):
        return [describe(item, inside) for item in value]
    if isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        value = jax.random.key_data(value)
    if isinstance(value, jax.Array | np.ndarray | np.generic):
        array = np.asarray(value)
        if array.size <= 16:
            return describe(array.tolist())
        digest = hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
        return {"shape": list(array.shape), "dtype": str(array.dtype), "sha256": digest}
    if isinstance(value, float) and not np.isfinite(value):
        return str(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, functools.partial):
        parts = {"function": value.func, "with": value.args, "keywords": value.keywords}
        return {"kind": "partial", **describe(parts, inside)}
    if isinstance(value, types.MethodType):
        return describe({"method": value.__func__, "of": value.__self__}, inside)
    if callable(value) and hasattr(value, "__qualname__"):
        return _describe_function(value, inside)
    fields = {
        name: describe(field, inside) for name, field in getattr(value, "__dict__", {}).items()
    }
    return {"kind": type(value).__name__, **fields}


def _describe_function(value: Any, inside: tuple[int, ...]) -> Any:
    """Its name, and what else it does its work by."""
    name = f"{value.__module__}:{value.__qualname__}"
    value = inspect.unwrap(value)
    if not inspect.isfunction(value):
        return name
    read = inspect.getclosurevars(value)
    parts = {
        # What a function was made with: an optax transformation keeps its rates nowhere else.
        "with": list(read.nonlocals.values()),
        "defaults": [*(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values()],
        "globals": [v for v in read.globals.values() if isinstance(v, _PLAIN)],
        # The version tells what code a name of this library or of another stands for.
        "code": _code(value.__code__) if _is_own(value) else None,
    }
    parts = {part: found for part, found in parts.items() if found}
    return {"function": name, **describe(parts, inside)} if parts else name


def _is_own(function: types.FunctionType) -> bool:
    """Whether a function is the user's: not of an installed package, where the name tells the code."""
    file = pathlib.Path(function.__code__.co_filename)
    return not ("site-packages" in file.parts or file.is_relative_to(_LIBRARY))


def _code(code: types.CodeType) -> str:
    """The SHA-256 of what a function does, without where it stands."""

    def plain(constant: Any) -> Any:
        if isinstance(constant, types.CodeType):
            return _code(constant)
        if isinstance(constant, frozenset):  # in an order that is the same in every process
            return sorted(map(repr, constant))
        return [plain(item) for item in constant] if isinstance(constant, tuple) else repr(constant)

    parts = [code.co_code.hex(), code.co_names, [plain(constant) for constant in code.co_consts]]
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def fingerprint(described: Any) -> str:
    """The SHA-256 of what `describe` returned."""
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()


def tree_fingerprint(tree: Any) -> str:
    """The SHA-256 of a tree's structure, shapes and types."""
    leaves, structure = jax.tree.flatten(tree)
    shapes = [(tuple(leaf.shape), str(leaf.dtype)) for leaf in leaves]
    return hashlib.sha256(f"{structure}{shapes}".encode()).hexdigest()


def versions() -> dict[str, str]:
    """The versions that decide over the last digits."""
    packages = ("fpflow-jax", "jax", "jaxlib", "equinox", "diffrax", "optax", "numpy")
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def environment() -> dict[str, Any]:
    """What a run was computed on: versions, devices, precision."""
    return {
        "versions": versions(),
        "devices": [device.device_kind for device in jax.devices()],
        "platform": jax.default_backend(),
        "threads": _threads(),
        "double_precision": bool(jax.config.read("jax_enable_x64")),
        "system": f"{sys.platform} {platform.machine()}",
    }


def _threads() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
