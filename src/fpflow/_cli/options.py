"""Command line options from the signatures and docstrings of what they set."""

import argparse
import inspect
import json
import pathlib
import re
from collections.abc import Callable, Iterable
from typing import Any

# What does not go into `config.json`.
_NOT_SAVED = ("command", "config", "resume", "function")

_BULLET = re.compile(r"^ *- ((?:`\w+`(?:, )?)+): (.*?)(?=^ *- `|^ *\*\*|^\s*$|\Z)", re.M | re.S)


def words_of(function: Any) -> dict[str, str]:
    """What the docstring says of each argument, without its mark-up."""
    found = {}
    for names, text in _BULLET.findall(inspect.getdoc(function) or ""):
        plain = re.sub(r"\\t?frac1\\(\w+)", r"1/\1 ", " ".join(text.split()))
        plain = re.sub(r"\\[a-z]+\{([^}]*)\}", r"\1", plain).replace("--", "-")
        plain = re.sub(r"[`$\\{}]", "", plain).replace("%", "%%").rstrip(".")
        for name in re.findall(r"`(\w+)`", names):
            found[name] = plain
    return found


def defaults_of(function: Any) -> dict[str, Any]:
    """The default of each argument that has one."""
    parameters = inspect.signature(function).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}


def add_options(
    parser: argparse._ActionsContainer,
    function: Any,
    names: Iterable[str],
    *,
    words: dict[str, str] | None = None,
    also: dict[str, str] | None = None,
    kinds: dict[str, Callable[[str], Any]] | None = None,
    defaults: dict[str, Any] | None = None,
) -> None:
    """An option for each of `names`, with the default and the words of the function that it sets.

    **Arguments:**

    - `words`: other words than those of the docstring.
    - `also`: a second, shorter name.
    - `kinds`: the type where the default does not tell it.
    - `defaults`: other defaults.
    """
    documented = {**words_of(function), **(words or {})}
    known = {**defaults_of(function), **(defaults or {})}
    for name in names:
        default = known[name]
        flags = [f"--{name.replace('_', '-')}"]
        if also and name in also:
            flags.append(f"--{also[name]}")
        settings: dict[str, Any] = {"default": default, "dest": name, "help": documented[name]}
        if isinstance(default, bool):
            settings["action"] = argparse.BooleanOptionalAction
        elif isinstance(default, tuple):
            settings |= {"type": type(default[0]), "nargs": "+"}
        else:
            settings["type"] = (kinds or {}).get(name, type(default))
        if settings.get("type") in (int, float) and "nargs" not in settings:
            settings["metavar"] = "N" if settings["type"] is int else "X"
        parser.add_argument(*flags, **settings)


class Formatter(argparse.HelpFormatter):
    """Help with every default that is one."""

    def _get_help_string(self, action: argparse.Action) -> str:
        text = action.help or ""
        silent = action.default is None or action.default is argparse.SUPPRESS or not text
        if silent or not action.option_strings or action.nargs == 0:
            return text
        if isinstance(action.default, tuple):
            return f"{text} (default: {' '.join(map(str, action.default))})"
        return f"{text} (default: %(default)s)"


def chosen(arguments: argparse.Namespace, names: Iterable[str]) -> dict[str, Any]:
    """The values of some options; lists as tuples."""
    values = {name: getattr(arguments, name) for name in names}
    return {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}


def plain_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """All options of a command as they go into `config.json`."""
    return {
        name: str(value) if isinstance(value, pathlib.Path) else value
        for name, value in vars(arguments).items()
        if name not in _NOT_SAVED
    }


def replayed(path: pathlib.Path, command: str, parser: argparse.ArgumentParser) -> dict[str, Any]:
    """The options that a `config.json` holds for a command.

    **Raises:** `ValueError` for a file that holds none, or others than the command has.
    """
    try:
        saved = json.loads(path.read_text())
        name, options = saved["command"]["name"], saved["command"]["options"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not a config.json of a command: {error!r}.") from error
    if not (isinstance(name, str) and isinstance(options, dict)):
        raise ValueError(f"{path} is not a config.json of a command: its options are {options!r}.")
    if name != command:
        raise ValueError(f"{path} holds the options of `fpflow {name}`, not of {command!r}.")
    actions = {action.dest: action for action in parser._actions}
    for option, value in options.items():
        if option not in actions or option in (*_NOT_SAVED, "help"):
            raise ValueError(
                f"{path} has an option {option!r} that `fpflow {command}` does not know; remove it."
            )
        must_be = _what_fits(actions[option], value)
        if must_be:
            flag = (*actions[option].option_strings, f"`{option}`")[0]
            raise ValueError(f"{path} has {value!r} for {flag}, which must be {must_be}.")
    return options


def _what_fits(action: argparse.Action, value: Any) -> str:
    """What an option must be where a value is not that."""
    if value is None and action.default is None:
        return ""
    if action.nargs == 0:
        return "" if isinstance(value, bool) else "true or false"
    kinds, word = {int: (int, "a whole number"), float: ((int, float), "a number")}.get(
        action.type,
        (str, "text"),  # pyright: ignore[reportArgumentType]
    )
    many = action.nargs == "+"
    values = value if many and isinstance(value, list) else [value]
    fits = all(isinstance(v, kinds) and not isinstance(v, bool) for v in values)
    if action.choices is not None and not (fits and value in action.choices):
        return f"one of {', '.join(action.choices)}"
    return (
        "" if fits and isinstance(value, list) == many else f"a list, each {word}" if many else word
    )
