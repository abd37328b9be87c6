"""What a report says should not be believed."""

import numpy as np

from .._accounting import TheoremOne
from .._held_out import closer
from .._metrics import sliced_w2
from .._transform import mapped
from .._window import GridDensity
from ..datasets import widths_away
from .measure import Question
from .pointwise import PointwiseGap
from .split import GapSplit

# Samples whose distances to the data are taken.
_SAMPLES = 2000


def strays(name: str, x: np.ndarray, data: np.ndarray) -> list[str]:
    """A word on samples far from the data, which rule every squared distance."""
    away = widths_away(x, data)
    stray = away > 0.5
    if stray.mean() <= 1e-3:
        return []
    least = (
        f"{stray.mean():.1%} of the {name} samples lie more than half the data's width away from the "
        "data"
    )
    if stray.mean() > 0.5:
        return [f"{least}."]
    whole, rest = (float(sliced_w2(data, y).value) for y in (x, x[~stray]))
    return [
        f"{least}, the farthest {away.max():.3g} widths. With them, the sliced W2^2 to the data is "
        f"{whole:.3g}, without them {rest:.3g}: where these differ, those few samples dominate the "
        "squared distances in this report, which change from draw to draw; the pointwise gap does "
        "not. More training steps or a larger fp_weight bring them closer."
    ]


def repeats(samples: np.ndarray, data: np.ndarray, points: np.ndarray) -> list[str]:
    """A word where samples lie closer to the data than other points do."""
    found = closer(samples[:_SAMPLES], data, points)
    if found.value - 0.5 <= 4 * found.error:
        return []
    return [
        "a sample of the SDE lies closer to the data than one of the `points` with probability "
        f"{found}, where one half is expected: if the `points` are draws from the same distribution, "
        "the network repeats its data."
    ]


def doubts(
    question: Question,
    named: dict[str, np.ndarray],
    laws: dict[str, GridDensity],
    split: GapSplit,
    gaps: dict[str, PointwiseGap],
    theorem: TheoremOne | None,
) -> list[str]:
    """What a reader should not believe without a second look."""
    notes = []
    if not question.derivatives:
        notes.append(
            "the score has no derivatives, so log densities at points and the gap in nats at samples "
            "are left out; distances and densities on a grid do not need them."
        )
    if question.outer is not None:
        notes.append(
            "the model is `Transformed`: log densities and likelihoods are in the units of the data; "
            "distances, samples, grids and residuals are in the network's own variables y = T(x)."
        )
    if "data" in named:
        notes += _beyond(question, named["data"], gaps)
        for name in ("ODE", "SDE"):
            notes += strays(name, named[name], named["data"])
    for name in ("ODE", "SDE"):
        if laws and named[name].std(0).min() < 2 * laws[name].window.cell_width:
            notes.append(
                f"the {name} samples spread over less than two cells in some direction, so the grid "
                "barely resolves their shape; use a window with more nodes."
            )
    for name, law in laws.items():
        if name == "data" and law.error > 0.02:
            notes.append(
                f"the data on the grid is a histogram with {law.error:.1%} counting noise in total "
                "variation, which enters all distances to it."
            )
        elif law.error > 0.02:
            notes.append(
                f"the {name} density on the grid may have an error of {law.error:.1%} in total "
                "variation: its features are finer than the cells; use a window with more nodes."
            )
    notes += _unbelieved(gaps)
    notes += _off_identity(theorem)
    missing = split.unexplained
    if abs(missing.value) > 3 * missing.error:
        notes.append(
            f"the sum of the parts differs from the observed gap by {missing}, more than three "
            "standard errors; steps and samples interact here."
        )
    return notes


def _off_identity(theorem: TheoremOne | None) -> list[str]:
    """Where both sides of an identity on the same grid are not equal."""
    if theorem is None:
        return []
    squares = theorem.distance**2, theorem.distance_by_identity**2
    if abs(squares[0] - squares[1]) <= max(squares) / 2:
        return []
    return [
        f"the distance D of Theorem 1 is {theorem.distance:.3g} from the densities and "
        f"{theorem.distance_by_identity:.3g} from an identity that gives the same on a fine grid: its "
        "numbers are no better known than this. Use a window with more nodes, and more steps."
    ]


def _beyond(question: Question, data: np.ndarray, gaps: dict[str, PointwiseGap]) -> list[str]:
    low, high = data.min(0), data.max(0)
    room = 0.1 * (high - low)
    x = gaps["points"].x if "points" in gaps else data[:0]
    if question.outer is not None and len(x):  # the points are in the units of the data
        x = np.asarray(mapped(question.outer.transform, x))
    beyond = ((x < low - room) | (x > high + room)).any(1)
    if not beyond.any():
        return []
    return [
        f"{beyond.sum()} of {len(beyond)} `points` lie outside the box of the data, where the "
        "score was not trained; densities there are extrapolated."
    ]


def _unbelieved(gaps: dict[str, PointwiseGap]) -> list[str]:
    """Where the log densities themselves say that they may be wrong."""
    notes, bad, loose, total = [], 0, 0, 0
    for found in gaps.values():
        bad, total = bad + int((~found.reliable).sum()), total + len(found.x)
        loose += int((found.solver_error > 0.1).sum())
    if bad:
        notes.append(
            f"log p_SDE is unreliable at {bad} of {total} points: the weights of its paths are too "
            "uneven for the stated errors to be trusted. Raise `num_paths`."
        )
    if loose:
        notes.append(
            f"log p_ODE is known to no better than 0.1 nats at {loose} of {total} points: the flow is "
            "so stiff there that two tolerances of its solver disagree. The numbers in nats depend on "
            "these points."
        )
    return notes
