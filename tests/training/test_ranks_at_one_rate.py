"""Why alpha is constant: what a rank does to the step size, on the smallest fit that shows it.

A linear map of rank 2 is learned by an adapter B·A with Adam from PEFT's start (B zero, A uniform),
scaled as ``LoraConfig`` says. No model is needed: the mechanism is in the scale.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sizewise.config import LoraConfig

WIDTH, STEPS = 32, 40
Array = NDArray[np.float64]


class Adam:
    """Adam with its usual settings, on one array in place."""

    def __init__(self, weights: Array) -> None:
        self.weights = weights
        self.first, self.second = np.zeros_like(weights), np.zeros_like(weights)

    def step(self, number: int, gradient: Array, rate: float) -> None:
        self.first += 0.1 * (gradient - self.first)
        self.second += 0.001 * (gradient**2 - self.second)
        mean, spread = self.first / (1 - 0.9**number), self.second / (1 - 0.999**number)
        self.weights -= rate * mean / (np.sqrt(spread) + 1e-8)


def loss_after(lora: LoraConfig, rate: float, seed: int) -> float:
    """Fit for some steps, the rate falling to zero; return the loss as a share of the start's."""
    draw, scale = np.random.default_rng(seed), lora.scale
    inputs = draw.standard_normal((256, WIDTH))
    target = draw.standard_normal((WIDTH, 2)) @ draw.standard_normal((2, WIDTH)) / WIDTH
    a = Adam(draw.uniform(-1, 1, (lora.r, WIDTH)) / np.sqrt(WIDTH))
    b = Adam(np.zeros((WIDTH, lora.r)))
    for number in range(1, STEPS + 1):
        error = inputs @ (scale * b.weights @ a.weights - target).T
        gradient = 2 * error.T @ inputs / error.size
        for_b, for_a = scale * gradient @ a.weights.T, scale * b.weights.T @ gradient
        falling = rate * (1 - number / (STEPS + 1))
        a.step(number, for_a, falling)
        b.step(number, for_b, falling)
    error = inputs @ (scale * b.weights @ a.weights - target).T
    return float((error**2).mean() / ((inputs @ target.T) ** 2).mean())


def losses(rate: float, alpha_ratio: float | None) -> dict[int, float]:
    """Rank → loss, mean over seeds."""
    found = {}
    for r in (4, 16, 64):
        lora = LoraConfig(r=r, alpha_ratio=alpha_ratio)
        found[r] = float(np.mean([loss_after(lora, rate, seed) for seed in range(5)]))
    return found


def test_alpha_that_follows_the_rank_ruins_the_high_rank_at_a_large_rate() -> None:
    following, constant = losses(0.2, alpha_ratio=2.0), losses(0.2, alpha_ratio=None)
    assert following[64] > 0.5, "little is learned"
    assert following[4] < 0.1, "at the same rate"
    assert constant[64] < 0.25
    assert constant[64] < constant[4]


def test_with_alpha_that_follows_the_rank_the_order_turns_with_the_rate() -> None:
    low, high = losses(0.01, alpha_ratio=2.0), losses(0.2, alpha_ratio=2.0)
    assert low[64] < low[16] < low[4]
    assert high[4] < high[16] < high[64]


def test_a_constant_alpha_leaves_the_best_rate_where_it_is() -> None:
    """Over ranks 4 to 64; with alpha that follows the rank it moves by more than a factor of 3."""
    rates = [0.01, 0.02, 0.04, 0.08, 0.16]

    def best(alpha_ratio: float | None) -> dict[int, float]:
        table = {rate: losses(rate, alpha_ratio) for rate in rates}
        return {r: min(rates, key=lambda rate: table[rate][r]) for r in (4, 64)}

    constant, following = best(None), best(2.0)
    assert constant[64] / constant[4] in (0.5, 1.0, 2.0)
    assert following[4] / following[64] > 3
