"""The command line: `python -m fpflow report --help`."""

import argparse
import dataclasses
import importlib
import os
import pathlib
import sys
from typing import Any

import jax.random as jr
import numpy as np

from . import paper
from ._model import (
    as_model,
    from_data_prediction,
    from_noise_prediction,
    from_v_prediction,
    from_velocity,
    load,
)
from ._process import OrnsteinUhlenbeck
from ._report import ReportSettings, gap_report

_ADAPTERS = {
    "noise": from_noise_prediction,
    "data": from_data_prediction,
    "v": from_v_prediction,
    "velocity": from_velocity,
}
# The settings of the report that make sense on a command line, with their units.
_COUNTS = {
    "num_samples": "samples of each law",
    "repeats": "how often the gap is observed",
    "ode_steps": "steps of the ODE sampler",
    "sde_steps": "steps of the SDE sampler",
    "num_points": "points of the pointwise gap",
    "num_paths": "noising paths from each point",
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m fpflow")
    commands = parser.add_subparsers(dest="command", required=True)
    report = commands.add_parser(
        "report",
        help="how far the ODE and the SDE of a score are apart, and why",
        description="Prints the gap report of a saved model, or of a Python function score(t, x) of "
        "one point written with jax.numpy.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    report.add_argument("model", help="a file of fpflow.save, or module:function")
    report.add_argument(
        "data",
        help=f"points (n, dim) in a .npy, .npz or .csv file; module:name of a data law; or one of "
        f"{', '.join(paper.DATASETS)}",
    )
    report.add_argument(
        "--prediction", choices=("score", *_ADAPTERS), default="score",
        help="what module:function predicts",
    )  # fmt: skip
    report.add_argument(
        "--t-min", type=float, default=1e-3,
        help="smallest time a noise, data or v prediction is asked at, in units of time",
    )  # fmt: skip
    report.add_argument("--process", help="module:name of a process; else Ornstein-Uhlenbeck")
    ou = OrnsteinUhlenbeck()
    for name, unit in (
        ("rate", "1/time"), ("noise", "x per root of time"), ("t1", "time of the prior"),
        ("t0", "time of the data"),
    ):  # fmt: skip
        report.add_argument(
            f"--{name}",
            type=float,
            default=getattr(ou, name),
            help=f"of dx = -rate x dt + noise dW, {unit}",
        )
    for field in dataclasses.fields(ReportSettings):
        if field.name in _COUNTS:
            option = f"--{field.name.replace('_', '-')}"
            report.add_argument(option, type=int, default=field.default, help=_COUNTS[field.name])
    report.add_argument("--seed", type=int, default=0, help="of all random numbers")
    report.add_argument("--out", type=pathlib.Path, help="write the numbers here, as JSON")
    report.add_argument("--figure", type=pathlib.Path, help="draw the page here (.png, .pdf, .svg)")
    return parser


def _imported(name: str) -> Any:
    module, _, attribute = name.partition(":")
    sys.path.insert(0, os.getcwd())
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ValueError(f"module {module!r} of {name!r} was not found: {error}") from error
    finally:
        sys.path.remove(os.getcwd())
    if not hasattr(found, attribute):
        raise ValueError(f"module {module!r} has no {attribute!r}.")
    return getattr(found, attribute)


def _data(name: str) -> Any:
    if name in paper.DATASETS:
        return paper.DATASETS[name]()
    path = pathlib.Path(name)
    if path.suffix == ".npy":
        return np.load(path, allow_pickle=False)
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as arrays:
            names = list(arrays)
            if len(names) != 1:
                raise ValueError(f"{path} must hold one array, got {names}.")
            return arrays[names[0]]
    if path.suffix == ".csv":
        with open(path) as file:
            first = file.readline()
        try:
            [float(cell) for cell in first.split(",")]
            header = 0
        except ValueError:
            header = 1
        return np.loadtxt(path, delimiter=",", skiprows=header, ndmin=2)
    if ":" in name:
        return _imported(name)
    raise ValueError(
        f"data must be a .npy, .npz or .csv file, module:name or one of {list(paper.DATASETS)}, "
        f"got {name!r}."
    )


def _report(arguments: argparse.Namespace) -> None:
    for path in (arguments.out, arguments.figure):
        if path is not None and not path.resolve().parent.is_dir():
            raise ValueError(f"the folder of {path} does not exist.")
    if arguments.figure and arguments.figure.suffix not in (".png", ".pdf", ".svg"):
        raise ValueError(f"--figure must end in .png, .pdf or .svg, got {arguments.figure}.")
    if arguments.process:
        process = _imported(arguments.process)
    else:
        process = OrnsteinUhlenbeck(
            rate=arguments.rate, noise=arguments.noise, t1=arguments.t1, t0=arguments.t0
        )
    counts = {name: getattr(arguments, name) for name in _COUNTS}
    settings = ReportSettings(**counts)
    data = _data(arguments.data)
    if ":" in arguments.model:
        model = _imported(arguments.model)
        if arguments.prediction != "score":
            adapt = _ADAPTERS[arguments.prediction]
            model = adapt(model, process, t_min=arguments.t_min)
        model = as_model(model)
    else:
        model = load(arguments.model)
    report = gap_report(model, process, data, settings=settings, key=jr.key(arguments.seed))
    print(report)
    if arguments.out:
        report.save(arguments.out)
    if arguments.figure:
        report.plot().savefig(arguments.figure, dpi=120)


def main(argv: list[str] | None = None) -> int:
    """Runs a command; a mistake of the user is one line on stderr and exit code 2."""
    arguments = _parser().parse_args(argv)
    try:
        _report(arguments)
    except (ValueError, FloatingPointError, OSError) as error:
        print(f"fpflow {arguments.command}: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
