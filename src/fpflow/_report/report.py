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
from .._likelihood import checked_points
from .._metrics import Estimate, SampleDistance, W2Result
from .._model import Transformed, as_model, check_dims, check_key, check_score, model_dim
from .._process import AbstractProcess
from .._residual import ResidualProfile
from .._transform import mapped
from .._types import ArrayLike, DataLaw, PRNGKey
from .._window import GridDensity
from ..datasets import Points, as_data, unconditional
from . import measure
from .doubts import doubts, repeats
from .fields import CurlProfile
from .lanes import second_lane
from .pointwise import NatsGap, PointwiseGap
from .settings import ReportSettings
from .split import GapSplit
from .text import as_html, as_text
from .verdict import verdict

_KEYS = ("data", "draw", "points", "fields", "kl", "family", "fine")


@dataclasses.dataclass(frozen=True)
class GapReport:
    r"""The result of `gap_report`. `print(report)` shows it as tables, `report.save(path)` writes JSON,
    and `report.plot()` draws one page.

    **Attributes:**

    - `dim`: the dimension.
    - `settings`: everything that changes a number.
    - `verdict`: three sentences: how far apart the distributions are and which is closer to the data,
      what causes the gap, and which number to quote.
    - `nats`: the Kullback--Leibler divergences between the distributions and the likelihoods of the
      data; `None` for a score without derivatives.
    - `split`: the observed gap as a sum of parts.
    - `grid_distances`: in dimensions one and two, the distances by pair of distributions and by name:
      `W2^2` as a `W2Result`, the others as `Estimate`; empty otherwise. `e^u` is the distribution of the
      potential itself.
    - `sample_distances`: by pair of distributions and by name, each a `SampleDistance`.
    - `pointwise`: both log densities at samples of the `SDE`, of the `ODE`, and at the `points`, which
      are draws of the data unless given.
    - `residual`: in bins of time under $p_t$, for a model with a potential; else `None`.
    - `curl`: the antisymmetric part of the score's Jacobian; `None` for a score without derivatives.
    - `not_gradient`: the fraction of $E\|s(t_0)\|^2$ that is not a gradient, in the plane; else `None`.
    - `kl`: the decomposition of the KL divergences, if the data's marginals are known exactly; else
      `None`.
    - `theorem`: the values of the paper's bound, in dimensions one and two for a model with a potential.
    - `etas`: for each $\eta$ the squared distances to the data, if any, and to the distribution of the
      ODE.
    - `densities`: the distributions on the window in dimensions one and two, by name; empty otherwise.
    - `samples`: a thousand samples of each distribution, by name.
    - `notes`: what should not be trusted, and why.
    """

    dim: int
    settings: dict[str, Any]
    verdict: tuple[str, ...]
    nats: NatsGap | None
    split: GapSplit
    grid_distances: dict[str, dict[str, Estimate | W2Result]]
    sample_distances: dict[str, dict[str, SampleDistance]]
    pointwise: dict[str, PointwiseGap]
    residual: ResidualProfile | None
    curl: CurlProfile | None
    not_gradient: float | None
    kl: KLAccount | None
    theorem: TheoremOne | None
    etas: tuple[dict[str, Any], ...]
    densities: dict[str, GridDensity]
    samples: dict[str, np.ndarray]
    notes: tuple[str, ...]

    def __repr__(self) -> str:
        return "\n".join([f"GapReport in dimension {self.dim}", *self.verdict])

    def __str__(self) -> str:
        return as_text(self)

    def _repr_html_(self) -> str:
        return as_html(self)

    def as_dict(self) -> dict[str, Any]:
        """All numbers as plain values."""
        return {field.name: _plain(getattr(self, field.name)) for field in dataclasses.fields(self)}

    def save(self, path: str | pathlib.Path) -> None:
        """Writes all numbers as JSON. The file is written completely or not at all."""
        write_json(path, self.as_dict())

    def plot(self) -> "pictures.Figure":
        """Draws one page with the distributions, the split of the gap and its sources."""
        return pictures.report_page(self)


# What is said of single points, and by the report of all together.
_OF_POINTS = ("log p_SDE is unreliable", "log p_ODE is known", "the standard error stays")


def _is_a_note(warning: warnings.WarningMessage) -> bool:
    text = str(warning.message)
    return issubclass(warning.category, UserWarning) and not text.startswith(_OF_POINTS)


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
    data: DataLaw | ArrayLike | None = None,
    *,
    settings: ReportSettings | None = None,
    points: ArrayLike | None = None,
    dim: int | None = None,
    progress: bool | None = None,
    key: PRNGKey | None = None,
) -> GapReport:
    r"""How far apart the ODE and the SDE of a score are, from each other and from the data, and why.

    **Arguments:**

    - `model_or_score`: an object with `score(t, x)`, or any function `score(t, x)` of one point, written
      with `jax.numpy`; for other predictions see `from_noise_prediction` and related functions. If it
      also has `potential(t, x)`, the report includes residuals and the distribution $e^u/Z$. For a
      `Transformed` model everything in nats is in the units of the data, and all else in the network's
      variables.
    - `process`: the noising process.
    - `data`: an array `(n, dim)`, or an object with `sample(key, n)`; its `cell_probabilities`,
      `log_prob` and `marginal` are used if it has them. Without data, as for a posterior, samples of the
      SDE take the place of the noised data, and nothing is compared to the data.
    - `settings`: a `ReportSettings` with samplers, counts and window.
    - `points`: where the likelihoods are computed, such as held-out data, shape `(n, dim)`; draws of the
      data by default.
    - `dim`: the dimension, if neither `data` nor the model determines it.
    - `progress`: whether to show progress bars; by default on a terminal or in a notebook.
    - `key`: a `jax.random.key`, `jax.random.key(0)` by default.

    **Returns:** a `GapReport`.

    **Raises:** `ValueError` for invalid arguments, `FloatingPointError` if the score is not finite.

    **Example:**

    ```python
    settings = fpflow.ReportSettings(num_samples=500, repeats=2, num_points=8, theorem=False)
    points = jax.random.normal(jax.random.key(0), (500, 1))
    report = fpflow.gap_report(lambda t, x: -2 * x, process, points, settings=settings)
    print(report)
    ```
    """
    settings = ReportSettings() if settings is None else settings
    outer = model_or_score if isinstance(model_or_score, Transformed) else None
    if outer is not None:
        model_or_score = outer.model
        data = None if data is None else outer.law(data)
        points = None if points is None else mapped(outer.transform, jnp.asarray(points))
    key = jr.key(0) if key is None else key
    check_key(key)
    keys = dict(zip(_KEYS, jr.split(key, len(_KEYS)), strict=True))
    law = None if data is None else unconditional(as_data(data))
    if law is not None:
        dim = np.shape(law.sample(keys["data"], 1))[1]
    model = as_model(model_or_score, dim)
    dim = model_dim(model, dim)
    check_dims("data", dim, model)
    settings = settings.in_dimension(dim)
    check_score(model, process, dim)
    at = None if points is None else np.asarray(checked_points(model, process, points))
    if at is not None and len(at) < 2:
        raise ValueError(
            "`points` must hold at least two points, so that they have a spread, got 1."
        )
    question = measure.asked(model, process, dim, law, settings, outer, progress, keys["data"])

    with warnings.catch_warnings(record=True) as caught, second_lane() as aside:
        warnings.simplefilter("always")
        samplers = {"ODE": settings.ode, "SDE": settings.sde}
        drawing = aside(measure.draw, question, samplers, keys["draw"])
        question = measure.with_window(question, drawing)
        laws, samples = measure.laws_on_grid(question), drawing.result()
        named = samples if question.drawn is None else {"data": question.drawn, **samples}
        # One bar at a time.
        quiet = dataclasses.replace(question, progress=False)
        split = aside(measure.gap, quiet, laws, samples, keys["fine"])
        theorem = aside(measure.theorem, quiet)
        apart = aside(measure.sample_distances, named, settings)
        between = aside(measure.grid_distances, laws)
        etas = aside(lambda: measure.family(quiet, laws, between.result(), samples, keys["family"]))
        pointwise, nats = measure.pointwise(question, samples, at, keys["points"])
        residual, curl, share = measure.fields(question, laws, samples, keys["fields"])
        kl = measure.account(question, keys["kl"])
        parts = (split, theorem, apart, between, etas)
        split, theorem, apart, between, etas = (part.result() for part in parts)
    # Sorted, because which of two threads warns first is chance.
    notes = sorted(str(w.message) for w in caught if _is_a_note(w))
    notes += doubts(question, named, laws, split, pointwise, theorem)
    if at is not None and isinstance(law, Points):
        notes += repeats(samples["SDE"], np.asarray(law.points), at)
    return GapReport(
        dim,
        question.settings.as_dict(),
        verdict(split, nats, pointwise.get("points"), between),
        nats,
        split,
        between,
        apart,
        pointwise,
        residual,
        curl,
        share,
        kl,
        theorem,
        etas,
        laws,
        {name: x[:1000] for name, x in named.items()},
        tuple(dict.fromkeys(notes)),
    )
