"""A score from outside: the gap report on a noise-predicting network written without fpflow.

    python docs/examples/score_from_outside.py

The network uses plain jax and optax, and is trained on two moons as in denoising diffusion models. You
only tell fpflow the noising process and what the network predicts.
"""

import itertools

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax

import fpflow

process = fpflow.OrnsteinUhlenbeck(t1=5.0)


def two_moons(n: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    angle, side = np.pi * rng.uniform(size=n), rng.integers(0, 2, n)
    x = np.where(side, 1 - np.cos(angle), np.cos(angle)) - 0.5
    y = np.where(side, 0.5 - np.sin(angle), np.sin(angle)) - 0.25
    return 1.5 * np.stack([x, y], 1) + 0.1 * rng.normal(size=(n, 2))


def init(key, sizes=(3, 64, 64, 2)):
    keys = jr.split(key, len(sizes) - 1)
    pairs = itertools.pairwise(sizes)
    return [
        (jr.normal(k, (i, o)) / i**0.5, jnp.zeros(o)) for k, (i, o) in zip(keys, pairs, strict=True)
    ]


def predict_noise(params, t, x):
    h = jnp.concatenate([jnp.log(t + 1e-3)[None], x])
    for weight, bias in params[:-1]:
        h = jax.nn.silu(h @ weight + bias)
    weight, bias = params[-1]
    return h @ weight + bias


def train(data: np.ndarray, num_steps: int, key):
    params = init(key)
    optimiser = optax.adam(optax.cosine_decay_schedule(3e-3, num_steps))

    def loss(params, key):
        key_data, key_time, key_noise = jr.split(key, 3)
        x0 = jnp.asarray(data)[jr.randint(key_data, (512,), 0, len(data))]
        t = process.t1 * jr.uniform(key_time, (512,), minval=0.03) ** 2
        mean, std = jax.vmap(process.transition)(t, x0)
        noise = jr.normal(key_noise, x0.shape)
        predicted = jax.vmap(predict_noise, (None, 0, 0))(params, t, mean + std[:, None] * noise)
        return jnp.mean((predicted - noise) ** 2)

    def step(carry, key):
        params, state = carry
        updates, state = optimiser.update(jax.grad(loss)(params, key), state)
        return (optax.apply_updates(params, updates), state), None

    start = (params, optimiser.init(params))
    (params, _), _ = jax.jit(lambda s: jax.lax.scan(step, s, jr.split(key, num_steps)))(start)
    return params


def main(num_steps: int = 6000, settings: fpflow.ReportSettings | None = None):
    data = two_moons(20_000)
    params = train(data, num_steps, jr.key(0))
    score = fpflow.from_noise_prediction(
        lambda t, x: predict_noise(params, t, x), process, t_min=5e-3, dim=2
    )
    return fpflow.gap_report(score, process, data, settings=settings)


if __name__ == "__main__":
    report = main()
    print(report)
    report.save("gap.json")
    report.plot().savefig("score_from_outside.png", dpi=80)
