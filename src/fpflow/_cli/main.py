"""The command line: `fpflow --help`."""

import argparse
import os
import pathlib
import re
import signal
import sys
import warnings
from importlib import metadata

from .._reproduce import main as reproduce
from .._run import TrainingInterrupted, sigterm_raises
from . import density, plot, report, sample, train
from .options import Formatter, replayed

_COMMANDS = {
    "train": train, "sample": sample, "density": density, "report": report, "plot": plot,
}  # fmt: skip

# What an interrupted command says where it has --resume.
_GOES_ON = {name: "; the same command with --resume goes on" for name in ("train", "reproduce")}


def _parser() -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    """The whole, and its commands by name."""
    parser = argparse.ArgumentParser(
        prog="fpflow",
        description="Diffusion models as differential equations: train a network on points of your own, "
        "sample its ODE and its SDE, compute the density of both laws, and measure the gap.",
        epilog="exit codes: 0 done, 1 the numbers failed, 2 a mistake in what was asked for, 130 "
        "stopped by Ctrl-C, 143 by SIGTERM",
    )
    version = f"fpflow {metadata.version('fpflow-jax')}"
    parser.add_argument("--version", action="version", version=version)
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
        "reproduce", help="Make the tables and figures of arXiv 2311.15996", add_help=False
    )
    return parser, commands.choices


def main(argv: list[str] | None = None) -> int:
    """Runs a command; a mistake of the user is one line on stderr and exit code 2."""
    given = sys.argv[1:] if argv is None else argv
    name = given[0] if given else ""
    try:
        with sigterm_raises():
            return reproduce(given[1:]) if name == "reproduce" else _run(given)
    except TrainingInterrupted as stop:
        _say(name, f"{stop.args[0].split(';')[0]}{_GOES_ON[name]}.")
        return 128 + stop.signal
    except KeyboardInterrupt as stop:
        word = "stopped by SIGTERM" if signal.SIGTERM in stop.args else "interrupted"
        notes = getattr(stop, "__notes__", [f"what is finished is kept{_GOES_ON.get(name, '')}"])
        _say(name, f"{word}; {notes[0]}.")
        return 143 if signal.SIGTERM in stop.args else 130
    except FileNotFoundError as error:
        _fail(name, error, f"there is no file {str(error.filename)!r}.")
        return 2
    except (ValueError, OSError) as error:
        _fail(name, error, _as_options(name, " ".join(str(error).split())))
        return 2
    except FloatingPointError as error:
        _fail(name, error, _as_options(name, str(error)))
        return 1


def _run(given: list[str]) -> int:
    parser, commands = _parser()
    arguments = parser.parse_args(given)
    if arguments.config:
        # Parsed again over other defaults, so that what is written on the line wins.
        command = commands[arguments.command]
        command.set_defaults(**replayed(arguments.config, arguments.command, command))
        arguments = parser.parse_args(given)
    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = lambda message, *_: _say(arguments.command, f"warning: {message}")
        arguments.function(arguments)
    return 0


def _as_options(command: str, message: str) -> str:
    """A message of the library in the words of the command line: `num_steps` is --num-steps here, where
    the command has such an option."""
    options = _parser()[1][command].format_help()

    def option(found: re.Match) -> str:
        flag = f"--{found[1].replace('_', '-')}"
        return flag if f"{flag} " in options else found[0]

    return re.sub(r"`(\w+)(?:=True)?`", option, message)


def _fail(name: str, error: Exception, message: str) -> None:
    if os.environ.get("FPFLOW_TRACEBACK"):
        raise error
    _say(name, message)


def _say(name: str, line: str) -> None:
    print(f"fpflow {name}: {line}", file=sys.stderr)
