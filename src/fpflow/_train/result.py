"""What training leaves behind."""

import dataclasses
from typing import Any

import numpy as np

from .._run import Intervals
from .._shown import shown_fields


@dataclasses.dataclass(frozen=True)
class History:
    r"""Means of the loss and its terms over successive intervals of steps.

    **Attributes:**

    - `step`: number of steps done at the end of each interval.
    - `loss`: the whole loss, weights included.
    - `terms`: each term before its weight is applied, by its name in the objective; `history["dsm"]`
      returns one of them.
    - `seconds`: wall time since the start, including compilation.
    """

    step: np.ndarray
    loss: np.ndarray
    terms: dict[str, np.ndarray]
    seconds: np.ndarray

    __repr__ = shown_fields

    def __getitem__(self, name: str) -> np.ndarray:
        return self.terms[name]

    @classmethod
    def from_rows(cls, rows: Intervals, names: tuple[str, ...]) -> "History":
        """A history from rows of step, loss, one number per term, and seconds."""
        columns = np.array(rows, float).reshape(-1, len(names) + 3).T
        terms = dict(zip(names, columns[2:-1], strict=True))
        return cls(columns[0].astype(int), columns[1], terms, columns[-1])


@dataclasses.dataclass(frozen=True)
class TrainResult:
    """The result of a training.

    **Attributes:**

    - `model`: the model with averaged parameters, which is the one to use.
    - `last`: the model with the parameters of the last step.
    - `history`: the loss and its terms during training.
    """

    model: Any
    last: Any
    history: History

    __repr__ = shown_fields


class TrainingDiverged(FloatingPointError):
    """The loss or a parameter is no longer finite.

    **Attributes:**

    - `step`: the first step, counted from zero, whose loss or update was not finite.
    - `result`: the `TrainResult` up to the step before it.
    """

    def __init__(self, step: int, result: TrainResult):
        super().__init__(
            f"the loss is no longer finite at step {step}; the last good model is in `.result`. Lower "
            "the learning rate, or check that the data and the score are finite."
        )
        self.step = step
        self.result = result
