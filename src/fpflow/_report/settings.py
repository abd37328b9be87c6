"""Everything that changes a number of the report."""

import dataclasses

from .._dynamics import check_eta
from .._model import check_counts
from .._sample import ODE, SDE, AbstractSampler
from .._window import Window


@dataclasses.dataclass(frozen=True)
class ReportSettings:
    r"""How the gap is measured, including the samplers whose gap is explained.

    **Arguments:**

    - `num_samples`: number of samples of each distribution in the observed gap: 2500 by default, 1000
      above two dimensions.
    - `repeats`: how often the gap is observed, to estimate its spread.
    - `ode`: the sampler that represents the ODE.
    - `sde`: the sampler that represents the SDE: an `SDE`, or any other with noise, such as `Ancestral`.
    - `window`: the window in dimensions one and two; by default chosen to hold the data.
    - `num_points`: number of points of the pointwise gap, for each of the data, the ODE and the SDE: 64
      by default, 32 above two dimensions.
    - `num_paths`: the maximum number of noising paths from each of these points.
    - `etas`: members of the family between ODE (0) and SDE (1) to compare.
    - `family`: the `SDE` that draws them in more than two dimensions.
    - `theorem`: whether to compute the constants of the paper's bound if they can be computed.

    **Raises:** `ValueError` for counts below one, a negative `eta`, or what is not a sampler.
    """

    num_samples: int | None = None
    repeats: int = 4
    ode: AbstractSampler = dataclasses.field(default_factory=ODE)
    sde: AbstractSampler = dataclasses.field(default_factory=SDE)
    window: Window | None = None
    num_points: int | None = None
    num_paths: int = 256
    etas: tuple[float, ...] = (0.0, 0.5, 1.0)
    family: SDE = dataclasses.field(default_factory=SDE)
    theorem: bool = True

    def __post_init__(self):
        check_counts(repeats=self.repeats, num_paths=self.num_paths)
        for name in ("num_samples", "num_points"):
            if getattr(self, name) is not None:
                check_counts(**{name: getattr(self, name)})
        if self.num_points == 1:
            raise ValueError("`num_points` must be at least 2, so that they have a spread.")
        for name in ("ode", "sde"):
            value = getattr(self, name)
            if not isinstance(value, AbstractSampler):
                raise ValueError(
                    f"`{name}` must be an `fpflow.AbstractSampler` such as `fpflow.{name.upper()}()`, "
                    f"got {value!r}."
                )
        if self.repeats < 2:
            raise ValueError(
                "`repeats` must be at least 2, so that their spread gives an error estimate."
            )
        for eta in self.etas:
            check_eta(eta)

    def in_dimension(self, dim: int) -> "ReportSettings":
        """A copy with the counts of this dimension wherever none are given, chosen so that a report
        takes minutes.

        **Raises:** `ValueError` for a window of another dimension.
        """
        self._check_window(dim)
        samples, points = (2500, 64) if dim <= 2 else (1000, 32)
        return dataclasses.replace(
            self, num_samples=self.num_samples or samples, num_points=self.num_points or points
        )

    def _check_window(self, dim: int) -> None:
        if self.window is None:
            return
        if dim > 2:
            raise ValueError(
                f"`settings.window` is for dimensions one and two, the data has dimension {dim}."
            )
        if self.window.dim != dim:
            raise ValueError(f"`settings.window` has dimension {self.window.dim}, the data {dim}.")

    def as_dict(self) -> dict:
        """The settings as plain values, for JSON."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        values |= {name: getattr(self, name).as_dict() for name in ("ode", "sde", "family")}
        values["window"] = None if self.window is None else dataclasses.asdict(self.window)
        values["etas"] = list(self.etas)
        return values
