"""Soap against Adam, where both must agree and where their difference is known."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

import fpflow

OU = fpflow.OrnsteinUhlenbeck()


def run(optimiser, gradient_of, start, steps, rate):
    def step(carry, _):
        params, state = carry
        update, state = optimiser.update(gradient_of(params), state)
        params = jax.tree.map(lambda p, u: p - rate * u, params, update)
        return (params, state), None

    return jax.lax.scan(step, (start, optimiser.init(start)), None, length=steps)[0][0]


def test_without_axes_soap_is_adam():
    """Vectors, and sides longer than `largest`, are stepped as by Adam of the same memories."""
    start = {"w": jr.normal(jr.key(0), (5, 7)), "b": jr.normal(jr.key(1), (5,))}
    gradient = jax.grad(lambda p: jnp.sum(jnp.sin(p["w"])) + jnp.sum(p["b"] ** 4))
    plain = run(fpflow.Adam(0.9, 0.99), gradient, start, 20, 1e-2)
    for largest in (4, 6):
        soap = run(fpflow.Soap(0.9, 0.99, largest=largest), gradient, start, 20, 1e-2)
        np.testing.assert_allclose(soap["b"], plain["b"], rtol=1e-12)
        same = np.allclose(soap["w"], plain["w"], rtol=1e-12)
        assert same == (largest == 4)  # at 6 the side of five has axes


def test_the_axes_are_the_eigenvectors_of_the_covariances():
    """Gradients A Z B with noise Z have E G G^T = |B|^2 A A^T and E G^T G = |A|^2 B^T B."""
    soap = fpflow.Soap(memory=0.9995, every=5)
    a, b = (jr.normal(jr.key(k), (4, 4)) for k in (0, 1))
    state = soap.init(jnp.zeros((4, 4)))

    def step(state, key):
        return soap.update(a @ jr.normal(key, (4, 4)) @ b, state)[1], None

    state = jax.lax.scan(step, state, jr.split(jr.key(2), 10_000))[0]
    for axes, covariance in zip(state.axes[0], (a @ a.T, b.T @ b), strict=True):
        np.testing.assert_allclose(axes.T @ axes, np.eye(4), atol=1e-12)
        turned = np.asarray(axes.T @ covariance @ axes)
        scale = np.sqrt(np.outer(np.diag(turned), np.diag(turned)))
        # A memory of 2000 gradients of four columns knows the covariance to about one per cent.
        assert np.abs(turned / scale - np.eye(4)).max() < 0.1


def test_soap_does_not_mind_a_turned_valley():
    """On ||A (W - W*) B||^2 with condition 1e4 and axes far from the coordinates' Adam crawls."""

    def rotation(key):
        return jnp.linalg.qr(jr.normal(key, (6, 6)))[0]

    scales = jnp.geomspace(1, 1e-2, 6)
    a = rotation(jr.key(0)) * scales @ rotation(jr.key(1))
    b = rotation(jr.key(2)) * scales @ rotation(jr.key(3))
    target = jr.normal(jr.key(4), (6, 6))
    loss = lambda w: jnp.sum((a @ (w - target) @ b) ** 2)
    start = jnp.zeros((6, 6))
    ends = [
        float(loss(run(optimiser, jax.grad(loss), start, 1000, 1e-2)))
        for optimiser in (fpflow.Adam(0.95, 0.95), fpflow.Soap())
    ]
    assert ends[1] < 0.2 * ends[0]


def test_training_with_soap_learns_and_repeats():
    data = fpflow.datasets.GaussianMixture([[0.0, 0.0]], 0.5)
    model = fpflow.PotentialMLP(2, width=16, depth=2, prior=None, key=jr.key(0))
    runs = [
        fpflow.train(
            model, OU, data, num_steps=200, batch_size=256, optimiser=fpflow.Soap(), chunk=chunk,
            schedule=fpflow.Cosine(peak=1e-2), key=jr.key(1),
        )
        for chunk in (100, 50)
    ]  # fmt: skip
    # The best possible loss is 1.08; the first fifty steps have 3.0 on average.
    assert runs[0].history.dsm[-1] < 0.85 * runs[1].history.dsm[0]
    np.testing.assert_array_equal(
        runs[0].model.network.weights[1], runs[1].model.network.weights[1]
    )
