"""The numbers of the report, one function a section."""

import dataclasses

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from .._accounting import KLAccount, TheoremOne, kl_account, theorem_one
from .._grid import grid_density_ode, grid_density_sde
from .._likelihood import log_prob_ode, log_prob_sde
from .._metrics import (
    Estimate,
    SampleDistance,
    W2Result,
    hellinger,
    kl_divergence,
    sliced_w2,
    total_variation,
    w2_continuous,
    w2_grid,
    w2_moments,
    w2_samples,
)
from .._residual import ResidualProfile, residual_profile
from .._sample import SDE, sample
from .._types import PotentialModel
from .._window import GridDensity, Window
from ..datasets import Points, widths_away
from .fields import CurlProfile, curl_profile, gradient_share
from .pointwise import PointwiseGap
from .settings import ReportSettings
from .split import GapSplit, mean_and_error, split_on_grid, split_sliced

PAIRS = (("ODE", "SDE"), ("data", "ODE"), ("data", "SDE"))


def with_window(settings: ReportSettings, drawn: np.ndarray) -> ReportSettings:
    """Settings with a window, in dimensions one and two: the paper's where it holds the data."""
    dim = drawn.shape[1]
    if dim > 2:
        if settings.window is not None:
            raise ValueError(
                f"`settings.window` is for dimensions one and two, the data has dimension {dim}."
            )
        return settings
    if settings.window is not None:
        if settings.window.dim != dim:
            raise ValueError(
                f"`settings.window` has dimension {settings.window.dim}, the data {dim}."
            )
        return settings
    low, high = drawn.min(), drawn.max()
    # On a line many cells cost nothing.
    nodes = 64 if dim == 2 else 512
    paper = Window(nodes=nodes, dim=dim)
    if not (low >= paper.low and high <= paper.high and high - low > 2):
        room = 0.15 * (high - low)
        paper = Window(float(low - room), float(high + room), nodes, dim)
    return dataclasses.replace(settings, window=paper)


def draw(model, process, dim, settings, progress, key_ode, key_sde) -> dict[str, np.ndarray]:
    """All samples of all repeats by the samplers whose gap is explained."""
    count = settings.num_samples * settings.repeats
    ode = sample(settings.ode, model, process, count, dim=dim, progress=progress, key=key_ode)
    sde = sample(settings.sde, model, process, count, dim=dim, progress=progress, key=key_sde)
    return {"ODE": np.asarray(ode), "SDE": np.asarray(sde)}


def gap(
    model, process, law, samples, settings, progress, key, drawn
) -> tuple[dict[str, GridDensity], GapSplit]:
    """The exact laws, where there is a grid, and the split of the observed gap."""
    window, repeats = settings.window, settings.repeats
    if window is None:
        key_ode, key_sde = jr.split(key)
        finer = dataclasses.replace(settings, ode=settings.ode.finer(4), sde=settings.sde.finer(4))
        dim = drawn.shape[1]
        fine = draw(model, process, dim, finer, progress, key_ode, key_sde)
        return {}, split_sliced(samples["ODE"], samples["SDE"], fine["ODE"], fine["SDE"], repeats)
    laws = {
        "ODE": grid_density_ode(model, process, window),
        "SDE": grid_density_sde(model, process, window),
    }
    rng = np.random.default_rng(int(jr.randint(key, (), 0, 2**31 - 1)))
    split = split_on_grid(samples["ODE"], samples["SDE"], laws["ODE"], laws["SDE"], repeats, rng)
    if hasattr(law, "cell_probabilities"):
        laws["data"] = law.cell_probabilities(window)
    else:
        laws["data"] = Points(drawn).cell_probabilities(window)
    return laws, split


def grid_distances(laws: dict[str, GridDensity]) -> dict[str, dict[str, Estimate | W2Result]]:
    """Every divergence between every two of the laws on the window."""
    if not laws:
        return {}
    kinds = {"TV": total_variation, "KL": kl_divergence, "Hellinger": hellinger}
    return {
        f"{a}-{b}": {
            "W2^2": w2_grid(laws[a], laws[b]),
            "W2^2 without cells": w2_continuous(laws[a], laws[b]),
            **{name: kind(laws[a], laws[b]) for name, kind in kinds.items()},
        }
        for a, b in PAIRS
    }


def sample_distances(
    named: dict[str, np.ndarray], settings: ReportSettings
) -> dict[str, dict[str, SampleDistance]]:
    """Sliced and exact distances between samples, with their floors."""
    n = settings.num_samples
    return {
        f"{a}-{b}": {
            "sliced W2^2": sliced_w2(named[a][:n], named[b][:n]),
            "sample W2^2": w2_samples(named[a][:n], named[b][:n]),
            "moments W2^2": w2_moments(named[a][:n], named[b][:n]),
        }
        for a, b in PAIRS
    }


def pointwise_gap(model, process, law, drawn, points, settings, progress, key) -> PointwiseGap:
    """Both log densities at the points, or at draws of the data."""
    x = drawn[: settings.num_points] if points is None else np.asarray(points)
    ode = log_prob_ode(model, process, x, progress=progress)
    sde = log_prob_sde(model, process, x, num_paths=settings.num_paths, progress=progress, key=key)
    log_ode, log_sde = np.asarray(ode.value, float), np.asarray(sde.value, float)
    parts = (sde.standard_error, sde.step_error, ode.standard_error, ode.solver_error)
    error = np.sqrt(sum(np.asarray(part, float) ** 2 for part in parts))
    difference = log_sde - log_ode
    mean, mean_error = mean_and_error(list(difference))
    spread = float(np.sqrt(max(difference.var(ddof=1) - (error**2).mean(), 0)))
    divergences: list[Estimate | None] = [None, None]
    if points is None and hasattr(law, "log_prob"):
        exact = np.asarray(jax.vmap(law.log_prob)(jnp.asarray(x)), float)
        if np.isfinite(exact).all():
            divergences = [Estimate(*mean_and_error(list(exact - q))) for q in (log_ode, log_sde)]
    share = np.asarray(sde.effective_sample_size, float) / settings.num_paths
    return PointwiseGap(
        x,
        log_ode,
        log_sde,
        error,
        np.minimum(share, 1.0),
        np.asarray(sde.reliable),
        Estimate(mean, mean_error),
        spread,
        *divergences,
    )


def fields(
    model, process, law, laws, key
) -> tuple[ResidualProfile | None, CurlProfile, float | None]:
    """Residuals by time, curl by time, and the share of the score that is no gradient."""
    key_residual, key_curl = jr.split(key)
    residual = None
    if isinstance(model, PotentialModel):
        residual = residual_profile(model, process, data=law, key=key_residual)
    curl = curl_profile(model, process, law, key=key_curl)
    share = None
    if laws and laws["SDE"].window.dim == 2:
        share = gradient_share(model, process, laws["SDE"])
    return residual, curl, share


def account(model, process, law, key) -> KLAccount | None:
    """The KL account, for data whose marginals are known."""
    if not callable(getattr(law, "marginal", None)):
        return None
    return kl_account(model, process, law, key=key)


def theorem(model, process, laws, settings) -> TheoremOne | None:
    """The paper's bound, where there are a grid and a potential."""
    if not (laws and settings.theorem and isinstance(model, PotentialModel)):
        return None
    return theorem_one(model, process, settings.window)


def _w2(a: GridDensity, b: GridDensity) -> Estimate:
    """The squared distance on the window, and how far the masses without extrapolation move it."""
    value = w2_grid(a, b).value
    p, q = (law.mass if law.unextrapolated is None else law.unextrapolated for law in (a, b))
    return Estimate(value, abs(value - w2_grid(p, q, a.window).value), "floor")


def _eta_row(eta: float, to_data: Estimate, to_ode: Estimate) -> dict[str, float]:
    return {
        "eta": eta,
        "to_data": to_data.value,
        "to_data_error": to_data.error,
        "to_ODE": to_ode.value,
        "to_ODE_error": to_ode.error,
    }


def eta_sweep(model, process, laws, drawn, settings, progress, key) -> tuple[dict[str, float], ...]:
    """Squared distances of the family's members to the data and to the ODE."""
    rows = []
    if laws:
        for eta in settings.etas:
            if eta == 0:
                member = laws["ODE"]
            elif eta == 1:
                member = laws["SDE"]
            else:
                member = grid_density_sde(model, process, settings.window, eta=eta)
            to_ode = Estimate(0.0, 0.0) if eta == 0 else _w2(member, laws["ODE"])
            rows.append(_eta_row(eta, _w2(member, laws["data"]), to_ode))
        return tuple(rows)
    # A sampler that is no `SDE` is no member of the family; those are then drawn as they come.
    family = settings.sde if isinstance(settings.sde, SDE) else SDE()
    samplers = [dataclasses.replace(family, eta=eta) for eta in settings.etas]
    *drawn_members, base = (
        np.asarray(
            sample(
                sampler,
                model,
                process,
                settings.num_samples,
                dim=drawn.shape[1],
                progress=progress,
                key=jr.fold_in(key, number),
            )
        )
        for number, sampler in enumerate([*samplers, settings.ode])
    )
    members = dict(zip(settings.etas, drawn_members, strict=True))
    for eta, x in members.items():
        pairs = [sliced_w2(x, drawn), sliced_w2(x, base)]
        errors = [float(np.hypot(d.standard_error, d.floor)) for d in pairs]
        found = [Estimate(d.value, error) for d, error in zip(pairs, errors, strict=True)]
        rows.append(_eta_row(eta, found[0], found[1]))
    return tuple(rows)


def _strays(name: str, x: np.ndarray, data: np.ndarray) -> list[str]:
    """A word on samples far from the data, which rule every squared distance."""
    away = widths_away(x, data)
    stray = away > 0.5
    if stray.mean() <= 1e-3:
        return []
    least = (
        f"{stray.mean():.1%} of the {name} samples lie more than half the data's width away from it"
    )
    if stray.mean() > 0.5:
        return [f"{least}."]
    whole, rest = (float(sliced_w2(data, y).value) for y in (x, x[~stray]))
    return [
        f"{least}, the farthest {away.max():.3g} widths. With them the sliced W2^2 to the data is "
        f"{whole:.3g}, without them {rest:.3g}: where these differ, squared distances in this report "
        "are mostly those few and change from draw to draw; the pointwise gap does not. More steps of "
        "training or a larger fp_weight draw them in."
    ]


def doubts(
    named: dict[str, np.ndarray],
    laws: dict[str, GridDensity],
    split: GapSplit,
    pointwise: PointwiseGap,
) -> list[str]:
    """What a reader should not believe without a second look."""
    notes = []
    data = named["data"]
    low, high = data.min(0), data.max(0)
    room = 0.1 * (high - low)
    beyond = ((pointwise.x < low - room) | (pointwise.x > high + room)).any(1)
    if beyond.any():
        notes.append(
            f"{beyond.sum()} of {len(beyond)} `points` lie outside the box of the data, where the "
            "score was not trained; densities there are extrapolated."
        )
    for name in ("ODE", "SDE"):
        notes += _strays(name, named[name], data)
        narrow = laws and named[name].std(0).min() < 2 * laws[name].window.cell_width
        if narrow:
            notes.append(
                f"the {name} samples spread over less than two cells in some direction, so the grid "
                "hardly sees their shape; use a window with more nodes."
            )
    for name, law in laws.items():
        if name == "data" and law.error > 0.02:
            notes.append(
                f"the data on the grid is a histogram with {law.error:.1%} of counting noise in total "
                "variation, which all distances to it contain."
            )
        elif law.error > 0.02:
            notes.append(
                f"the {name} density on the grid may be off by {law.error:.1%} in total variation: its "
                "features are finer than the cells; use a window with more nodes."
            )
    if (pointwise.effective_share < 0.5).any():
        notes.append(
            f"at {(pointwise.effective_share < 0.5).sum()} points fewer than half of the paths are "
            "effective in log p_SDE."
        )
    missing = split.observed.value - split.total.value
    allowed = 3 * float(np.hypot(split.observed.error, split.total.error))
    if abs(missing) > allowed:
        notes.append(
            f"the parts of the gap miss the observed one by {missing:.2g}, more than three standard "
            f"errors ({allowed:.2g}); steps and samples interact here."
        )
    return notes
