"""The network that `fpflow train` makes, in the frame and the units of its data."""

import argparse
from typing import Any

import numpy as np

from .._model import PotentialMLP, ScoreMLP, Transformed, in_frame
from .._network import PotentialNetwork, Preconditioned, ResidualMLP, ScoreNetwork
from .._process import AbstractProcess, IsotropicGaussian
from .._transform import Standardise
from .._types import DataLaw, PRNGKey
from .inputs import names_of
from .options import add_options, chosen


def _residual(kind: Any, name: str) -> Any:
    """A maker of preconditioned residual networks with the arguments of the others."""

    def make(
        dim: int,
        *,
        width: int,
        depth: int,
        beta: float,
        condition_dim: int,
        prior: Any,
        key: PRNGKey,
    ) -> Any:
        del beta  # they have no softplus
        if prior is None:
            raise ValueError(f"--network {name} needs the prior; leave out --bare.")
        asked = {"width": width, "depth": depth, "condition_dim": condition_dim, "key": key}
        return Preconditioned(kind(ResidualMLP(dim, **asked)))

    return make


_NETWORKS = {
    "potential": PotentialMLP,
    "score": ScoreMLP,
    "residual-potential": _residual(PotentialNetwork, "residual-potential"),
    "residual-score": _residual(ScoreNetwork, "residual-score"),
}
# Of the widest column; a column of a ninth was learnt 1.7 times too wide in 2000 steps.
_NARROWEST = 0.25
_NETWORK = ("width", "depth", "beta")


def add_network(parser: argparse.ArgumentParser) -> None:
    """The options that choose it."""
    parser.add_argument(
        "--network",
        choices=_NETWORKS,
        default="potential",
        help="a network for a potential, whose score is a gradient, or for the score itself; the "
        "residual networks, better in tens of dimensions, have norms and shortcuts, and no --beta",
    )
    add_options(parser, PotentialMLP, _NETWORK)
    parser.add_argument(
        "--bare",
        action="store_true",
        help="layers of t and x that stand alone, as in the paper: not scaled by the data and the "
        "process, and without the potential of the prior",
    )
    parser.add_argument(
        "--standardise",
        action=argparse.BooleanOptionalAction,
        help="train on columns minus their mean, divided by their standard deviation; samples and "
        "densities stay in the units of the data. By default only if a column is far from the others",
    )


def new_model(
    arguments: argparse.Namespace,
    process: AbstractProcess,
    law: DataLaw,
    points: np.ndarray,
    condition: np.ndarray | None,
    key: PRNGKey,
) -> Any:
    """A new model of the points of a law, and a word where their columns are not what it is made for."""
    names = names_of(arguments.data, arguments.condition, points.shape[1])
    found = _uneven(arguments, process, points, condition, names)
    _say_scale(arguments, found)
    by_itself = bool(found) and not arguments.bare
    standardise = by_itself if arguments.standardise is None else arguments.standardise
    model = _network(arguments, points, condition, key)
    if not arguments.bare:
        # Standardised columns have the centre and the scale of the frame already.
        data = np.array([0.0, 1.0]) if standardise else np.array([points.mean(), points.std()])
        model = in_frame(model, process, centre=float(data[0]), scale=float(data[1]))
    if not standardise:
        return model
    of_conditions = None if condition is None else Standardise.of(condition)
    return Transformed(model, Standardise.of(law), of_conditions)


def _network(
    arguments: argparse.Namespace, points: np.ndarray, condition: np.ndarray | None, key: PRNGKey
) -> Any:
    """The layers, on the prior unless they are bare."""
    return _NETWORKS[arguments.network](
        points.shape[1],
        condition_dim=0 if condition is None else condition.shape[1],
        prior=None if arguments.bare else IsotropicGaussian(),
        key=key,
        **chosen(arguments, _NETWORK),
    )


def _say_scale(arguments: argparse.Namespace, found: str) -> None:
    """A word where a column's width is not the one that networks are made for."""
    if found and arguments.standardise is None and not arguments.bare:
        print(f"note: {found}. Columns are standardised; --no-standardise leaves them as they are.")
    elif found and not arguments.standardise:
        print(
            f"note: {found}. Networks train poorly on columns of unequal widths, and samples are too "
            "wide in the narrow ones; use --standardise."
        )


def _uneven(
    arguments: argparse.Namespace,
    process: AbstractProcess,
    points: np.ndarray,
    condition: np.ndarray | None,
    names: list[str],
) -> str:
    """What is said of the column whose width is furthest from the unit, nothing where all are near."""
    unit, centred = float(points.std(0).max()), points - points.mean()
    if arguments.bare:
        unit, centred = process.prior.std, points
    columns = [("data", centred, unit)] + (
        [] if condition is None else [("condition", condition, 1.0)]
    )
    for name, table, unit in columns:
        size, spread = np.sqrt((table**2).mean(0)) / unit, table.std(0) / unit
        spread = np.where(spread > 0, spread, np.inf)  # a black pixel is not small
        far, narrow = int(size.argmax()), int(spread.argmin())
        if max(size[far], 1 / spread[narrow]) < 1 / _NARROWEST:
            continue
        is_far = size[far] * spread[narrow] > 1
        column, value = (far, size[far] * unit) if is_far else (narrow, spread[narrow] * unit)
        if name == "condition" or arguments.bare:
            kind = "large: its root mean square" if is_far else "small: its standard deviation"
            words = f"is {kind} is {value:.3g}, and the network expects {unit:.2g}"
        else:
            far_words = f"lies {value:.3g} from the mean of all columns"
            narrow_words = f"is narrow: its standard deviation is {value:.3g}"
            words = (
                f"{far_words if is_far else narrow_words}, while the widest column has a standard "
                f"deviation of {unit:.3g}"
            )
        own = names[column] if names and name == "data" else column
        return f"column {own} of the {name} {words} (a factor of up to {1 / _NARROWEST:g} is fine)"
    return ""
