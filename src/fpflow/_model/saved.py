"""A finished model in a file, with its process: arrays and a JSON header, no pickle.

The header is the tree of the model: modules by the name of their class with their fields, functions by
their names, numbers as they are, and arrays by their place in the payload.
"""

import importlib
import os
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .._files import DamagedFile, Shapes, read_arrays, write_arrays
from .._process import AbstractProcess

_FORMAT = 4


class Saved(NamedTuple):
    """What a file holds: `model, process = fpflow.load(path)`."""

    model: Any
    process: AbstractProcess


def save(path: str | os.PathLike, model: Any, process: AbstractProcess) -> None:
    """Writes a model and its process to a file. The file is written completely or not at all.

    **Arguments:**

    - `path`: the file, conventionally `name.fpflow`; an existing file is replaced.
    - `model`: any `equinox.Module` of arrays, numbers, modules and named functions.
    - `process`: the process it was trained with.

    **Raises:** `ValueError` that names the part that cannot be written, such as a lambda.

    **Example:**

    ```python
    fpflow.save("model.fpflow", model, process)
    ```
    """
    arrays: list[np.ndarray] = []
    header = {
        "format": _FORMAT,
        "kind": "model",
        "process": _plain(process, "process", arrays),
        "model": _plain(model, "model", arrays),
    }
    header["arrays"] = [[list(a.shape), str(a.dtype)] for a in arrays]
    write_arrays(path, header, arrays)


def load(path: str | os.PathLike) -> Saved:
    """Reads a file written by `save`.

    The classes of a model are imported by name, so open only files of models whose code you would run.

    **Returns:** a pair `Saved` of the model and its process.

    **Raises:** `DamagedFile`, a `ValueError`, for a file that is damaged, is not a saved model, or needs
    classes that cannot be found; `FileNotFoundError` if there is no file.

    **Example:**

    ```python
    fpflow.save("model.fpflow", model, process)
    same, its_process = fpflow.load("model.fpflow")
    ```
    """
    header, arrays = read_arrays(path, _shapes_of)
    try:
        model, process = (_object(header[part], arrays) for part in ("model", "process"))
        if not isinstance(process, AbstractProcess):
            raise DamagedFile(f"its process is a {type(process).__name__}")
    except DamagedFile as error:
        raise DamagedFile(f"{path} cannot be used: {error}.") from error
    return Saved(model, process)


def _shapes_of(header: dict[str, Any]) -> Shapes:
    if header.get("kind") != "model" or header.get("format") != _FORMAT:
        raise DamagedFile(
            f"it holds {header.get('kind')!r} of format {header.get('format')}, not a model saved by "
            f"`fpflow.save` in format {_FORMAT}"
        )
    shapes = header.get("arrays")
    try:
        found = [(tuple(int(n) for n in shape), str(np.dtype(kind))) for shape, kind in shapes]  # pyright: ignore
        if any(n < 0 for shape, _ in found for n in shape) or "model" not in header:
            raise ValueError
    except (TypeError, ValueError):
        raise DamagedFile(f"its header has the arrays {str(shapes)[:80]}") from None
    return found


def _name(value: Any) -> str:
    return f"{value.__module__}:{value.__qualname__}"


def _is_found_again(value: Any) -> bool:
    """Whether a class or function can be imported by its name, also by another program."""
    if getattr(value, "__module__", "__main__") == "__main__" or not hasattr(value, "__qualname__"):
        return False
    try:
        return _found(_name(value)) is value
    except DamagedFile:
        return False


def _plain(value: Any, where: str, arrays: list[np.ndarray]) -> Any:
    """One part as JSON; its arrays go to the end of the list."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, jax.Array | np.ndarray):
        if jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
            raise ValueError(f"`{where}` is a random key, which a saved model cannot contain.")
        arrays.append(np.asarray(value))
        return {"array": len(arrays) - 1, "numpy": isinstance(value, np.ndarray)}
    if isinstance(value, eqx.Module):
        if not _is_found_again(type(value)):
            raise ValueError(
                f"`{where}` is a {type(value).__qualname__}, whose class cannot be found by name; "
                "define it at the top level of a module that can be imported."
            )
        # What __init__ set, and nothing that a wrapper of ours may have left out.
        fields = {f: _plain(v, f"{where}.{f}", arrays) for f, v in vars(value).items()}
        return {"module": _name(type(value)), "fields": fields}
    if isinstance(value, list | tuple):
        items = [_plain(v, f"{where}[{k}]", arrays) for k, v in enumerate(value)]
        return {"tuple" if isinstance(value, tuple) else "list": items}
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {"dict": {k: _plain(v, f"{where}[{k!r}]", arrays) for k, v in value.items()}}
    if callable(value) and _is_found_again(value):
        return {"function": _name(value)}
    raise ValueError(
        f"`{where}` is {value!r}, which cannot be written to a file: a model must consist of arrays, "
        "numbers, `equinox` modules and functions that can be imported by name."
    )


def _object(part: Any, arrays: list[np.ndarray]) -> Any:
    """What `_plain` wrote, again."""
    if not isinstance(part, dict):
        return part
    match part:
        case {"array": int(k), "numpy": numpy}:
            return arrays[k] if numpy else jnp.asarray(arrays[k])
        case {"module": str(name), "fields": dict(fields)}:
            kind = _found(name)
            if not (isinstance(kind, type) and issubclass(kind, eqx.Module)):
                raise DamagedFile(f"{name} is not an equinox module")
            made = object.__new__(kind)
            for field, value in fields.items():
                object.__setattr__(made, field, _object(value, arrays))
            return made
        case {"tuple": list(items)}:
            return tuple(_object(item, arrays) for item in items)
        case {"list": list(items)}:
            return [_object(item, arrays) for item in items]
        case {"dict": dict(items)}:
            return {key: _object(item, arrays) for key, item in items.items()}
        case {"function": str(name)}:
            return _found(name)
    raise DamagedFile(f"its header has the part {str(part)[:80]}")


def _found(name: str) -> Any:
    """The object `module:qualified.name`."""
    module, _, path = name.partition(":")
    try:
        found = importlib.import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError) as error:
        raise DamagedFile(
            f"it needs {name}, which cannot be imported ({error}); a module of your own must be in the "
            "folder where you start Python or on PYTHONPATH"
        ) from error
    return found
