"""A run's folder: settings, environment, metrics, checkpoints and the finished model."""

import contextlib
import contextvars
import dataclasses
import json
import math
import os
import pathlib
import re
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._files import DamagedFile, Shapes, read_arrays, write_arrays, write_json, write_whole
from .._warning import warn
from .describe import describe, environment, fingerprint, tree_fingerprint, versions
from .interrupt import caught_signals
from .lock import locked

_FORMAT = 1
_NAME = re.compile(r"step-(\d{9})\.fpflow")

_HEADER = {
    "step": int,
    "tree": str,
    "fingerprint": str,
    "intervals": int,
    "loss": float | int | str,
}

# Steps done, the loss, its terms, and seconds at the end of each interval.
Intervals = list[tuple[Any, ...]]


@dataclasses.dataclass
class Run:
    """An open folder; `open_run` makes one.

    **Attributes:**

    - `path`: the folder.
    - `settings`: what the run was started with, plain.
    - `columns`: the names of the numbers of an interval.
    - `keep`: how many of the newest checkpoints stay, besides the best.
    - `release`: lets other processes into the folder again.
    """

    path: pathlib.Path
    settings: dict[str, Any]
    columns: tuple[str, ...]
    keep: int
    losses: dict[int, float] = dataclasses.field(default_factory=dict)
    release: Callable[[], Any] = lambda: None

    @contextlib.contextmanager
    def guarded(self) -> Iterator[Callable[[], int | None]]:
        """Holds signals back, as `caught_signals` does, and releases the folder at the end."""
        try:
            with caught_signals() as came:
                yield came
        finally:
            self.release()

    @property
    def checkpoints(self) -> pathlib.Path:
        """Their folder."""
        return self.path / "checkpoints"

    def file_of(self, step: int) -> pathlib.Path:
        """The checkpoint after `step` steps."""
        return self.checkpoints / f"step-{step:09d}.fpflow"

    def save(self, step: int, state: Any, intervals: Intervals, loss: float) -> pathlib.Path:
        """Writes a checkpoint and removes those that are neither among the newest nor the best."""
        header = {
            "format": _FORMAT,
            "kind": "checkpoint",
            "step": step,
            "loss": loss,
            "fingerprint": fingerprint(self.settings),
            "tree": tree_fingerprint(state),
            "versions": versions(),
            "settings": self.settings,
            "intervals": len(intervals),
        }
        rows = np.array(intervals, float).reshape(-1, len(self.columns))
        path = self.file_of(step)
        header = describe(header)
        write_arrays(path, header, [np.asarray(leaf) for leaf in jax.tree.leaves(state)] + [rows])
        self.losses[step] = loss
        kept = set(sorted(self.losses)[-self.keep :])
        kept.add(min(self.losses, key=lambda step: (_or_infinite(self.losses[step]), -step)))
        for old in set(self.losses) - kept:
            self.file_of(old).unlink(missing_ok=True)
            del self.losses[old]
        return path

    def read(self, path: pathlib.Path, like: Any) -> tuple[Any, Intervals, float]:
        """One checkpoint, checked against the run and the structure of its state.

        **Raises:** `DamagedFile` with the path and the reason.
        """
        leaves, structure = jax.tree.flatten(like)

        def refuse(reason: str):
            raise DamagedFile(reason)

        def shapes_of(header: dict[str, Any]) -> Shapes:
            if header.get("kind") != "checkpoint" or header.get("format") != _FORMAT:
                refuse(f"it is not a checkpoint of format {_FORMAT}")
            for name, kind in _HEADER.items():
                if not isinstance(header.get(name), kind):
                    refuse(f"its header has {header.get(name)!r} for `{name}`")
            if self.file_of(header["step"]).name != path.name:
                refuse(f"it holds step {header['step']}")
            if header["tree"] != tree_fingerprint(like):
                refuse("its model or optimiser has another architecture")
            if header["fingerprint"] != fingerprint(self.settings):
                refuse("it belongs to a run with other settings")
            shapes = [(tuple(leaf.shape), str(leaf.dtype)) for leaf in leaves]
            return [*shapes, ((header["intervals"], len(self.columns)), "float64")]

        header, arrays = read_arrays(path, shapes_of)
        intervals = [(int(row[0]), *map(float, row[1:])) for row in arrays[-1]]
        state = jax.tree.unflatten(structure, [jnp.asarray(a) for a in arrays[:-1]])
        loss = header["loss"]
        return state, intervals, math.nan if isinstance(loss, str) else loss

    def newest(self, like: Any) -> tuple[Any, Intervals] | None:
        """State and history of the newest checkpoint that is whole; a warning for each that is not.

        **Raises:** `DamagedFile` where there are checkpoints and none is whole.
        """
        found = None
        files = sorted(
            (path for path in self.checkpoints.iterdir() if _NAME.fullmatch(path.name)),
            reverse=True,
        )
        for path in files:
            try:
                state, intervals, loss = self.read(path, like)
            except DamagedFile as error:
                warn(f"{error} Trying an older one.")
                continue
            self.losses[int(path.name[5:14])] = loss
            found = found or (state, intervals)
        if files and found is None:
            self.release()
            raise DamagedFile(
                f"none of the {len(files)} checkpoints in {self.checkpoints} can be used; see the "
                "warnings, or start again in another folder."
            )
        return found

    def write_metrics(self, intervals: Intervals) -> None:
        """`metrics.jsonl` afresh, a line an interval."""
        write_whole(self.path / "metrics.jsonl", "".join(map(self._line, intervals)).encode())

    def add_metrics(self, interval: tuple[Any, ...]) -> None:
        """One more line."""
        with open(self.path / "metrics.jsonl", "a") as file:
            file.write(self._line(interval))

    def _line(self, interval: tuple[Any, ...]) -> str:
        values = (v if math.isfinite(v) else None for v in interval)
        return json.dumps(dict(zip(self.columns, values, strict=True))) + "\n"


def _or_infinite(loss: float) -> float:
    return loss if math.isfinite(loss) else math.inf


def open_run(
    path: str | os.PathLike, settings: Any, *, columns: tuple[str, ...], resume: bool, keep: int
) -> Run:
    """The folder of a run: a new one, or with `resume` that of a run with the same settings.

    **Arguments:**

    - `settings`: everything that changes a result; described and written to `config.json`.

    **Raises:** `ValueError` for a folder that holds a run while `resume` is false, or one with
    other settings.
    """
    folder, described = pathlib.Path(path), describe(settings)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"`run_dir` must be a folder, and {folder} is a file.")
    folder.mkdir(parents=True, exist_ok=True)
    lock = locked(folder)
    try:
        _write_settings(folder, described, resume)
    except BaseException:
        os.close(lock)
        raise
    run = Run(folder, described, columns, keep)
    # A run that nobody ends, because opening its files failed, gives way when it is forgotten.
    run.release = weakref.finalize(run, os.close, lock)
    return run


def _write_settings(folder: pathlib.Path, described: dict[str, Any], resume: bool) -> None:
    """Into a new folder, or one whose run may go on."""
    config = folder / "config.json"
    saved = _read_json(config)
    if has_results(folder):
        if not resume:
            raise ValueError(
                f"`run_dir` = {folder} already holds a run; pass `resume=True` to continue it, or "
                "choose another folder."
            )
        differing = _differences(saved.get("training", described), described)
        if differing:
            raise ValueError(
                f"the run in {folder} was started with other settings: {'; '.join(differing)}. Resume "
                "with the same settings, or choose another folder."
            )
    else:
        saved = {**saved, "command": describe(_asked.get())}
        if saved["command"] is None:
            del saved["command"]
    for part in ("checkpoints", "figures"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for stray in folder.rglob(".*.partial"):
        stray.unlink(missing_ok=True)
    write_json(folder / "environment.json", environment())
    write_json(config, {**saved, "training": described})


# What the command line was asked for.
_asked: contextvars.ContextVar[dict[str, Any] | None] = contextvars.ContextVar(
    "asked", default=None
)


@contextlib.contextmanager
def asked_by(command: dict[str, Any]) -> Iterator[None]:
    """Puts a command with its options beside the settings into the `config.json` of a run that starts
    inside."""
    token = _asked.set(command)
    try:
        yield
    finally:
        _asked.reset(token)


def has_results(folder: pathlib.Path) -> bool:
    """Whether a run left anything there that another would destroy: settings alone are nothing."""
    checkpoints = folder / "checkpoints"
    files = checkpoints.iterdir() if checkpoints.is_dir() else ()
    return (folder / "model.fpflow").exists() or any(_NAME.fullmatch(file.name) for file in files)


def _read_json(path: pathlib.Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text())
    except ValueError as error:
        raise DamagedFile(f"{path} is not JSON: {error}.") from error
    if not isinstance(found, dict):
        raise DamagedFile(f"{path} is not a JSON object.")
    return found


def _differences(old: Any, new: Any, name: str = "") -> list[str]:
    """Where two descriptions differ, as words."""
    if isinstance(old, dict) and isinstance(new, dict) and old.keys() == new.keys():
        return [
            line
            for key in old
            for line in _differences(old[key], new[key], f"{name}.{key}" if name else key)
        ]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        pairs = enumerate(zip(old, new, strict=True))
        return [line for k, (a, b) in pairs for line in _differences(a, b, f"{name}[{k}]")]
    if old == new:
        return []
    was, now = (json.dumps(value) for value in (old, new))
    start = 0
    if len(was) + len(now) > 120:
        start = next((k for k, (a, b) in enumerate(zip(was, now, strict=False)) if a != b), 0)
    return [f"{name} {_short(was, start)}, now {_short(now, start)}"]


def _short(text: str, start: int) -> str:
    """Some 60 letters from just before `start`."""
    first = max(start - 10, 0)
    part = text[first : first + 60]
    return f"{'...' if first else ''}{part}{'...' if len(text) > first + 60 else ''}"
