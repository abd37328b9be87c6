"""A finished network in a file: arrays and a JSON header, no pickle."""

import json
import os
import pathlib
import zipfile

import numpy as np

from .potential import PotentialMLP
from .score import ScoreMLP

_FORMAT = 1
_KINDS = {"PotentialMLP": PotentialMLP, "ScoreMLP": ScoreMLP}


def save(path: str | pathlib.Path, model: PotentialMLP | ScoreMLP) -> None:
    """Writes a `PotentialMLP` or `ScoreMLP` to an `.npz` file, whole or not at all.

    **Arguments:**

    - `path`: the file; it is replaced where it exists.
    - `model`: the network.

    **Raises:** `ValueError` for another kind of model.
    """
    kind = type(model).__name__
    if kind not in _KINDS:
        raise ValueError(f"`model` must be one of {', '.join(_KINDS)}, got {kind}.")
    network = model.network
    header = {"format": _FORMAT, "kind": kind, "beta": network.beta, "layers": len(network.weights)}
    arrays = {f"w{k}": np.asarray(w) for k, w in enumerate(network.weights)}
    arrays |= {f"b{k}": np.asarray(b) for k, b in enumerate(network.biases)}
    target = pathlib.Path(path)
    partial = target.with_name(f".{target.name}.partial")
    with open(partial, "wb") as file:
        arrays["header"] = np.frombuffer(json.dumps(header).encode(), np.uint8)
        np.savez(file, **arrays)  # pyright: ignore[reportArgumentType]
        file.flush()
        os.fsync(file.fileno())
    partial.replace(target)


def load(path: str | pathlib.Path) -> PotentialMLP | ScoreMLP:
    """Reads what `save` wrote.

    **Raises:** `ValueError` for a file that is damaged or no saved model, `FileNotFoundError` where
    there is none.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            header = json.loads(arrays["header"].tobytes())
            if header["format"] != _FORMAT:
                raise ValueError(f"format {header['format']}, this version reads {_FORMAT}")
            layers = [(arrays[f"w{k}"], arrays[f"b{k}"]) for k in range(header["layers"])]
        return _KINDS[header["kind"]].from_layers(layers, beta=header["beta"])
    except FileNotFoundError:
        raise
    except (ValueError, KeyError, OSError, zipfile.BadZipFile, TypeError) as error:
        raise ValueError(f"{path} is no model saved by `fpflow.save`: {error}.") from error
