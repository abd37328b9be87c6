"""Networks for real data: what they are told, what they are made into, and that they learn."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import fpflow
from fpflow._cli import main
from fpflow._network.features import noise_ratio
from known import KINDS, OU, ROUND_OFF, mixture

X = jnp.array([0.3, -0.8])


def told(model, seed=5):
    """With every weight moved at random: layers that say nothing before training speak."""
    arrays, rest = eqx.partition(model, eqx.is_inexact_array)
    leaves, tree = jax.tree.flatten(arrays)
    keys = jr.split(jr.key(seed), len(leaves))
    moved = [a + 0.2 * jr.normal(k, a.shape, a.dtype) for a, k in zip(leaves, keys, strict=True)]
    return eqx.combine(jax.tree.unflatten(tree, moved), rest)


def small(out=None, condition_dim=0):
    return fpflow.ResidualMLP(
        2, out, width=8, depth=2, num_frequencies=3, condition_dim=condition_dim, key=jr.key(0)
    )


class Tau(eqx.Module):
    """A score that shows what time the frame gives it."""

    def score(self, tau, z):
        return jnp.full_like(z, tau)


SOME = ("ou", "vp-cosine", "edm")


@pytest.mark.parametrize(
    "process",
    [
        pytest.param(process, id=name, marks=[] if name in SOME else [pytest.mark.slow])
        for name, process in KINDS.items()
    ],
)
def test_networks_are_told_the_noise_ratio_of_every_process(process):
    """In the frame of data of width 1.3 the ratio is sigma / (1.3 alpha), but for the floor."""
    t = jnp.asarray(0.6 * process.t1)
    frame = fpflow.in_frame(Tau(), process, scale=1.3).frame
    exact = process.sigma(t) / (1.3 * process.alpha(t))
    found = noise_ratio(frame.tau(t))
    np.testing.assert_allclose(found, jnp.hypot(exact, 0.01), rtol=1e-9)
    features = fpflow.NoiseFeatures(4)
    values = features(frame.tau(t))
    assert values.shape == (features.size,) == (9,)
    np.testing.assert_allclose(values[0], jnp.log(found) / 4, rtol=1e-9)
    np.testing.assert_allclose(values[1:5] ** 2 + values[5:] ** 2, 1, rtol=1e-9)
    # The fastest turns once where the noise doubles, the slowest of four a quarter.
    double = features(jnp.log1p(4 * noise_ratio(frame.tau(t)) ** 2 - 0.01**2) / 2)
    np.testing.assert_allclose(double[4], values[4], atol=1e-6)
    np.testing.assert_allclose(double[1], -values[5], atol=1e-6)


def score_of(model, z):
    return eqx.filter_jit(lambda model, z: model.score(0.4, z))(model, z)


@pytest.mark.parametrize("out", [None, pytest.param(1, marks=pytest.mark.slow)])
def test_before_training_a_network_is_the_prior(out):
    assert fpflow.ReconstructionPotential(small()).potential(0.4, X) == -X @ X / 2
    for model in (fpflow.ScoreNetwork(small()), fpflow.PotentialNetwork(small(out))):
        for form in (model, fpflow.Preconditioned(model)):
            np.testing.assert_allclose(score_of(form, X), -X, atol=ROUND_OFF)


@pytest.mark.parametrize("out", [pytest.param(None, marks=pytest.mark.slow), 1])
def test_the_score_of_a_potential_network_is_its_gradient(out):
    """By central differences of eight digits; also in its preconditioned form."""
    plain, h = fpflow.PotentialNetwork(told(small(out))), 1e-5 * jnp.eye(2)

    @eqx.filter_jit
    def by_differences(model):
        value = jax.vmap(lambda h: model.potential(0.4, X + h))
        return (value(h) - value(-h)) / 2e-5

    whole = fpflow.ReconstructionPotential(told(small()))
    for model in (plain, fpflow.Preconditioned(plain), whole):
        np.testing.assert_allclose(score_of(model, X), by_differences(model), rtol=1e-6, atol=1e-6)


def test_preconditioning_is_that_of_edm():
    """The denoiser c_skip x + c_out F(c_in x) of Karras et al. against its score (D - x) / sigma^2."""
    process, sigma, width = fpflow.EDM(), 0.7, 1.3
    network = told(small())
    model = fpflow.in_frame(
        fpflow.Preconditioned(fpflow.ScoreNetwork(network)), process, scale=width
    )
    t = jnp.asarray(sigma)  # the time of EDM is its noise
    skip = width**2 / (sigma**2 + width**2)
    out, into = sigma * width / np.hypot(sigma, width), 1 / np.hypot(sigma, width)
    inner = network(model.frame.tau(t), into * X)
    # The floor of a hundredth of the width changes the factor by its square over that of the noise.
    factor = sigma / width / np.hypot(sigma / width, 0.01)
    denoised = skip * X + out * factor * inner
    np.testing.assert_allclose(model.score(t, X), (denoised - X) / sigma**2, rtol=1e-8)


@pytest.mark.slow
def test_an_image_is_seen_whole():
    """Every pixel that comes out depends on every one that goes in, the condition and the time."""
    network = told(fpflow.UNet((2, 4, 4), width=4, levels=1, condition_dim=3, key=jr.key(0)))
    x, c = jr.normal(jr.key(1), (32,)), jnp.ones(3)
    assert network.dim == 32 and network(0.3, x, c).shape == (32,)
    assert (jax.jit(jax.jacfwd(lambda x: network(0.3, x, c)))(x) != 0).all()
    assert (jax.jacfwd(lambda c: network(0.3, x, c))(c) != 0).all()
    assert not jnp.allclose(network(0.3, x, c), network(0.4, x, c))


@pytest.mark.slow
def test_a_network_compiles_once(compilations):
    network = fpflow.ScoreNetwork(small())
    model = fpflow.in_frame(network, OU)
    asked = {"num_steps": 4, "key": jr.key(0), "progress": False}
    fpflow.sample_sde(model, OU, 8, **asked)
    other = fpflow.in_frame(fpflow.ScoreNetwork(told(small())), OU)
    with compilations() as count:
        fpflow.sample_sde(other, OU, 8, **asked)
        assert count() == 0


@pytest.mark.slow
@pytest.mark.parametrize("kind", [fpflow.ScoreNetwork, fpflow.PotentialNetwork])
def test_a_network_learns(kind):
    """The mixture's score: the loss was .005 and .008 above that of the exact one; three times that."""
    law = mixture(2)
    network = fpflow.ResidualMLP(2, width=32, depth=2, key=jr.key(0))
    model = fpflow.in_frame(fpflow.Preconditioned(kind(network)), OU, scale=1.5)
    asked = {"num_steps": 600, "batch_size": 512, "key": jr.key(1), "progress": False}
    found = fpflow.train(model, OU, law, optimiser=fpflow.Adam(fpflow.Cosine(3e-3)), **asked).model
    excess = fpflow.excess_loss(found, OU, law, reference=law.marginal(OU), key=jr.key(2))
    assert excess.value < 0.025


@pytest.mark.slow
def test_the_command_line_trains_them(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    np.save("points.npy", np.asarray(mixture(2).sample(jr.key(0), 100)))
    short = ["--steps", "4", "--chunk", "4", "--batch-size", "16", "--width", "4", "--depth", "1"]
    for number, kind in enumerate(("residual-potential", "residual-score")):
        main(["train", "points.npy", "--run-dir", str(number), "--network", kind, *short])
        main(["sample", str(number), "-n", "5", "--steps", "4", "--out", "x.npy"])
        model = fpflow.load(f"{number}/model.fpflow").model
        assert hasattr(model, "potential") == (kind == "residual-potential")
        assert np.isfinite(np.load("x.npy")).all()
    assert main(["train", "points.npy", "--run-dir", "bare", "--network", kind, "--bare", *short])
    assert f"--network {kind} needs the prior; leave out --bare" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: fpflow.UNet((1, 3, 4), levels=1, key=jr.key(0)), r"`shape` must be \(channels, height"),
        (lambda: fpflow.Preconditioned(3), r"`model` must have a method `score\(tau, z\)`, got int"),
        (lambda: small(condition_dim=2)(0.1, X), r"`condition` must be an array of shape \(2,\) for"),
        (lambda: small()(0.1, X, X), "`condition` was given to a network that was made without"),
    ],
)  # fmt: skip
def test_bad_networks_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
