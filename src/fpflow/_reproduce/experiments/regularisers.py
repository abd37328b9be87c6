"""Which term closes the gap: the residuals, higher orders of score matching, and the curl."""

import functools
from typing import Any

import fpflow

from ..data import PROCESS
from .base import IN_THE_PLANE, Experiment, Numbers, Setting, network_in_the_plane

_TERMS = {
    "Fokker-Planck, under p_t": lambda w: fpflow.FokkerPlanck(w),
    "Fokker-Planck, two probes": lambda w: fpflow.FokkerPlanck(w, square=fpflow.TwoProbeSquare()),
    "Fokker-Planck, uniform (paper)": lambda w: fpflow.UniformFokkerPlanck(w),
    "Fokker-Planck of the density": lambda w: fpflow.FokkerPlanck(w, square=fpflow.DensitySquare()),
    "score Fokker-Planck (Lai)": lambda w: fpflow.ScoreFokkerPlanck(w),
    "score Fokker-Planck, probes (Lai)": lambda w: fpflow.ScoreFokkerPlanck(
        w, square=fpflow.ProbedScoreSquare()
    ),
    "second order (Lu)": lambda w: fpflow.SecondOrderScoreMatching(w),
    "trace (Lu)": lambda w: fpflow.TraceScoreMatching(w),
    "third order (Lu)": lambda w: fpflow.ThirdOrderScoreMatching(w),
    "second order, one direction (Lu)": lambda w: fpflow.SecondOrderScoreMatching(w, num_probes=1),
    "third order, one direction (Lu)": lambda w: fpflow.ThirdOrderScoreMatching(w, num_probes=1),
}
# The two that close the gap most, further along.
_STRONGER = ("Fokker-Planck, under p_t", "score Fokker-Planck (Lai)")
_OF_A_SCORE = {
    "score network, score Fokker-Planck (Lai)": lambda w: fpflow.ScoreFokkerPlanck(w),
    "score network, curl": lambda w: fpflow.CurlPenalty(w),
}


def _with(term: Any, network: type, setting: Setting, key) -> Numbers:
    terms = {"dsm": fpflow.DenoisingScoreMatching()} | ({} if term is None else {"term": term})
    make = functools.partial(_network, network)
    return network_in_the_plane(setting, make, objective=fpflow.Objective(terms), key=key)


def _network(kind: type, key) -> Any:
    return kind(2, prior=PROCESS.prior, width=80, depth=3, key=key)


def _variants() -> dict:
    found = {"none": functools.partial(_with, None, fpflow.PotentialMLP)}
    for name, make in _TERMS.items():
        for weight in (0.1, 1.0, 10.0) if name in _STRONGER else (0.1, 1.0):
            of_one = functools.partial(_with, make(weight), fpflow.PotentialMLP)
            found[f"{name}, {weight:g}"] = of_one
    found["score network, none"] = functools.partial(_with, None, fpflow.ScoreMLP)
    for name, make in _OF_A_SCORE.items():
        for weight in (0.1, 1.0):
            found[f"{name}, {weight:g}"] = functools.partial(_with, make(weight), fpflow.ScoreMLP)
    return found


REGULARISERS = Experiment(
    "regularisers",
    "Which term of the loss brings the two samplers together, what does it cost the accuracy of either, "
    "and what does a step with it cost?",
    _variants(),
    IN_THE_PLANE,
)
