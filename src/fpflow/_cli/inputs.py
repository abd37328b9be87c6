"""What a command is given: points, laws, processes and models, by the names of files and modules."""

import importlib
import io
import json
import os
import pathlib
import sys
from typing import Any, NamedTuple

import numpy as np

from .. import paper
from .._files import DamagedFile, write_whole
from .._model import as_model, load
from .._process import OrnsteinUhlenbeck

DATA = (
    "points (n, dim) in a .npy, .npz or .csv file, one point a row; module:name of a data law; or "
)
DATA += f"one of {', '.join(paper.DATASETS)}"


def imported(name: str) -> Any:
    """The object `module:name`, modules of the current folder included."""
    module, _, attribute = name.partition(":")
    sys.path.insert(0, os.getcwd())
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ValueError(f"module {module!r} of {name!r} was not found: {error}") from error
    finally:
        sys.path.remove(os.getcwd())
    if not hasattr(found, attribute):
        raise ValueError(f"module {module!r} has no {attribute!r}.")
    return getattr(found, attribute)


def read_points(path: pathlib.Path) -> np.ndarray:
    """The one array of a file.

    **Raises:** `ValueError` for a file that holds no such thing, `OSError` where there is none.
    """
    if path.suffix == ".npy":
        return np.load(path, allow_pickle=False)
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as arrays:
            names = list(arrays)
            if len(names) != 1:
                raise ValueError(f"{path} must hold one array, got {names}.")
            return arrays[names[0]]
    with open(path) as file:
        first = file.readline()
    try:
        [float(cell) for cell in first.split(",")]
        header = 0
    except ValueError:
        header = 1
    try:
        return np.loadtxt(path, delimiter=",", skiprows=header, ndmin=2)
    except ValueError as error:
        raise ValueError(
            f"{path} must hold numbers with commas between them, one point a line, after at most one "
            f"line of names: {_first_fault(path, header) or str(error).rstrip('.')}."
        ) from error


def _first_fault(path: pathlib.Path, header: int) -> str:
    """Where the first cell that is no number stands, as an editor counts."""
    for number, line in enumerate(path.read_text().splitlines()[header:], header + 1):
        for column, cell in enumerate(line.split(","), 1):
            try:
                float(cell)
            except ValueError:
                if ";" in line:
                    return f"line {number} has semicolons"
                what = f"{cell.strip()!r}, which is no number" if cell.strip() else "nothing"
                return f"line {number}, column {column} holds {what}"
    return ""


def law_of(name: str) -> Any:
    """Points of a file, a data law of a module, or one of the paper's."""
    if name in paper.DATASETS:
        return paper.DATASETS[name]()
    if pathlib.Path(name).suffix in (".npy", ".npz", ".csv"):
        return read_points(pathlib.Path(name))
    if ":" in name:
        return imported(name)
    raise ValueError(
        f"data must be a .npy, .npz or .csv file, module:name or one of {', '.join(paper.DATASETS)}, "
        f"got {name!r}."
    )


def write_points(path: pathlib.Path, points: np.ndarray) -> None:
    """An array as `.npy` or `.csv`, whole or not at all."""
    content = io.BytesIO()
    if path.suffix == ".npy":
        np.save(content, points)
    else:
        np.savetxt(content, points, delimiter=",")
    write_whole(path, content.getvalue())


def check_output(path: pathlib.Path | None, suffixes: tuple[str, ...]) -> None:
    """Refuses, before anything is computed, a file that could not be written."""
    if path is None:
        return
    if path.suffix not in suffixes:
        raise ValueError(f"{path} must end in {' or '.join(suffixes)}.")
    if not path.resolve().parent.is_dir():
        raise ValueError(f"the folder of {path} does not exist.")


class Given(NamedTuple):
    """A model with what is known about it."""

    model: Any
    process: Any
    data: str | None
    folder: pathlib.Path | None


def given_model(name: str, process: Any | None) -> Given:
    """The model of a run's folder, of a file of `fpflow.save`, or the object `module:name`.

    **Arguments:**

    - `process`: the one asked for; a run has its own.
    """
    path = pathlib.Path(name)
    if path.is_dir():
        return _of_run(path, process)
    if ":" in name and not path.exists():
        return Given(imported(name), process or OrnsteinUhlenbeck(), None, None)
    return Given(load(path), process or OrnsteinUhlenbeck(), None, None)


def _of_run(folder: pathlib.Path, process: Any | None) -> Given:
    config = folder / "config.json"
    if not config.exists():
        raise ValueError(f"{folder} is no run: it has no config.json.")
    try:
        saved = json.loads(config.read_text())
    except ValueError as error:
        raise DamagedFile(f"{config} is no JSON: {error}.") from error
    if not (folder / "model.fpflow").exists():
        raise ValueError(
            f"the run in {folder} has no model yet; let it finish with `fpflow train --config "
            f"{config} --run-dir {folder} --resume`."
        )
    options = saved.get("command", {}).get("options", {})
    if process is None:
        process = _process_of(saved, options, folder)
    return Given(as_model(load(folder / "model.fpflow")), process, options.get("data"), folder)


def _process_of(saved: dict, options: dict, folder: pathlib.Path) -> Any:
    if options.get("process"):
        return imported(options["process"])
    described = dict(saved.get("training", {}).get("process", {}))
    if described.pop("kind", None) != "OrnsteinUhlenbeck":
        raise ValueError(f"the process of the run in {folder} is not known; pass `--process`.")
    return OrnsteinUhlenbeck(**described)
