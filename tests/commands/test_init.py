"""``sizewise init``: a table is looked at, and an option for it is written."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas
import pytest
from tests.e2e.commands import begin, printed
from tests.training.jobs import exit_code

from sizewise.commands.guess import guess
from sizewise.commands.init import init_command, read_table
from sizewise.composition.compose import compose_run
from sizewise.config import DatasetConfig
from sizewise.data.build import build_splits
from sizewise.data.rows.columns import with_fields
from sizewise.errors import ConfigError, DataError

LABELS = ("billing", "delivery", "it's [other]")


def write_csv(path: Path, rows: Iterable[Mapping[str, Any]], delimiter: str = ",") -> Path:
    rows = list(rows)
    with path.open("w", encoding="utf-8", newline="") as handle:
        writer = csv.DictWriter(handle, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)
    return path


def tickets(count: int = 120) -> list[dict[str, Any]]:
    return [
        {
            "ID": i, "customer_id": f"c{i % 40}", "kind": LABELS[i % 3],
            "comment": f"looked at on day {i}", "message": f"my order number {i}; is late, please",
        }
        for i in range(count)
    ]  # fmt: skip


def written(name: str) -> DatasetConfig:
    """Compose the option as a user does, from the folder one is in."""
    return compose_run([f"dataset={name}"]).dataset


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_table_of_labels_becomes_an_option_that_runs(capsys: pytest.CaptureFixture[str]) -> None:
    init_command(write_csv(Path("tickets.csv"), tickets()), None, None, "kind", force=False)
    cfg = written("tickets")
    assert (cfg.answer, cfg.label, cfg.group) == ("{kind}", "kind", ["customer_id"])
    assert cfg.prompt == "{message}\n\nAnswer with one of: billing, delivery, it's [other]."
    assert (cfg.primary, cfg.direction) == ("label/exact_match", "max")
    splits = build_splits(cfg)
    assert len(splits.train) > len(splits.test) > 0
    said = capsys.readouterr().out
    assert "sizewise train sweep=my_question dataset=tickets" in said
    assert "120 rows are few" in said
    advice = re.search(r"'(split: .*?)' in the file, or (\S+) on the", " ".join(said.split()))
    assert advice is not None
    assert compose_run(["dataset=tickets", advice[2]]).dataset.own_split.test == 0.3
    with Path("conf/dataset/tickets.yaml").open("a") as file:
        file.write(f"\n{advice[1]}\n")
    assert written("tickets").own_split.test == 0.3, "as it was said"


def test_a_key_with_a_dot_in_a_file_is_answered_with_how_to_write_it() -> None:
    init_command(write_csv(Path("tickets.csv"), tickets()), None, None, "kind", force=False)
    option = Path("conf/dataset/tickets.yaml")
    text = option.read_text()
    option.write_text(f"{text}\nsplit.test: 0.3\n")
    with pytest.raises(ConfigError) as caught:
        written("tickets")
    assert str(caught.value) == (
        "In dataset/tickets.yaml: dataset.split.test is no key of a file. "
        "Write it nested: split: {test: …}"
    )
    option.write_text(f"{text}\nanswr: x\n")
    with pytest.raises(
        ConfigError, match=r"^In dataset/tickets\.yaml: dataset\.answr is no option"
    ):
        written("tickets")


def test_rows_without_a_question_are_left_out_with_the_written_prompt() -> None:
    rows = tickets()
    rows[3]["message"], rows[50]["message"] = "", "   "
    init_command(write_csv(Path("t.csv"), rows), "gaps", "message", "kind", force=False)
    cfg = written("gaps")
    assert "Answer with one of" in cfg.prompt
    assert build_splits(cfg).report.filtered == {"empty_prompt": 2}


@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
def test_another_sign_between_columns_is_found_out(delimiter: str) -> None:
    path = write_csv(Path("t.csv"), tickets(), delimiter)
    source, rows = read_table(path)
    assert source["delimiter"].replace("\\t", "\t") == delimiter
    assert len(rows) == 120
    init_command(path, None, None, None, force=False)
    assert len(build_splits(written("t")).train) > 0


def test_conversations_are_seen_in_any_format() -> None:
    for column, who, what in (("messages", "role", "content"), ("conversations", "from", "value")):
        turns = [{who: "user", what: "hello"}, {who: "assistant", what: "hi"}]
        lines = [json.dumps({column: turns, "id": i}) for i in range(30)]
        path = Path(f"{column}.jsonl")
        path.write_text("\n".join(lines))
        init_command(path, None, None, None, force=False)
        cfg = written(column)
        assert (cfg.conversation, cfg.prompt, cfg.primary) == (
            "auto",
            "",
            "tfidf/cosine",
        )


@pytest.mark.parametrize(
    ("columns", "prompt", "answer"),
    [
        (("question", "answer"), "{question}", "{answer}"),
        (("questionText", "answerText", "topic"), "{questionText}", "{answerText}"),
        (("instruction", "input", "output"), "{instruction}\n\n{input}", "{output}"),
        (("context", "question", "answers"), "{context}\n\n{question}", "{answers}"),
        (("de", "en"), "{de}", "{en}"),
        ((" Note", "ICD10_desc", "response"), "{Note}", "{response}"),
    ],
)
def test_columns_are_known_by_their_names(
    columns: tuple[str, ...], prompt: str, answer: str
) -> None:
    rows = [{name: f"some words of {name}, {i}" for name in columns} for i in range(60)]
    found = guess(rows)
    assert (found.prompt, found.answer, found.task) == (prompt, answer, "text")


def test_codes_splits_and_strata_are_seen() -> None:
    rows = [
        {
            "Note": f"the patient has condition {i} and says so at length",
            "ICD10": ("E11.9", "I10", "J45.909", "F32.1")[i % 4],
            "ward": ("east", "west")[i % 2],
            "split": ("train", "train", "dev", "test")[i // 25],
        }
        for i in range(100)
    ]
    found = guess(rows)
    assert (found.task, found.answer, found.split) == ("codes", "{ICD10}", "split")
    assert found.strata == ("ward",)


def test_earlier_turns_are_a_history_and_odd_splits_are_left_to_the_reader() -> None:
    rows = [
        {"talk": i, "context": [f"hello {i}", "hi", "how?"], "response": f"well {i}",
         "split": ("train", "train", "test", "none")[i % 4]}
        for i in range(60)
    ]  # fmt: skip
    found = guess(rows)
    assert (found.prompt, found.history, found.answer) == ("", "context", "{response}")
    assert found.split == "split"
    path = Path("talks.jsonl")
    path.write_text("\n".join(map(json.dumps, rows)))
    init_command(path, None, None, None, force=False)
    with pytest.raises(DataError, match="split"):
        build_splits(written("talks"))


@pytest.mark.parametrize("named", [{}, {"question": "qa"}, {"answer": "{qa}"}])
def test_objects_are_neither_question_nor_answer(named: dict[str, str]) -> None:
    """The answer of each row stands among its fields: it would be in the prompt."""
    asked = [{"question": f"What is {i}?", "best": f"It is {i}."} for i in range(30)]
    rows = [{"qa": fields, "n": i} for i, fields in enumerate(asked)]
    with pytest.raises(DataError, match=r"'qa' holds objects.* fields: qa\.question, qa\.best\."):
        guess(rows, **named)
    fields = [with_fields(row) for row in rows]
    if not named:
        assert (guess(fields).prompt, guess(fields).answer) == ("{qa.question}", "{qa.best}")
    beside = [
        {"qa": fields, "note": f"Note {i} of a day", **fields} for i, fields in enumerate(asked)
    ]
    if not named:
        assert (guess(beside).prompt, guess(beside).answer) == ("{question}", "{best}")


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_fields_of_objects_are_columns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    """As data sets of translations and of answers with places have them."""
    monkeypatch.chdir(tmp_path)
    rows = [
        {"translation": {"en": f"word {i}", "de": f"Wort {i}", "more": {"by": f"a{i % 30}"}}}
        for i in range(60)
    ]
    table, path = pandas.DataFrame(rows), Path(f"pairs.{suffix}")
    table.to_parquet(path) if suffix == "parquet" else table.to_json(
        path, orient="records", lines=True
    )
    init_command(path, None, "translation.en", "translation.de", force=False)
    train = build_splits(written("pairs")).train
    assert {(e.prompt_text, e.answer) for e in train} <= {
        (f"word {i}", f"Wort {i}") for i in range(60)
    }
    own = replace(written("pairs"), group=["translation.more.by"])
    splits = build_splits(own)
    by_split = [
        {int(e.answer.split()[1]) % 30 for e in getattr(splits, name)}
        for name in ("train", "validation", "test")
    ]
    assert sum(map(len, by_split)) == 30, "whoever wrote two of them is in one split"
    with pytest.raises(DataError, match=r"'translation\.fr'.* 'translation\.de'"):
        build_splits(replace(written("pairs"), answer="{translation.fr}"))


def test_one_column_is_not_question_and_answer() -> None:
    rows = [{"text": f"some words {i}", "label": "ab"[i % 2]} for i in range(30)]
    with pytest.raises(DataError, match="'text' is named as the question and as the answer"):
        guess(rows, "text", "text")


def test_labels_that_are_mostly_there_go_before_notes_that_are_not() -> None:
    rows = [
        {"text": f"some words {i}", "queue": "ab"[i % 2] * 3, "agent note": "ok" if i % 4 else ""}
        for i in range(60)
    ]
    assert guess(rows).answer == "{queue}"


def test_an_option_that_is_there_is_not_written_over() -> None:
    path = write_csv(Path("t.csv"), tickets())
    init_command(path, None, None, None, force=False)
    option = Path("conf/dataset/t.yaml")
    own = option.read_text().replace("{message}", "Dear all, {message}")
    option.write_text(own)
    with pytest.raises(ConfigError, match="is there already"):
        init_command(path, None, None, None, force=False)
    assert option.read_text() == own
    init_command(path, None, None, None, force=True)
    assert option.read_text() != own
    with pytest.raises(ConfigError, match="dataset=csv is an option already"):
        init_command(path, "csv", None, None, force=False)


def test_what_cannot_be_understood_is_said_with_what_to_do() -> None:
    rows = [{"a": i, "b": 1 / (i + 1)} for i in range(50)]
    with pytest.raises(DataError, match="--answer COLUMN"):
        init_command(write_csv(Path("n.csv"), rows), None, None, None, force=False)
    with pytest.raises(DataError, match="Did you mean 'message'"):
        init_command(write_csv(Path("t.csv"), tickets()), None, "massage", None, force=False)
    with pytest.raises(DataError, match="no such file"):
        init_command(Path("none.csv"), None, None, None, force=False)
    with pytest.raises(DataError, match=r"'\.docx' are not known"):
        init_command(Path("none.docx"), None, None, None, force=False)
    assert not Path("conf").exists()


@pytest.mark.shared
@pytest.mark.parametrize(
    ("file", "prompt", "answer", "task"),
    [
        (
            "mts_dialog/MTS-Dialog-TrainingSet.csv",
            "{dialogue}",
            "{section_header}",
            "classification",
        ),
        ("counsel_chat/20200325_counsel_chat.csv", "{questionText}", "{answerText}", "text"),
        ("psychology/psychology_pairs_2000_reordered.jsonl", "{question}", "{response_j}", "text"),
        ("medsynth_notes/medsynth_notes_500.jsonl", "{Note}", "{ICD10}", "codes"),
        ("empathetic_dialogues/ed_valid.jsonl", "", "{response}", "text"),
    ],
)
def test_real_tables_are_understood(
    shared_dir: Path, file: str, prompt: str, answer: str, task: str
) -> None:
    _, rows = read_table(shared_dir / "data" / file)
    found = guess(rows)
    assert (found.prompt, found.answer, found.task) == (prompt, answer, task)


@pytest.mark.e2e
def test_the_printed_command_asks_the_whole_question_in_one_directory(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    init_command(write_csv(Path("tickets.csv"), tickets()), None, None, "kind", force=False)
    lines = capsys.readouterr().out.splitlines()
    typed = next(line for line in lines if "sweep=my_question" in line).split()[1:]
    more = ("sweep.general=micro", "sweep.dry_run=true", "sweep.estimate=false")
    command = ["-m", "sizewise.commands.main", *typed, *more]
    done = exit_code(begin(command, tmp_path, {"COLUMNS": "400"}))
    plan = "".join(printed(tmp_path))
    assert done == 0, plan
    (said,) = [line for line in plan.splitlines() if line.startswith("Sweep my_question")]
    # One untouched, three learning rates, two further seeds, two baselines.
    assert "8 jobs" in said
    for job in ("micro_tickets_base", "nano_tickets_lora-r16_s1", "majority_", "tfidf-logreg_"):
        assert job in plan
    assert not Path("multirun").exists()
