"""Plain words for what a comparison is conditional on and what a reviewer would object to."""

from __future__ import annotations

from sizewise.statistics.sides import Side, Sides

FEW_EXAMPLES = 100
FEW_CLUSTERS = 20


def _counted(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def _sample(sides: Sides) -> str:
    examples = _counted(sides.units.examples, "test example")
    if not sides.units.clustered:
        return examples
    return f"{_counted(sides.units.count, 'group')} of {examples}"


def _model(side: Side, name: str) -> str:
    if side.trained_by_seed:
        return f"the {_counted(side.n_seeds, 'seed')} of {name}"
    return name


def conditional_note(sides: Sides, names: tuple[str, str]) -> str:
    """One sentence: what interval and p-value are over, and what they take as given."""
    models = [_model(sides.a, names[0]), _model(sides.b, names[1])]
    if not sides.seeds_are_random:
        both = " and on ".join(models)
        averaged = ", averaged over seeds" if max(sides.a.n_seeds, sides.b.n_seeds) > 1 else ""
        return f"Over the {_sample(sides)}{averaged}; conditional on {both}."
    flags = (sides.a.trained_by_seed, sides.b.trained_by_seed)
    random = [m for m, flag in zip(models, flags, strict=True) if flag]
    fixed = [m for m, flag in zip(models, flags, strict=True) if not flag]
    given = f"; conditional on {fixed[0]}, which has no seed" if fixed else ""
    return f"Over the {_sample(sides)} and {' and '.join(random)}, all seen as samples{given}."


def warnings_of(sides: Sides, names: tuple[str, str], standard_error: float) -> tuple[str, ...]:
    """Objections that follow from the numbers of examples, groups and seeds alone."""
    found: list[str] = []
    for side, name in ((sides.a, names[0]), (sides.b, names[1])):
        if side.trained_by_seed and side.n_seeds == 1:
            found.append(f"{name} was trained with one seed: its variation by seed is unknown.")
    if sides.units.examples < FEW_EXAMPLES:
        found.append(f"Only {_counted(sides.units.examples, 'test example')} (under 100).")
    if sides.units.clustered and sides.units.count < FEW_CLUSTERS:
        found.append(f"Only {sides.units.count} independent groups (under {FEW_CLUSTERS}).")
    if standard_error == 0.0:
        found.append("All paired differences are equal: their variation cannot be estimated.")
    return tuple(found)
