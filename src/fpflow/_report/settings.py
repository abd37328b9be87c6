"""Everything that changes a number of the report."""

import dataclasses

import diffrax

from .._dynamics import check_eta
from .._model import check_counts
from .._window import Window


@dataclasses.dataclass(frozen=True)
class ReportSettings:
    r"""How the gap is measured; the samplers are those whose gap is explained.

    **Arguments:**

    - `num_samples`: samples of each law in the observed gap.
    - `repeats`: how often it is observed, for its spread.
    - `ode_steps`, `sde_steps`: steps of the samplers on their graded grid.
    - `ode_solver`, `sde_solver`: diffrax solvers; those of `sample_ode` and `sample_sde` by default.
    - `window`: the cells for dimensions one and two; by default chosen to hold the data.
    - `num_points`: points of the pointwise gap.
    - `num_paths`: noising paths from each of them.
    - `etas`: members of the family between ODE (0) and SDE (1) that are compared.
    - `theorem`: whether the constants of the paper's bound are computed where they can be.

    **Raises:** `ValueError` for counts below one or a negative `eta`.
    """

    num_samples: int = 10_000
    repeats: int = 4
    ode_steps: int = 100
    sde_steps: int = 200
    ode_solver: diffrax.AbstractSolver | None = None
    sde_solver: diffrax.AbstractSolver | None = None
    window: Window | None = None
    num_points: int = 256
    num_paths: int = 64
    etas: tuple[float, ...] = (0.0, 0.5, 1.0, 1.5)
    theorem: bool = True

    def __post_init__(self):
        check_counts(
            num_samples=self.num_samples, repeats=self.repeats, ode_steps=self.ode_steps,
            sde_steps=self.sde_steps, num_points=self.num_points, num_paths=self.num_paths,
        )  # fmt: skip
        if self.repeats < 2:
            raise ValueError("`repeats` must be at least 2, so that their spread gives an error.")
        for eta in self.etas:
            check_eta(eta)

    def as_dict(self) -> dict:
        """Plain values for JSON."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        for name in ("ode_solver", "sde_solver"):
            solver = values[name]
            values[name] = "default" if solver is None else type(solver).__name__
        values["window"] = None if self.window is None else dataclasses.asdict(self.window)
        values["etas"] = list(self.etas)
        return values
