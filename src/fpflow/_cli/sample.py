"""Draw samples from a model.

Uses the probability-flow ODE, the reverse SDE (--eta selects another member of the family between them),
or a discrete sampler.
"""

import argparse
import pathlib

import jax.random as jr
import numpy as np

from .. import _sample
from .._model import as_model, model_dim
from ..datasets import as_data, widths_away
from .inputs import check_output, keep_inputs, law_of, names_of
from .options import add_options, chosen
from .points import write_points
from .shared import MODEL, add_model, add_seed, asked_model, key_of

_OUTPUTS = (".npy", ".csv")
_SAMPLERS = {
    "ode": _sample.ODE,
    "sde": _sample.SDE,
    "euler-maruyama": _sample.EulerMaruyama,
    "predictor-corrector": _sample.PredictorCorrector,
    "ancestral": _sample.Ancestral,
    "ddim": _sample.DDIM,
    "edm-heun": _sample.EDMHeun,
    "gaussian-chain": _sample.GaussianChain,
}
_WITH_ETA = ("sde", "euler-maruyama", "ddim")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Of `fpflow sample`."""
    parser.add_argument("model", help=MODEL)
    parser.add_argument("--law", choices=tuple(_SAMPLERS), default="sde", help="the sampler")
    parser.add_argument(
        "-n", "--num-samples", type=int, default=2000, metavar="N", help="number of points"
    )
    parser.add_argument(
        "--out", type=pathlib.Path, required=True, help="a .npy or .csv file, one point per row"
    )
    parser.add_argument(
        "--dim", type=int, metavar="N", help="the dimension, if the function does not determine it"
    )
    words = {
        "num_steps": "number of steps from t1 to t0; by default 100 for the ODE and 200 for the SDE",
        "eta": "member of the SDE's family: 1 (default) gives the reverse SDE, 0 the ODE",
    }
    add_options(
        parser,
        _sample.sample_sde,
        words,
        words=words,
        also={"num_steps": "steps"},
        kinds={"num_steps": int, "eta": float},
        defaults={"eta": None},
    )
    add_seed(parser)
    add_model(parser)


def run(arguments: argparse.Namespace) -> None:
    """Draws and writes."""
    check_output(arguments.out, _OUTPUTS)
    given = asked_model(arguments.model, arguments)
    keep_inputs(arguments, given.data)
    model = as_model(given.model, arguments.dim)
    dim = model_dim(model, arguments.dim)
    settings = chosen(arguments, ("num_steps",))
    if arguments.eta is not None:
        if arguments.law not in _WITH_ETA:
            raise ValueError(
                "--eta applies to --law sde, euler-maruyama and ddim; their --eta 0 is the ODE."
            )
        settings["eta"] = arguments.eta
    sampler = _SAMPLERS[arguments.law](**settings)
    x = _sample.sample(
        sampler, model, given.process, arguments.num_samples, dim=dim, key=key_of(arguments)
    )
    write_points(arguments.out, np.asarray(x), names_of(given.data, given.condition, dim))
    mean, std = np.asarray(x.mean(0)), np.asarray(x.std(0))
    print(f"{len(x)} samples of {type(sampler).__name__} in dimension {dim}: {arguments.out}")
    print(f"mean {_row(mean)}, standard deviation {_row(std)}")
    if given.data is not None and given.condition is None:
        _compare(np.asarray(x), given.data)


def _compare(x: np.ndarray, name: str) -> None:
    """A word where samples leave the data far behind."""
    try:
        data = np.asarray(as_data(law_of(name)).sample(jr.key(0), 4096))
        if data.shape[1] != x.shape[1]:
            raise ValueError(f"{name} has dimension {data.shape[1]}, the samples {x.shape[1]}.")
    except (ValueError, OSError) as error:
        # Whatever became of the data: the samples are written.
        print(f"note: the samples were not compared with the run's data: {error}")
        return
    stray = int((widths_away(x, data) > 0.5).sum())
    if stray:
        print(
            f"note: {stray} of the samples lie more than half the data's width away from the data. "
            "Continue training with `fpflow train --start`, or use a larger --fp-weight; `fpflow "
            "report` measures the effect."
        )


def _row(values: np.ndarray) -> str:
    shown = ", ".join(f"{v:.4g}" for v in values[:6])
    return f"({shown}{', ...' if len(values) > 6 else ''})"
