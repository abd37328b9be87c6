"""Posteriors of four simulators, compared with published ones.

The tasks are those of sbibm, whose wheel contains ten observations and 10,000 samples of the true
posterior for each. One network learns the posteriors of all observations from 10,000 simulations.
Parameters in a box are learnt as logits, so that no sample leaves the prior; positive parameters are
learnt as logarithms.

- *C2ST*: how often a classifier correctly tells samples from those of the true posterior; 0.5 is
  chance.
- *MMD²*: an unbiased estimate of the squared maximum mean discrepancy to those samples, so that it is
  negative about as often as not for equal distributions, with the kernel of a Gaussian as wide as the
  median distance of the true samples.
- *log Z*: the evidence from weighted samples, using the density of the sampler that drew them.
- *KL*: from the true posterior to the sampler's distribution, in nats, where the evidence is known.
- *calibration*: two hundred observations of parameters drawn from the prior. If the posterior is
  right, the rank of the true parameters' log density among those of the samples is uniform. Noise in
  the log density does not change this, so eight paths per point suffice.

```sh
pip install --no-deps sbibm==1.1.0
pip install scikit-learn
python docs/examples/simulators.py
```
"""

import bz2
import importlib.util
import pathlib

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax.scipy.special import logsumexp
from jax.scipy.stats import multivariate_normal, norm
from scipy.spatial.distance import cdist, pdist
from sklearn.model_selection import KFold, cross_val_score
from sklearn.neural_network import MLPClassifier

import fpflow

process = fpflow.VariancePreserving()


class Simulator(eqx.Module):
    """Parameters and an observation for each, in the variables that the network sees."""

    def sample(self, key, n):
        key_prior, key_noise = jr.split(key)
        x = self.prior(key_prior, n)
        return x, jax.vmap(self.simulate)(jr.split(key_noise, n), x)

    def transform(self, x):
        return fpflow.Standardise.of(x)

    def log_evidence(self, y):
        """The log evidence, if it is known."""
        return None

    def published(self, number):
        """An observation, and samples of its true posterior."""
        root = importlib.util.find_spec("sbibm").submodule_search_locations[0]
        folder = pathlib.Path(root) / "tasks" / self.name / f"files/num_observation_{number}"
        y = np.loadtxt(folder / "observation.csv", delimiter=",", skiprows=1)
        with bz2.open(folder / "reference_posterior_samples.csv.bz2", "rt") as file:
            return y, np.loadtxt(file, delimiter=",", skiprows=1)


class Boxed(Simulator):
    """A simulator with a uniform prior on a box around zero."""

    def prior(self, key, n):
        return jr.uniform(key, (n, self.dim), minval=-self.bound, maxval=self.bound)

    def log_prior(self, x):
        inside = (jnp.abs(x) < self.bound).all()
        return jnp.where(inside, -self.dim * jnp.log(2 * self.bound), -jnp.inf)

    def transform(self, x):
        box = fpflow.Logit([-self.bound] * self.dim, [self.bound] * self.dim)
        return fpflow.Compose(box, fpflow.Standardise.of(jax.vmap(box.forward)(x)))


class GaussianLinear(Simulator):
    """x ~ N(0, I/10) in ten dimensions, y ~ N(x, I/10)."""

    name, dim, width = "gaussian_linear", 10, 0.1**0.5

    def prior(self, key, n):
        return self.width * jr.normal(key, (n, 10))

    def simulate(self, key, x):
        return x + self.width * jr.normal(key, (10,))

    def log_joint(self, x, y):
        return (norm.logpdf(x, 0, self.width) + norm.logpdf(y, x, self.width)).sum()

    def log_evidence(self, y):
        return norm.logpdf(y, 0, 2**0.5 * self.width).sum()


class TwoMoons(Boxed):
    """A noisy half circle, shifted by the parameters; the posterior consists of two crescents."""

    name, dim, bound = "two_moons", 2, 1.0

    def _moved(self, x):
        return jnp.stack([0.25 - jnp.abs(x[0] + x[1]) / 2**0.5, (x[1] - x[0]) / 2**0.5])

    def simulate(self, key, x):
        key_angle, key_radius = jr.split(key)
        angle = jnp.pi * (jr.uniform(key_angle) - 0.5)
        radius = 0.1 + 0.01 * jr.normal(key_radius)
        return self._moved(x) + radius * jnp.stack([jnp.cos(angle), jnp.sin(angle)])

    def log_joint(self, x, y):
        u = y - self._moved(x)
        radius = jnp.hypot(*u)
        seen = norm.logpdf(radius, 0.1, 0.01) - jnp.log(jnp.pi * radius)
        return jnp.where(u[0] > 0, seen, -jnp.inf) + self.log_prior(x)

    def log_evidence(self, y):
        """The midpoint rule on a lattice finer than the crescents."""
        line = (jnp.arange(4000) + 0.5) / 2000 - 1
        row = lambda a: logsumexp(jax.vmap(lambda b: self.log_joint(jnp.stack([a, b]), y))(line))
        return logsumexp(jax.lax.map(row, line)) - 2 * jnp.log(2000.0)


class SLCP(Boxed):
    """Four points of a Gaussian in the plane, given by its mean and the roots of its deviations."""

    name, dim, bound = "slcp", 5, 3.0

    def _law(self, x):
        a, b, rho = x[2] ** 2, x[3] ** 2, jnp.tanh(x[4])
        return x[:2], jnp.array([[a**2, rho * a * b], [rho * a * b, b**2]]) + 1e-6 * jnp.eye(2)

    def simulate(self, key, x):
        # Deviations reach nine, but the network should see numbers of order one.
        return jnp.arcsinh(jr.multivariate_normal(key, *self._law(x), (4,)).ravel())

    def log_joint(self, x, y):
        seen = multivariate_normal.logpdf(jnp.sinh(y).reshape(4, 2), *self._law(x))
        return (seen + jnp.log(jnp.cosh(y)).reshape(4, 2).sum(1)).sum() + self.log_prior(x)

    def published(self, number):
        y, x = super().published(number)
        return np.arcsinh(y), x


class LotkaVolterra(Simulator):
    """Predators and prey at ten times, all in logarithms."""

    name, dim, centre = "lotka_volterra", 4, (-0.125, -3.0, -0.125, -3.0)

    def prior(self, key, n):
        return jnp.array(self.centre) + 0.5 * jr.normal(key, (n, 4))

    def _means(self, x):
        a, b, c, d = jnp.exp(x)
        rates = lambda t, u, _: jnp.stack([a - b * jnp.exp(u[1]), d * jnp.exp(u[0]) - c])
        found = diffrax.diffeqsolve(
            diffrax.ODETerm(rates),
            diffrax.Tsit5(),
            t0=0.0,
            t1=19.0,
            dt0=0.05,
            y0=jnp.log(jnp.array([30.0, 1.0])),
            saveat=diffrax.SaveAt(ts=2.1 * jnp.arange(10)),
            # Longer steps overshoot to infinite numbers of prey, from which there is no way back.
            stepsize_controller=diffrax.PIDController(rtol=1e-5, atol=1e-5, dtmax=1.0),
        )
        return found.ys.T.ravel()

    def simulate(self, key, x):
        return self._means(x) + 0.1 * jr.normal(key, (20,))

    def log_joint(self, x, y):
        prior = norm.logpdf(x, jnp.array(self.centre), 0.5).sum()
        return prior + norm.logpdf(y, self._means(x), 0.1).sum()

    def published(self, number):
        return tuple(map(np.log, super().published(number)))


TASKS = {task.name: task for task in (TwoMoons(), GaussianLinear(), SLCP(), LotkaVolterra())}


def learnt(task, num_simulations, num_steps):
    """One network for the posteriors of all observations."""
    x, y = task.sample(jr.key(0), num_simulations)
    network = fpflow.ResidualMLP(
        task.dim, width=64, depth=3, condition_dim=y.shape[1], key=jr.key(1)
    )
    model = fpflow.Transformed(
        fpflow.in_frame(fpflow.Preconditioned(fpflow.ScoreNetwork(network)), process),
        task.transform(x),
        condition_transform=fpflow.Standardise.of(y),
    )
    return fpflow.train(
        model,
        process,
        fpflow.datasets.Points(x, y),
        validation=0.1,
        patience=max(num_steps // 4, 1),
        optimiser=fpflow.Adam(fpflow.Cosine(1e-3)),
        num_steps=num_steps,
        batch_size=256,
        key=jr.key(2),
    ).model


def c2st(one, other):
    """The accuracy of a small network in five folds, as sbibm measures it."""
    both = np.concatenate([one, other])
    both = (both - one.mean(0)) / one.std(0, ddof=1)
    side = np.repeat([0, 1], [len(one), len(other)])
    layers = (10 * one.shape[1],) * 2
    network = MLPClassifier(layers, max_iter=10_000, random_state=1)
    folds = KFold(5, shuffle=True, random_state=1)
    return cross_val_score(network, both.astype(np.float32), side, cv=folds).mean()


def mmd_squared(one, other, groups=10):
    """The unbiased estimate in each of ten groups of samples, and the standard error of their mean."""
    width = np.median(pdist(one[:1000]))
    found = []
    for x, y in zip(np.array_split(one, groups), np.array_split(other, groups), strict=True):
        within = [np.exp(-((pdist(z) / width) ** 2) / 2).mean() for z in (x, y)]
        found.append(sum(within) - 2 * np.exp(-((cdist(x, y) / width) ** 2) / 2).mean())
    return fpflow.Estimate(float(np.mean(found)), float(np.std(found, ddof=1)) / groups**0.5)


def judged(task, model, number, num_samples, num_weighted):
    """Both samplers at one published observation."""
    y, reference = task.published(number)
    y, posterior = jnp.asarray(y, float), fpflow.given(model, y)
    target = lambda x: task.log_joint(x, y)
    log_z = task.log_evidence(y)
    some = jnp.asarray(reference[:num_weighted], float)
    densities = {
        "SDE": (fpflow.SDE(), lambda: fpflow.log_prob_sde(posterior, process, some, key=jr.key(5))),
        "ODE": (fpflow.ODE(), lambda: fpflow.log_prob_ode(posterior, process, some)),
    }
    for law, (sampler, at_reference) in densities.items():
        key_draw, key_weigh = jr.split(jr.key(number))
        x = fpflow.sample(sampler, posterior, process, num_samples, key=key_draw)
        sets = reference[:num_samples], np.asarray(x)
        weighed = fpflow.importance_sample(
            posterior, process, target, num_weighted, sampler=sampler, key=key_weigh
        )
        line = (
            f"{task.name} {number} {law}: C2ST {c2st(*sets):.3f}, MMD² {mmd_squared(*sets)}, "
            f"log Z {weighed.log_z}, {weighed.effective_sample_size / num_weighted:.0%} effective, "
            f"k {weighed.pareto_k:.2f}"
        )
        if log_z is not None:
            nats = jax.vmap(target)(some) - log_z - at_reference().value
            kl = fpflow.Estimate(float(nats.mean()), float(nats.std()) / num_weighted**0.5)
            line += f"; exact log Z {log_z:.3f}, KL {kl}"
        print(line, flush=True)


def calibration(task, model, num_observations, num_draws=19):
    """How far the ranks of true parameters are from uniform, and the 99 % bound for uniform ones."""
    x, y = task.sample(jr.key(3), num_observations)
    ranks = []
    for i, key in enumerate(jr.split(jr.key(4), num_observations)):
        key_draw, key_density, key_anchor = jr.split(key, 3)
        posterior = fpflow.given(model, y[i])
        draws = fpflow.sample_sde(posterior, process, num_draws, key=key_draw)
        both = jnp.concatenate([x[i][None], draws])
        density = fpflow.log_prob_sde(posterior, process, both, num_paths=8, key=key_density)
        anchor = task.prior(key_anchor, 1)
        seen = jnp.column_stack([density.value, jnp.linalg.norm(both - anchor, axis=1), both])
        ranks.append((seen[1:] < seen[0]).sum(0))
    below = np.arange(num_draws + 1)
    share = (np.stack(ranks)[:, None] <= below[:, None]).mean(0)
    off = np.abs(share - (below[:, None] + 1) / (num_draws + 1)).max(0)
    return off, 1.63 / num_observations**0.5


def main(
    name: str = "two_moons",
    numbers=(1, 2, 3),
    num_simulations: int = 10_000,
    num_steps: int = 8000,
    num_samples: int = 10_000,
    num_weighted: int = 200,
    num_observations: int = 200,
):
    task = TASKS[name]
    model = learnt(task, num_simulations, num_steps)
    for number in numbers:
        judged(task, model, number, num_samples, num_weighted)
    off, most = calibration(task, model, num_observations)
    print(
        f"{name}: ranks are off by {off[0]:.3f} (log p_SDE), {off[1]:.3f} (distances from a point) and "
        f"at most {off[2:].max():.3f} (parameters); below {most:.3f} for 99 % of calibrated posteriors"
    )
    return off / most


if __name__ == "__main__":
    for task in TASKS:
        main(task)
