"""The posterior of a simulator, and how close it is to the exact one.

A linear simulator with Gaussian noise has a Gaussian posterior. One network learns the posterior of
every observation. At 200 observations, the mean and covariance of its samples are compared with the
exact ones.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

import fpflow

MIX = jnp.array([[1.0, 0.5], [-0.3, 0.8]])
NOISE = 0.5


class Simulator(eqx.Module):
    """Pairs (x, y) of parameters x ~ N(0, I) and observations y = M x + noise."""

    def sample(self, key, n):
        """Parameters and observations, shapes `(n, 2)`."""
        key_x, key_y = jr.split(key)
        x = jr.normal(key_x, (n, 2))
        return x, x @ MIX.T + NOISE * jr.normal(key_y, (n, 2))


def exact(y):
    """Mean and covariance of x given y."""
    covariance = np.linalg.inv(np.eye(2) + MIX.T @ MIX / NOISE**2)
    return y @ (covariance @ MIX.T / NOISE**2).T, covariance


def main(num_steps: int = 4000, num_observations: int = 200, num_samples: int = 4000):
    process = fpflow.VariancePreserving()
    model = fpflow.PotentialMLP(2, condition_dim=2, prior=process.prior, key=jr.key(0))
    model = fpflow.train(model, process, Simulator(), num_steps=num_steps, key=jr.key(1)).model

    _, y = Simulator().sample(jr.key(2), num_observations)

    @jax.jit
    def moments(y, key):
        x = fpflow.sample_ode(
            fpflow.given(model, y), process, num_samples, num_steps=25, progress=False, key=key
        )
        return x.mean(0), jnp.cov(x.T)

    # One condition at a time keeps memory small; all conditions share one compiled function.
    means, covariances = (
        np.stack(part)
        for part in zip(*map(moments, y, jr.split(jr.key(3), num_observations)), strict=True)
    )
    mean, covariance = exact(np.asarray(y))
    off = np.abs(means - mean) / np.sqrt(np.diag(covariance))
    spread = np.linalg.norm(covariances - covariance, axis=(1, 2)) / np.linalg.norm(covariance)
    good = (off.max(1) < 0.1) & (spread < 0.1)
    print(
        f"{good.mean():.1%} of {num_observations} posteriors have their mean within 0.1 standard "
        f"deviations (95% of them within {np.quantile(off.max(1), 0.95):.3f}) and their covariance "
        f"within 10% (95% within {np.quantile(spread, 0.95):.3f})"
    )
    return good.mean()


if __name__ == "__main__":
    main()
