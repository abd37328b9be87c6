"""Draw figures of a run.

losses: the terms of the loss during training, for one or more runs. The others need a network:
densities: both distributions and the data on one colour scale, and the difference of the distributions
(dimension 2); field: the score with streamlines (dimension 2); trajectories: paths of the ODE; residual:
the Fokker-Planck residual by time and position; curl: the curl of the score at t0 (dimension 2); flow:
an animation from noise to data (dimension 2).
"""

import argparse
import json
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jax.random as jr
import matplotlib.pyplot as plt
import numpy as np

from .. import _sample
from .. import plot as pictures
from .._calculus import curl
from .._files import DamagedFile
from .._grid import grid_density_ode, grid_density_sde
from .._model import Transformed, as_model, model_dim
from .._process import AbstractProcess
from .._terms import HELD_OUT
from .._train import History
from .._window import Window
from ..datasets import as_data, draw, unconditional
from .inputs import Given, check_output, keep_inputs, law_of
from .options import add_options
from .shared import MODEL, add_model, add_seed, asked_model, key_of


def _rows(file: pathlib.Path) -> tuple[tuple[str, ...], list[tuple[float, ...]]]:
    """The names of the terms, and step, loss, terms and seconds of each line of a `metrics.jsonl`."""
    lines = file.read_text(errors="replace").splitlines(keepends=True)
    # A run that writes just now, or was killed at it, has half a line at the end.
    if lines and not lines[-1].endswith("\n"):
        lines.pop()
    names, rows = None, []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            names = names or tuple(n for n in row if n not in ("step", "loss", "seconds"))
            values = [row[name] for name in ("step", "loss", *names, "seconds")]
            rows.append(tuple(np.nan if value is None else float(value) for value in values))
        except (ValueError, KeyError, TypeError) as error:
            raise DamagedFile(
                f"{file} is damaged: line {number} holds {line.strip()[:60]!r}; remove that line."
            ) from error
    return names or (), rows


def _losses(folders: list[str]) -> Any:
    histories = {}
    for name in folders:
        file = pathlib.Path(name) / "metrics.jsonl"
        if not file.exists():
            raise ValueError(f"{name} is not a run: it has no metrics.jsonl.")
        names, rows = _rows(file)
        if not rows:
            raise ValueError(
                f"the run in {name} has no metrics yet: its first chunk is not finished."
            )
        histories[name] = History.from_rows(rows, names)
    parts = dict.fromkeys(part for h in histories.values() for part in h.terms)
    parts = [part for part in parts if part not in HELD_OUT]
    figure, axes = plt.subplots(
        1, len(parts), figsize=(5 * len(parts), 3.6), layout="constrained", squeeze=False
    )
    for part, ax in zip(parts, axes[0], strict=True):
        pictures.loss_curves(histories, part=part, ax=ax)
    return figure


class _Drawn(NamedTuple):
    """What is drawn: a network, and the data as it sees them where there are some."""

    model: Any
    process: AbstractProcess
    law: Any


def _drawn(given: Given) -> _Drawn:
    """In the network's own variables, where it stands behind a change of them."""
    model = as_model(given.model)
    law = None if given.data is None else as_data(law_of(given.data, given.condition))
    if not isinstance(model, Transformed):
        return _Drawn(model, given.process, law)
    print(
        "note: the figure is in the network's own variables, in which its columns are standardised."
    )
    return _Drawn(model.model, given.process, None if law is None else model.law(law))


def _window_of(drawn: _Drawn, nodes: int) -> Window:
    """Cells that hold the data, or the paper's."""
    if drawn.law is None:
        return Window(nodes=nodes)
    x = np.asarray(draw(drawn.law, jr.key(0), 4096)[0])
    low, high = float(x.min()), float(x.max())
    margin = 0.1 * (high - low)
    return Window(low=low - margin, high=high + margin, nodes=nodes)


def _densities(drawn: _Drawn, window: Window, key: Any) -> Any:
    del key
    laws = {
        "ODE": grid_density_ode(drawn.model, drawn.process, window),
        "SDE": grid_density_sde(drawn.model, drawn.process, window),
    }
    if drawn.law is not None:
        law = unconditional(drawn.law)
        if hasattr(law, "cell_probabilities"):
            laws = {"data": law.cell_probabilities(window), **laws}  # pyright: ignore
    figure, axes = plt.subplots(
        1, len(laws) + 1, figsize=(4.2 * (len(laws) + 1), 3.6), layout="constrained"
    )
    pictures.densities(laws, axes=list(axes[:-1]))
    apart = np.asarray(laws["SDE"].mass - laws["ODE"].mass)
    pictures.difference(apart, window, ax=axes[-1], title="SDE − ODE")
    return figure


def _field(drawn: _Drawn, window: Window, key: Any) -> Any:
    del key
    times = drawn.process.t0 + (drawn.process.t1 - drawn.process.t0) * np.array([0.002, 0.02, 0.1])
    figure, axes = plt.subplots(1, 3, figsize=(14, 4), layout="constrained")
    for t, ax in zip(times, axes, strict=True):
        pictures.score_field(drawn.model, float(t), window, ax=ax)
    return figure


def _trajectories(drawn: _Drawn, window: Window, key: Any) -> Any:
    del window
    paths = _sample.ode_trajectories(drawn.model, drawn.process, 60, key=key)
    return pictures.trajectories(paths).figure


def _residual(drawn: _Drawn, window: Window, key: Any) -> Any:
    del key
    return pictures.residual_map(
        drawn.model, drawn.process, low=window.low, high=window.high
    ).figure


def _curl(drawn: _Drawn, window: Window, key: Any) -> Any:
    del key
    nodes = window.centres()
    points = jnp.asarray(np.stack(np.meshgrid(nodes, nodes, indexing="ij"), axis=-1))
    t0 = drawn.process.t0
    note = ", a gradient: round-off only" if hasattr(drawn.model, "potential") else ""
    at_t0 = jax.vmap(jax.vmap(lambda x: curl(lambda y: drawn.model.score(t0, y), x)))
    return pictures.curl(
        np.asarray(jax.jit(at_t0)(points)), window, title="curl at $t_0$" + note
    ).figure


def _flow(drawn: _Drawn, window: Window, key: Any) -> Any:
    paths = _sample.ode_trajectories(drawn.model, drawn.process, 40_000, num_times=60, key=key)
    return pictures.density_flow(paths, window)


_PLANE = ("densities", "field", "curl", "flow")
_KINDS: dict[str, Callable[..., Any]] = {
    "densities": _densities,
    "field": _field,
    "trajectories": _trajectories,
    "residual": _residual,
    "curl": _curl,
    "flow": _flow,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Of `fpflow plot`."""
    parser.add_argument("model", nargs="+", help=f"{MODEL}; several runs for losses")
    parser.add_argument("--kind", choices=("losses", *_KINDS), default="losses", help="the figure")
    parser.add_argument(
        "--out",
        type=pathlib.Path,
        help="a .png, .pdf or .svg file, for flow .gif or .mp4; by default figures/KIND of the run",
    )
    add_options(
        parser, Window, ("nodes",), words={"nodes": "cells in each direction, in dimension 2"}
    )
    add_seed(parser)
    add_model(parser)


def run(arguments: argparse.Namespace) -> None:
    """Draws one picture."""
    kind, first = arguments.kind, pathlib.Path(arguments.model[0])
    endings = (".gif", ".mp4") if kind == "flow" else (".png", ".pdf", ".svg")
    out = arguments.out
    if out is None:
        if not first.is_dir():
            raise ValueError("--out is missing: the model has no run folder for its figures.")
        if kind == "losses" and len(arguments.model) > 1:
            raise ValueError(
                "--out is missing: a figure of several runs has no run folder of its own."
            )
        (first / "figures").mkdir(exist_ok=True)
        out = first / "figures" / f"{kind}{endings[0]}"
    check_output(out, endings)
    keep_inputs(arguments)
    if kind == "losses":
        _losses(arguments.model).savefig(out, dpi=150)
    else:
        if len(arguments.model) > 1:
            raise ValueError(f"--kind {kind} draws one model, got {len(arguments.model)}.")
        given = asked_model(arguments.model[0], arguments)
        keep_inputs(arguments, given.data)
        drawn = _drawn(given)
        dim = model_dim(drawn.model, None)
        if kind in _PLANE and dim != 2:
            raise ValueError(
                f"--kind {kind} is for dimension 2, and the model has dimension {dim}."
            )
        window = _window_of(drawn, arguments.nodes)
        figure = _KINDS[kind](drawn, window, key_of(arguments))
        if kind == "flow":
            figure.save(out, writer="pillow" if out.suffix == ".gif" else "ffmpeg")
        else:
            figure.savefig(out, dpi=150)
    plt.close("all")
    print(f"figure {out}")
