"""Options that several commands have."""

import argparse
from typing import Any

from .._process import OrnsteinUhlenbeck
from .inputs import imported
from .options import add_options, chosen

_PROCESS = ("rate", "noise", "t1", "t0")

MODEL = "the folder of a run, a file of fpflow.save, or module:function, a score(t, x) of one point"


def add_process(
    parser: argparse.ArgumentParser, otherwise: str = "else Ornstein-Uhlenbeck"
) -> None:
    """The noising process: one of a module, or the Ornstein--Uhlenbeck process with its numbers."""
    group = parser.add_argument_group("process, dx = -rate x dt + noise dW from t0 to t1")
    group.add_argument("--process", help=f"module:name of a process, {otherwise}")
    add_options(group, OrnsteinUhlenbeck, _PROCESS)


def process_of(arguments: argparse.Namespace) -> Any:
    """The process that was asked for."""
    if arguments.process:
        return imported(arguments.process)
    return OrnsteinUhlenbeck(**chosen(arguments, _PROCESS))


def asked_process(arguments: argparse.Namespace) -> Any | None:
    """The process that was asked for, or `None` where no option of it was given."""
    default = OrnsteinUhlenbeck()
    same = all(getattr(arguments, name) == getattr(default, name) for name in _PROCESS)
    return None if same and not arguments.process else process_of(arguments)


def add_seed(parser: argparse.ArgumentParser) -> None:
    """The seed."""
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of all random numbers")
