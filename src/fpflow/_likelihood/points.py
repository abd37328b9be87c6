"""What both log densities share: points checked, and taken in blocks of one shape."""

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.sharding import Mesh
from jaxtyping import Array, Float
from tqdm.auto import tqdm

from .._devices import num_devices
from .._hosts import gathered, no_bar, watched
from .._model import check_dims, check_score, model_dtype
from .._process import AbstractProcess
from .._shown import rounded
from .._types import ArrayLike


def checked_points(model: Any, process: AbstractProcess, x: ArrayLike) -> Float[Array, "n dim"]:
    """`x` as points in the precision of the model, refused where they are none."""
    points = jnp.asarray(x)
    if points.ndim != 2 or points.shape[0] == 0 or points.shape[1] == 0:
        raise ValueError(
            f"`x` must hold points, shape (n, dim), got {points.shape}; "
            "give one point as `x[None]`."
        )
    check_dims("x", points.shape[1], model)
    bad = ~jnp.isfinite(points)
    if not is_traced(bad) and bool(bad.any()):
        raise ValueError(f"`x` holds NaN or Inf in {int(bad.sum())} places.")
    check_score(model, process, points.shape[1])
    return points.astype(model_dtype(model))


def in_blocks(
    function: Callable[[Any, Array], Any],
    x: Array,
    block: int,
    name: str,
    progress: bool | None,
    mesh: Mesh | None = None,
) -> Any:
    """`function(index, points)` on blocks of points, joined; the last is padded by its last point,
    so that nothing compiles twice. With a mesh every device has a block, and every process that it
    spans the whole result."""
    n = len(x)
    block = min(block, -(-n // num_devices(mesh))) * num_devices(mesh)
    index = np.arange(-(-n // block) * block)
    padded = x[np.minimum(index, n - 1)]

    def parts() -> Iterator[Any]:
        disable = is_traced(x) or no_bar(progress)
        with tqdm(total=n, unit="point", desc=name, disable=disable) as bar:
            for first in range(0, n, block):
                part = function(index[first : first + block], padded[first : first + block])
                yield gathered(part, mesh)
                bar.update(min(block, n - first))

    with watched(mesh, "computing log densities"):
        return jax.tree.map(lambda *leaves: jnp.concatenate(leaves)[:n], *parts())


def is_traced(tree: Any) -> bool:
    """Whether a transformation is under way, so that values cannot be looked at."""
    return any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(tree) if eqx.is_array(leaf))


_SHOWN = 6


def shown_values(result: Any, error: Any, words: str = "") -> str:
    """A result at points in a line: the first values with their errors."""
    name, value = type(result).__name__, result.value
    if isinstance(value, Tracer) or not isinstance(value, np.ndarray | Array) or value.ndim != 1:
        return f"{name}({getattr(value, 'shape', '...')})"
    pairs = zip(np.asarray(value), np.asarray(error), strict=True)
    rows = [rounded(float(v), float(e)) for v, e in itertools.islice(pairs, _SHOWN)]
    more = ", ..." if len(value) > _SHOWN else ""
    return f"{name}({len(value)} points{words}: {', '.join(rows)}{more})"


def how_many(reliable: Any, method: str = "") -> str:
    """How many values should be believed, and what made them."""
    by = f" by {method}" if method else ""
    if isinstance(reliable, Tracer) or not isinstance(reliable, np.ndarray | Array):
        return by
    return f"{by}, {int(np.asarray(reliable).sum())} reliable"
