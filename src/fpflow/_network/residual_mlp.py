r"""Layers with short cuts, for vectors."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float

from .._model import check_counts
from .._types import Point, PRNGKey, Time
from .features import Embedding


class _Block(eqx.Module):
    """$h + W_2 a$ with $a$ the silu of a layer of the normed $h$, scaled and shifted by the time."""

    norm: eqx.nn.LayerNorm
    first: eqx.nn.Linear
    tuned: eqx.nn.Linear
    last: eqx.nn.Linear

    def __init__(self, width: int, key: PRNGKey):
        key_first, key_tuned, key_last = jr.split(key, 3)
        self.norm = eqx.nn.LayerNorm(width)
        self.first = eqx.nn.Linear(width, width, key=key_first)
        self.tuned = eqx.nn.Linear(width, 2 * width, key=key_tuned)
        self.last = eqx.nn.Linear(width, width, key=key_last)

    def __call__(self, h: Array, told: Array) -> Array:
        scale, shift = jnp.split(self.tuned(told), 2)
        return h + self.last(jax.nn.silu(self.first(self.norm(h)) * (1 + scale) + shift))


class ResidualMLP(eqx.Module):
    r"""A network $N(\tau, x)$ of vectors with residual blocks, for tens or hundreds of columns.

    Turn it into a model with `ScoreNetwork` or `PotentialNetwork`, and put that model in the frame of a
    process with `in_frame`. Before training its output is zero.

    **Arguments:**

    - `dim`: the dimension of $x$.
    - `out`: number of outputs: `dim`, or one for a potential.
    - `width`, `depth`: the width of the blocks, and their number.
    - `num_frequencies`: number of frequencies of `NoiseFeatures`.
    - `condition_dim`: number of entries of a condition that the network also takes.
    - `key`: a `jax.random.key`.

    **Raises:** `ValueError` for sizes below one.

    **Example:**

    ```python
    network = fpflow.ResidualMLP(2, width=32, depth=2, key=jax.random.key(0))
    model = fpflow.in_frame(fpflow.ScoreNetwork(network), process)
    ```
    """

    first: eqx.nn.Linear
    embedding: Embedding
    blocks: tuple[_Block, ...]
    last: eqx.nn.Linear
    dim: int = eqx.field(static=True)

    def __init__(
        self,
        dim: int,
        out: int | None = None,
        *,
        width: int = 128,
        depth: int = 4,
        num_frequencies: int = 16,
        condition_dim: int = 0,
        key: PRNGKey,
    ):
        out = dim if out is None else out
        check_counts(dim=dim, out=out, width=width, depth=depth)
        key_first, key_told, key_last, *keys = jr.split(key, 3 + depth)
        self.first = eqx.nn.Linear(dim, width, key=key_first)
        self.embedding = Embedding(width, num_frequencies, condition_dim, key_told)
        self.blocks = tuple(_Block(width, k) for k in keys)
        self.last = silent(eqx.nn.Linear(width, out, key=key_last))
        self.dim = dim

    def __call__(self, tau: Time, x: Point, condition: Any = None) -> Float[Array, " out"]:
        """$N(\\tau, x)$ at one point, or $N(\\tau, x, c)$."""
        told, h = self.embedding(tau, condition), self.first(x)
        for block in self.blocks:
            h = block(h, told)
        return self.last(jax.nn.silu(h))


def silent(layer: Any) -> Any:
    """A layer that says nothing before it is trained."""
    zeros = (jnp.zeros_like(layer.weight), jnp.zeros_like(layer.bias))
    return eqx.tree_at(lambda part: (part.weight, part.bias), layer, zeros)
