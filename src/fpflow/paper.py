"""The paper's experiment: published numbers, step grid and presets.

Deveney, Stanczuk, Kreusser, Budd and Schönlieb, *Closing the ODE--SDE gap in score-based diffusion
models through the Fokker--Planck equation*, arXiv 2311.15996; Phil. Trans. R. Soc. A 383 (2025)
20240503.
"""

import dataclasses
from typing import Any

import numpy as np

from . import datasets
from ._noising import Noising
from ._terms import DenoisingScoreMatching, FokkerPlanck, Objective, UniformFokkerPlanck
from ._times import BetaTime, UniformTime
from ._train import Adam, Cosine, Soap, Staged

DATASETS = {
    "mixture": datasets.gaussian_mixture,
    "circles": datasets.circles,
    "checkerboard": datasets.checkerboard,
}
FP_WEIGHTS = (0.0, 0.1, 1.0, 10.0)

COMPARISONS = ("ODE-SDE", "ODE-data", "SDE-data")

# W2^2 of the paper's three tables, by data set and weight, in the order of COMPARISONS.
PUBLISHED: dict[str, dict[float, tuple[float, float, float]]] = {
    "mixture": {
        0.0: (0.011599, 0.010967, 0.002180),
        0.1: (0.003107, 0.006039, 0.002940),
        1.0: (0.002901, 0.005280, 0.004271),
        10.0: (0.002208, 0.017225, 0.015989),
    },
    "circles": {
        0.0: (0.013401, 0.014354, 0.002268),
        0.1: (0.005283, 0.007373, 0.003323),
        1.0: (0.003090, 0.008280, 0.004541),
        10.0: (0.001704, 0.009378, 0.009097),
    },
    "checkerboard": {
        0.0: (0.027196, 0.024416, 0.003681),
        0.1: (0.007160, 0.011386, 0.005387),
        1.0: (0.003528, 0.011428, 0.011552),
        10.0: (0.002104, 0.033052, 0.032158),
    },
}

# Two independent histograms of three million samples of one law are this far apart in W2^2.
PUBLISHED_FLOOR = 0.0005


def step_grid() -> np.ndarray:
    """The times of the paper: 790 steps of 0.0125 from 10, then 100 of 0.00125 to 0, shape `(891,)`."""
    coarse = 10 - 0.0125 * np.arange(791)
    fine = 0.00125 * np.arange(99, -1, -1)
    return np.concatenate([coarse, fine])


@dataclasses.dataclass(frozen=True)
class Stage:
    """How one network is trained: the arguments of `fpflow.train`."""

    num_steps: int
    batch_size: int
    noising: Noising
    matching: DenoisingScoreMatching
    penalty: FokkerPlanck | UniformFokkerPlanck
    ema_decay: float
    optimiser: Adam | Soap

    def arguments(self, fp_weight: float = 0.0) -> dict[str, Any]:
        """The arguments of `fpflow.train` for a weight of the penalty, by name."""
        penalty = dataclasses.replace(self.penalty, weight=float(fp_weight))
        return {
            "num_steps": self.num_steps,
            "batch_size": self.batch_size,
            "objective": Objective({"dsm": self.matching, "fp": penalty}, self.noising),
            "ema_decay": self.ema_decay,
            "optimiser": self.optimiser,
        }

    def scaled(self, scale: float) -> "Stage":
        """Multiplies the steps by `scale**(1/8)`, and the batch and collocation points by
        `scale**(15/8)`.

        The work falls as `scale**2`. Steps are reduced less because a network that has not converged
        shows nothing, while a smaller batch only makes it noisier: at equal shares of 0.03 the
        regularised networks are so far from trained that the trends of the paper are reversed.
        """

        def shrink(count: int, power: float) -> int:
            return max(round(count * scale**power), 1)

        points = shrink(self.penalty.num_points, 15 / 8)
        return dataclasses.replace(
            self,
            num_steps=shrink(self.num_steps, 1 / 8),
            batch_size=shrink(self.batch_size, 15 / 8),
            penalty=dataclasses.replace(self.penalty, num_points=points),
        )


@dataclasses.dataclass(frozen=True)
class Preset:
    r"""Every number that changes a result of `scripts/reproduce.py`, except seeds.

    **Attributes:**

    - `name`, `meaning`: for readers.
    - `datasets`, `fp_weights`: what is run by default.
    - `plain`: the training at $w_R = 0$.
    - `regularised`: the training at $w_R > 0$.
    - `warm_start`: whether a regularised network starts from that of the next smaller weight.
    - `betas`: sharpness of the softplus by data set.
    - `on_prior`: the data sets whose networks correct the potential of the prior; the layers of the
      others stand alone.
    - `width`, `depth`: number of hidden units and of layers.
    - `num_samples`: number of samples of each distribution with the paper's samplers, besides the grid
      densities.
    - `curl_steps`: number of training steps of the score network of the curl figure, zero for none.
    - `quiet_end`: whether the last step of the paper's SDE sampler adds no noise.
    """

    name: str
    meaning: str
    plain: Stage
    regularised: Stage
    warm_start: bool
    betas: dict[str, float]
    on_prior: tuple[str, ...] = ()
    width: int = 80
    depth: int = 3
    datasets: tuple[str, ...] = tuple(DATASETS)
    fp_weights: tuple[float, ...] = FP_WEIGHTS
    num_samples: int = 0
    curl_steps: int = 0
    quiet_end: bool = True

    def scaled(self, scale: float) -> "Preset":
        """A fraction `scale**2` of the training, see `Stage.scaled`. Below one no samples are drawn:
        their noise would hide the gap, and the grid densities have none."""
        if not 0 < scale <= 1:
            raise ValueError(f"`scale` must lie in (0, 1], got {scale}.")
        if scale == 1:
            return self
        return dataclasses.replace(
            self,
            plain=self.plain.scaled(scale),
            regularised=self.regularised.scaled(scale),
            num_samples=0,
            curl_steps=round(self.curl_steps * scale ** (1 / 8)),
        )

    def as_dict(self) -> dict[str, Any]:
        """All settings as plain values for JSON."""
        return _plain(self)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"kind": type(value).__name__, **fields}
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, tuple):
        return [_plain(v) for v in value]
    return value.__name__ if callable(value) else value


_OURS = Stage(
    num_steps=20_000,
    batch_size=2048,
    noising=Noising(),
    matching=DenoisingScoreMatching(),
    penalty=FokkerPlanck(num_points=1024),
    ema_decay=0.999,
    optimiser=Soap(Cosine(peak=1e-2)),
)
_AUTHORS = Stage(
    num_steps=100_000,
    batch_size=200_000,
    noising=Noising(BetaTime(2.0), pairs=False),
    matching=DenoisingScoreMatching(factor=0.5),
    penalty=UniformFokkerPlanck(num_points=50_000),
    ema_decay=0.0,
    optimiser=Adam(Staged(rates=(1e-3, 1e-4, 1e-5), shares=(0.25, 0.65, 0.10))),
)
_TEXT = dataclasses.replace(
    _AUTHORS,
    noising=Noising(UniformTime(), pairs=False),
    matching=DenoisingScoreMatching(factor=1.0),
)
_SMOOTH = {"mixture": 1.0, "circles": 3.0, "checkerboard": 1.0}

STANDARD = Preset(
    name="standard",
    meaning="the best networks of the paper's size that two CPU cores train within half an hour",
    plain=_OURS,
    regularised=dataclasses.replace(_OURS, num_steps=6000, optimiser=Soap(Cosine(peak=3e-3))),
    warm_start=True,
    betas=_SMOOTH,
    on_prior=("mixture", "checkerboard"),
    curl_steps=5000,
)
QUICK = dataclasses.replace(
    STANDARD,
    name="quick",
    meaning="a first look: without and with the Fokker-Planck penalty",
    plain=dataclasses.replace(STANDARD.plain, num_steps=5000),
    regularised=dataclasses.replace(STANDARD.regularised, num_steps=2000),
    datasets=("mixture",),
    fp_weights=(0.0, 0.1),
    curl_steps=0,
)
PUBLISHED_SETTING = Preset(
    name="published",
    meaning="the authors' published code, setting by setting",
    plain=_AUTHORS,
    regularised=_AUTHORS,
    warm_start=False,
    betas=dict.fromkeys(DATASETS, 100.0),
    num_samples=3_000_000,
    curl_steps=100_000,
)
WRITTEN = Preset(
    name="written",
    meaning="the paper's text where it differs from the code: uniform times, two hidden layers, "
    "softplus with beta 1, the loss summed over components, noise in the last step of the SDE",
    plain=_TEXT,
    regularised=_TEXT,
    warm_start=False,
    betas=dict.fromkeys(DATASETS, 1.0),
    depth=2,
    num_samples=3_000_000,
    curl_steps=100_000,
    quiet_end=False,
)
PRESETS = {preset.name: preset for preset in (QUICK, STANDARD, PUBLISHED_SETTING, WRITTEN)}
