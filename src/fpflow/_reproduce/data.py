"""What data a reproduction learns from, by name, and on which window it is measured."""

import functools
import zlib

import jax.random as jr
import numpy as np

import fpflow

from .. import paper
from .._named import imported
from .._types import DataLaw
from .._window import GridDensity, Window
from ..datasets import Points, as_data, unconditional

PROCESS = fpflow.OrnsteinUhlenbeck()
WINDOW = fpflow.Window()
# Ways to halve points.
_HALVINGS = 8


def law_of(dataset: str) -> DataLaw:
    """A data law by its name, one of the paper's or `module:name`.

    **Raises:** `ValueError` for another name, and for what does not lie in the paper's window.
    """
    if dataset in paper.DATASETS:
        return paper.DATASETS[dataset]()
    if ":" not in dataset:
        known = ", ".join(paper.DATASETS)
        raise ValueError(
            f"it is neither a data set of the paper, {known}, nor a module:name of your own."
        )
    law = unconditional(as_data(imported(dataset)))
    points = np.asarray(law.sample(jr.key(0), 4096))
    if points.shape[1] != 2:
        raise ValueError(f"must lie in the plane, got dimension {points.shape[1]}.")
    beyond = ((points < WINDOW.low) | (points > WINDOW.high)).any(1).mean()
    if beyond > 0.01:
        raise ValueError(
            f"{beyond:.0%} of it lies beyond the paper's window, [{WINDOW.low:g}, {WINDOW.high:g}] "
            "along each axis; scale it."
        )
    return law


def cells_of(law: DataLaw, window: Window) -> GridDensity:
    """Its masses on the window: exact where it knows them, else those of a million draws."""
    own = getattr(law, "cell_probabilities", None)
    draws = None if own else Points(law.sample(jr.key(1), 1_000_000))
    return own(window) if draws is None else draws.cell_probabilities(window)  # pyright: ignore


def chance_floor(points: Points) -> float:
    """How far in $W_2^2$ points are from their distribution by chance: half the distance between two
    halves, on average over eight ways to halve, which differ by a third. The halves' masses differ by
    twice the deviation of the whole, and on cells, where the least move is one cell, $W_2^2$ grows with
    it in proportion; where mass moves further it grows faster, and this is up to twice too large."""
    rng, found = np.random.default_rng(0), []
    for _ in range(_HALVINGS):
        order = rng.permutation(len(points.points))
        halves = [Points(np.asarray(points.points)[part]) for part in np.array_split(order, 2)]
        one, other = (half.cell_probabilities(WINDOW) for half in halves)
        found.append(fpflow.w2_grid(one, other).value / 2)
    return float(np.mean(found))


@functools.cache
def counted(dataset: str) -> dict | None:
    """Of data given as points: how many, and how far so few are from their distribution by chance. The
    same for all networks of a run."""
    law = law_of(dataset)
    if not isinstance(law, Points):
        return None
    return {"points": len(law.points), "floor": chance_floor(law)}


def label(dataset: str) -> str:
    """What folders and tables call it: with its module, so that no two share a folder and none has the
    name, and so the published numbers, of the paper's."""
    return dataset.replace(":", "-")


def setting_of(dataset: str) -> str:
    """The data set whose sharpness and prior a preset takes: its own, or for others the mixture's."""
    return dataset if dataset in paper.DATASETS else "mixture"


def settings_with_data(settings: dict, dataset: str) -> dict:
    """All that a run depends on: for data of one's own, also what is drawn from it."""
    if dataset in paper.DATASETS:
        return settings
    drawn = np.asarray(law_of(dataset).sample(jr.key(0), 4096))
    return {**settings, "data": f"{zlib.crc32(drawn.tobytes()):08x}"}
