"""What held-out points say of a trained model: likelihoods, and whether it repeats its data."""

import dataclasses
from typing import Any

import jax.random as jr
import numpy as np

from ._errors import mean_and_error
from ._likelihood import log_prob_ode, log_prob_sde
from ._metrics import Estimate
from ._model import Transformed, check_counts, check_key
from ._process import AbstractProcess
from ._sample import sample_sde
from ._shown import rounded, shown_fields
from ._transform import mapped
from ._types import ArrayLike, PRNGKey, ScoreModel
from .datasets import Points, as_data

# Standard errors from one half at which the distances to the data are called too small.
_SIGMAS = 4.0


@dataclasses.dataclass(frozen=True)
class HeldOut:
    r"""A model evaluated on points that it was trained on, and on points that it was not.

    **Attributes:**

    - `nll_ode`, `nll_sde`: the mean negative log-likelihoods of `seen` and of `held_out` points, in
      nats, each a pair of `Estimate`.
    - `closer`: the probability that a sample of the SDE lies closer to its nearest training point than a
      held-out point does to its own. It is one half for a model that has learned the distribution and
      one for a model that repeats its data.
    - `dim`: the dimension, used to convert nats to bits.
    """

    nll_ode: tuple[Estimate, Estimate]
    nll_sde: tuple[Estimate, Estimate]
    closer: Estimate
    dim: int

    __repr__ = shown_fields

    @property
    def memorises(self) -> bool:
        """Whether samples lie significantly closer to the training points than held-out points do."""
        return bool(self.closer.value - 0.5 > _SIGMAS * self.closer.error)

    def __str__(self) -> str:
        rows = []
        for name, (seen, held) in (("ODE", self.nll_ode), ("SDE", self.nll_sde)):
            unit = self.dim * np.log(2)
            bits = rounded(held.value / unit, held.error / unit)
            rows.append(
                f"-log p_{name} in nats: {seen} at training points, {held} at held-out points ({bits} "
                "bits per dimension)"
            )
        word = "the model repeats its data" if self.memorises else "one half is expected"
        rows.append(
            "probability that a sample lies closer to the training points than a held-out point does: "
            f"{self.closer} ({word})"
        )
        return "\n".join(rows)


def held_out(
    model: ScoreModel | Transformed,
    process: AbstractProcess,
    seen: ArrayLike | Points,
    points: ArrayLike | Points,
    *,
    num_points: int = 128,
    num_samples: int = 2000,
    progress: bool | None = None,
    key: PRNGKey,
) -> HeldOut:
    r"""Compares training and held-out points: both likelihoods, and whether the samples repeat the data.

    Distances to the nearest training point are Euclidean; for a `Transformed` model they are between
    transformed points. With $d$ for samples of the SDE and $d'$ for held-out points, `closer` is
    $P(d < d') + \tfrac12 P(d = d')$, the Mann--Whitney statistic.

    **Arguments:**

    - `model`: has `score(t, x)`, or is `Transformed`.
    - `process`: the process it was trained with.
    - `seen`: the points it was trained on, shape `(n, dim)`.
    - `points`: held-out points, shape `(m, dim)`; `datasets.split` makes both.
    - `num_points`: for how many points of each set the likelihood is computed, at most.
    - `num_samples`: number of samples of the SDE whose distances are computed.
    - `progress`: whether to show progress bars; by default on a terminal or in a notebook.
    - `key`: a `jax.random.key`.

    **Returns:** a `HeldOut`.

    **Raises:** `ValueError` for invalid arguments.

    **Example:**

    ```python
    data = jax.random.normal(jax.random.key(0), (200, 2))
    seen, points = fpflow.datasets.split(data, 0.2)
    print(fpflow.held_out(model, process, seen, points, num_points=4, key=jax.random.key(1)))
    ```

    ??? cite "Reference"
        Mann and Whitney, Ann. Math. Stat. 18 (1947) 50.
    """
    check_counts(num_points=num_points, num_samples=num_samples)
    check_key(key)
    sets = [_points(name, law) for name, law in (("seen", seen), ("points", points))]
    key_sample, key_paths = jr.split(key)
    counts = [min(num_points, len(x)) for x in sets]
    if min(counts) < 2:
        raise ValueError(
            "`num_points` and the sizes of both sets must be at least two, so that the means have "
            "error estimates."
        )
    x = np.concatenate([x[:n] for x, n in zip(sets, counts, strict=True)])
    asked: dict[str, Any] = {"progress": progress}
    log_p = (
        log_prob_ode(model, process, x, **asked).value,
        log_prob_sde(model, process, x, key=key_paths, **asked).value,
    )
    parts = [np.split(-np.asarray(value, float), [counts[0]]) for value in log_p]
    (ode, sde) = (tuple(Estimate(*mean_and_error(part)) for part in pair) for pair in parts)
    transform = model.transform if isinstance(model, Transformed) else None
    inner: Any = model.model if isinstance(model, Transformed) else model
    dim = x.shape[1]
    drawn = sample_sde(inner, process, num_samples, dim=dim, progress=progress, key=key_sample)
    rows = [np.asarray(mapped(transform, x)) for x in sets]
    return HeldOut(ode, sde, closer(np.asarray(drawn), *rows), dim)  # pyright: ignore


def closer(samples: np.ndarray, seen: np.ndarray, held: np.ndarray) -> Estimate:
    """How probably a sample lies closer to the points trained on than a held-out point, where equal
    distances count half."""
    of_samples, of_held = nearest(samples, seen), np.sort(nearest(held, seen))
    n, m = len(samples), len(held)
    above = m - np.searchsorted(of_held, of_samples, side="right")
    equal = m - above - np.searchsorted(of_held, of_samples, side="left")
    value = (above + equal / 2).sum() / (n * m)
    return Estimate(float(value), float(np.sqrt((n + m + 1) / (12 * n * m))))


def nearest(x: np.ndarray, to: np.ndarray) -> np.ndarray:
    """The distance from each row of `x` to the nearest row of `to`, shape `(n,)`."""
    rows = max(2**22 // to.size, 1)
    blocks = (x[start : start + rows, None] - to for start in range(0, len(x), rows))
    return np.concatenate([np.sqrt((block**2).sum(-1).min(1)) for block in blocks])


def _points(name: str, law: Any) -> np.ndarray:
    law = as_data(law)
    if not isinstance(law, Points):
        raise ValueError(f"`{name}` must be points, shape (n, dim), got {type(law).__name__}.")
    if law.condition is not None:
        raise ValueError(
            f"`{name}` has conditions: pass the points that belong to one of them, and the model from "
            "`fpflow.given`."
        )
    return np.asarray(law.points)
