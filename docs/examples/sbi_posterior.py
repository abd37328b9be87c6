"""A posterior of sbi: whose density is its `log_prob`?

By default sbi's NPSE samples with the reverse SDE, but its `log_prob` is the density of the
probability-flow ODE: these are two distributions. Here NPSE learns two moons from 10,000 simulations,
as in its tutorial. fpflow uses the network as it is and computes the density of the sampler that ran,
499 Euler–Maruyama steps. The exact evidence shows which density belongs to the samples: with sbi's
`log_prob` the samples' log Z is 0.9 too high, and no Pareto k warns; with their own density it is right
to its error of 0.09. The price is time: 256 paths per point. (The run shared two cores with others.)

```sh
pip install sbi && python docs/examples/sbi_posterior.py
```
"""

import time

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import torch
from sbi.inference import NPSE
from sbi.utils import BoxUniform
from simulators import TwoMoons

import fpflow

task = TwoMoons()


def learnt(num_simulations: int):
    """The steps of sbi: a prior, simulations, a network."""
    torch.manual_seed(0)
    x, y = (torch.tensor(np.asarray(part)) for part in task.sample(jr.key(0), num_simulations))
    trainer = NPSE(prior=BoxUniform(-torch.ones(2), torch.ones(2)), show_progress_bars=False)
    return trainer, trainer.append_simulations(x.float(), y.float()).train()


def brought_in(network, y, num_steps: int):
    """The network and the sampler of sbi in terms of fpflow."""
    start, growth = network.t_min, network.sigma_max / network.sigma_min
    schedule = fpflow.GeometricNoise(
        network.sigma_min * growth**start, network.sigma_max * growth**start
    )
    process = fpflow.VarianceExploding(schedule, t0=start, t1=network.t_max)

    @torch.no_grad()
    def score(t, x):
        t, x = (torch.tensor(part).float() for part in (t, x))
        return network.score(x, y, t).reshape(x.shape)

    times = np.linspace(network.t_max, start, num_steps)
    chain = fpflow.EulerMaruyama(step_grid=times, quiet_end=False)
    return fpflow.from_callback(score, dim=2), process, chain


def timed(function):
    start = time.perf_counter()
    found = function()
    return found, time.perf_counter() - start


def main(num_simulations: int = 10_000, num_samples: int = 1000, num_points: int = 100):
    trainer, network = learnt(num_simulations)
    y, _ = task.published(1)
    seen = torch.tensor(y)[None].float()
    target = jax.vmap(lambda x: task.log_joint(x, jnp.asarray(y)))
    log_z = task.log_evidence(jnp.asarray(y))
    rows = []
    for law in ("sde", "ode"):
        posterior = trainer.build_posterior(network, sample_with=law)
        x = posterior.sample((num_samples,), x=seen, show_progress_bars=False)
        log_p, seconds = timed(lambda: posterior.log_prob(x, x=seen))  # noqa: B023
        rows.append((law, "log_prob of sbi", np.asarray(x), np.asarray(log_p), seconds))
    x = rows[0][2][:num_points]
    model, process, chain = brought_in(network, seen, num_steps=500)
    asked = {"num_paths": 256, "key": jr.key(1)}
    own, seconds = timed(lambda: fpflow.log_prob_chain(chain, model, process, x, **asked))
    rows.append(("sde", "log_prob_chain", x, np.asarray(own.value), seconds))

    print(
        "samples  density            points    log Z - exact   Pareto k   seconds per 1000 points"
    )
    for law, name, x, log_p, seconds in rows:
        log_w = np.asarray(target(jnp.asarray(x))) - log_p
        w = np.exp(log_w - log_w.max())
        off = np.log(w.mean()) + log_w.max() - float(log_z)
        error = w.std() / w.mean() / len(w) ** 0.5
        k = fpflow.pareto_k(jnp.asarray(log_w))
        print(
            f"{law}      {name:17} {len(x):7}   {fpflow.Estimate(off, error)!s:>14}   {float(k):8.2f}"
            f"   {1000 * seconds / len(x):8.0f}"
        )
    nats = rows[0][3][:num_points] - rows[2][3]
    apart = fpflow.Estimate(float(nats.mean()), float(nats.std()) / num_points**0.5)
    side = "above" if apart.value > 0 else "below"
    print(
        f"At samples of the SDE, log_prob of sbi is {fpflow.Estimate(abs(apart.value), apart.error)} "
        f"nats {side} their own log density on average, and {np.abs(nats).mean():.2f} away from it."
    )
    return rows


if __name__ == "__main__":
    main()
