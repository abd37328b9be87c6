"""The command line: `fpflow --help`."""

import argparse
import os
import pathlib
import sys

from .._files import DamagedFile
from .._reproduce import main as reproduce
from .._run import TrainingInterrupted
from . import density, plot, report, sample, train
from .options import Formatter, replayed

_COMMANDS = {
    "train": train, "sample": sample, "density": density, "report": report, "plot": plot,
}  # fmt: skip


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fpflow",
        description="Diffusion models as differential equations: train a network on points of your own, "
        "sample its ODE and its SDE, compute the density of both laws, and measure the gap.",
        epilog="exit codes: 0 done, 1 the numbers failed, 2 a mistake in what was asked for, 130 "
        "stopped by Ctrl-C, 143 by SIGTERM",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, module in _COMMANDS.items():
        words = (module.__doc__ or "").strip()
        command = commands.add_parser(
            name, help=words.splitlines()[0].rstrip("."), description=words, formatter_class=Formatter
        )  # fmt: skip
        module.add_arguments(command)
        command.set_defaults(function=module.run)
        command.add_argument(
            "--config", type=pathlib.Path,
            help="a config.json of this command; its options hold where no other is given",
        )  # fmt: skip
    commands.add_parser(
        "reproduce", help="the tables and figures of arXiv 2311.15996", add_help=False
    )
    return parser


def main(argv: list[str] | None = None) -> int:
    """Runs a command; a mistake of the user is one line on stderr and exit code 2."""
    given = sys.argv[1:] if argv is None else argv
    name = given[0] if given else ""
    try:
        if name == "reproduce":
            return reproduce(given[1:])
        return _run(given)
    except TrainingInterrupted as stop:
        _say(name, f"{stop.args[0].split(';')[0]}; the same command with --resume goes on.")
        return 128 + stop.signal
    except KeyboardInterrupt:
        _say(name, "interrupted; what is finished is kept.")
        return 130
    except (DamagedFile, ValueError, OSError) as error:
        _fail(name, error)
        return 2
    except (FloatingPointError, ArithmeticError) as error:
        _fail(name, error)
        return 1


def _run(given: list[str]) -> int:
    parser = _parser()
    arguments = parser.parse_args(given)
    if arguments.config:
        # Parsed again over other defaults, so that what is written on the line wins.
        options = replayed(arguments.config, arguments.command)
        commands = next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
        commands.choices[arguments.command].set_defaults(**options)
        arguments = parser.parse_args(given)
    arguments.function(arguments)
    return 0


def _fail(name: str, error: Exception) -> None:
    if os.environ.get("FPFLOW_TRACEBACK"):
        raise error
    _say(name, " ".join(str(error).split()))


def _say(name: str, line: str) -> None:
    print(f"fpflow {name}: {line}", file=sys.stderr)
