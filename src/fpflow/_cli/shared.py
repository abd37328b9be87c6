"""Options that several commands have."""

import argparse
from typing import Any

import equinox as eqx
import jax.random as jr

from .._model import (
    from_data_prediction,
    from_noise_prediction,
    from_v_prediction,
    from_velocity,
)
from .._process import BY_NAME, AbstractProcess, OrnsteinUhlenbeck
from .._types import PRNGKey
from .inputs import Given, given_model, process_named, settings_of, with_settings
from .options import add_options, words_of

MODEL = "the folder of a run, a file of fpflow.save, or module:function, a score(t, x) of one point"
_ADAPTERS = {
    "noise": from_noise_prediction,
    "data": from_data_prediction,
    "v": from_v_prediction,
    "velocity": from_velocity,
}


def add_model(parser: argparse.ArgumentParser) -> None:
    """What every command wants to know of its model: condition, prediction and process."""
    parser.add_argument(
        "--given", metavar="X,Y", help="the condition of a network trained with --condition"
    )
    parser.add_argument(
        "--prediction",
        choices=("score", *_ADAPTERS),
        default="score",
        help="what module:function predicts",
    )
    words = {
        "t_min": "smallest time at which a noise, data or v prediction is used, in units of time"
    }
    add_options(parser, from_noise_prediction, ("t_min",), words=words, kinds={"t_min": float})
    add_process(parser)


def asked_model(name: str, arguments: argparse.Namespace) -> Given:
    """The model of that name at the condition that was asked for, its prediction made a score."""
    found = given_model(name, *asked_process(arguments), arguments.given)
    if arguments.prediction == "score":
        return found
    if found.saved:
        raise ValueError(
            f"--prediction applies to a module:function; the model of {name} already knows its own."
        )
    adapter = _ADAPTERS[arguments.prediction]
    return found._replace(model=adapter(found.model, found.process, t_min=arguments.t_min))


def add_process(parser: argparse.ArgumentParser) -> None:
    """The noising process by name, with its settings; a saved model has its own."""
    group = parser.add_argument_group(
        "process: by default that of the model, or ou",
        "each setting changes only the value it names",
    )
    group.add_argument(
        "--process", metavar="NAME", help=f"{', '.join(BY_NAME)}, or module:name of your own"
    )
    for name, (words, of) in _settings().items():
        group.add_argument(
            f"--{name.replace('_', '-')}",
            dest=f"process_{name}",
            type=float,
            metavar="X",
            help=f"{words} ({', '.join(of)})",
        )


def _settings() -> dict[str, tuple[str, list[str]]]:
    """Every setting of a process by name: what it is, and the processes that have it."""
    found: dict[str, tuple[str, list[str]]] = {}
    for name, make in BY_NAME.items():
        process = make()
        parts = [process, *(v for v in vars(process).values() if isinstance(v, eqx.Module))]
        for part in parts:
            words = words_of(type(part))
            for setting in settings_of(part):
                if setting in words and isinstance(getattr(part, setting, None), float):
                    found.setdefault(setting, (words[setting], []))[1].append(name)
    return found


def asked_process(arguments: argparse.Namespace) -> tuple[Any | None, dict[str, float]]:
    """The process that was asked for, or `None`, and the settings to change of it or of the model's."""
    settings = {
        name.removeprefix("process_"): value
        for name, value in vars(arguments).items()
        if name.startswith("process_") and value is not None
    }
    return process_named(arguments.process) if arguments.process else None, settings


def process_of(arguments: argparse.Namespace) -> AbstractProcess:
    """The process that was asked for."""
    process, settings = asked_process(arguments)
    return with_settings(process or OrnsteinUhlenbeck(), settings)


def add_seed(parser: argparse.ArgumentParser) -> None:
    """The seed."""
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="seed of all random numbers"
    )


def key_of(arguments: argparse.Namespace) -> PRNGKey:
    """The key of the seed."""
    # In single precision jax drops the digits beyond 32 bits: two seeds would give the same numbers.
    if not 0 <= arguments.seed < 2**32:
        raise ValueError(
            f"--seed must be a whole number from 0 to {2**32 - 1}, got {arguments.seed}."
        )
    return jr.key(arguments.seed)
