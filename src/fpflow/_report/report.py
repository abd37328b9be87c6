"""The gap report: how far the two samplers of a score are apart, and why."""

import dataclasses
import pathlib
import warnings
from typing import Any

import jax.numpy as jnp
import jax.random as jr
import numpy as np

from .. import plot as pictures
from .._accounting import KLAccount, TheoremOne
from .._files import write_json
from .._metrics import Estimate, SampleDistance, W2Result
from .._model import as_model, check_dims, check_key, check_score
from .._process import AbstractProcess
from .._residual import ResidualProfile
from .._types import ArrayLike, DataLaw, PRNGKey
from .._window import GridDensity
from ..datasets import as_data, unconditional
from . import measure
from .fields import CurlProfile
from .pointwise import PointwiseGap
from .settings import ReportSettings
from .split import GapSplit
from .text import as_text


@dataclasses.dataclass(frozen=True)
class GapReport:
    r"""What `gap_report` found. `print(report)` shows it as tables, `report.save(path)` writes JSON,
    `report.plot()` draws one page.

    **Attributes:**

    - `dim`: the dimension.
    - `settings`: everything that changes a number.
    - `split`: the observed gap as a sum.
    - `grid_distances`: in dimensions one and two, by pair of laws and by name: `W2^2` as a
      `W2Result`, the others as `Estimate`; empty otherwise.
    - `sample_distances`: by pair of laws and by name, each a `SampleDistance`.
    - `pointwise`: $\log p_\text{SDE} - \log p_\text{ODE}$ at points of the data.
    - `residual`: by bins of time under $p_t$, for a model with a potential; else `None`.
    - `curl`: the antisymmetric part of the score's Jacobian.
    - `not_gradient`: the share of $E\|s(t_0)\|^2$ that is no gradient, in the plane; else `None`.
    - `kl`: the KL account, where the data's marginals are known exactly; else `None`.
    - `theorem`: the paper's bound in numbers, in dimensions one and two for a model with a potential.
    - `etas`: for each $\eta$ the squared distances to the data and to the ODE's law.
    - `densities`: the laws on the window in dimensions one and two, by name; empty otherwise.
    - `samples`: a thousand samples of each law, by name.
    - `notes`: what should not be believed, and why.
    """

    dim: int
    settings: dict[str, Any]
    split: GapSplit
    grid_distances: dict[str, dict[str, Estimate | W2Result]]
    sample_distances: dict[str, dict[str, SampleDistance]]
    pointwise: PointwiseGap
    residual: ResidualProfile | None
    curl: CurlProfile
    not_gradient: float | None
    kl: KLAccount | None
    theorem: TheoremOne | None
    etas: tuple[dict[str, float], ...]
    densities: dict[str, GridDensity]
    samples: dict[str, np.ndarray]
    notes: tuple[str, ...]

    def __str__(self) -> str:
        return as_text(self)

    def as_dict(self) -> dict[str, Any]:
        """All numbers as plain values."""
        return {field.name: _plain(getattr(self, field.name)) for field in dataclasses.fields(self)}

    def save(self, path: str | pathlib.Path) -> None:
        """Writes all numbers as JSON, whole or not at all."""
        write_json(path, self.as_dict())

    def plot(self) -> "pictures.Figure":
        """One page that shows the laws, the split of the gap and where it comes from."""
        return pictures.report_page(self)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)
        }
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return _plain(value._asdict())  # pyright: ignore
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray | jnp.ndarray):
        return np.asarray(value).tolist()
    value = value.item() if isinstance(value, np.generic) else value
    # JSON has no infinity.
    return None if isinstance(value, float) and not np.isfinite(value) else value


def gap_report(
    model_or_score: Any,
    process: AbstractProcess,
    data: DataLaw | ArrayLike,
    *,
    settings: ReportSettings | None = None,
    points: ArrayLike | None = None,
    progress: bool | None = None,
    key: PRNGKey | None = None,
) -> GapReport:
    r"""How far the ODE and the SDE of a score are apart, from each other and from the data, and why.

    **Arguments:**

    - `model_or_score`: an object with `score(t, x)`, or any function `score(t, x)` of one point,
      written with `jax.numpy`; other predictions through `from_noise_prediction` and its kin. Where
      it has `potential(t, x)` too, the report knows residuals.
    - `process`: the noising process.
    - `data`: an array `(n, dim)`, or an object with `sample(key, n)`; where it has
      `cell_probabilities`, `log_prob` or `marginal`, these are used.
    - `settings`: a `ReportSettings`; samplers, counts and window.
    - `points`: where the pointwise gap is taken, shape `(n, dim)`; draws of the data by default.
    - `progress`: progress bars; by default only on a terminal.
    - `key`: a `jax.random.key`, `jax.random.key(0)` by default.

    **Returns:** a `GapReport`.

    **Raises:** `ValueError` for bad arguments, `FloatingPointError` where the score is not finite.

    **Example:**

    ```python
    settings = fpflow.ReportSettings(num_samples=500, repeats=2, num_points=8, theorem=False)
    points = jax.random.normal(jax.random.key(0), (500, 1))
    report = fpflow.gap_report(lambda t, x: -2 * x, process, points, settings=settings)
    print(report)
    ```
    """
    settings = ReportSettings() if settings is None else settings
    key = jr.key(0) if key is None else key
    check_key(key)
    law = unconditional(as_data(data))
    key_data, key_ode, key_sde, key_points, key_fields, key_kl, key_eta, key_fine = jr.split(key, 8)
    drawn = np.asarray(law.sample(key_data, settings.num_samples))
    dim = drawn.shape[1]
    model = as_model(model_or_score, dim)
    check_dims("data", dim, model)
    check_score(model, process, dim)
    settings = measure.with_window(settings, drawn)
    notes: list[str] = []

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        samples = measure.draw(model, process, dim, settings, progress, key_ode, key_sde)
        densities, split = measure.gap(
            model, process, law, samples, settings, progress, key_fine, drawn
        )
        grid_distances = measure.grid_distances(densities)
        pointwise = measure.pointwise_gap(
            model, process, law, drawn, points, settings, progress, key_points
        )
        residual, curl, share = measure.fields(model, process, law, densities, key_fields)
        kl = measure.account(model, process, law, key_kl)
        theorem = measure.theorem(model, process, densities, settings)
        etas = measure.eta_sweep(model, process, densities, drawn, settings, progress, key_eta)
    named = {"data": drawn, **samples}
    sample_distances = measure.sample_distances(named, settings)
    notes += [str(w.message) for w in caught if issubclass(w.category, UserWarning)]
    notes += measure.doubts(named, densities, split, pointwise)
    return GapReport(
        dim,
        settings.as_dict(),
        split,
        grid_distances,
        sample_distances,
        pointwise,
        residual,
        curl,
        share,
        kl,
        theorem,
        etas,
        densities,
        {name: x[:1000] for name, x in named.items()},
        tuple(dict.fromkeys(notes)),
    )
