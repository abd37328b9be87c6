"""Numbers and arrays of one part of a run, kept as they come."""

import io
import json
import pathlib

import numpy as np

from .._files import write_whole


def save(run: pathlib.Path, name: str, numbers: dict, arrays: dict) -> None:
    """The arrays first: a part counts as done once its numbers are there."""
    run.mkdir(parents=True, exist_ok=True)
    content = io.BytesIO()
    np.savez(content, **arrays)
    write_whole(run / f"{name}.npz", content.getvalue())
    write_whole(run / f"{name}.json", json.dumps(numbers, indent=1).encode())


def saved(run: pathlib.Path, name: str, settings: dict) -> dict | None:
    """The numbers of a part that was done with these very settings, if there are any."""
    file = run / f"{name}.json"
    numbers = json.loads(file.read_text()) if file.exists() else {}
    return numbers if numbers.get("settings") == settings else None
