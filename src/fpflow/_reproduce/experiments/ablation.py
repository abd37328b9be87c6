"""Which of the changes to the authors' training took away the price of the penalty."""

import functools
from typing import Any

import fpflow

from ..data import PROCESS
from .base import IN_THE_PLANE, Experiment, Numbers, Setting, network_in_the_plane

_OURS = {
    "term": fpflow.FokkerPlanck,
    "noising": fpflow.Noising(),
    "optimiser": fpflow.Soap(),
    "prior": PROCESS.prior,
    "ema_decay": 0.999,
}
# One factor at a time, as the authors have it.
_THEIRS = {
    "Adam": {"optimiser": fpflow.Adam()},  # the authors' rates are for fifty times the steps
    "uniform penalty": {"term": fpflow.UniformFokkerPlanck},
    "no pairs": {"noising": fpflow.Noising(pairs=False)},
    "uniform times": {"noising": fpflow.Noising(fpflow.UniformTime())},
    "layers alone": {"prior": None},
    "no average": {"ema_decay": 0.0},
}


def _measured(factors: dict[str, Any], weight: float, setting: Setting, key) -> Numbers:
    how = {**_OURS, **factors}
    terms = {"dsm": fpflow.DenoisingScoreMatching(), "fp": how["term"](weight)}
    return network_in_the_plane(
        setting,
        lambda key: fpflow.PotentialMLP(2, prior=how["prior"], key=key),
        objective=fpflow.Objective(terms, how["noising"]),
        optimiser=how["optimiser"],
        ema_decay=how["ema_decay"],
        num_steps=2000,
        key=key,
    )


def _variants() -> dict:
    everything = {name: value for factors in _THEIRS.values() for name, value in factors.items()}
    everything["noising"] = fpflow.Noising(fpflow.UniformTime(), pairs=False)
    rows = {"ours": {}, **_THEIRS, "all of these": everything}
    return {
        f"{name}, w_R = {weight:g}": functools.partial(_measured, factors, weight)
        for name, factors in rows.items()
        for weight in (0.0, 1.0)
        if weight or name != "uniform penalty"
    }


ABLATION = Experiment(
    "ablation",
    "At w_R = 1 the authors' networks are farther from the data than at 0, and fpflow's are not. Which "
    "change is responsible?",
    _variants(),
    IN_THE_PLANE,
)
