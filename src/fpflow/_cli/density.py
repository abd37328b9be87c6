"""Compute both log densities at points.

Writes one line per point: log p_ODE with its error, log p_SDE with its standard error, and their
difference, in nats.
"""

import argparse
import pathlib

import jax.random as jr
import numpy as np

from .. import _likelihood
from .._errors import mean_and_error
from .._files import write_whole
from .._model import as_model, check_dims
from ..datasets import Points, as_data, draw, split
from .inputs import DATA, check_output, keep_inputs, law_of, names_of
from .options import add_options, chosen
from .shared import MODEL, add_model, add_seed, asked_model, key_of

_PATHS = ("target_error", "num_paths", "num_steps")
_WORDS = {
    "target_error": "the standard error of log p_SDE to reach, 0.05 nats by default",
    "num_paths": "maximum paths per point, 2560 by default; without --target-error their number",
    "num_steps": "number of times per path",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Of `fpflow density`."""
    parser.add_argument("model", help=MODEL)
    parser.add_argument(
        "data",
        nargs="?",
        help=f"the points: {DATA}; by default the run's data, or its held-out points if it has any",
    )
    parser.add_argument(
        "-n", "--num-points", type=int, default=256, metavar="N", help="maximum number of points"
    )
    parser.add_argument("--out", type=pathlib.Path, required=True, help="a .csv file")
    add_options(
        parser,
        _likelihood.log_prob_sde,
        _PATHS,
        words=_WORDS,
        also={"num_paths": "paths", "num_steps": "steps"},
        kinds={"target_error": float, "num_paths": int, "num_steps": int},
    )
    add_seed(parser)
    add_model(parser)


def run(arguments: argparse.Namespace) -> None:
    """Computes, writes and sums up."""
    check_output(arguments.out, (".csv",))
    given = asked_model(arguments.model, arguments)
    keep_inputs(arguments, given.data)
    name = arguments.data or given.data
    if name is None:
        raise ValueError("DATA is missing: the model has no run that records its data.")
    if arguments.given is not None and arguments.data is None:
        raise ValueError(
            "DATA is missing: give a file of points that belong to the condition of --given."
        )
    if arguments.num_points < 1:
        raise ValueError(f"--num-points must be at least 1, got {arguments.num_points}.")
    found = law_of(name, None if arguments.data else given.condition)
    key_points, key_paths = jr.split(key_of(arguments))
    law = as_data(found)
    if arguments.data is None and given.validation is not None:
        law = split(law, given.validation)[1]
        print(f"the {len(law.points)} points held out from the run's training")
    if isinstance(law, Points):
        x = np.asarray(law.points)[: arguments.num_points]
    else:
        x = np.asarray(draw(law, key_points, arguments.num_points)[0])
    model = as_model(given.model, x.shape[1])
    check_dims("points", x.shape[1], model)
    ode = _likelihood.log_prob_ode(model, given.process, x)
    sde = _likelihood.log_prob_sde(
        model, given.process, x, key=key_paths, **chosen(arguments, _PATHS)
    )
    columns = {
        "log_p_ode": ode.value,
        "ode_error": ode.solver_error,
        "log_p_sde": sde.value,
        "sde_standard_error": sde.standard_error,
        "sde_minus_ode": sde.value - ode.value,
    }
    own = names_of(name, None if arguments.data else given.condition, x.shape[1])
    names = [*(own or (f"x{k + 1}" for k in range(x.shape[1]))), *columns]
    table = np.column_stack([x, *(np.asarray(c, float) for c in columns.values())])
    lines = [",".join(names), *(",".join(f"{v:.9g}" for v in row) for row in table)]
    write_whole(arguments.out, ("\n".join(lines) + "\n").encode())
    apart = table[:, -1]
    spread = mean_and_error(apart)[1] if len(apart) > 1 else float("nan")
    print(f"{len(x)} points: {arguments.out}")
    print(
        f"mean log p_ODE {table[:, -5].mean():.4f}, log p_SDE {table[:, -3].mean():.4f}, difference "
        f"{apart.mean():+.4f} ± {spread:.4f} nats"
    )
    doubtful = int((~np.asarray(sde.reliable)).sum())
    if doubtful:
        print(f"{doubtful} of the SDE's values should not be trusted: raise --paths.")
