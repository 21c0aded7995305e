"""``sizewise init``: a table is looked at, and an option for it is written."""

from __future__ import annotations

import csv
import json
import re
import sqlite3
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas
import pytest
from tests.data.test_own_files import excel
from tests.e2e.commands import begin, printed
from tests.training.jobs import exit_code
from typer.testing import CliRunner

from sizewise.commands.guess import guess
from sizewise.commands.init import init_command, read_table
from sizewise.commands.main import app
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


def reviews(count: int = 120, **more: Any) -> list[dict[str, Any]]:
    """Return rows of a text; of ``more`` each is called with the row's number."""
    texts = ({"review": f"the room was fine, on day {i} at least"} for i in range(count))
    return [text | {name: make(i) for name, make in more.items()} for i, text in enumerate(texts)]


@pytest.mark.parametrize("name", ["answer", "final_answer", "target_value", "answerNumber"])
@pytest.mark.parametrize("number", [lambda i: i * 3.07, lambda i: f"{i * 37:,}", lambda i: i * i])
def test_numbers_that_are_called_an_answer_are_one(
    name: str, number: Callable[[int], Any], capsys: pytest.CaptureFixture[str]
) -> None:
    rows = reviews(**{name: number, "tags": lambda i: ("sum", "rate")[i % 2] if i % 3 else ""})
    found = guess(rows)
    assert (found.answer, found.task, found.answers) == (f"{{{name}}}", "classification", None)
    assert found.other_answers == ("tags",)
    Path("n.jsonl").write_text("\n".join(map(json.dumps, rows)))
    init_command(Path("n.jsonl"), None, None, None, force=False)
    assert written("n").primary == "label/exact_match", "a number is right or wrong"
    said = " ".join(capsys.readouterr().out.split())
    assert "The answers are numbers: one is right if it is written as the reference is." in said
    test = build_splits(written("n")).test
    assert {e.answer for e in test} <= {str(row[name]) for row in rows}


def test_a_named_column_of_numbers_is_scored_as_numbers() -> None:
    rows = reviews(price=lambda i: i * 1.5)
    assert guess(rows, answer="price").task == "classification"
    dates = reviews(day=lambda i: f"{1 + i % 28:02}.05.{1900 + i}")
    assert guess(dates, answer="day").task == "text"


@pytest.mark.parametrize(
    ("name", "grade"),
    [
        ("stars", lambda i: 1 + i % 5),
        ("overallRating", lambda i: f"{1 + i % 5}.0"),
        ("score", lambda i: None if i % 9 == 4 else i % 4),
        ("label", lambda i: i % 2),
        ("spam", lambda i: i % 2),
    ],
)
def test_ratings_are_labels_and_subjects_are_not(name: str, grade: Callable[[int], Any]) -> None:
    rows = reviews(
        **{name: grade}, SUBJECT=lambda i: f"S0{30 + i % 40}", price=lambda i: i * 1.25,
        review_id=lambda i: f"r{i}",
    )  # fmt: skip
    found = guess(rows)
    assert (found.prompt, found.answer, found.task) == ("{review}", f"{{{name}}}", "classification")
    assert found.answers is not None
    assert found.answers.listed is not None
    assert found.group == ("SUBJECT",)
    assert found.other_answers == ("price",), "numbers could be meant, ids could not"
    Path("r.jsonl").write_text("\n".join(map(json.dumps, rows)))
    init_command(Path("r.jsonl"), None, None, None, force=False)
    train = build_splits(written("r")).train
    assert {e.answer for e in train} == set(found.answers.names), "written as the prompt names them"


def test_ids_are_no_answers_and_owners_only_where_nothing_else_is() -> None:
    alone = reviews(patient=lambda i: ("Ann", "Bob", "Eve")[i % 3])
    assert guess(alone).answer == "{patient}"
    beside = reviews(remark=lambda i: f"said twice, {i}", patient=lambda i: ("Ann", "Bob")[i % 2])
    assert guess(beside).answer == "{remark}"
    for ids in (
        {"answer_id": lambda i: f"a{i}"},
        {"label": lambda i: i},
        {"case": "S{:03}".format},
    ):
        with pytest.raises(DataError, match="--answer COLUMN"):
            guess(reviews(**ids))


def test_labels_in_words_go_before_their_numbers_and_numbers_of_other_kinds() -> None:
    words = ("bad", "fair", "good")
    rows = reviews(label=lambda i: i % 3, verdict=lambda i: words[i % 3], zip_code=lambda i: i % 7)
    assert (guess(rows).answer, guess(rows).other_answers) == ("{verdict}", ("label", "zip_code"))
    assert guess(reviews(de=lambda i: f"Wort {i}", votes=lambda i: i % 6)).answer == "{de}"


@pytest.mark.parametrize(("test", "few"), [(46, True), (60, False)])
def test_the_test_part_of_a_split_column_is_counted(
    capsys: pytest.CaptureFixture[str], test: int, few: bool
) -> None:
    rows = [
        row | {"part": "Test" if i < test else "dev" if i < 80 else "train"}
        for i, row in enumerate(tickets(200))
    ]
    init_command(write_csv(Path("t.csv"), rows), None, None, "kind", force=False)
    said = " ".join(capsys.readouterr().out.split())
    assert f"{test} rows of the column part are the test part." in said
    assert ("They are few" in said) == few
    assert "a tenth" not in said
    assert "0.3" not in said
    assert len(build_splits(written("t")).test) == test


def test_a_split_column_without_a_test_part_keeps_its_place(
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = [row | {"part": "dev" if i < 50 else "train"} for i, row in enumerate(tickets(200))]
    init_command(write_csv(Path("t.csv"), rows), None, None, "kind", force=False)
    said = " ".join(capsys.readouterr().out.split())
    assert "150 training rows are few: a tenth of them, 15, is the test part." in said
    advice = re.search(r"'(test: 0.3)' below '(split:)' in the file", said)
    assert advice is not None
    option = Path("conf/dataset/t.yaml")
    option.write_text(option.read_text().replace(advice[2], f"{advice[2]}\n  {advice[1]}"))
    assert (written("t").split.column, written("t").split.test) == ("part", 0.3)


def two_tables(path: Path) -> Path:
    with closing(sqlite3.connect(path)) as connection, connection:
        pandas.DataFrame(tickets()).to_sql("new tickets", connection, index=False)
        pandas.DataFrame({"version": [1]}).to_sql("about", connection, index=False)
    return path


def test_a_table_of_several_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    file = two_tables(Path("t.db"))
    typed = ["init", str(file), "--answer", "kind"]
    done = CliRunner().invoke(app, typed)
    assert isinstance(done.exception, DataError)
    assert str(done.exception) == (
        "t.db: Say which: --table NAME, one of its tables: new tickets, about."
    )
    done = CliRunner().invoke(app, [*typed, "--table", "old"])
    assert "--table old is none of them: --table NAME, one of its tables" in str(done.exception)
    assert CliRunner().invoke(app, [*typed, "--table", "new tickets"]).exit_code == 0
    assert written("t").source.table == "new tickets"
    assert len(build_splits(written("t")).train) > 0
    with pytest.raises(DataError, match="is one table: --table is for SQLite and Excel"):
        read_table(write_csv(Path("t.csv"), tickets()), "kind")
    Path("t.xlsx").write_bytes(b"PK\x03\x04")
    excel(monkeypatch, notes=[("x",)], data=[("q", "a"), ("one", 1)])
    with pytest.raises(DataError, match="--table NAME, one of its sheets: notes, data"):
        read_table(Path("t.xlsx"))
    source, rows = read_table(Path("t.xlsx"), "data")
    assert (source["table"], rows) == ("data", [{"q": "one", "a": 1}])


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
