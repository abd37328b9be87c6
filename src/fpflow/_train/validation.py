"""The loss of points that are not trained on, and the model that does best on them."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, Int

from .._noising import Noising
from .._process import AbstractProcess
from .._terms import AbstractTerm, Objective
from .._types import DataLaw, PRNGKey, Scalar
from ..datasets import Points, as_data, draw, split

# Noised points in one evaluation, and draws of a law that is given instead of points.
_NOISED = 8192


class InOrder(eqx.Module):
    """Points as a law that returns them in order, over and over, whatever the key."""

    points: Float[Array, "n dim"]
    condition: Float[Array, "n ..."] | None

    def sample(self, key: PRNGKey, n: int) -> Any:
        """The first `n`, from the start again after the last."""
        del key
        row = jnp.arange(n) % len(self.points)
        return (
            self.points[row] if self.condition is None else (self.points[row], self.condition[row])
        )


class Best(eqx.Module):
    """The parameters of the smallest held-out loss so far, that loss, and the step it was seen at."""

    params: Any
    loss: Scalar
    step: Int[Array, ""]


class HeldOutLoss(eqx.Module):
    """The first term of the objective on points that are trained on and on held-out ones, with one noise
    at one set of times for both and for ever: what differs from chunk to chunk is the network."""

    term: AbstractTerm
    noising: Noising
    process: AbstractProcess
    seen: InOrder
    held: InOrder
    patience: int | None = eqx.field(static=True)

    @classmethod
    def of(
        cls,
        objective: Objective,
        process: AbstractProcess,
        seen: DataLaw,
        held: DataLaw,
        patience: int | None,
    ) -> "HeldOutLoss":
        """For the terms of a training."""
        term = next(iter(objective.terms.values()))
        return cls(term, objective.noising, process, _fixed(seen), _fixed(held), patience)

    def __call__(self, params: Any, model: Any) -> tuple[float, float]:
        """That of the points trained on and that of the held-out ones."""
        return tuple(float(loss) for loss in _losses(self, params, model))  # pyright: ignore

    def better(self, state: Any, loss: float) -> Any:
        """The state with its average as the best, where it is."""
        if not loss < float(state.best.loss):
            return state
        best = Best(state.average, jnp.asarray(loss, state.best.loss.dtype), state.step)
        return eqx.tree_at(lambda s: s.best, state, best)

    def enough(self, state: Any) -> bool:
        """Whether the best has been the best for as long as one has patience."""
        return self.patience is not None and int(state.step) - int(state.best.step) >= self.patience


@eqx.filter_jit
def _losses(held_out: HeldOutLoss, params: Any, model: Any) -> tuple[Scalar, Scalar]:
    found = []
    for law in (held_out.seen, held_out.held):
        key_noise, key_term = jr.split(jr.key(0))
        noised = held_out.noising(held_out.process, law, _NOISED, key=key_noise)
        whole = eqx.combine(params, model)
        found.append(held_out.term(whole, held_out.process, noised, key=key_term))
    return found[0], found[1]


def _fixed(law: DataLaw) -> InOrder:
    """At most so many points of a law, the same ever after."""
    if isinstance(law, Points):
        condition = law.condition
        return InOrder(law.points[:_NOISED], None if condition is None else condition[:_NOISED])
    return InOrder(*draw(law, jr.key(0), _NOISED))


def parted(data: DataLaw, validation: Any) -> tuple[DataLaw, DataLaw]:
    """What is trained on and what is held out: a share of the points, or points or a law of their own.

    **Raises:** `ValueError` for a share of what is no set of points, or points that do not fit.
    """
    if not np.isscalar(validation):
        held = as_data(validation)
        shapes = [eqx.filter_eval_shape(draw, law, jr.key(0), 1) for law in (data, held)]
        wanted, found = (
            [None if part is None else part.shape[1:] for part in shape] for shape in shapes
        )
        if wanted != found:
            raise ValueError(
                "`validation` must hold points and conditions like those of the data, of shapes "
                f"{wanted}, got {found}."
            )
        return data, held
    if not isinstance(data, Points):
        raise ValueError(
            "`validation` as a share holds out some of the points, but `data` is a distribution that "
            "draws new ones each time: pass an array of points, or a distribution, as `validation`."
        )
    return split(data, validation)  # pyright: ignore
