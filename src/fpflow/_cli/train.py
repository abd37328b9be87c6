"""Train a network on points.

The run folder holds config.json, environment.json, metrics.jsonl, checkpoints, and at the end the
network as model.fpflow. A run that was stopped for any reason continues with --resume.
"""

import argparse
import pathlib
from typing import Any

import jax.random as jr
import numpy as np

from .. import _train
from .._held_out import held_out
from .._process import AbstractProcess
from .._run import asked_by, has_results
from .._types import PRNGKey
from ..datasets import as_data, draw, split
from .inputs import DATA, given_model, law_of
from .networks import add_network, new_model
from .options import add_options, chosen, plain_options
from .shared import add_process, add_seed, asked_process, key_of, process_of

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
    "ODE and SDE; with 0, score matching alone",
    "peak": "the largest learning rate",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Of `fpflow train`."""
    parser.add_argument("data", nargs="?", help=DATA)
    parser.add_argument(
        "--condition",
        metavar="A,B",
        help="columns of the data, by name or by number from 0, on which "
        "the others depend: the network learns the conditional distribution of the others",
    )
    parser.add_argument("--run-dir", type=pathlib.Path, help="the run's folder, created if missing")
    parser.add_argument("--resume", action="store_true", help="continue the run in the folder")
    parser.add_argument(
        "--start",
        metavar="RUN",
        help="a run or a file of fpflow.save whose network is trained further, with its process; "
        "--network, --width, --depth, --beta, --bare and --standardise are then taken from it",
    )
    add_network(parser)
    parser.add_argument(
        "--validation",
        type=float,
        metavar="X",
        help="the fraction of the points to hold out, such as 0.1: the network with the smallest loss "
        "on them is kept, and the likelihoods of both parts are printed",
    )
    parser.add_argument(
        "--patience",
        type=int,
        metavar="N",
        help="stop after this many steps without a smaller loss on the held-out points",
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
                "nothing has been saved yet; the same command with --resume starts from the beginning"
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
        model = new_model(arguments, process, law, points, condition, key_network)
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
    middle = [] if condition is None else condition.mean(0)
    given = f" --given={','.join(f'{c:.3g}' for c in middle)}" if condition_dim else ""
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
        f"kept the network from step {history.step[best]}: loss {history['seen'][best]:.4g} on "
        f"training points, {history['held_out'][best]:.4g} on held-out points"
    )
    if conditional:  # likelihoods belong to one condition at a time
        return
    found = held_out(result.model, process, *split(law, share), num_points=64, key=key)
    print(found)
    if found.memorises:
        print(
            "note: samples lie closer to the training points than held-out points do: the network "
            "repeats its data. Use more data, fewer steps or --patience."
        )
