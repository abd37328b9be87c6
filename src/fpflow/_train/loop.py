"""Chunk after chunk: what the driver tells, saves and keeps."""

import contextlib
import dataclasses
import time
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jax.sharding import Mesh
from tqdm.auto import tqdm

from .._hosts import agreed, gathered, replicated, watched
from .._model import Transformed, save
from .._process import AbstractProcess
from .._run import Intervals, SharedRun, TrainingInterrupted
from .._warning import warn
from .result import History, TrainingDiverged, TrainResult
from .validation import HeldOutLoss


@dataclasses.dataclass
class Loop:
    """What the driver keeps besides the state: the history, and where it is told.

    `outer` is the model as the user has it: `model` itself, or `Transformed` around it.
    """

    model: Any
    outer: Any
    process: AbstractProcess
    run: SharedRun | None
    mesh: Mesh | None
    names: tuple[str, ...]
    num_steps: int
    checkpoint_every: int
    log_fn: Callable[[int, dict[str, float]], None] | None
    held_out: HeldOutLoss | None
    intervals: Intervals = dataclasses.field(default_factory=list)
    start: float = 0.0

    def go(self, state, steps, no_bar: bool | None) -> TrainResult:
        """All chunks from the newest state on, each by `steps`, and the result."""
        signals = contextlib.nullcontext(lambda: None) if self.run is None else self.run.guarded()
        with watched(self.mesh, "training") as say:
            # Before the first chunk a signal ends the call at once: there is nothing to save.
            state = self.begin(state)
            done = saved = int(state.step)
            say(_way_on(self.run, saved))
            bar = tqdm(
                total=self.num_steps, initial=done, unit="step", desc="train", disable=no_bar
            )
            with signals as came, bar:
                while done < self.num_steps and not self.enough(state):
                    state, losses = steps(state)
                    state = self.note(state, losses, bar)
                    done = int(state.step)
                    signal = agreed(came(), self.mesh)
                    last = done == self.num_steps or self.enough(state)
                    if signal or last or done >= saved + self.checkpoint_every:
                        path = self.save(state, since=saved)
                        saved = done
                        say(_way_on(self.run, saved))
                        if path and signal and not last:
                            raise TrainingInterrupted(done, path, signal)
            return self.finish(state)

    def begin(self, state):
        """The state to go on from."""
        if self.run is not None:
            state, self.intervals = self.run.newest(state) or (state, self.intervals)
            self.run.write_metrics(self.intervals)
        before = self.intervals[-1][-1] if self.intervals else 0.0
        self.start = time.perf_counter() - before
        return replicated(state, self.mesh)

    def note(self, state, losses, bar):
        """The state with the best so far, after a chunk is told to bar, folder and the user's hook."""
        before, done = self.intervals[-1][0] if self.intervals else 0, int(state.step)
        if done > before:
            loss, parts = jax.tree.map(
                lambda column: float(np.asarray(column)[: done - before].mean()), losses
            )
            row = (done, loss, *parts.values())
            if self.held_out is not None:
                seen, held = self.held_out(state.average, self.model)
                row, state = (*row, seen, held), self.held_out.better(state, held)
            self._tell((*row, time.perf_counter() - self.start), bar)
        bar.update(done - before)
        if not state.healthy:
            raise TrainingDiverged(done, self.result(state))
        return state

    def enough(self, state) -> bool:
        """Whether the held-out loss has stopped falling."""
        return self.held_out is not None and self.held_out.enough(state)

    def _tell(self, row, bar) -> None:
        previous = self.intervals[-1] if self.intervals else (0, *row[1:-1], 0.0)
        self.intervals.append(row)
        terms = dict(zip(self.names, row[2:-1], strict=True))
        bar.set_postfix({name: f"{value:.4g}" for name, value in terms.items()})
        if self.run is not None:
            self.run.add_metrics(row)
        if self.log_fn is not None:
            rate = (row[0] - previous[0]) / max(row[-1] - previous[-1], 1e-9)
            told = {"loss": row[1], **terms, "rate": rate, "seconds": row[-1]}
            self.log_fn(row[0], told)

    def save(self, state, since: int):
        """A checkpoint, where there is a folder; its loss is the mean over the intervals since the
        last."""
        if self.run is None:
            return None
        recent = [row[1] for row in self.intervals if row[0] > since]
        state = gathered(state, self.mesh)
        return self.run.save(int(state.step), state, self.intervals, float(np.mean(recent)))

    def result(self, state) -> TrainResult:
        """The models and the history so far."""
        state = gathered(state, self.mesh)
        best = state.average if state.best is None else state.best.params
        return TrainResult(
            self._outside(eqx.combine(best, self.model)),
            self._outside(eqx.combine(state.params, self.model)),
            History.from_rows(self.intervals, self.names),
        )

    def _outside(self, model: Any) -> Any:
        """The model in the units of the data."""
        if not isinstance(self.outer, Transformed):
            return model
        return eqx.tree_at(lambda outer: outer.model, self.outer, model)

    def finish(self, state) -> TrainResult:
        """The result, with the model in the folder."""
        result = self.result(state)
        if self.run is not None:
            try:
                self.run.write_model(lambda path: save(path, result.model, self.process))
            except ValueError as error:
                warn(f"the model is in the result but could not be saved: {error}")
        return result


def _way_on(run: SharedRun | None, saved: int) -> str:
    """What is left when a process is lost."""
    if run is None:
        return "nothing is saved without a `run_dir`; start all processes again."
    if saved == 0:
        return f"{run.path} has no checkpoint yet; start all processes again."
    return (
        f"step {saved} is saved in {run.path}; start all processes again and continue with "
        "`resume=True`."
    )
