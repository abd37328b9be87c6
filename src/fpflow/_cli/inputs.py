"""What a command is given: points, laws, processes and models, by the names of files and modules."""

import importlib
import json
import os
import pathlib
import sys
from typing import Any, NamedTuple

from .. import paper
from .._files import DamagedFile
from .._model import as_model, load
from .._process import OrnsteinUhlenbeck
from .points import read_points

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
