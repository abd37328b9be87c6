"""Show how far apart the ODE and the SDE of a score are, and why.

Prints the gap report of a run, a saved model, or a Python function score(t, x) of one point written with
jax.numpy.
"""

import argparse
import pathlib

import numpy as np

from .._model import as_model
from .._report import ReportSettings, gap_report
from .._sample import ODE, SDE
from .._types import DataLaw
from ..datasets import as_data, split
from .inputs import DATA, Given, check_output, keep_inputs, law_of
from .options import add_options, chosen
from .shared import MODEL, add_model, add_seed, asked_model, key_of

_SETTINGS = (
    "num_samples",
    "repeats",
    "num_points",
    "num_paths",
    "etas",
    "theorem",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Of `fpflow report`."""
    parser.add_argument("model", help=MODEL)
    parser.add_argument("data", nargs="?", help=f"{DATA}; by default the data of the run")
    add_options(parser, ReportSettings, _SETTINGS, kinds={"num_samples": int, "num_points": int})
    for law, sampler in (("ode", ODE()), ("sde", SDE())):
        parser.add_argument(
            f"--{law}-steps",
            type=int,
            metavar="N",
            default=sampler.num_steps,
            help=f"number of steps of the {law.upper()} sampler",
        )
    parser.add_argument(
        "--out",
        type=pathlib.Path,
        help="a .json file for all numbers; by default report.json in the run folder",
    )
    parser.add_argument(
        "--figure",
        type=pathlib.Path,
        help="a .png, .pdf or .svg file for the page; by default figures/report.png in the run folder",
    )
    add_seed(parser)
    add_model(parser)


def run(arguments: argparse.Namespace) -> None:
    """Measures, prints and writes."""
    check_output(arguments.out, (".json",))
    check_output(arguments.figure, (".png", ".pdf", ".svg"))
    settings = ReportSettings(
        ode=ODE(num_steps=arguments.ode_steps),
        sde=SDE(num_steps=arguments.sde_steps),
        family=SDE(num_steps=arguments.sde_steps),
        **chosen(arguments, _SETTINGS),
    )
    given = asked_model(arguments.model, arguments)
    keep_inputs(arguments, given.data)
    data, points = _data_and_points(arguments, given, settings)
    found = gap_report(
        as_model(given.model),
        given.process,
        data,
        settings=settings,
        points=points,
        key=key_of(arguments),
    )
    print(found)
    out, figure = arguments.out, arguments.figure
    if given.folder is not None:
        out = out or given.folder / "report.json"
        (given.folder / "figures").mkdir(exist_ok=True)
        figure = figure or given.folder / "figures" / "report.png"
    if out:
        found.save(out)
        print(f"numbers in {out}")
    if figure:
        found.plot().savefig(figure, dpi=120)
        print(f"page in {figure}")


def _data_and_points(
    arguments: argparse.Namespace, given: Given, settings: ReportSettings
) -> tuple[DataLaw | None, np.ndarray | None]:
    """The data, and points that a run held out of its own."""
    if arguments.data is not None:
        return as_data(law_of(arguments.data)), None
    if arguments.given is not None:  # the run's data have other conditions
        return None, None
    if given.data is None:
        raise ValueError("DATA is missing: this model has no run that records its data.")
    data = as_data(law_of(given.data, given.condition))
    if given.validation is None:
        return data, None
    data, held_out = split(data, given.validation)
    points = np.asarray(held_out.points)[: settings.in_dimension(held_out.dim).num_points]
    print(
        f"likelihoods are computed at {len(points)} of the {len(held_out.points)} held-out points"
    )
    return data, points
