"""Pictures of a model in time: score fields, trajectories, residuals, and the density's flow."""

from typing import Any

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.animation import FuncAnimation
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from .._model import check_dims, model_dim
from .._process import AbstractProcess
from .._residual import log_fp_residual
from .._sample import Trajectories
from .._types import PotentialModel, ScoreModel
from .._window import Window
from ..datasets import count_in_cells
from .panels import COLOURS, density, new_axes


def score_field(
    model: ScoreModel,
    t: float,
    window: Window | None = None,
    *,
    ax: Axes | None = None,
    title: str = "",
) -> Axes:
    r"""Streamlines of a score in the plane, over its size $\|s(t, x)\|$, in 1/length.

    **Arguments:**

    - `model`: has `score(t, x)` and `dim` 2.
    - `t`: the time.
    - `window`: the window to draw, `Window()` by default.
    - `ax`: the Axes to draw on, new ones by default.

    **Raises:** `ValueError` for another dimension.
    """
    window, ax = _plane(model, window), new_axes(ax)
    centres, edges = window.centres(), window.edges()
    points = jnp.asarray(np.stack(np.meshgrid(centres, centres, indexing="ij"), axis=-1))
    score = np.asarray(jax.jit(jax.vmap(jax.vmap(lambda x: model.score(t, x))))(points), float)
    size = np.linalg.norm(score, axis=-1)
    image = ax.imshow(
        size.T,
        origin="lower",
        extent=(edges[0], edges[-1], edges[0], edges[-1]),
        cmap="Blues",
        norm=LogNorm(max(float(np.quantile(size, 0.01)), 1e-3), max(float(size.max()), 2e-3)),
    )
    ax.streamplot(
        centres,
        centres,
        score[..., 0].T,
        score[..., 1].T,
        color=COLOURS[1],
        linewidth=0.8,
        arrowsize=0.8,
        density=1.2,
    )
    ax.set(
        xlabel="$x_1$",
        ylabel="$x_2$",
        title=title or f"score at $t = {t:g}$",
        xlim=edges[[0, -1]],
        ylim=edges[[0, -1]],
        aspect="equal",
    )
    ax.figure.colorbar(image, ax=ax, label=r"$\|s(t, x)\|$")
    return ax


def trajectories(paths: Trajectories, *, ax: Axes | None = None, title: str = "") -> Axes:
    """Paths of the ODE: against time in one dimension, otherwise the first two coordinates.

    **Arguments:**

    - `paths`: from `fpflow.ode_trajectories`; a few dozen are readable.
    - `ax`: the Axes to draw on, new ones by default.
    """
    ax = new_axes(ax)
    times, x = np.asarray(paths.times), np.asarray(paths.x)
    if x.shape[2] == 1:
        ax.plot(times, x[..., 0], color=COLOURS[0], linewidth=0.7, alpha=0.7)
        ax.set(
            xlabel="time $t$, from noise to data", ylabel="$x$", title=title or "ODE trajectories"
        )
        ax.invert_xaxis()
        ax.set_xscale("symlog", linthresh=0.1)
        return ax
    dim = x.shape[2]
    whole = "ODE trajectories" + (f", two of {dim} coordinates" if dim > 2 else "")
    ax.plot(x[..., 0], x[..., 1], color="0.6", linewidth=0.7, zorder=1)
    for k, name, colour, marker in (
        (0, "noise", COLOURS[0], "o"),
        (-1, "samples", COLOURS[1], "s"),
    ):
        label = f"{name}, $t = {times[k]:g}$"
        ax.scatter(x[k, :, 0], x[k, :, 1], s=14, color=colour, marker=marker, label=label, zorder=2)
    ax.set(xlabel="$x_1$", ylabel="$x_2$", title=title or whole, aspect="equal")
    ax.legend(frameon=False, fontsize="small")
    return ax


def residual_map(
    model: PotentialModel,
    process: AbstractProcess,
    *,
    low: float = -3.5,
    high: float = 3.5,
    num_times: int = 80,
    num_points: int = 141,
    ax: Axes | None = None,
    title: str = "",
) -> Axes:
    r"""The size of the log-Fokker--Planck residual minus its mean over $x$, by time and position.

    The positions lie on the line along the first axis through the origin. The mean over $x$ at each time
    is subtracted because it affects no sampler.

    **Arguments:**

    - `model`: has `potential(t, x)`.
    - `low`, `high`: the ends of the line.
    - `num_times`: number of times, spread evenly in $\log t$ over the last three decades.
    - `num_points`: number of points on the line.
    - `ax`: the Axes to draw on, new ones by default.

    **Raises:** `ValueError` for a model without a potential.
    """
    if not hasattr(model, "potential"):
        raise ValueError(
            f"`model` must have `potential(t, x)` for a residual, got {type(model).__name__}."
        )
    ax, dim = new_axes(ax), model_dim(model, None)
    span = process.t1 - process.t0
    times = process.t0 + span * np.geomspace(1e-3, 1, num_times)
    line = np.linspace(low, high, num_points)
    points = jnp.zeros((num_points, dim)).at[:, 0].set(line)
    rows = jax.jit(
        lambda times: jax.lax.map(
            lambda t: jax.vmap(lambda x: log_fp_residual(model, process, t, x))(points), times
        )
    )(jnp.asarray(times))
    residual = np.asarray(rows, float)
    size = np.maximum(np.abs(residual - residual.mean(1, keepdims=True)), 1e-6)
    image = ax.pcolormesh(
        times,
        line,
        size.T,
        cmap="magma",
        shading="nearest",
        rasterized=True,
        norm=LogNorm(max(float(np.quantile(size, 0.05)), 1e-5), max(float(size.max()), 2e-5)),
    )
    ax.set(
        xscale="log",
        xlabel="time $t$",
        ylabel="$x_1$" if dim > 1 else "$x$",
        title=title or "Fokker–Planck residual" + (" on the first axis" if dim > 1 else ""),
    )
    ax.figure.colorbar(image, ax=ax, label=r"$|r - \bar r(t)|$ (1/time)")
    return ax


def density_flow(
    paths: Trajectories, window: Window | None = None, *, num_frames: int = 60, fps: int = 15
) -> FuncAnimation:
    """How the ODE carries the prior to the data: an animation of histograms of many paths.

    **Arguments:**

    - `paths`: from `fpflow.ode_trajectories`, in the plane, with ten thousand paths or more.
    - `window`: the cells, `Window()` by default.
    - `num_frames`: number of frames, at most the number of times in `paths`.
    - `fps`: frames per second.

    **Returns:** a `matplotlib.animation.FuncAnimation`; save it with
    `density_flow(paths).save("flow.gif", writer="pillow")`, or as MP4 if ffmpeg is installed.

    **Raises:** `ValueError` if `paths` is not in the plane.
    """
    if paths.x.shape[2] != 2:
        raise ValueError(f"`paths` must lie in the plane, got dimension {paths.x.shape[2]}.")
    window = Window() if window is None else window
    total = len(paths.times)
    chosen = np.unique(np.linspace(0, total - 1, min(num_frames, total)).round().astype(int))
    masses = [count_in_cells(np.asarray(paths.x[k]), window) / paths.x.shape[1] for k in chosen]
    top = float(np.quantile(masses[-1], 0.99)) / window.cell_width**2
    figure: Figure = plt.figure(figsize=(5, 4.4), layout="constrained")
    ax = density(masses[0], window, ax=figure.subplots(), vmax=top)
    image = ax.images[0]

    def draw(frame: int) -> tuple[Any, ...]:
        image.set_data(masses[frame].T / window.cell_width**2)
        ax.set_title(f"distribution of the ODE at $t = {float(paths.times[chosen[frame]]):.3f}$")
        return (image,)

    return FuncAnimation(figure, draw, frames=len(masses), interval=1000 / fps)


def _plane(model: Any, window: Window | None) -> Window:
    check_dims("window", 2, model)
    return Window() if window is None else window
