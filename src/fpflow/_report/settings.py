"""Everything that changes a number of the report."""

import dataclasses

from .._dynamics import check_eta
from .._model import check_counts
from .._sample import ODE, SDE, AbstractSampler
from .._window import Window


@dataclasses.dataclass(frozen=True)
class ReportSettings:
    r"""How the gap is measured; the samplers are those whose gap is explained.

    **Arguments:**

    - `num_samples`: samples of each law in the observed gap: 2500 by default, above two dimensions 1000.
    - `repeats`: how often it is observed, for its spread.
    - `ode`: the sampler that stands for the ODE.
    - `sde`: the sampler that stands for the SDE: an `SDE`, or any other with noise, such as `Ancestral`.
    - `window`: the cells for dimensions one and two; by default chosen to hold the data.
    - `num_points`: points of the pointwise gap, so many of the data, of the ODE and of the SDE: 64 by
      default, above two dimensions 32.
    - `num_paths`: at most so many noising paths from each of them.
    - `etas`: members of the family between ODE (0) and SDE (1) that are compared.
    - `family`: the `SDE` that draws them in dimensions above two.
    - `theorem`: whether the constants of the paper's bound are computed where they can be.

    **Raises:** `ValueError` for counts below one, a negative `eta`, or what is no sampler.
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
            raise ValueError("`repeats` must be at least 2, so that their spread gives an error.")
        for eta in self.etas:
            check_eta(eta)

    def in_dimension(self, dim: int) -> "ReportSettings":
        """With the counts that a report of this dimension has unless told; a budget of minutes.

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
        """Plain values for JSON."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        values |= {name: getattr(self, name).as_dict() for name in ("ode", "sde", "family")}
        values["window"] = None if self.window is None else dataclasses.asdict(self.window)
        values["etas"] = list(self.etas)
        return values
