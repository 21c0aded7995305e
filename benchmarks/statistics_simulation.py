"""Measure coverage, family-wise error, power and speed of the statistics; print them as tables.

    python benchmarks/statistics_simulation.py            print
    python benchmarks/statistics_simulation.py --write    print and rewrite docs/statistics.md
    python benchmarks/statistics_simulation.py --replicates 400 --sweeps 100    a quick look

The figures follow from the seed alone, except the seconds.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from benchmarks.simulation.claims import (
    FAMILIES as QUESTIONS,
)
from benchmarks.simulation.claims import (
    TUNED_ARMS,
    Planted,
    measure_claims,
    primary_of,
)
from benchmarks.simulation.scores import Scenario, measure_coverage
from benchmarks.simulation.sweeps import measure_family_error, measure_power

from sizewise.statistics.comparison import PairedScores, compare_paired, compare_paired_many

DOCS = Path(__file__).resolve().parents[1] / "docs" / "statistics.md"
BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"

FIXED = [
    Scenario("one model against another, 30 examples", 30),
    Scenario("one model against another, 200 examples", 200),
    Scenario("one model against another, 1,000 examples", 1000),
    Scenario("right or wrong, 100 examples", 100, binary=True),
    Scenario("right or wrong, 1,000 examples", 1000, binary=True),
    Scenario("1 seed, given this seed", seeds_a=1, sd_seed=0.3, conditional=True),
    Scenario("3 seeds, given these seeds", seeds_a=3, sd_seed=0.3, conditional=True),
    Scenario("20 groups of 200 examples", groups=20, sd_group=0.7),
    Scenario("50 groups of 200 examples", groups=50, sd_group=0.7),
    Scenario("50 groups of 200, right or wrong", groups=50, sd_group=0.7, binary=True),
]
SPREADS = [("no", 0.0), ("some", 0.1), ("much", 0.3), ("very much", 0.6)]


def seed_scenarios(n_seeds: int, minimum_seeds: int) -> list[Scenario]:
    common = {"seeds_a": n_seeds, "minimum_seeds": minimum_seeds}
    made = []
    for word, sd in SPREADS:
        made.append(Scenario(f"{word} spread, B without seed", sd_seed=sd, **common))
        made.append(Scenario(f"{word} spread, both sides", seeds_b=n_seeds, sd_seed=sd, **common))
    both = {"seeds_b": n_seeds, "sd_seed": 0.3, **common}
    made.append(Scenario("much spread, both sides, right or wrong", binary=True, **both))
    made.append(Scenario("much spread, both sides, 50 groups", groups=50, sd_group=0.7, **both))
    noise = {"seeds_b": n_seeds, "sd_seed": 0.1, "sd_example": 0.1, "sd_residual": 2.0, **common}
    made.append(Scenario("mostly seed-by-example noise, both sides", **noise))
    return made


FAMILIES = [
    ("continuous scores", Scenario("", 200)),
    ("right or wrong", Scenario("", 200, binary=True)),
    ("40 groups", Scenario("", 200, groups=40, sd_group=0.7)),
    ("3 seeds that differ no more than chance", Scenario("", 200, seeds_a=3)),
    ("5 seeds, much spread", Scenario("", 200, seeds_a=5, seeds_b=5, sd_seed=0.3)),
    ("8 seeds, B without seed, some spread", Scenario("", 200, seeds_a=8, sd_seed=0.1)),
    ("3 seeds, some spread, claim about an average seed", Scenario("", seeds_a=3, sd_seed=0.1)),
    ("2 seeds each, some spread", Scenario("", 200, seeds_a=2, seeds_b=2, sd_seed=0.1)),
]
POWERS = [
    ("continuous scores, 200 examples", Scenario("", 200)),
    ("40 groups of 200 examples", Scenario("", 200, groups=40, sd_group=0.7)),
    ("3 seeds each, some spread", Scenario("", 200, seeds_a=3, seeds_b=3, sd_seed=0.1)),
    ("5 seeds each, some spread", Scenario("", 200, seeds_a=5, seeds_b=5, sd_seed=0.1)),
]
SWEEP = Scenario("", 200, seeds_a=3, sd_seed=0.05, sd_example=0.5)
MARGIN = 0.1


def fixed_table(replicates: int, seed: int) -> list[str]:
    rows = ["| Design (seeds fixed) | coverage | ± | mean width |", "|---|---|---|---|"]
    for scenario in FIXED:
        found = measure_coverage(scenario, replicates, seed=seed)
        rows.append(
            f"| {scenario.name} | {found.coverage:.1%} | {found.error:.1%} | {found.width:.3f} |"
        )
        print(rows[-1], flush=True)
    return rows


def seeds_table(replicates: int, seed: int, minimum_seeds: int) -> list[str]:
    counts = (2, 3, 5, 8)
    head = " | ".join(f"S={n}" for n in counts)
    rows = [f"| Spread of the seeds | {head} |", "|---|" + "---|" * len(counts)]
    grid = [seed_scenarios(n, minimum_seeds) for n in counts]
    for column in zip(*grid, strict=True):
        found = [measure_coverage(s, replicates, seed=seed).coverage for s in column]
        rows.append(f"| {column[0].name} | " + " | ".join(f"{c:.1%}" for c in found) + " |")
        print(rows[-1], flush=True)
    return rows


def family_table(sweeps: int, seed: int) -> list[str]:
    rows = [
        "| Sweeps of 10 comparisons, none of them different | test | Holm | ± | uncorrected |",
        "|---|---|---|---|---|",
    ]
    for name, scenario in FAMILIES:
        found = measure_family_error(scenario, sweeps, seed=seed)
        rows.append(
            f"| {name} | {found.test} | {found.corrected:.1%} | {found.error:.1%} "
            f"| {found.uncorrected:.1%} |"
        )
        print(rows[-1], flush=True)
    return rows


def power_table(replicates: int, seed: int) -> list[str]:
    rows = [
        "| Planted difference = stated detectable one | nominal | found | ± |",
        "|---|---|---|---|",
    ]
    for name, scenario in POWERS:
        found = measure_power(scenario, replicates, seed=seed)
        rows.append(f"| {name} | {found.nominal:.0%} | {found.measured:.1%} | {found.error:.1%} |")
        print(rows[-1], flush=True)
    return rows


def planted_sweeps() -> list[Planted]:
    """All arms equal; the primary pair alone at its detectable effect; all else at the margin."""
    binary = replace(SWEEP, binary=True)
    small, detectable = primary_of(SWEEP)
    tuned = [f"{model} {method} {rank}" for model, method, rank in TUNED_ARMS]
    return [
        Planted("all arms equal", SWEEP),
        Planted("all arms equal, right or wrong", binary),
        Planted("all arms equal, much spread of the seeds", replace(SWEEP, sd_seed=0.3)),
        Planted("the primary small model better by what is stated as detectable", SWEEP,
                {small: detectable}),
        Planted("all tuned models better by 0.3", SWEEP, dict.fromkeys(tuned, 0.3)),
        Planted(f"all worse than the large model by the margin, {MARGIN}", SWEEP,
                {"mini": MARGIN}),
    ]  # fmt: skip


def claims_table(sweeps: int, seed: int) -> list[str]:
    columns = ["small against large", "own base", "models", "methods", "ranks"]
    rows = [
        f"| Planted | any false claim | {' | '.join(columns)} | primary pair found "
        "| falsely near the best | falsely not worse |",
        "|---|" + "---|" * (len(columns) + 4),
    ]
    for planted in planted_sweeps():
        found = measure_claims(planted, sweeps, margin=MARGIN, seed=seed)
        shares = [found.wrong["any"], *(found.wrong[question] for question in QUESTIONS)]
        shares += [found.found, found.near_wrong, found.not_worse_wrong]
        rows.append(f"| {planted.name} | " + " | ".join(f"{share:.1%}" for share in shares) + " |")
        print(rows[-1], flush=True)
    return rows


def speed_table() -> list[str]:
    rng = np.random.default_rng(0)
    base = (rng.random(1000) < 0.4).astype(float)
    pairs = [PairedScores(rng.random((5, 1000)), base) for _ in range(200)]
    compare_paired_many(pairs[:1], n_resamples=10)
    one = _best_of_three(lambda: compare_paired(pairs[0].scores_a, base))
    many = _best_of_three(lambda: compare_paired_many(pairs))
    rows = [
        "| 10,000 resamples, 1,000 examples, 5 seeds | seconds (best of 3) |",
        "|---|---|",
        f"| 1 comparison | {one:.2f} |",
        f"| 200 comparisons | {many:.2f} |",
    ]
    print("\n".join(rows), flush=True)
    return rows


def _best_of_three(work: Callable[[], object]) -> float:
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def figures(replicates: int, sweeps: int, seed: int) -> str:
    """Run everything and return the Markdown of the figures."""
    rough = max(1, replicates // 4)
    error, rough_error = (
        f"Monte Carlo error of a figure near 95 %: ± {np.sqrt(0.05 * 0.95 / n):.2%}."
        for n in (replicates, rough)
    )
    note = (
        f"Measured with `benchmarks/statistics_simulation.py`: {replicates:,} simulated data sets "
        f"per coverage ({rough:,} where seeds are taken as given), {sweeps:,} sweeps "
        f"per row of false positives, seed {seed}, "
        f"Python {platform.python_version()}, NumPy {np.__version__}. Nominal: 95 %, 5 %, 80 %."
    )
    blocks = [
        [note],
        ["### Coverage with fixed seeds"],
        fixed_table(replicates, seed),
        ["### Coverage over seeds and 200 examples, seeds as their own level"],
        [error + " This is what the program does, from S=2 on."],
        seeds_table(replicates, seed, 2),
        ["### Coverage of the same truth if seeds are averaged and taken as given"],
        [
            rough_error
            + " The interval beside the first one in `results.json`: right for these models only."
        ],
        seeds_table(rough, seed, 99),
        ["### Family-wise false positives"],
        family_table(sweeps, seed),
        ["### Power at the stated minimum detectable effect"],
        power_table(replicates, seed),
        ["### Claims of whole sweeps"],
        [
            "Two small models, five configurations of three seeds, three untouched models, 200 "
            f"examples: 17 pairs, each sweep with everything that its report claims. {sweeps} "
            "sweeps per row, Monte Carlo error of 5 %: "
            f"± {np.sqrt(0.05 * 0.95 / sweeps):.1%}. Nominal: at most 5 %; the primary pair 80 %. "
            "It is found where test and interval agree, which costs a little power."
        ],
        claims_table(sweeps, seed),
        ["### Time"],
        speed_table(),
    ]
    return "\n\n".join("\n".join(block) for block in blocks)


def rewrite(text: str) -> None:
    """Put `text` between the markers of docs/statistics.md."""
    page = DOCS.read_text(encoding="utf-8")
    if page.count(BEGIN) != 1 or page.count(END) != 1:
        raise SystemExit(f"{DOCS} must hold {BEGIN} and {END} exactly once.")
    before, rest = page.split(BEGIN)
    after = rest.split(END)[1]
    DOCS.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--replicates", type=int, default=4000)
    parser.add_argument("--sweeps", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--write", action="store_true", help="rewrite the block in docs")
    arguments = parser.parse_args()
    text = figures(arguments.replicates, arguments.sweeps, arguments.seed)
    if arguments.write:
        rewrite(text)


if __name__ == "__main__":
    main()
