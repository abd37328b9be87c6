"""Options that several commands have."""

import argparse
from collections.abc import Callable
from typing import Any

from .._process import OrnsteinUhlenbeck
from .inputs import imported
from .options import add_options, chosen

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
    if arguments.process:
        return imported(arguments.process)
    return OrnsteinUhlenbeck(**chosen(arguments, _PROCESS))


def asked_process(arguments: argparse.Namespace) -> Any | None:
    """The process that was asked for, or `None` where no option of it was given."""
    if arguments.process:
        return imported(arguments.process)
    given = {
        name: value for name, value in chosen(arguments, _PROCESS).items() if value is not None
    }
    return OrnsteinUhlenbeck(**given) if given else None


def add_seed(parser: argparse.ArgumentParser) -> None:
    """The seed."""
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of all random numbers")
