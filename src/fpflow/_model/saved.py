"""A finished network in a file: arrays and a JSON header, no pickle."""

import itertools
import os
from typing import Any

import numpy as np

from .._files import DamagedFile, Shapes, read_arrays, write_arrays
from .potential import PotentialMLP
from .score import ScoreMLP

_FORMAT = 3
_KINDS = {"PotentialMLP": PotentialMLP, "ScoreMLP": ScoreMLP}


def save(path: str | os.PathLike, model: PotentialMLP | ScoreMLP) -> None:
    """Writes a `PotentialMLP` or `ScoreMLP` to a file, whole or not at all.

    **Arguments:**

    - `path`: the file, by habit `name.fpflow`; it is replaced where it exists.
    - `model`: the network.

    **Raises:** `ValueError` for another kind of model.

    **Example:**

    ```python
    fpflow.save("model.fpflow", model)
    ```
    """
    kind = type(model).__name__
    if kind not in _KINDS:
        raise ValueError(f"`model` must be one of {', '.join(_KINDS)}, got {kind}.")
    network = model.network
    sizes = [network.weights[0].shape[1], *(w.shape[0] for w in network.weights)]
    dtype = str(network.weights[0].dtype)
    header = {
        "format": _FORMAT, "kind": kind, "beta": network.beta, "precision": model.precision,
        "sizes": sizes, "dtype": dtype,
    }  # fmt: skip
    write_arrays(path, header, [np.asarray(a) for a in (*network.weights, *network.biases)])


def load(path: str | os.PathLike) -> PotentialMLP | ScoreMLP:
    """Reads what `save` wrote.

    **Raises:** `DamagedFile`, a `ValueError`, for a file that is damaged or no saved model;
    `FileNotFoundError` where there is none.

    **Example:**

    ```python
    fpflow.save("model.fpflow", model)
    same = fpflow.load("model.fpflow")
    ```
    """
    header, arrays = read_arrays(path, _shapes_of)
    depth = len(arrays) // 2
    layers = list(zip(arrays[:depth], arrays[depth:], strict=True))
    return _KINDS[header["kind"]].from_layers(
        layers, beta=header["beta"], precision=header["precision"]
    )


def _shapes_of(header: dict[str, Any]) -> Shapes:
    """Weights, then biases."""
    if header.get("kind") not in _KINDS or header.get("format") != _FORMAT:
        raise DamagedFile(
            f"it holds {header.get('kind')!r} of format {header.get('format')}, not a model saved by "
            f"`fpflow.save` in format {_FORMAT}"
        )
    sizes, dtype, *numbers = (header.get(k) for k in ("sizes", "dtype", "beta", "precision"))
    if (
        not (isinstance(sizes, list) and all(isinstance(n, int) and n > 0 for n in sizes))
        or dtype not in ("float32", "float64", "float16")
        or not all(isinstance(number, float | int) and number >= 0 for number in numbers)
    ):
        raise DamagedFile(
            f"its header has sizes {sizes}, type {dtype}, beta and precision {numbers}"
        )
    weights = [((n_out, n_in), dtype) for n_in, n_out in itertools.pairwise(sizes)]
    return [*weights, *(((n_out,), dtype) for n_out in sizes[1:])]
