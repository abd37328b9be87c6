"""What fpflow is measured against: the same work written the usual way.

PyTorch comes with `pip install -e ".[bench]"`; rows that need it are left out where it is missing.
"""

import math
from collections.abc import Callable

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr

import fpflow

try:
    import torch
except ImportError:  # an optional dependency
    torch = None

SIZES = (3, 80, 80, 80, 1)


def torch_network():
    assert torch is not None
    layers = []
    for n_in, n_out in zip(SIZES[:-1], SIZES[1:], strict=True):
        layers += [torch.nn.Linear(n_in, n_out), torch.nn.Softplus(beta=100)]
    return torch.nn.Sequential(*layers[:-1])


def torch_training_step(num_points: int, num_collocation: int) -> Callable[[], None]:
    """The paper's loop with autograd: score matching on the mixture, the residual over the box, Adam."""
    assert torch is not None
    network = torch_network()
    optimiser = torch.optim.Adam(network.parameters(), 1e-3)
    means = torch.tensor(fpflow.datasets.gaussian_mixture().means.tolist())

    def step() -> None:
        optimiser.zero_grad()
        x0 = means[torch.randint(9, (num_points,))] + math.sqrt(0.0845) * torch.randn(num_points, 2)
        t = 10 * (1 - torch.rand(num_points, 1).sqrt()) + 1e-5
        std, noise = torch.sqrt(-torch.expm1(-2 * t) / 2), torch.randn(num_points, 2)
        x = (torch.exp(-t) * x0 + std * noise).requires_grad_()
        potential = network(torch.cat([t, x], 1)).sum()
        (score,) = torch.autograd.grad(potential, x, create_graph=True)
        loss = ((score + noise / std) ** 2).mean()
        x = (7 * torch.rand(num_collocation, 2) - 3.5).requires_grad_()
        t = (10 * torch.rand(num_collocation, 1)).requires_grad_()
        potential = network(torch.cat([t, x], 1)).sum()
        motion, score = torch.autograd.grad(potential, (t, x), create_graph=True)
        rows = [torch.autograd.grad(score[:, i].sum(), x, create_graph=True)[0] for i in range(2)]
        spread = sum(row[:, i] for i, row in enumerate(rows))
        transport = (x * score).sum(1) + (score**2).sum(1) / 2 + spread / 2
        residual = motion[:, 0] - 2 - transport
        (loss + 0.1 * (residual**2).mean()).backward()
        optimiser.step()

    return step


def torch_sampler(num_samples: int, num_steps: int, law: str) -> Callable[[], None]:
    """Euler steps of either equation, the score by autograd."""
    assert torch is not None
    network = torch_network()
    times = fpflow.OrnsteinUhlenbeck().t1 * (1 - torch.linspace(0, 1, num_steps + 1)) ** 3

    def sample() -> None:
        x = torch.randn(num_samples, 2) / math.sqrt(2)
        for before, now in zip(times[:-1], times[1:], strict=True):
            x = x.detach().requires_grad_()
            t = torch.full((num_samples, 1), float(before))
            (score,) = torch.autograd.grad(network(torch.cat([t, x], 1)).sum(), x)
            h = before - now
            if law == "ode":
                x = x + h * (x + score / 2)
            else:
                x = x + h * (x + score) + h.sqrt() * torch.randn(num_samples, 2)

    return sample


class Automatic(eqx.Module):
    """The same network, its score by `jax.grad` of one point."""

    network: fpflow.PotentialMLP

    def score(self, t, x):
        return jax.grad(lambda x: self.network.potential(t, x))(x)


def diffrax_sampler(model, num_samples: int, num_steps: int) -> Callable[[], jax.Array]:
    """The probability-flow ODE as diffrax's documentation has it: one solve a sample, mapped."""
    process = fpflow.OrnsteinUhlenbeck()

    @eqx.filter_jit
    def sample(model, key):
        def one(key):
            term = diffrax.ODETerm(lambda t, x, _: -x - model.score(t, x) / 2)
            solution = diffrax.diffeqsolve(
                term, diffrax.Euler(), process.t1, process.t0, -process.t1 / num_steps,
                process.prior.sample(key, (2,)), adjoint=diffrax.ForwardMode(),
            )  # fmt: skip
            return solution.ys[-1]  # pyright: ignore

        return jax.vmap(one)(jr.split(key, num_samples))

    return lambda: jax.block_until_ready(sample(model, jr.key(0)))


def scan_sampler(model, num_samples: int, num_steps: int, law: str) -> Callable[[], jax.Array]:
    """A loop by hand: `lax.scan` over Euler steps of all samples, keys folded by step."""
    process = fpflow.OrnsteinUhlenbeck()
    times = jnp.asarray(process.t1 * (1 - jnp.linspace(0, 1, num_steps + 1)) ** 3)

    @eqx.filter_jit
    def sample(model, key):
        x = process.prior.sample(key, (num_samples, 2))

        def step(x, row):
            t, now, index = row
            h, score = t - now, model.score(t, x)
            if law == "ode":
                return x + h * (x + score / 2), None
            noise = jr.normal(jr.fold_in(key, index), x.shape)
            return x + h * (x + score) + jnp.sqrt(h) * noise, None

        return jax.lax.scan(step, x, (times[:-1], times[1:], jnp.arange(num_steps)))[0]

    return lambda: jax.block_until_ready(sample(model, jr.key(0)))
