"""Options that several commands have."""

import argparse
from collections.abc import Callable
from typing import Any

import jax.random as jr

from .._process import OrnsteinUhlenbeck
from .._types import PRNGKey
from .inputs import process_named, with_settings
from .options import add_options, chosen, defaults_of

_PROCESS = ("rate", "noise", "t1", "t0")

MODEL = "the folder of a run, a file of fpflow.save, or module:function, a score(t, x) of one point"


def add_process(parser: argparse.ArgumentParser, *, of_run: bool) -> None:
    """The noising process: one of a module, or the Ornstein--Uhlenbeck process with its numbers; where
    the command may be given a run, that of the run by default."""
    group = parser.add_argument_group(
        "process, dx = -rate x dt + noise dW from t0 to t1"
        + (": by default that of the run, else the defaults of fpflow train" if of_run else "")
    )
    group.add_argument("--process", help="module:name of a process instead")
    defaults: dict[str, Any] | None = dict.fromkeys(_PROCESS) if of_run else None
    kinds: dict[str, Callable[[str], Any]] = dict.fromkeys(_PROCESS, float)
    add_options(group, OrnsteinUhlenbeck, _PROCESS, defaults=defaults, kinds=kinds)


def process_of(arguments: argparse.Namespace) -> Any:
    """The process that was asked for."""
    settings = chosen(arguments, _PROCESS)
    if not arguments.process:
        return OrnsteinUhlenbeck(**settings)
    known = defaults_of(OrnsteinUhlenbeck)
    given = {name: value for name, value in settings.items() if value != known[name]}
    return with_settings(process_named(arguments.process), given)


def asked_process(arguments: argparse.Namespace) -> tuple[Any | None, dict[str, float]]:
    """The process that was asked for, or `None`, and the settings to change of it or of the run's."""
    given = {
        name: value for name, value in chosen(arguments, _PROCESS).items() if value is not None
    }
    return process_named(arguments.process) if arguments.process else None, given


def add_seed(parser: argparse.ArgumentParser) -> None:
    """The seed."""
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of all random numbers")


def key_of(arguments: argparse.Namespace) -> PRNGKey:
    """The key of the seed."""
    # In single precision jax drops the digits beyond 32 bits: two seeds would give the same numbers.
    if not 0 <= arguments.seed < 2**32:
        raise ValueError(
            f"--seed must be a whole number from 0 to {2**32 - 1}, got {arguments.seed}."
        )
    return jr.key(arguments.seed)
