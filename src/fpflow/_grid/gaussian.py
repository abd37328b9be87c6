"""The masses that a distribution has in cells and in their images."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtr
from jaxtyping import Array, Float


def _rule(order: int) -> np.ndarray:
    """Nodes and weights of Gauss--Legendre on [0, 1], shape `(order, 2)`."""
    nodes, weights = np.polynomial.legendre.leggauss(order)
    return np.stack([nodes + 1, weights], axis=1) / 2


# Twenty nodes give Owen's T to round-off; a side takes more, since it may be as long as the Gaussian
# is wide.
_OWEN, _SIDE = _rule(20).tolist(), _rule(32).tolist()
# Where the standard normal density is below 1e-17.
_FAR = 9.0


def owens_t(h: Array, slope: Array) -> Array:
    r"""Owen's $T(h, a) = \tfrac1{2\pi}\int_0^a e^{-h^2(1 + x^2)/2} / (1 + x^2)\,dx$ for $h \ge 0$."""
    size = jnp.abs(slope)
    flat = size <= 1
    # T(h, a) + T(ah, 1/a) = (Q(h) + Q(ah)) / 2 - Q(h) Q(ah) for a > 0, with Q the upper tail.
    far = h * size
    height, top = jnp.where(flat, h, far), jnp.where(flat, size, 1 / jnp.maximum(size, 1))
    half, product = height**2 / 2, 0.0
    for node, weight in _OWEN:
        square = 1 + (top * node) ** 2
        product = product + weight * jnp.exp(-half * square) / square
    inner = top * product / (2 * jnp.pi)
    near, beyond = ndtr(-h), ndtr(-far)
    return jnp.sign(slope) * jnp.where(flat, inner, (near + beyond) / 2 - near * beyond - inner)


def gaussian_over_intervals(ends: Float[Array, "ends 1"]) -> Float[Array, " cells"]:
    """The standard normal distribution over intervals, signed."""
    return jnp.diff(ndtr(ends[:, 0]))


@jax.custom_jvp
def gaussian_over_quadrilaterals(z: Float[Array, "rows columns 2"]) -> Float[Array, "..."]:
    """The standard normal distribution over the quadrilaterals of a grid, signed: from that over the
    triangles of each side and the origin, for neighbours share their sides."""
    return _around(_at_origin(z[:-1], z[1:]), _at_origin(z[:, :-1], z[:, 1:]))


@gaussian_over_quadrilaterals.defjvp
def _moved(primals, tangents):
    (z,), (dz,) = primals, tangents
    along = _swept(z[:-1], z[1:], dz[:-1], dz[1:])
    across = _swept(z[:, :-1], z[:, 1:], dz[:, :-1], dz[:, 1:])
    return gaussian_over_quadrilaterals(z), _around(along, across)


def _around(along, across):
    """Sums around each quadrilateral of what belongs to its sides."""
    return along[:, :-1] + across[1:] - along[:, 1:] - across[:-1]


def _side(p, q):
    """The length and direction of a side, and where its ends lie along it."""
    side = q - p
    # Divides, and its square does not vanish.
    length = jnp.maximum(jnp.sqrt((side**2).sum(-1)), jnp.finfo(p.dtype).tiny ** 0.4)
    unit = side / length[..., None]
    return length, unit, [(point * unit).sum(-1) for point in (p, q)]


def _cross(p, q):
    return p[..., 0] * q[..., 1] - p[..., 1] * q[..., 0]


def _at_origin(p, q):
    r"""The standard normal distribution over the triangle $0pq$, signed.

    In polar coordinates $\tfrac{1}{2\pi}\int (1 - e^{-h^2/2\cos^2\theta})\,d\theta$, with the side's
    distance $h$ from the origin: an angle and two of Owen's $T$.
    """
    length, _, ends = _side(p, q)
    cross = _cross(p, q)
    h = jnp.maximum(jnp.abs(cross) / length, jnp.finfo(p.dtype).tiny ** 0.4)
    angle = jnp.arctan2(jnp.abs(cross), (p * q).sum(-1)) / (2 * jnp.pi)
    return jnp.sign(cross) * (angle - owens_t(h, ends[1] / h) + owens_t(h, ends[0] / h))


def _swept(p, q, dp, dq):
    """The mass that a side sweeps as its ends move, to first order: derivatives of the triangles
    themselves are singular where a side passes through the origin."""
    length, unit, (start, stop) = _side(p, q)
    low, high = jnp.clip(start, -_FAR, _FAR), jnp.clip(stop, -_FAR, _FAR)
    height, first, last = _cross(p, unit), _cross(dp, unit), _cross(dq, unit)
    total = 0.0
    for node, weight in _SIDE:
        place = low + (high - low) * node
        share = (place - start) / length
        density = jnp.exp(-(height**2 + place**2) / 2) / (2 * jnp.pi)
        total = total + weight * density * (first + share * (last - first))
    return (high - low) * total
