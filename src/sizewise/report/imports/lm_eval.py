"""Sample logs of lm-evaluation-harness: ``samples_TASK_DATE.jsonl`` of ``--log_samples``."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sizewise.errors import OutcomeError
from sizewise.files import parse_json, read_json
from sizewise.report.imports.samples import (
    CHOSEN,
    GENERATED,
    HarnessLog,
    Sample,
    numbers,
    plain_fields,
)

HARNESS = "lm-evaluation-harness"
PATTERN = "samples_*.jsonl"
NAME = re.compile(r"samples_(?P<task>.+)_(?P<date>\d{4}-\d\d-\d\dT[\d.:-]+)\.jsonl")


def read_lm_eval(path: Path) -> HarnessLog:
    """Read a sample log, and of the results beside it the model's name and size.

    Of several filters of a task the first one's samples are taken.

    Raises:
        OutcomeError: it cannot be read, or is no such log.
    """
    rows = _rows(path)
    found = NAME.fullmatch(path.name)
    task, date = (found["task"], found["date"]) if found else (path.stem, "")
    results = _results(path.parent, date)
    filters = list(dict.fromkeys(str(row.get("filter")) for row in rows))
    kept = [row for row in rows if str(row.get("filter")) == filters[0]]
    try:
        chosen = _is_choice(kept[0])
        samples = [_sample(row, chosen) for row in kept]
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise OutcomeError(
            f"{path} is no sample log of {HARNESS} that is known here ({error!r}). Write it with "
            "lm_eval … --log_samples --output_path DIR, with a task that generates or chooses."
        ) from error
    notes = () if len(filters) == 1 else (f"of the filters {', '.join(filters)} the first is read",)
    model, parameters = _model(results, path)
    kind = CHOSEN if chosen else GENERATED
    return HarnessLog(path, HARNESS, task, model, parameters, kind, samples, notes)


def _rows(path: Path) -> list[dict[str, Any]]:
    try:
        rows = [parse_json(line) for line in path.read_bytes().splitlines() if line.strip()]
    except OSError as error:
        raise OutcomeError(f"{path} cannot be read: {error.strerror or error}.") from error
    except ValueError as error:
        raise OutcomeError(f"{path} is damaged: {error}. Copy it again.") from error
    if not rows or not all(isinstance(row, dict) and "doc" in row for row in rows):
        raise OutcomeError(f"{path} is no sample log of {HARNESS}: its lines hold no `doc`.")
    return rows


def _results(folder: Path, date: str) -> Mapping[str, Any]:
    """Return the results of the same evaluation; empty where they are not beside the log."""
    found = sorted(folder.glob("results*.json"))
    same = [path for path in found if date and date in path.name]
    chosen = same or (found if len(found) == 1 else [])
    return (read_json(chosen[0]) or {}) if chosen else {}


def _model(results: Mapping[str, Any], path: Path) -> tuple[str, int | None]:
    config = results.get("config")
    config = config if isinstance(config, dict) else {}
    arguments = config.get("model_args")
    if isinstance(arguments, str):
        arguments = dict(part.partition("=")[::2] for part in arguments.split(","))
    arguments = arguments if isinstance(arguments, dict) else {}
    named = arguments.get("pretrained") or arguments.get("model") or results.get("model_name")
    count = config.get("model_num_parameters")
    known = isinstance(count, int) and not isinstance(count, bool) and count > 0
    return str(named or path.parent.name), count if known else None


def _is_choice(row: Mapping[str, Any]) -> bool:
    """Whether a task compares likelihoods: each response is a pair, log-likelihood first."""
    first = row["resps"][0][0]
    return not isinstance(first, str)


def _sample(row: Mapping[str, Any], chosen: bool) -> Sample:
    arguments = [row["arguments"][f"gen_args_{i}"] for i in range(len(row["arguments"]))]
    prompt, fields = str(arguments[0]["arg_0"]), plain_fields(row["doc"])
    target = row.get("target")
    if chosen:
        response = str(arguments[_most_likely(row["resps"])]["arg_1"]).strip()
        target = _named_choice(target, [str(a["arg_1"]).strip() for a in arguments])
    else:
        response = str(row["resps"][0][0])
    return Sample(
        texts=(prompt, *(value for value in fields.values() if len(value) > 1)),
        target=target if isinstance(target, str) else None,
        response=response.strip(),
        fields=fields,
        scores=numbers(row, [str(name) for name in row.get("metrics") or ()]),
    )


def _most_likely(responses: Sequence[Any]) -> int:
    """Return the place of the choice with the highest summed log-likelihood, as ``acc`` does."""
    values = [float(response[0][0]) for response in responses]
    return values.index(max(values))


def _named_choice(target: Any, choices: Sequence[str]) -> str | None:
    """Return the text of the right choice, of which the log may hold only the number."""
    text = str(target)
    if text in choices:
        return text
    return choices[int(text)] if text.isdigit() and int(text) < len(choices) else None
