"""What a command is given: points, laws, processes and models, by the names of files and modules."""

import argparse
import dataclasses
import json
import pathlib
from typing import Any, NamedTuple

import equinox as eqx
import numpy as np

from .. import paper
from .._files import DamagedFile
from .._model import as_model, given, load
from .._named import imported
from .._process import BY_NAME, AbstractProcess, OrnsteinUhlenbeck, check_process, same_noise
from ..datasets import Points
from .points import read_points

DATA = "points (n, dim) in a .npy, .npz or .csv file, one point per row; module:name of a distribution; "
DATA += f"or one of {', '.join(paper.DATASETS)}"


def process_named(name: str) -> AbstractProcess:
    """A process of ours by its short name, or the object `module:name`.

    **Raises:** `ValueError` where that is another thing.
    """
    if name in BY_NAME:
        return BY_NAME[name]()
    if ":" not in name:
        raise ValueError(
            f"--process must be one of {', '.join(BY_NAME)}, or module:name, got {name!r}."
        )
    found = imported(name)
    check_process(found)
    return found


def settings_of(process: Any) -> dict[str, float]:
    """The numbers a process is made with, those of its schedule included, by name."""
    found = {}
    for field in dataclasses.fields(process):
        value = getattr(process, field.name)
        found |= settings_of(value) if isinstance(value, eqx.Module) else {field.name: value}
    return found


def with_settings(process: Any, settings: dict[str, float]) -> Any:
    """The process with other values of the settings that are named, and its own of all others."""
    known = settings_of(process)
    for name in settings:
        if name not in known:
            raise ValueError(
                f"--{name.replace('_', '-')} is not a setting of the process {type(process).__name__}, "
                f"which has {', '.join(known) or 'none'}."
            )
    changed = {}
    for field in dataclasses.fields(process):
        value = getattr(process, field.name)
        if isinstance(value, eqx.Module):
            inner = {n: v for n, v in settings.items() if n in settings_of(value)}
            changed[field.name] = with_settings(value, inner)
        elif field.name in settings:
            changed[field.name] = settings[field.name]
    return dataclasses.replace(process, **changed) if settings else process


def law_of(name: str, condition: str | None = None) -> Any:
    """Points of a file, a data law of a module, or one of the paper's.

    **Arguments:**

    - `condition`: the columns of a file that are the points' conditions, by name or number.
    """
    if pathlib.Path(name).suffix in (".npy", ".npz", ".csv"):
        names, table = read_points(pathlib.Path(name))
        if condition is None:
            return table
        columns = _columns(condition, names, table)
        return Points(np.delete(table, columns, axis=1), table[:, columns])
    if condition is not None:
        raise ValueError(
            "--condition names columns of a file; a data distribution provides its own conditions."
        )
    if name in paper.DATASETS:
        return paper.DATASETS[name]()
    if ":" in name:
        return imported(name)
    raise ValueError(
        f"data must be a .npy, .npz or .csv file, module:name or one of {', '.join(paper.DATASETS)}, "
        f"got {name!r}."
    )


def names_of(name: str | None, condition: str | None, dim: int) -> list[str]:
    """The names of the coordinates in the first line of a file of points; none where it has no such
    line, or is no such file any more: what was computed is written in any case."""
    if name is None or pathlib.Path(name).suffix != ".csv":
        return []
    try:
        names, table = read_points(pathlib.Path(name))
        given = [] if condition is None or not names else _columns(condition, names, table)
    except (ValueError, OSError):
        return []
    own = [word for k, word in enumerate(names) if k not in given]
    return own if len(own) == dim else []


def _columns(condition: str, names: list[str], table: np.ndarray) -> list[int]:
    """The numbers of columns by name or number."""
    found = []
    for column in condition.split(","):
        column = column.strip()
        if column in names:
            found.append(names.index(column))
        elif column.isdigit() and table.ndim == 2 and int(column) < table.shape[1]:
            found.append(int(column))
        else:
            known = ", ".join(names) if names else "numbers starting at 0"
            raise ValueError(
                f"--condition must name columns of the data ({known}), got {column!r}."
            )
    if len(set(found)) == table.shape[1]:
        raise ValueError("--condition names every column; leave some for the points.")
    return found


def condition_of(text: str | None, model: Any) -> Any:
    """The model at the condition of `--given`, as it is where there is none."""
    if text is None:
        return model
    try:
        values = [float(value) for value in text.split(",")]
    except ValueError as error:
        raise ValueError(f"--given must be numbers separated by commas, got {text!r}.") from error
    return given(as_model(model), values)


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
    named = [getattr(arguments, name, None) for name in ("model", "data", "config")]
    inputs = [data, *(n for name in named for n in (name if isinstance(name, list) else [name]))]
    files = [pathlib.Path(name) for name in inputs if name is not None]
    files += [folder / name for folder in files if folder.is_dir() for name in _OF_A_RUN]
    for option in ("out", "figure"):
        path = getattr(arguments, option, None)
        if path is None or not path.exists():
            continue
        if any(file.exists() and path.samefile(file) for file in files):
            raise ValueError(
                f"--{option} is {path}, an input of this command; choose another file."
            )


class Given(NamedTuple):
    """A model with what is known about it."""

    model: Any
    process: AbstractProcess
    data: str | None = None
    condition: str | None = None
    folder: pathlib.Path | None = None
    saved: bool = True
    validation: float | None = None


def given_model(
    name: str, process: Any | None, settings: dict[str, float], condition: str | None = None
) -> Given:
    """The model of a run's folder, of a file of `fpflow.save`, or the object `module:name`.

    **Arguments:**

    - `process`: the one asked for; a saved model has its own.
    - `settings`: what is changed of the process.
    - `condition`: what a conditional model is given.

    **Raises:** `ValueError` where a saved model is to be used with the noise of another process.
    """
    path = pathlib.Path(name)
    if path.is_dir():
        found = _of_run(path)
    elif ":" in name and not path.exists():
        found = Given(imported(name), OrnsteinUhlenbeck(), saved=False)
    else:
        found = Given(*load(path))
    model = condition_of(condition, found.model)
    used = with_settings(process or found.process, settings)
    if found.saved and not same_noise(found.process, used):
        raise ValueError(
            f"{name} was trained with {found.process}, got {used}, whose noise it has not learned; "
            "leave out --process and its settings, except --t0 and --t1."
        )
    return found._replace(model=model, process=used)


def _of_run(folder: pathlib.Path) -> Given:
    config = folder / "config.json"
    if not config.exists():
        raise ValueError(f"{folder} is not a run: it has no config.json.")
    try:
        saved = json.loads(config.read_text())
    except ValueError as error:
        raise DamagedFile(f"{config} is not JSON: {error}.") from error
    if not isinstance(saved, dict):
        raise DamagedFile(f"{config} must be a JSON object, got {saved!r}.")
    if not (folder / "model.fpflow").exists():
        raise ValueError(
            f"the run in {folder} has no model yet; let it finish with `fpflow train --config "
            f"{config} --run-dir {folder} --resume`."
        )
    command = _part(config, saved, "command", dict) or {}
    options = _part(config, command, "options", dict) or {}
    data, condition = (_part(config, options, name, str) for name in ("data", "condition"))
    share = _part(config, options, "validation", float)
    return Given(*load(folder / "model.fpflow"), data, condition, folder, validation=share)


def _part(config: pathlib.Path, whole: dict, name: str, kind: type) -> Any:
    """An entry of a `config.json`, which somebody may have edited; an option not given is null."""
    found = whole.get(name)
    if not isinstance(found, kind) and (name in whole and (found is not None or kind is dict)):
        word = {str: "text", float: "a number"}.get(kind, "an object")
        raise DamagedFile(f"{config} is damaged: {name!r} must be {word}, got {found!r}.")
    return found
