"""Train a network on points.

The run folder holds config.json, environment.json, metrics.jsonl, checkpoints, and at the end the
network as model.fpflow. A run that was stopped, by whatever, goes on with --resume.
"""

import argparse
import pathlib
from typing import Any

import jax.random as jr
import numpy as np

from .. import _train
from .._held_out import held_out
from .._model import PotentialMLP, ScoreMLP, Transformed, in_frame
from .._process import AbstractProcess, IsotropicGaussian
from .._run import asked_by, has_results
from .._transform import Standardise
from .._types import PRNGKey
from ..datasets import as_data, draw, split
from .inputs import DATA, given_model, law_of
from .options import add_options, chosen, plain_options
from .shared import add_process, add_seed, asked_process, key_of, process_of

_NETWORKS = {"potential": PotentialMLP, "score": ScoreMLP}
# Of the common width; a column of a ninth was learnt 1.7 times too wide in 2000 steps.
_NARROWEST = 0.25
_NETWORK = ("width", "depth", "beta")
_TRAIN = (
    "fp_weight",
    "num_steps",
    "batch_size",
    "ema_decay",
    "chunk",
    "checkpoint_every",
    "keep_checkpoints",
)
_WORDS = {
    "fp_weight": "w_R, the weight of the squared Fokker-Planck residual, which closes the gap between "
    "ODE and SDE; 0 trains by score matching alone",
    "peak": "the largest learning rate",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Of `fpflow train`."""
    parser.add_argument("data", nargs="?", help=DATA)
    parser.add_argument(
        "--condition",
        metavar="A,B",
        help="columns of the data, by name or number from 0 on, that "
        "the others depend on: the network learns their conditional distribution",
    )
    parser.add_argument("--run-dir", type=pathlib.Path, help="the run's folder, made where missing")
    parser.add_argument("--resume", action="store_true", help="go on with the run in the folder")
    parser.add_argument(
        "--start",
        metavar="RUN",
        help="a run or a file of fpflow.save whose network is trained on, with its process; --network, "
        "--width, --depth, --beta, --bare and --standardise are then its own",
    )
    parser.add_argument(
        "--network",
        choices=_NETWORKS,
        default="potential",
        help="a network of a potential, whose score is a gradient, or of the score itself",
    )
    add_options(parser, PotentialMLP, _NETWORK)
    parser.add_argument(
        "--bare",
        action="store_true",
        help="layers of t and x that stand alone, as in the paper: neither scaled by the data and the "
        "process nor on the potential of the prior",
    )
    parser.add_argument(
        "--standardise",
        action=argparse.BooleanOptionalAction,
        help="train on columns less their mean, over their standard deviation; samples and densities "
        "are in the units of the data all the same. By default where a column is far from the others",
    )
    parser.add_argument(
        "--validation",
        type=float,
        metavar="X",
        help="the share of the points to hold out, such as 0.1: the network with the smallest loss on "
        "them is kept, and the likelihoods of both parts are printed",
    )
    parser.add_argument(
        "--patience",
        type=int,
        metavar="N",
        help="stop after so many steps without a smaller loss on the points held out",
    )
    add_options(parser, _train.train, _TRAIN, also={"num_steps": "steps"}, words=_WORDS)
    add_options(parser, _train.Cosine, ("peak",), defaults={"peak": 1e-2}, words=_WORDS)
    add_seed(parser)
    add_process(parser)


def run(arguments: argparse.Namespace) -> None:
    """Trains, and says what came out and how to go on."""
    for name, value in (("DATA", arguments.data), ("--run-dir", arguments.run_dir)):
        if value is None:
            raise ValueError(f"{name} is missing; see `fpflow train --help`.")
    try:
        _train_on(arguments)
    except KeyboardInterrupt as stop:
        if not has_results(arguments.run_dir):
            stop.add_note(
                "nothing to keep has been computed yet; the same command with --resume starts anew"
            )
        raise


def _train_on(arguments: argparse.Namespace) -> None:
    folder = arguments.run_dir
    law = as_data(law_of(arguments.data, arguments.condition))
    key_network, key_train = jr.split(key_of(arguments))
    points, condition = draw(law, jr.key(0), 4096)
    points, condition = np.asarray(points), None if condition is None else np.asarray(condition)
    condition_dim = 0 if condition is None else condition.shape[1]
    if arguments.start:
        start = given_model(arguments.start, *asked_process(arguments))
        model, process = start.model, start.process
    else:
        process = process_of(arguments)
        model = _network(arguments, process, points, condition, key_network)
        if _standardises(arguments, process, points, condition):
            of_conditions = None if condition is None else Standardise.of(condition)
            model = Transformed(model, Standardise.of(law), of_conditions)
    if not arguments.start:
        _say_scale(arguments, _uneven(arguments, process, points, condition))
    settings = {
        "optimiser": _train.Soap(_train.Cosine(peak=arguments.peak)),
        **chosen(arguments, _TRAIN),
        **chosen(arguments, ("validation", "patience")),
    }
    options = plain_options(arguments)
    if pathlib.Path(arguments.data).exists():
        options["data"] = str(pathlib.Path(arguments.data).resolve())
    with asked_by({"name": "train", "options": options}):
        result = _train.train(
            model, process, law, run_dir=folder, resume=arguments.resume, key=key_train, **settings
        )
    last = result.history
    print(
        f"trained {last.step[-1]} steps in {last.seconds[-1]:.0f} s on points of dimension "
        f"{points.shape[1]}: score matching loss {last['dsm'][-1]:.4g}"
        + (f", residual {last['fp'][-1]:.3g}" if arguments.fp_weight > 0 else "")
    )
    if arguments.validation is not None:
        _say_held_out(arguments.validation, result, process, law, condition is not None, key_train)
    print(f"network in {folder / 'model.fpflow'}")
    given = f" --given {','.join(['0'] * condition_dim)}" if condition_dim else ""
    print(
        f"next: fpflow sample {folder}{given} --law sde -n 2000 --out sde.npy"
        + ("" if given else f"; fpflow report {folder}")
    )


def _say_held_out(
    share: float, result: Any, process: AbstractProcess, law: Any, conditional: bool, key: PRNGKey
) -> None:
    """Both losses of the network that is kept, and what the held-out points say of it."""
    history = result.history
    best = int(np.nanargmin(history["held_out"]))
    print(
        f"kept the network of step {history.step[best]}: loss {history['seen'][best]:.4g} on points "
        f"trained on, {history['held_out'][best]:.4g} on points held out"
    )
    if conditional:  # likelihoods belong to one condition at a time
        return
    found = held_out(result.model, process, *split(law, share), num_points=64, key=key)
    print(found)
    if found.memorises:
        print(
            "note: samples lie closer to the points trained on than held-out points do: the network "
            "repeats its data. Use more data, fewer steps or --patience."
        )


def _network(
    arguments: argparse.Namespace,
    process: AbstractProcess,
    points: np.ndarray,
    condition: np.ndarray | None,
    key: PRNGKey,
) -> Any:
    """A new network for points like these."""
    model = _NETWORKS[arguments.network](
        points.shape[1],
        condition_dim=0 if condition is None else condition.shape[1],
        prior=None if arguments.bare else IsotropicGaussian(),
        key=key,
        **chosen(arguments, _NETWORK),
    )
    if arguments.bare:
        return model
    if _standardises(arguments, process, points, condition):
        return in_frame(model, process)
    return in_frame(model, process, centre=float(points.mean()), scale=float(points.std()))


def _standardises(
    arguments: argparse.Namespace,
    process: AbstractProcess,
    points: np.ndarray,
    condition: np.ndarray | None,
) -> bool:
    """Whether columns are scaled: as asked for, or where one is far from the others."""
    if arguments.standardise is not None or arguments.bare:
        return bool(arguments.standardise)
    return bool(_uneven(arguments, process, points, condition))


def _say_scale(arguments: argparse.Namespace, found: str) -> None:
    """A word where a column's width is not the one that networks are made for."""
    if found and arguments.standardise is None and not arguments.bare:
        print(f"note: {found}: columns are standardised; --no-standardise leaves them as they are.")
    elif found and not arguments.standardise:
        print(
            f"note: {found}. Networks learn columns of unequal widths badly, and samples are too wide "
            "in the narrow ones; use --standardise."
        )


def _uneven(
    arguments: argparse.Namespace,
    process: AbstractProcess,
    points: np.ndarray,
    condition: np.ndarray | None,
) -> str:
    """What is said of the column whose width is furthest from the unit, nothing where all are near."""
    unit, centred = float(points.std()), points - points.mean()
    if arguments.bare:
        unit, centred = process.prior.std, points
    columns = [("data", centred, unit)] + (
        [] if condition is None else [("condition", condition, 1.0)]
    )
    for name, table, unit in columns:
        size, spread = np.sqrt((table**2).mean(0)) / unit, table.std(0) / unit
        spread = np.where(spread > 0, spread, np.inf)  # a black pixel is not small
        worst = (("large", size, int(size.argmax())), ("small", spread, int(spread.argmin())))
        for word, found, column in worst:
            if not _NARROWEST < found[column] < 1 / _NARROWEST:
                measure = "root mean square" if word == "large" else "standard deviation"
                return (
                    f"column {column} of the {name} is {word}: its {measure} is "
                    f"{found[column] * unit:.3g}, and the network is made for {unit:.2g}"
                )
    return ""
