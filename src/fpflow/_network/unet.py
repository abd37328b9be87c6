r"""A small U-Net with attention, for images."""

import itertools
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float

from .._model import check_counts
from .._types import Point, PRNGKey, Time
from .features import Embedding
from .residual_mlp import silent


def _groups(channels: int) -> int:
    """Groups of a norm: up to eight, as many as divide the channels."""
    return next(n for n in (8, 4, 2, 1) if channels % n == 0)


class _Block(eqx.Module):
    """Two convolutions with a short cut; the time scales and shifts between them."""

    norms: tuple[eqx.nn.GroupNorm, eqx.nn.GroupNorm]
    first: eqx.nn.Conv2d
    tuned: eqx.nn.Linear
    last: eqx.nn.Conv2d
    across: eqx.nn.Conv2d | None

    def __init__(self, channels: int, out: int, told: int, key: PRNGKey):
        keys = jr.split(key, 4)
        self.norms = (
            eqx.nn.GroupNorm(_groups(channels), channels),
            eqx.nn.GroupNorm(_groups(out), out),
        )
        self.first = eqx.nn.Conv2d(channels, out, 3, padding=1, key=keys[0])
        self.tuned = eqx.nn.Linear(told, 2 * out, key=keys[1])
        self.last = silent(eqx.nn.Conv2d(out, out, 3, padding=1, key=keys[2]))
        self.across = None if channels == out else eqx.nn.Conv2d(channels, out, 1, key=keys[3])

    def __call__(self, h: Array, told: Array) -> Array:
        scale, shift = jnp.split(self.tuned(told)[:, None, None], 2)
        inner = self.first(jax.nn.silu(self.norms[0](h)))
        inner = self.last(jax.nn.silu(self.norms[1](inner) * (1 + scale) + shift))
        return inner + (h if self.across is None else self.across(h))


class _Attention(eqx.Module):
    """Every pixel looks at every other one."""

    norm: eqx.nn.GroupNorm
    heads: eqx.nn.MultiheadAttention

    def __init__(self, channels: int, key: PRNGKey):
        self.norm = eqx.nn.GroupNorm(_groups(channels), channels)
        self.heads = eqx.nn.MultiheadAttention(_groups(channels), channels, key=key)

    def __call__(self, h: Array) -> Array:
        rows = self.norm(h).reshape(h.shape[0], -1).T
        return h + self.heads(rows, rows, rows).T.reshape(h.shape)


class UNet(eqx.Module):
    r"""A network $N(\tau, x)$ of images that keeps fine details alongside coarse ones.

    Each level halves the image and doubles the channels; on the coarsest level every pixel attends to
    every other. Points are raveled images, so this is a network of vectors like any other: turn it into
    a model with `ScoreNetwork` or `PotentialNetwork`, and put that model in the frame of a process with
    `in_frame`. Before training its output is zero.

    **Arguments:**

    - `shape`: shape of an image, `(channels, height, width)`, with sides divisible by $2^\text{levels}$.
    - `width`: number of channels at the finest level.
    - `levels`: how often the image is halved.
    - `num_frequencies`: number of frequencies of `NoiseFeatures`.
    - `condition_dim`: number of entries of a condition that the network also takes.
    - `key`: a `jax.random.key`.

    **Raises:** `ValueError` for an invalid shape, or one that cannot be halved so often.

    **Example:**

    ```python
    network = fpflow.UNet((1, 8, 8), width=16, key=jax.random.key(0))
    model = fpflow.in_frame(fpflow.ScoreNetwork(network), process)
    ```

    ??? cite "Reference"
        Ronneberger et al., MICCAI 2015, arXiv 1505.04597; Ho et al., NeurIPS 2020, arXiv 2006.11239.
    """

    first: eqx.nn.Conv2d
    embedding: Embedding
    down: tuple[tuple[_Block, eqx.nn.Conv2d], ...]
    middle: tuple[_Block, _Attention, _Block]
    up: tuple[tuple[eqx.nn.Conv2d, _Block], ...]
    norm: eqx.nn.GroupNorm
    last: eqx.nn.Conv2d
    shape: tuple[int, int, int] = eqx.field(static=True)

    def __init__(
        self,
        shape: tuple[int, int, int],
        *,
        width: int = 32,
        levels: int = 2,
        num_frequencies: int = 16,
        condition_dim: int = 0,
        key: PRNGKey,
    ):
        check_counts(width=width, levels=levels)
        if len(shape) != 3 or min(shape) < 1 or any(side % 2**levels for side in shape[1:]):
            raise ValueError(
                "`shape` must be (channels, height, width) with sides divisible by "
                f"{2**levels}, 2 to the power of `levels`, got {shape}."
            )
        keys = iter(jr.split(key, 6 + 4 * levels))
        told, channels = 4 * width, [width * 2**level for level in range(levels + 1)]
        pairs = list(itertools.pairwise(channels))
        self.first = eqx.nn.Conv2d(shape[0], width, 3, padding=1, key=next(keys))
        self.embedding = Embedding(told, num_frequencies, condition_dim, next(keys))
        self.down = tuple(
            (
                _Block(fine, fine, told, next(keys)),
                eqx.nn.Conv2d(fine, coarse, 3, stride=2, padding=1, key=next(keys)),
            )
            for fine, coarse in pairs
        )
        top = channels[-1]
        self.middle = (
            _Block(top, top, told, next(keys)),
            _Attention(top, next(keys)),
            _Block(top, top, told, next(keys)),
        )
        self.up = tuple(
            (
                eqx.nn.Conv2d(coarse, fine, 3, padding=1, key=next(keys)),
                _Block(2 * fine, fine, told, next(keys)),
            )
            for fine, coarse in reversed(pairs)
        )
        self.norm = eqx.nn.GroupNorm(_groups(width), width)
        self.last = silent(eqx.nn.Conv2d(width, shape[0], 3, padding=1, key=next(keys)))
        self.shape = (shape[0], shape[1], shape[2])

    @property
    def dim(self) -> int:
        """The number of pixels in all channels."""
        return math.prod(self.shape)

    def __call__(self, tau: Time, x: Point, condition: Any = None) -> Float[Array, " dim"]:
        """$N(\\tau, x)$ of one raveled image, or $N(\\tau, x, c)$."""
        told, h = self.embedding(tau, condition), self.first(x.reshape(self.shape))
        kept = []
        for block, halved in self.down:
            h = block(h, told)
            kept.append(h)
            h = halved(h)
        before, attention, after = self.middle
        h = after(attention(before(h, told)), told)
        for (narrowed, block), fine in zip(self.up, reversed(kept), strict=True):
            h = narrowed(jnp.repeat(jnp.repeat(h, 2, axis=1), 2, axis=2))
            h = block(jnp.concatenate([h, fine]), told)
        return self.last(jax.nn.silu(self.norm(h))).ravel()
