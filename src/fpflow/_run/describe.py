"""Settings as plain values: for people to read, and to tell whether two runs are the same."""

import dataclasses
import hashlib
import inspect
import json
import os
import platform
import sys
from importlib import metadata
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def describe(value: Any, inside: tuple[int, ...] = ()) -> Any:
    """Plain values for JSON that differ where results may.

    Dataclasses and modules become their fields with their kind; small arrays lists, large ones their
    shape, type and SHA-256; functions their name and what they close over; other objects their kind
    and attributes; what is not finite its name.
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
    if callable(value) and hasattr(value, "__qualname__"):
        name = f"{value.__module__}:{value.__qualname__}"
        # What a function was made with: an optax transformation keeps its rates nowhere else.
        value = inspect.unwrap(value)
        closed = inspect.getclosurevars(value).nonlocals if inspect.isfunction(value) else {}
        inner = list(closed.values())
        return {"function": name, "with": describe(inner, inside)} if inner else name
    fields = {
        name: describe(field, inside) for name, field in getattr(value, "__dict__", {}).items()
    }
    return {"kind": type(value).__name__, **fields}


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
