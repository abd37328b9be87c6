"""What the numbers say, in three sentences."""

from typing import Any

import numpy as np

from .._metrics import Estimate
from .pointwise import NatsGap, PointwiseGap
from .split import GapSplit

# Fewer nats than this are not worth a choice between two numbers.
_NOTHING = 0.01


def verdict(
    split: GapSplit, nats: NatsGap | None, points: PointwiseGap | None, distances: dict[str, Any]
) -> tuple[str, ...]:
    """How far apart and which law is nearer to the data; what is to blame; which number to quote."""
    kind = "W2^2" if distances else "sliced W2^2"
    first = f"{_distance(split, nats, kind, distances)}{_nearer(nats, distances)}."
    return (first, _blame(split, kind), _quote(nats, points))


def _seen(found: Estimate) -> bool:
    """Whether a number differs from zero by more than two of its errors."""
    return abs(found.value) > 2 * found.error


def _distance(split: GapSplit, nats: NatsGap | None, kind: str, distances: dict[str, Any]) -> str:
    if "ODE-SDE" in distances and _seen(distances["ODE-SDE"]["KL"]):
        known = distances["ODE-SDE"]["KL"]
        return f"The distributions of the SDE and the ODE are {known} nats apart, KL(ODE | SDE)"
    if nats is None and "ODE-SDE" in distances and np.isfinite(distances["ODE-SDE"]["KL"].error):
        known = distances["ODE-SDE"]["KL"]
        return (
            "The distributions of the SDE and the ODE are not told apart: KL(ODE | SDE) = "
            f"{known} nats"
        )
    if nats is None:
        return f"The distributions of the SDE and the ODE are {kind} = {split.model} apart"
    forth, back = nats.kl_sde_ode, nats.kl_ode_sde
    if _seen(forth) and _seen(back):
        return (
            f"The distributions of the SDE and the ODE are {forth} nats apart, KL(SDE | ODE), and "
            f"{back} in the other direction"
        )
    if _seen(forth) or _seen(back):
        name, known, other = (
            ("SDE | ODE", forth, back) if _seen(forth) else ("ODE | SDE", back, forth)
        )
        return (
            f"The distributions of the SDE and the ODE are {known} nats apart, KL({name}), while the "
            f"samples do not tell the other direction, {other}, from zero"
        )
    return (
        f"The KL divergences between the SDE and the ODE, {forth} nats and {back} in the other "
        "direction, are not told from zero by their samples"
    )


def _nearer(nats: NatsGap | None, distances: dict[str, Any]) -> str:
    """By the points or, where there are cells, by these, whichever knows better."""
    known = [] if nats is None or nats.nearer is None else [nats.nearer]
    if "data-ODE" in distances:
        ode, sde = (distances[f"data-{name}"]["KL"] for name in ("ODE", "SDE"))
        known.append(Estimate(ode.value - sde.value, float(np.hypot(ode.error, sde.error))))
    if not known:
        return ""
    best = min(known, key=lambda found: found.error)
    if _seen(best):
        name = "SDE" if best.value > 0 else "ODE"
        return f", and the {name} is nearer to the data by {Estimate(abs(best.value), best.error)} nats"
    if (
        "data-ODE" in distances
    ):  # where a law lacks mass that the data has, no number of nats is known
        ode, sde = (distances[f"data-{name}"]["TV"] for name in ("ODE", "SDE"))
        if _seen(Estimate(ode.value - sde.value, float(np.hypot(ode.error, sde.error)))):
            near, far = (("SDE", sde), ("ODE", ode))[:: 1 if sde.value < ode.value else -1]
            return (
                f", and the {near[0]} is nearer to the data (total variation {near[1]}, that of the "
                f"{far[0]} {far[1]})"
            )
    return ", and neither is measurably nearer to the data"


_ADVICE = {
    "the model": "no sampler closes it, only another network: one trained longer or with a larger "
    "fp_weight",
    "the steps of the samplers": "more steps close it",
    "the finite number of samples": "this is noise, which more samples reduce",
    "the cells": "this is an effect of the grid, which finer cells reduce",
}


def _blame(split: GapSplit, kind: str) -> str:
    if not _seen(split.observed):
        return f"The {kind} between their samples, {split.observed}, is not told from zero."
    parts = dict(
        zip(_ADVICE, (split.model, split.discretisation, split.noise, split.binning), strict=True)
    )
    name = max(parts, key=lambda name: parts[name].value)
    share = parts[name].value / max(split.observed.value, 1e-300)
    whole = f"Of the {kind} = {split.observed} between their samples"
    if abs(split.unexplained.value) > 3 * split.unexplained.error:
        return f"{whole}, the parts leave {split.unexplained} unexplained, as the notes say."
    if not _seen(parts[name]):
        return f"{whole}, no part is told from zero; the largest is that of {name}, {parts[name]}."
    if not 0 < share <= 1:
        least = min(parts, key=lambda name: parts[name].value)
        off = f", of which {Estimate(-parts[least].value, parts[least].error)} is cancelled by {least}"
        off = off if parts[least].value < 0 and _seen(parts[least]) else ""
        return f"{whole}, the largest part comes from {name}, {parts[name]}{off}; {_ADVICE[name]}."
    return f"{whole}, {share:.0%} comes from {name}; {_ADVICE[name]}."


def _quote(nats: NatsGap | None, points: PointwiseGap | None) -> str:
    if nats is None:
        return "Quote the likelihood of a chain, `log_prob_chain`: it needs no derivatives of the score."
    apart = max(abs(nats.kl_sde_ode.value), abs(nats.kl_ode_sde.value))
    if points is not None:
        apart = max(apart, abs(points.mean.value), points.spread)
    values = "" if nats.nll_sde is None else f" (NLL {nats.nll_sde} nats per point)"
    if apart < _NOTHING:
        return f"Either likelihood may be quoted for either sampler{values}."
    off = points.mean if points is not None else nats.kl_sde_ode
    where = "at the points" if points is not None else "at its samples"
    found = f"{Estimate(-off.value, off.error)} nats on average"
    if points is not None:
        apart = points.log_p_ode - points.log_p_sde
        if _from_one(apart):
            found = (
                f"{np.median(apart):.3g} nats in the median; a single point makes more than half of "
                "the mean"
            )
    return (
        f"For samples of the SDE, quote log p_SDE{values}: {where}, log p_ODE differs from it by "
        f"{found}."
    )


def _from_one(apart: np.ndarray) -> bool:
    """Whether one of many points makes more than half of their mean."""
    return len(apart) >= 8 and bool(abs(apart).max() > abs(apart).sum() / 2)
