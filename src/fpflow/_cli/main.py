"""The command line: `fpflow --help`."""

import argparse
import contextlib
import importlib
import os
import pathlib
import re
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from importlib import metadata

from .options import Formatter, replayed

# The first sentence of each command's module, which loads jax and is read only where it is asked for.
_COMMANDS = {
    "train": "Train a network on points",
    "sample": "Draw samples from a model",
    "density": "Compute both log densities at points",
    "report": "Show how far apart the ODE and the SDE of a score are, and why",
    "plot": "Draw figures of a run",
}

# What an interrupted command says where it has --resume.
_GOES_ON = {
    name: "; run the same command with --resume to continue" for name in ("train", "reproduce")
}


def _parser(chosen: str) -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    """The whole, and its commands by name, of which the chosen one has its options."""
    parser = argparse.ArgumentParser(
        prog="fpflow",
        description="Diffusion models as differential equations: train a network on points of your own, "
        "sample its ODE and its SDE, compute both densities, and measure the gap.",
        epilog="exit codes: 0 success, 1 numerical failure, 2 invalid input, 130 stopped by Ctrl-C, "
        "143 stopped by SIGTERM",
    )
    version = f"fpflow {metadata.version('fpflow-jax')}"
    parser.add_argument("--version", action="version", version=version)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, words in _COMMANDS.items():
        command = commands.add_parser(name, help=words, formatter_class=Formatter)
        if name == chosen:
            _add_options(command, name)
    commands.add_parser(
        "reproduce", help="Make the tables and figures of arXiv 2311.15996", add_help=False
    )
    return parser, commands.choices


def _add_options(command: argparse.ArgumentParser, name: str) -> None:
    module = importlib.import_module(f".{name}", __package__)
    command.description = (module.__doc__ or "").strip()
    module.add_arguments(command)
    command.set_defaults(function=module.run)
    command.add_argument(
        "--config",
        type=pathlib.Path,
        help="a config.json of this command; its options apply unless given on the command line",
    )


@contextlib.contextmanager
def _sigterm_raises() -> Iterator[None]:
    """Lets SIGTERM end what runs inside as Ctrl-C does, by a `KeyboardInterrupt` with its number."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number, frame):
        del frame
        raise KeyboardInterrupt(number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def main(argv: list[str] | None = None) -> int:
    """Runs a command; a mistake of the user is one line on stderr and exit code 2."""
    given = sys.argv[1:] if argv is None else argv
    name = given[0] if given else ""
    try:
        with _sigterm_raises():
            if name == "reproduce":
                return importlib.import_module(".._reproduce", __package__).main(given[1:])
            return _run(given)
    except KeyboardInterrupt as stop:
        # Training's own kind knows its signal and what it saved; to name its class would load jax.
        number = getattr(stop, "signal", signal.SIGTERM if signal.SIGTERM in stop.args else 2)
        if hasattr(stop, "signal"):
            _say(name, f"{str(stop).partition('; continue')[0]}{_GOES_ON[name]}.")
        else:
            word = "stopped by SIGTERM" if number == signal.SIGTERM else "interrupted"
            kept = f"finished work is kept{_GOES_ON.get(name, '')}"
            _say(name, f"{word}; {getattr(stop, '__notes__', [kept])[0]}.")
        return 128 + number
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
    parser, commands = _parser(next((word for word in given if not word.startswith("-")), ""))
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
    options = _parser(command)[1][command].format_help()

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
