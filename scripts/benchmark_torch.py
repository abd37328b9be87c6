# pyright: reportMissingImports=false
"""The paper's training step and sampler in plain PyTorch, derivatives by autograd."""

import itertools
import math
from collections.abc import Callable

import torch

import fpflow

SIZES = (3, 80, 80, 80, 1)


def network_of():
    layers = []
    for n_in, n_out in itertools.pairwise(SIZES):
        layers += [torch.nn.Linear(n_in, n_out), torch.nn.Softplus(beta=100)]
    return torch.nn.Sequential(*layers[:-1])


def training_step(num_points: int, num_collocation: int) -> Callable[[], None]:
    """The paper's loop with autograd: score matching on the mixture, the residual over the box, Adam."""
    network = network_of()
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


def sampler(num_samples: int, num_steps: int, law: str) -> Callable[[], None]:
    """Euler steps of either equation, the score by autograd."""
    network = network_of()
    times = fpflow.OrnsteinUhlenbeck().t1 * (1 - torch.linspace(0, 1, num_steps + 1)) ** 3

    def sample() -> None:
        x = torch.randn(num_samples, 2) / math.sqrt(2)
        for before, now in itertools.pairwise(times):
            x = x.detach().requires_grad_()
            t = torch.full((num_samples, 1), float(before))
            (score,) = torch.autograd.grad(network(torch.cat([t, x], 1)).sum(), x)
            h = before - now
            if law == "ode":
                x = x + h * (x + score / 2)
            else:
                x = x + h * (x + score) + h.sqrt() * torch.randn(num_samples, 2)

    return sample
