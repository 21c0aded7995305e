"""``sizewise init FILE``: an option for somebody's own data, written from a look at the file."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

from sizewise.commands.guess import Guess, guess
from sizewise.config import SourceConfig, conf_dir
from sizewise.config.data import TASKS
from sizewise.data.rows.formats import EXCEL
from sizewise.data.rows.read import EXTENSIONS, read_rows
from sizewise.errors import ConfigError, DataError
from sizewise.files import write_atomically
from sizewise.metrics.reading.answer_sets import worded
from sizewise.words import first_of, literal, plural

FEW_ROWS = 500
MOST_NAMED = 10
OPTIONS = Path("conf") / "dataset"


def init_command(
    file: Path,
    name: str | None,
    prompt: str | None,
    answer: str | None,
    force: bool,
    table: str | None = None,
) -> None:
    """Write ``conf/dataset/NAME.yaml`` in the folder one is in, and say what to type next.

    Raises:
        SizewiseError: the file cannot be read, its columns are not understood, or there is such an
            option already.
    """
    console = Console(emoji=False)
    source, rows = read_table(file, table)
    found = guess(rows, prompt, answer)
    name = name or _option_name(file)
    target = OPTIONS / f"{name}.yaml"
    if (conf_dir() / "dataset" / f"{name}.yaml").is_file() and not target.is_file():
        raise ConfigError(f"dataset={name} is an option already. Give another name: --name NAME.")
    text = option_text(name, source, found)
    if target.is_file() and target.read_text(encoding="utf-8") != text and not force:
        raise ConfigError(
            f"{target} is there already. --force writes it anew, --name NAME writes another."
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(target, text)
    _say_columns(console, file, len(rows), found)
    _say_task(console, len(rows), found)
    console.print(f"Wrote {literal(target)}: look at it, it is yours.", style="bold")
    _say_next(console, name, len(rows))


def read_table(file: Path, table: str | None = None) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return how a file is read, as keys of ``dataset.source``, and its rows.

    Where a CSV file's columns are separated by another sign, that is found out. ``table``: which
    table of a SQLite file, or sheet of an Excel file.

    Raises:
        DataError: the file is missing, of no known kind, or cannot be read; it has several tables
            and ``table`` names none of them, or has none to choose from.
    """
    kind = EXTENSIONS.get(file.suffix.lower())
    if kind is None:
        raise DataError(
            f"{file}: files ending in {file.suffix or 'nothing'!r} are not known. "
            f"Known: {', '.join(EXTENSIONS)}."
        )
    source: dict[str, Any] = {"kind": kind, "path": str(file)}
    if table is not None:
        if kind != "sqlite" and file.suffix.lower() not in EXCEL:
            raise DataError(f"{file} is one table: --table is for SQLite and Excel files.")
        source["table"] = table
    try:
        return source, read_rows(SourceConfig(**source))
    except DataError as error:
        if names := re.search(
            r"does not name one of (its (?:tables|sheets): (?!it has none).*)", str(error)
        ):
            which = "Say which" if table is None else f"--table {table} is none of them"
            raise DataError(f"{file}: {which}: --table NAME, one of {names[1]}") from error
        advised = re.search(r'delimiter="(.+?)"', str(error))
        if advised is None:
            raise
        source["delimiter"] = advised[1]
        return source, read_rows(SourceConfig(**source))


def option_text(name: str, source: Mapping[str, Any], found: Guess) -> str:
    """Return the YAML of a data set option."""
    task = TASKS[found.task]
    values: dict[str, Any] = {"name": name, "source": dict(source)}
    if found.chat:
        values |= {"prompt": "", "answer": "", "conversation": "auto"}
    else:
        values |= {"prompt": worded(found.prompt, found.answers), "answer": found.answer}
    if found.answers is not None:
        values["label"] = found.answer.strip("{}")
    for key in ("history", "rejected", "group", "strata"):
        if value := getattr(found, key):
            values[key] = list(value) if isinstance(value, tuple) else value
    if found.split is not None:
        values["split"] = {"column": found.split}
    values |= {"primary": task.primary, "direction": task.direction}
    body = yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)
    return (
        f"# {source['path']}, as `sizewise init` read it. Correct what is wrong: it is yours.\n"
        f"# Task: {found.task}. All keys: sizewise train dataset={name} --cfg job\n"
        "defaults:\n"
        f"  - override /metric@_global_.metric: [{', '.join(task.metrics)}]\n"
        "  - _self_\n\n"
        f"{body}"
    )


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines as blocks."""


def _block(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _block)


def _option_name(file: Path) -> str:
    name = re.sub(r"\W+", "_", file.stem.casefold()).strip("_") or "my_data"
    shipped = (conf_dir() / "dataset" / f"{name}.yaml").is_file()
    return f"my_{name}" if name[0].isdigit() or (shipped and conf_dir() != Path("conf")) else name


def _say_columns(console: Console, file: Path, rows: int, found: Guess) -> None:
    table = Table(
        "column", "filled", "different", "characters", "taken as",
        title=literal(f"{file.name}, {plural(rows, 'row')}"),
    )  # fmt: skip
    for column in found.columns:
        cells = (column.name, f"{column.filled:.0%}", f"{column.distinct:,}", f"{column.chars:.0f}")
        table.add_row(*map(literal, cells), found.used.get(column.name, "–"))
    console.print(table)


def _say_task(console: Console, rows: int, found: Guess) -> None:
    console.print(literal(f"Task: {found.task} (score: {TASKS[found.task].primary})."))
    if found.answers is not None:
        console.print(
            literal(
                f"{len(found.answers.labels)} different answers; the commonest, "
                f"{found.answers.labels[0][0]}, is {found.answers.majority:.1%} of them: a model "
                "has to beat that."
            )
        )
    elif found.task == "classification":
        console.print("The answers are numbers: one is right if it is written as the reference is.")
    if found.other_answers:
        names = first_of(found.other_answers, MOST_NAMED)
        console.print(literal(f"If another column is the answer ({names}): --answer COLUMN."))
    _say_test_part(console, rows, found)


def _say_test_part(console: Console, rows: int, found: Guess) -> None:
    """Say how many rows will be tested on: those the data says, else a tenth of the others."""
    if tested := found.parts.get("test"):
        few = " They are few: only large differences will show." if tested < FEW_ROWS // 10 else ""
        said = f"{plural(tested, 'row')} of the column {found.split} are the test part.{few}"
        console.print(literal(said))
        return
    rows = found.parts.get("train", rows)
    if rows < FEW_ROWS:
        what, where = "rows", "'split: {test: 0.3}'"
        if found.split is not None:  # a second key of that name would take the column's place
            what, where = "training rows", "'test: 0.3' below 'split:'"
        console.print(
            f"{rows} {what} are few: a tenth of them, {rows // 10}, is the test part. Only large "
            f"differences will show. To make it larger: {where} in the file, or "
            "dataset.split.test=0.3 on the command line."
        )


def _say_next(console: Console, name: str, rows: int) -> None:
    few = " dataset.max_train=300" if rows > FEW_ROWS else ""
    small = f"sizewise train sweep=my_question dataset={name} sweep.specialised=nano{few}"
    large = (
        f"sizewise train sweep=my_question dataset={name} trainer=gpu sweep.general=qwen3_8b "
        "sweep.specialised=qwen3_0_6b,qwen3_1_7b"
    )
    gpu = shutil.which("nvidia-smi") is not None
    steps = [
        ("What a model gets to read", f"sizewise explore dataset={name}"),
        ("The question, in minutes and without a GPU, with tiny models", small),
        (f"The question, with models that matter{'' if gpu else ' (needs a GPU)'}", large),
    ]
    console.print("Next:")
    for what, command in steps:
        console.print(f"  {what}:")
        console.print(f"    {literal(command)}", style="bold", soft_wrap=True, highlight=False)
