"""What training lowers: terms over one noised batch."""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Int

from .._noising import Noised, Noising
from .._process import AbstractProcess
from .._types import PotentialModel, PRNGKey, Scalar
from .base import AbstractTerm, weight_at
from .fokker_planck import FokkerPlanck, ScoreFokkerPlanck
from .score_matching import DenoisingScoreMatching

# The first term on points that are trained on, and on held-out ones: columns of the history too.
HELD_OUT = ("seen", "held_out")


class Objective(eqx.Module):
    r"""The loss $\sum_k w_k L_k$ over one noised batch.

    **Arguments:**

    - `terms`: a dictionary of terms; the training history has a column for each name.
    - `noising`: how the batch is noised.

    **Raises:** `ValueError` if an entry is not a term, or for a weight that is negative or not finite.

    **Example:**

    ```python
    objective = fpflow.Objective(
        {"dsm": fpflow.DenoisingScoreMatching(), "fp": fpflow.FokkerPlanck(weight=0.1)}
    )
    ```
    """

    terms: dict[str, AbstractTerm]
    noising: Noising

    def __init__(self, terms: Mapping[str, AbstractTerm], noising: Noising | None = None):
        if not isinstance(terms, Mapping) or not terms:
            raise ValueError(
                "`terms` must be a dictionary of terms by name, such as "
                f"{{'dsm': fpflow.DenoisingScoreMatching()}}, got {terms!r}."
            )
        for name, term in terms.items():
            if not isinstance(term, AbstractTerm):
                raise ValueError(f"`terms[{name!r}]` must be a term, got {term!r}.")
            if not (callable(term.weight) or (np.isfinite(term.weight) and term.weight >= 0)):
                raise ValueError(
                    f"the weight of {name!r} must be finite and not negative, got {term.weight}."
                )
            if name in ("step", "loss", "seconds", "rate", *HELD_OUT):
                raise ValueError(
                    f"a term cannot be called {name!r}, a name that the history itself uses."
                )
        noising = Noising() if noising is None else noising
        if not isinstance(noising, Noising):
            raise ValueError(f"`noising` must be a `Noising`, got {type(noising).__name__}.")
        self.terms, self.noising = dict(terms), noising

    def check(self, model: Any) -> None:
        """Raises `ValueError` if one of the terms cannot be computed for a model."""
        for term in self.terms.values():
            term.check(model)

    def active(self) -> "Objective":
        """The objective without terms of weight zero, which then cost nothing and do not change a
        bit."""
        terms = {
            name: term
            for name, term in self.terms.items()
            if callable(term.weight) or term.weight > 0
        }
        if not terms:
            raise ValueError("all terms of the objective have weight zero.")
        return Objective(terms, self.noising)

    def __call__(
        self,
        model: Any,
        process: AbstractProcess,
        noised: Noised,
        *,
        step: Int[Array, ""] | int = 0,
        key: PRNGKey,
    ) -> tuple[Scalar, dict[str, Scalar]]:
        """The loss, shape `()`, and its terms before their weights, by name."""
        parts, total = {}, None
        for number, (name, term) in enumerate(self.terms.items()):
            part = term(model, process, noised, key=jr.fold_in(key, number))
            weighted = part * weight_at(term.weight, jnp.asarray(step)).astype(part.dtype)
            total = weighted if total is None else total + weighted
            parts[name] = part
        assert total is not None
        return total, parts


def default_objective(model: Any, fp_weight: float) -> Objective:
    """Score matching, and the penalty that suits the model where it has a weight."""
    terms: dict[str, AbstractTerm] = {"dsm": DenoisingScoreMatching()}
    if fp_weight > 0:
        kind = FokkerPlanck if isinstance(model, PotentialModel) else ScoreFokkerPlanck
        terms["fp"] = kind(weight=float(fp_weight))
    return Objective(terms)
