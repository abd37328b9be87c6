"""Where did a path start? The reverse SDE answers, and the ODE cannot.

Run from one observed end, the reverse SDE of a process draws its start given that end: the path measure
is the same in both directions of time (the HJ-sampler of Meng et al. 2024, arXiv 2409.09614, solves a
Hamilton-Jacobi equation for the same score). The probability-flow ODE has the same marginals and sends
every end to a single start. With the score learned from draws of the start alone, both are compared
with the exact posterior, for Gaussian data (linear regression) and for a mixture (two modes). Takes a
minute.
"""

import jax.numpy as jnp
import jax.random as jr
import numpy as np

import fpflow

process = fpflow.OrnsteinUhlenbeck(t1=0.7)
# Means and covariances of the components of the start.
STARTS = {
    "Gaussian": ([[0.5, 0.0]], [[[1.0, 0.6], [0.6, 0.8]]]),
    "mixture": ([[-1.2, 0.0], [1.2, 0.4]], [0.1 * np.eye(2)] * 2),
}
OBSERVED = np.array([0.1, 0.4])


def posterior(start, y):
    """Weights, means and covariances of the start at $t_0$ given the end, component by component, all
    components equally likely before."""
    alpha, sigma = (
        np.array([float(part(t)) for t in (process.t0, process.t1)])
        for part in (process.alpha, process.sigma)
    )
    a = alpha[1] / alpha[0]
    noise = (sigma[1] ** 2 - (a * sigma[0]) ** 2) * np.eye(2)
    weights, means, covariances = [], [], []
    for m, s in zip(*start, strict=True):
        m, s = alpha[0] * np.asarray(m), alpha[0] ** 2 * np.asarray(s) + sigma[0] ** 2 * np.eye(2)
        whole = a**2 * s + noise
        gain = a * s @ np.linalg.inv(whole)
        miss = y - a * m
        evidence = np.exp(-miss @ np.linalg.solve(whole, miss) / 2) / np.linalg.det(whole) ** 0.5
        weights.append(evidence)
        means.append(m + gain @ miss)
        covariances.append(s - a * gain @ s)
    return np.array(weights) / np.sum(weights), np.array(means), np.array(covariances)


def main(num_steps: int = 3000, num_samples: int = 20_000, key=jr.key(0)):  # noqa: B008
    rows = {}
    for name, start in STARTS.items():
        law = fpflow.datasets.GaussianMixture(*start)
        keys = jr.split(key, 3)
        model = fpflow.PotentialMLP(2, prior=None, key=keys[0])
        model = fpflow.train(model, process, law, num_steps=num_steps, key=keys[1]).model
        ends = jnp.broadcast_to(jnp.asarray(OBSERVED, jnp.float32), (num_samples, 2))
        drawn, _ = fpflow.SDE(num_steps=200)(model, process, ends, key=keys[2])
        sent, _ = fpflow.ODE()(model, process, ends[:2], key=keys[2])
        weights, means, covariances = posterior(start, OBSERVED)
        mean = weights @ means
        apart = means - mean
        spread = np.einsum("k,kij->ij", weights, covariances + apart[:, :, None] * apart[:, None])
        rows[name] = {
            "exact": (mean, spread),
            "SDE": (np.mean(drawn, 0), np.cov(np.asarray(drawn).T)),
            "ODE": (np.mean(sent, 0), np.cov(np.asarray(sent).T)),
        }
    return rows


if __name__ == "__main__":
    np.set_printoptions(precision=3, suppress=True)
    for name, found in main().items():
        print(f"{name}: the start of a path that ended at {OBSERVED}")
        for law, (mean, covariance) in found.items():
            print(f"  {law:6} mean {mean}, covariance {np.ravel(covariance)[[0, 1, 3]]}")
