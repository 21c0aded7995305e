"""How often a loss of exactly the margin is called none, where few right-or-wrong answers differ.

    python benchmarks/margin_simulation.py [--draws 1500]

A model loses ``MARGIN`` more of the examples than it wins, against one that is right on 60 %; any
claim that it is not worse by the margin is wrong, and 5 % of them may be made. Examples are easier
or harder to lose (a beta distribution), so that seeds lose the same ones. Printed is the worst of
several shares that are won back, by the t test alone and as the program decides.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from sizewise.statistics.margin import FEW_DISCORDANT, OneSided
from sizewise.statistics.sides import sides_of

MARGIN, RIGHT, ALPHA = 0.02, 0.6, 0.05
WON_BACK = (0.0, 0.005, 0.02, 0.06)
SPREAD = 0.5  # of the beta distribution: the less, the more examples are lost always or never


def draw(rng: np.random.Generator, examples: int, seeds: int, won: float) -> OneSided:
    """Draw the answers of both models and compare them."""
    large_N = (rng.random(examples) < RIGHT).astype(float)
    lost_N = _chances(rng, (won + MARGIN) / RIGHT, examples)
    won_N = _chances(rng, won / (1 - RIGHT), examples)
    drawn_SN = rng.random((seeds, examples))
    small_SN = np.where(large_N == 1.0, drawn_SN >= lost_N, drawn_SN < won_N).astype(float)
    return OneSided.of(sides_of(small_SN if seeds > 1 else small_SN[0], large_N, None))


def _chances(rng: np.random.Generator, mean: float, count: int) -> np.ndarray:
    if mean == 0.0:
        return np.zeros(count)
    return rng.beta(SPREAD * mean, SPREAD * (1 - mean), count)


def rates(draws: int, examples: int, seeds: int, won: float, seed: int) -> tuple[float, float]:
    """Share of wrong claims by the t test alone, and as the program decides."""
    rng = np.random.default_rng([seed, examples, seeds, round(1000 * won)])
    found = [draw(rng, examples, seeds, won) for _ in range(draws)]
    by_t = [replace(each, discordance=None).p_at_most(-MARGIN) <= ALPHA for each in found]
    ours = [each.p_at_most(-MARGIN) <= ALPHA for each in found]
    return float(np.mean(by_t)), float(np.mean(ours))


def table(draws: int, seed: int) -> Iterator[str]:
    few = f"with the score test, below {FEW_DISCORDANT} that differ"
    yield f"| Examples | seeds | t test alone | {few} |"
    yield "|---:|---:|---:|---:|"
    for examples in (44, 80, 200, 572):
        for seeds in (1, 3):
            found = [rates(draws, examples, seeds, won, seed) for won in WON_BACK]
            by_t, ours = (max(pair[i] for pair in found) for i in (0, 1))
            yield f"| {examples} | {seeds} | {by_t:.1%} | {ours:.1%} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    for line in table(options.draws, options.seed):
        print(line, flush=True)


if __name__ == "__main__":
    main()
