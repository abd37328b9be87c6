"""The numbers of the report, one function a section."""

import dataclasses
from concurrent.futures import Future
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from .._accounting import KLAccount, TheoremOne, kl_account, theorem_one
from .._grid import grid_density_ode, grid_density_potential, grid_density_sde
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
    within_cells,
)
from .._model import Transformed, has_derivatives
from .._process import AbstractProcess
from .._residual import ResidualProfile, residual_profile
from .._sample import sample
from .._types import DataLaw, PotentialModel, PRNGKey, ScoreModel
from .._window import GridDensity, Window
from ..datasets import Points
from .fields import CurlProfile, curl_profile, gradient_share
from .pointwise import NatsGap, PointwiseGap, in_nats, in_units, pointwise_gaps
from .settings import ReportSettings
from .split import GapSplit, split_on_grid, split_sliced

PAIRS = (("ODE", "SDE"), ("data", "ODE"), ("data", "SDE"), ("e^u", "ODE"), ("e^u", "SDE"))


@dataclasses.dataclass(frozen=True)
class Question:
    """What is asked about: a score, and the data where there are some.

    **Attributes:**

    - `law`, `drawn`: the data and draws of it, or `None`.
    - `outer`: the `Transformed` model around it, or `None`.
    - `derivatives`: whether the score can be differentiated.
    """

    model: ScoreModel
    process: AbstractProcess
    dim: int
    law: DataLaw | None
    drawn: np.ndarray | None
    settings: ReportSettings
    outer: Transformed | None
    num_samples: int
    num_points: int
    derivatives: bool
    progress: bool | None

    def noised(self, samples: dict[str, np.ndarray]) -> DataLaw:
        """What the noised marginals are taken of: the data, or without them samples of the SDE."""
        return Points(samples["SDE"]) if self.law is None else self.law


def asked(
    model: ScoreModel,
    process: AbstractProcess,
    dim: int,
    law: DataLaw | None,
    settings: ReportSettings,
    outer: Transformed | None,
    progress: bool | None,
    key: PRNGKey,
) -> Question:
    """The question with draws of the data, and a window in dimensions one and two."""
    assert settings.num_samples and settings.num_points  # `in_dimension` has been asked
    drawn = None if law is None else np.asarray(law.sample(key, settings.num_samples))
    own = has_derivatives(model, dim)
    counts = (settings.num_samples, settings.num_points)
    return Question(model, process, dim, law, drawn, settings, outer, *counts, own, progress)


def with_window(question: Question, samples: Future) -> Question:
    """With the cells of dimensions one and two: the paper's where they hold the data, or without data
    nearly all samples of the SDE, which alone are waited for."""
    settings, dim = question.settings, question.dim
    if dim > 2 or settings.window is not None:
        return question
    if question.drawn is not None:
        low, high = question.drawn.min(), question.drawn.max()
    else:
        low, high = np.quantile(samples.result()["SDE"], [1e-4, 1 - 1e-4])
    # On a line many cells cost nothing.
    nodes = 64 if dim == 2 else 512
    paper = Window(nodes=nodes, dim=dim)
    if not (low >= paper.low and high <= paper.high and high - low > 2):
        room = 0.15 * (high - low)
        paper = Window(float(low - room), float(high + room), nodes, dim)
    return dataclasses.replace(question, settings=dataclasses.replace(settings, window=paper))


def draw(question: Question, samplers: dict[str, Any], key: PRNGKey) -> dict[str, np.ndarray]:
    """All samples of all repeats by the samplers whose gap is explained."""
    count = question.num_samples * question.settings.repeats
    found = {}
    for number, (name, sampler) in enumerate(samplers.items()):
        found[name] = _sample(question, sampler, count, jr.fold_in(key, number))
    return found


def _sample(question: Question, sampler: Any, count: int, key: PRNGKey) -> np.ndarray:
    model, process, dim, bar = question.model, question.process, question.dim, question.progress
    return np.asarray(sample(sampler, model, process, count, dim=dim, progress=bar, key=key))


def laws_on_grid(question: Question) -> dict[str, GridDensity]:
    """The exact laws, where there is a window."""
    model, process, window = question.model, question.process, question.settings.window
    if window is None:
        return {}
    laws = {
        "ODE": grid_density_ode(model, process, window),
        "SDE": grid_density_sde(model, process, window),
    }
    if question.law is not None and question.drawn is not None:
        law: Any = question.law
        exact = law if hasattr(law, "cell_probabilities") else Points(question.drawn)
        laws["data"] = exact.cell_probabilities(window)
    if isinstance(model, PotentialModel):
        laws["e^u"] = grid_density_potential(model, process, window)
    return laws


def gap(
    question: Question, laws: dict[str, GridDensity], samples: dict[str, np.ndarray], key: PRNGKey
) -> GapSplit:
    """The split of the observed gap, by the exact laws where they are known."""
    settings = question.settings
    ode, sde, repeats = samples["ODE"], samples["SDE"], settings.repeats
    if laws:
        rng = np.random.default_rng(int(jr.randint(key, (), 0, 2**31 - 1)))
        return split_on_grid(ode, sde, laws["ODE"], laws["SDE"], repeats, rng)
    finer = {"ODE": settings.ode.finer(4), "SDE": settings.sde.finer(4)}
    fine = draw(question, finer, key)
    return split_sliced(ode, sde, fine["ODE"], fine["SDE"], repeats)


def _kl_of_densities(a: GridDensity, b: GridDensity) -> Estimate:
    """With what the cells hide in the error: a divergence of cells falls short by the second order of
    their width, so that cells of twice the width miss three times as much more."""
    found, window = kl_divergence(a, b), a.window
    if window.nodes % 2:
        return found
    half = window.cell_width / 2
    wide = Window(window.low + half, window.high - half, window.nodes // 2, window.dim)
    p, q = (
        np.asarray(law.mass)
        .reshape([wide.nodes, 2] * wide.dim)
        .sum(tuple(range(1, 2 * wide.dim, 2)))
        for law in (a, b)
    )
    hidden = (found.value - kl_divergence(p, q, wide).value) / 3
    return Estimate(found.value, float(np.hypot(found.error, hidden)), found.kind)


def grid_distances(laws: dict[str, GridDensity]) -> dict[str, dict[str, Estimate | W2Result]]:
    """Every divergence between every two of the laws on the window; of a potential's law those in nats,
    because plans that carry its far mass take as long as the rest of the report."""
    kinds = {"TV": total_variation, "KL": kl_divergence, "Hellinger": hellinger}
    found = {}
    for a, b in PAIRS:
        if a not in laws or b not in laws:
            continue
        found[f"{a}-{b}"] = {name: kind(laws[a], laws[b]) for name, kind in kinds.items()}
        if (a, b) == ("ODE", "SDE"):  # which the verdict takes for that of the densities
            found[f"{a}-{b}"]["KL"] = _kl_of_densities(laws[a], laws[b])
        if a != "e^u":
            cells, free = w2_grid(laws[a], laws[b]), w2_continuous(laws[a], laws[b])
            free = within_cells(free, cells, laws[a].window)
            found[f"{a}-{b}"] |= {"W2^2": cells, "W2^2 without cells": free}
    return found


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
        if a in named and b in named
    }


def pointwise(
    question: Question, samples: dict[str, np.ndarray], points: Any, key: PRNGKey
) -> tuple[dict[str, PointwiseGap], NatsGap | None]:
    """Both log densities at the points, or draws of the data, and at samples of both laws."""
    if not question.derivatives:
        return {}, None
    settings, law = question.settings, question.law
    sets, exact = {}, None
    if points is not None:
        sets["points"] = points
    elif question.drawn is not None:
        sets["points"] = question.drawn[: question.num_points]
    if points is None and callable(getattr(law, "log_prob", None)):
        log_prob = jax.jit(jax.vmap(law.log_prob))  # pyright: ignore
        exact = np.asarray(log_prob(jnp.asarray(sets["points"])), float)
        exact = exact if np.isfinite(exact).all() else None
    sets |= {name: samples[name][: question.num_points] for name in ("SDE", "ODE")}
    model, process = question.model, question.process
    gaps = pointwise_gaps(model, process, sets, settings.num_paths, question.progress, key)
    if question.outer is not None:
        gaps = {name: in_units(gap, question.outer) for name, gap in gaps.items()}
    return gaps, in_nats(gaps, exact)


def fields(
    question: Question, laws: dict[str, GridDensity], samples: dict[str, np.ndarray], key: PRNGKey
) -> tuple[ResidualProfile | None, CurlProfile | None, float | None]:
    """Residuals by time, curl by time, and the share of the score that is no gradient."""
    model, process, law = question.model, question.process, question.noised(samples)
    key_residual, key_curl = jr.split(key)
    residual, curl = None, None
    if isinstance(model, PotentialModel):
        residual = residual_profile(model, process, data=law, key=key_residual)
    if question.derivatives:
        curl = curl_profile(model, process, law, key=key_curl)
    plane = laws and laws["SDE"].window.dim == 2
    return residual, curl, gradient_share(model, process, laws["SDE"]) if plane else None


def account(question: Question, key: PRNGKey) -> KLAccount | None:
    """The KL account, for data whose marginals are known."""
    if not (callable(getattr(question.law, "marginal", None)) and question.derivatives):
        return None
    model, process, law = question.model, question.process, question.law
    return kl_account(model, process, law, num_points=1024, num_steps=20, key=key)


def theorem(question: Question) -> TheoremOne | None:
    """The paper's bound, where there are a grid and a potential."""
    model, settings = question.model, question.settings
    if not (settings.theorem and settings.window and isinstance(model, PotentialModel)):
        return None
    return theorem_one(model, question.process, settings.window)


def _w2(a: GridDensity, b: GridDensity, value: float | None = None) -> Estimate:
    """The squared distance on the window, and how far the masses without extrapolation move it."""
    value = w2_grid(a, b).value if value is None else value
    p, q = (law.mass if law.unextrapolated is None else law.unextrapolated for law in (a, b))
    return Estimate(value, abs(value - w2_grid(p, q, a.window).value), "floor")


def family(
    question: Question,
    laws: dict[str, GridDensity],
    distances: dict[str, dict[str, Any]],
    samples: dict[str, np.ndarray],
    key: PRNGKey,
) -> tuple[dict[str, Any], ...]:
    """Squared distances of the family's members to the data, where there are some, and to the ODE."""
    if laws:
        return tuple(_on_grid(question, laws, distances, eta) for eta in question.settings.etas)
    rows, settings = [], question.settings
    for number, eta in enumerate(settings.etas):
        sampler = dataclasses.replace(settings.family, eta=eta)
        member = _sample(question, sampler, question.num_samples, jr.fold_in(key, number))
        to_ode = _sliced(member, samples["ODE"][-question.num_samples :])
        to_data = None if question.drawn is None else _sliced(member, question.drawn)
        rows.append({"eta": eta, "to_data": to_data, "to_ODE": to_ode})
    return tuple(rows)


def _on_grid(
    question: Question,
    laws: dict[str, GridDensity],
    distances: dict[str, dict[str, Any]],
    eta: float,
) -> dict[str, Any]:
    """One member by its exact law; two of them are known already, and so are their distances."""
    name = {0.0: "ODE", 1.0: "SDE"}.get(eta)
    if name is None:
        window = laws["SDE"].window
        member = grid_density_sde(question.model, question.process, window, eta=eta)
    else:
        member = laws[name]

    def known(pair: str) -> float | None:
        return distances[pair]["W2^2"].value if pair in distances else None

    to_data = None
    if "data" in laws:
        to_data = _w2(laws["data"], member, known(f"data-{name}"))
    to_ode = Estimate(0.0, 0.0) if eta == 0 else _w2(laws["ODE"], member, known(f"ODE-{name}"))
    return {"eta": eta, "to_data": to_data, "to_ODE": to_ode}


def _sliced(a: np.ndarray, b: np.ndarray) -> Estimate:
    found = sliced_w2(a, b)
    return Estimate(found.value, float(np.hypot(found.standard_error, found.floor)))
