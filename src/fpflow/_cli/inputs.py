"""What a command is given: points, laws, processes and models, by the names of files and modules."""

import argparse
import dataclasses
import importlib
import json
import os
import pathlib
import sys
from typing import Any, NamedTuple

from .. import _process, paper
from .._files import DamagedFile
from .._model import as_model, load
from .._process import AbstractProcess, OrnsteinUhlenbeck
from .._types import Process
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
    except Exception as error:
        raise ValueError(
            f"module {module!r} of {name!r} cannot be imported: {type(error).__name__}: {error}"
        ) from error
    finally:
        sys.path.remove(os.getcwd())
    if not hasattr(found, attribute):
        raise ValueError(f"module {module!r} has no {attribute!r}.")
    return getattr(found, attribute)


def process_named(name: str) -> Any:
    """The process `module:name`.

    **Raises:** `ValueError` where that is another thing.
    """
    found = imported(name)
    if isinstance(found, type) or not isinstance(found, Process):
        kind = "class; name an object of it" if isinstance(found, type) else type(found).__name__
        raise ValueError(
            "--process must name an object with t0, t1, prior, drift, diffusion and transition; "
            f"{name} is a {kind}."
        )
    return found


def with_settings(process: Any, settings: dict[str, float]) -> Any:
    """The process with other values of the settings that are named, and its own of all others."""
    fields = dataclasses.fields(process) if dataclasses.is_dataclass(process) else ()
    names = [field.name for field in fields if field.init]
    for name in settings:
        if name not in names:
            raise ValueError(
                f"--{name} is no setting of the process, {type(process).__name__}, which has "
                f"{', '.join(names) or 'none'}."
            )
    return dataclasses.replace(process, **settings) if settings else process


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


_OF_A_RUN = ("config.json", "environment.json", "metrics.jsonl", "model.fpflow")


def keep_inputs(arguments: argparse.Namespace, data: str | None = None) -> None:
    """Refuses, before anything is computed, to write over what the command reads.

    **Arguments:**

    - `data`: that of the run, which no option names.
    """
    named = [getattr(arguments, name, None) for name in ("model", "data", "points", "config")]
    inputs = [data, *(n for name in named for n in (name if isinstance(name, list) else [name]))]
    files = [pathlib.Path(name) for name in inputs if name is not None]
    files += [folder / name for folder in files if folder.is_dir() for name in _OF_A_RUN]
    for option in ("out", "figure"):
        path = getattr(arguments, option, None)
        if path is None or not path.exists():
            continue
        if any(file.exists() and path.samefile(file) for file in files):
            raise ValueError(
                f"--{option} is an input of this command, {path}; choose another file."
            )


class Given(NamedTuple):
    """A model with what is known about it."""

    model: Any
    process: Any
    data: str | None
    folder: pathlib.Path | None


def given_model(name: str, process: Any | None, settings: dict[str, float]) -> Given:
    """The model of a run's folder, of a file of `fpflow.save`, or the object `module:name`.

    **Arguments:**

    - `process`: the one asked for; a run has its own.
    - `settings`: what is changed of the process.
    """
    path = pathlib.Path(name)
    if path.is_dir():
        given = _of_run(path, process)
    elif ":" in name and not path.exists():
        given = Given(imported(name), process or OrnsteinUhlenbeck(), None, None)
    else:
        given = Given(load(path), process or OrnsteinUhlenbeck(), None, None)
    return given._replace(process=with_settings(given.process, settings))


def _of_run(folder: pathlib.Path, process: Any | None) -> Given:
    config = folder / "config.json"
    if not config.exists():
        raise ValueError(f"{folder} is no run: it has no config.json.")
    try:
        saved = json.loads(config.read_text())
    except ValueError as error:
        raise DamagedFile(f"{config} is no JSON: {error}.") from error
    if not isinstance(saved, dict):
        raise DamagedFile(f"{config} must be a JSON object, got {saved!r}.")
    if not (folder / "model.fpflow").exists():
        raise ValueError(
            f"the run in {folder} has no model yet; let it finish with `fpflow train --config "
            f"{config} --run-dir {folder} --resume`."
        )
    command = _part(config, saved, "command", dict) or {}
    options = _part(config, command, "options", dict) or {}
    data = _part(config, options, "data", str)
    if process is None:
        process = _process_of(config, saved, _part(config, options, "process", str))
    return Given(as_model(load(folder / "model.fpflow")), process, data, folder)


def _part(config: pathlib.Path, whole: dict, name: str, kind: type) -> Any:
    """An entry of a `config.json`, which somebody may have edited; an option not given is null."""
    found = whole.get(name)
    if not isinstance(found, kind) and (name in whole and (found is not None or kind is dict)):
        word = "text" if kind is str else "an object"
        raise DamagedFile(f"{config} is damaged: {name!r} must be {word}, got {found!r}.")
    return found


def _process_of(config: pathlib.Path, saved: dict, name: str | None) -> Any:
    if name:
        return process_named(name)
    training = _part(config, saved, "training", dict) or {}
    described = dict(_part(config, training, "process", dict) or {})
    kind = described.pop("kind", None)
    found = getattr(_process, kind, None) if isinstance(kind, str) else None
    if not (isinstance(found, type) and issubclass(found, AbstractProcess)):
        raise ValueError(
            f"the process of the run in {config.parent} is not known; pass `--process`."
        )
    try:
        return found(**described)
    except (TypeError, ValueError) as error:
        raise DamagedFile(
            f"the process of the run in {config.parent} cannot be made again: {error}"
        ) from error
