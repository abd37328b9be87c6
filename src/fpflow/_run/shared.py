"""A run of several processes: the first has the folder."""

import contextlib
import dataclasses
import os
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.sharding import Mesh

from .._hosts import first_does, is_first
from .folder import Intervals, Run, open_run
from .interrupt import caught_signals


@dataclasses.dataclass
class SharedRun:
    """The run of all processes of a mesh: the first reads and writes, and all hear what came of it, its
    errors too. A process alone is the first.

    **Attributes:**

    - `path`: the folder, which only the first needs to see.
    - `run`: the open folder, `None` on the other processes.
    - `mesh`: spans the processes.
    """

    path: pathlib.Path
    run: Run | None
    mesh: Mesh | None

    @contextlib.contextmanager
    def guarded(self) -> Iterator[Callable[[], int | None]]:
        """As `Run.guarded`; every process holds its own signals back."""
        with caught_signals() if self.run is None else self.run.guarded() as came:
            yield came

    def save(self, step: int, state: Any, intervals: Intervals, loss: float) -> pathlib.Path:
        """As `Run.save`; no process goes on before the file is whole."""
        return self._first(lambda run: run.save(step, state, intervals, loss))

    def newest(self, like: Any) -> tuple[Any, Intervals] | None:
        """As `Run.newest`."""

        def read(run):
            found = run.newest(like)
            return found and (jax.tree.leaves(found[0]), found[1])

        found = self._first(read)
        return found and (jax.tree.unflatten(jax.tree.structure(like), found[0]), found[1])

    def write_metrics(self, intervals: Intervals) -> None:
        """As `Run.write_metrics`."""
        self._first(lambda run: run.write_metrics(intervals))

    def add_metrics(self, interval: tuple[Any, ...]) -> None:
        """As `Run.add_metrics`; the others do not wait."""
        if self.run is not None:
            self.run.add_metrics(interval)

    def write_model(self, write: Callable[[pathlib.Path], Any]) -> None:
        """Has the first process write the finished model."""
        self._first(lambda run: write(run.path / "model.fpflow"))

    def _first(self, act: Callable[[Run], Any]) -> Any:
        return first_does(lambda: self.run and act(self.run), self.mesh)


def open_shared(
    path: str | os.PathLike,
    settings: Any,
    *,
    columns: tuple[str, ...],
    resume: bool,
    keep: int,
    mesh: Mesh | None,
) -> SharedRun:
    """As `open_run`, by the first process of the mesh."""
    run = None

    def opened() -> None:
        nonlocal run
        run = open_run(path, settings, columns=columns, resume=resume, keep=keep)

    first_does(opened, mesh)
    assert (run is not None) == is_first(mesh)
    return SharedRun(pathlib.Path(path), run, mesh)
