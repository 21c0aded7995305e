"""Files that are no good, each in its own way, beside one good table; and the cases of tables."""

from __future__ import annotations

import json
import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.numpy import save

from sizewise.models.sources import embedded_model_path

from .bad_cases import Case

HEADER = "text,label,part\n"
ROWS = [f"question number {n},{'yes' if n % 2 else 'no'},{n % 5}" for n in range(40)]


def write_bad_files(folder: Path) -> None:
    """Write ``good.csv`` and everything that is wrong with a table, a model or an adapter."""
    (folder / "folder.csv").mkdir()
    (folder / "empty_folder").mkdir()
    for name, content in (TEXTS | BYTES).items():
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    for name, value in JSONS.items():
        (folder / f"{name}.json").write_text(json.dumps(value))
    _write_tables(folder)
    _write_databases(folder)
    _write_models(folder)
    _write_adapters(folder)


def table(*rows: str, header: str = HEADER) -> str:
    return header + "\n".join(rows) + "\n"


TEXTS = {
    "good.csv": table(*ROWS),
    "größe 数据.csv": table(header="text,label\n"),
    "empty.csv": "",
    "blank.csv": "\n\n\n",
    "only_header.csv": table(),
    "one_row.csv": table("a question,yes,1"),
    "duplicates.csv": table(*["the same,yes,1"] * 50),
    "no_answers.csv": table(*(f"question {n},,1" for n in range(40))),
    "no_questions.csv": table(*(f",answer {n},1" for n in range(40))),
    "spaces.csv": table(*(f"   ,  ,{n}" for n in range(40))),
    "enormous.csv": table(*(f"{n} {'word ' * 20_000},yes,1" for n in range(20))),
    "enormous_answers.csv": table(*(f"question {n},{'word ' * 20_000},1" for n in range(20))),
    "ragged.csv": table("a,yes,1", "b,no", "c,yes,1,2,3"),
    "open_quote.csv": table('"a question,yes,1', "b,no,2"),
    "twice.csv": table("a,b,c", header="text,text,label\n"),
    "semicolons.csv": table("a;yes;1", header="text;label;part\n"),
    "split_unknown.csv": table(
        *(f"q{n},yes,fold{n % 3}" for n in range(40)), header="text,label,s\n"
    ),
    "split_train.csv": table(*(f"q{n},yes,train" for n in range(40)), header="text,label,s\n"),
    "one_group.csv": table(*(f"q{n},yes,same" for n in range(40))),
    "broken.json": '[{"text": "a", "label"',
    "broken.jsonl": '{"text": "a", "label": "b"}\n{"text": "c", "la\n',
    "nothing.json": "",
    "nothing.jsonl": "",
    "values.jsonl": "1\n2\n3\n",
    "lists.jsonl": "[1, 2]\n[3, 4]\n",
    "text.parquet": "no parquet",
    "text.sqlite": "no database at all, but quite some text of which it could be made",
    "text.xlsx": "no workbook",
    "table.pickle": "no known ending",
    "words.txt": "\n\n",
    "broken.jinja": "{% for message in messages %}{{ message.content",
    "no_messages.jinja": "the same for everybody",
}
BYTES = {
    "noise.csv": bytes(range(256)) * 20,
    "nul.csv": b"text,label\na\x00b,yes\n",
    "utf16.csv": table(*ROWS).encode("utf-16"),
    "latin1.csv": table("größer,ja,1").encode("latin-1"),
    "noise.jsonl": bytes(range(128, 256)) * 20,
    "noise.parquet": b"PAR1" + bytes(200) + b"PAR1",
    "noise.jinja": bytes(range(128, 256)),
    "labels.bin": bytes(range(128, 256)),
}
JSONS = {
    "number": 3,
    "text": "rows",
    "null": None,
    "no_rows": [],
    "numbers": [1, 2, 3],
    "lists": [[1, 2], [3, 4]],
    "deep": {"data": {"rows": [{"text": "a"}]}},
    "missing_key": [{"text": f"a{n}"} for n in range(40)],
    "not_a_number": [{"text": f"a{n}", "label": float("nan")} for n in range(40)],
    "nulls": [{"text": f"a{n}", "label": None} for n in range(40)],
    "text_history": [{"text": f"a{n}", "label": "b", "past": "c"} for n in range(40)],
    "no_roles": [{"talk": [{"content": f"a{n}"}]} for n in range(40)],
    "number_talk": [{"talk": n} for n in range(40)],
    "lonely_user": [{"talk": [{"role": "user", "content": f"a{n}"}]} for n in range(40)],
    "odd_role": [{"talk": [{"role": "ghost", "content": f"a{n}"}]} for n in range(40)],
}


def _write_tables(folder: Path) -> None:
    whole = pa.table({"text": [f"a{n}" for n in range(40)], "label": ["b"] * 40})
    pq.write_table(whole, folder / "whole.parquet")
    content = (folder / "whole.parquet").read_bytes()
    (folder / "cut.parquet").write_bytes(content[: len(content) // 2])
    pq.write_table(whole.slice(0, 0), folder / "no_rows.parquet")
    answers = pa.array([float("nan")] * 40)
    pq.write_table(whole.set_column(1, "label", answers), folder / "not_a_number.parquet")
    pq.write_table(whole.set_column(1, "label", pa.array([b"x"] * 40)), folder / "bytes.parquet")


def _write_databases(folder: Path) -> None:
    for name, tables in (("no_tables", ()), ("two_tables", ("one", "two")), ("no_rows", ("one",))):
        connection = sqlite3.connect(folder / f"{name}.sqlite")
        for title in tables:
            connection.execute(f"create table {title} (text, label)")
            if name == "two_tables":
                connection.executemany(
                    f"insert into {title} values (?, ?)", [(f"a{n}", "b") for n in range(40)]
                )
        connection.commit()
        connection.close()
    content = (folder / "two_tables.sqlite").read_bytes()
    (folder / "cut.sqlite").write_bytes(content[: len(content) // 3])


def _write_models(folder: Path) -> None:
    """Write copies of nano in which one file is damaged, or absent (None)."""
    whole = embedded_model_path("nano")
    weights = (whole / "model.safetensors").read_bytes()
    config = json.loads((whole / "config.json").read_text())
    damage: dict[str, tuple[str, bytes | None]] = {
        "no_config": ("config.json", None),
        "empty_config": ("config.json", b""),
        "list_config": ("config.json", b"[]"),
        "empty_object": ("config.json", b"{}"),
        "unknown_type": ("config.json", json.dumps({**config, "model_type": "qwen99"}).encode()),
        "encoder": ("config.json", json.dumps({**config, "model_type": "bert"}).encode()),
        "small_vocabulary": ("config.json", json.dumps({**config, "vocab_size": 64}).encode()),
        "no_weights": ("model.safetensors", None),
        "empty_weights": ("model.safetensors", b""),
        "cut_weights": ("model.safetensors", weights[:-1000]),
        "cut_header": ("model.safetensors", weights[:100]),
        "text_weights": ("model.safetensors", b"these are no weights"),
        "pointer": ("model.safetensors", b"version https://git-lfs.github.com/spec/v1\nsize 9\n"),
        "no_tokenizer": ("tokenizer.json", None),
        "empty_tokenizer": ("tokenizer.json", b""),
        "list_tokenizer": ("tokenizer.json", b"[1, 2]"),
        "broken_template": ("chat_template.jinja", b"{% for m in messages %}"),
        "refusing_template": ("chat_template.jinja", b"{{ raise_exception('no such thing') }}"),
    }
    for name, (file, content) in damage.items():
        shutil.copytree(whole, folder / name)
        (folder / name / file).unlink()
        if content is not None:
            (folder / name / file).write_bytes(content)
    (folder / "folder_for_weights").mkdir()
    shutil.copy(whole / "config.json", folder / "folder_for_weights")
    (folder / "folder_for_weights/model.safetensors").mkdir()


def _write_adapters(folder: Path) -> None:
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": 4,
        "lora_alpha": 8,
        "target_modules": ["q_proj"],
        "base_model_name_or_path": "embedded:nano",
    }
    some = save({"weight": np.zeros((2, 2), np.float32)})
    adapters: dict[str, tuple[str | None, bytes | None]] = {
        "adapter_none": (None, None),
        "adapter_empty_config": ("", some),
        "adapter_list_config": ("[]", some),
        "adapter_no_weights": (json.dumps(config), None),
        "adapter_empty_weights": (json.dumps(config), b""),
        "adapter_text_weights": (json.dumps(config), b"these are no weights"),
        "adapter_other_kind": (json.dumps({**config, "peft_type": "NOTHING"}), some),
        "adapter_other_weights": (json.dumps(config), some),
        "adapter_other_modules": (json.dumps({**config, "target_modules": ["wq"]}), some),
    }
    for name, (text, weights) in adapters.items():
        (folder / name).mkdir()
        if text is not None:
            (folder / name / "adapter_config.json").write_text(text)
        if weights is not None:
            (folder / name / "adapter_model.safetensors").write_bytes(weights)


def read_as(said: str, name: str, *overrides: str) -> Case:
    """Return the case of one file that is read as what its name says."""
    kinds = {"jsonl": "json", "pickle": "hub", "xlsx": "csv"}
    kind = name.rpartition(".")[2]
    kind = kinds.get(kind, kind)
    return (said, f"dataset.source.kind={kind}", f"dataset.source.path='{{d}}/{name}'", *overrides)


TALK = ("dataset.conversation=talk", "dataset.prompt=''", "dataset.answer=''")
TABLES: list[Case] = [
    read_as("nowhere.csv", "nowhere.csv"),
    read_as("folder.csv", "folder.csv"),
    read_as("größe 数据.csv", "größe 数据.csv"),
    read_as("nowhere/*.csv", "nowhere/*.csv"),
    ("empty_folder", "dataset.source.path={d}/empty_folder"),
    *(
        read_as(said, name)
        for name, said in {
            "empty.csv": "empty.csv",
            "blank.csv": "blank.csv",
            "only_header.csv": "only_header.csv",
            "one_row.csv": "dataset.split",
            "duplicates.csv": "duplicates",
            "no_answers.csv": "40 empty_answer",
            "no_questions.csv": "40 empty_prompt",
            "spaces.csv": "left out",
            "enormous.csv": "dataset.max_length",
            "enormous_answers.csv": "dataset.max_length",
            "ragged.csv": "ragged.csv, line 3",
            "open_quote.csv": "open_quote.csv, line",
            "twice.csv": "more than one column 'text'",
            "semicolons.csv": "dataset.source.delimiter",
            "noise.csv": "noise.csv",
            "nul.csv": "dataset.split",
            "utf16.csv": "UTF-16",
            "latin1.csv": "iconv",
            "broken.json": "broken.json",
            "broken.jsonl": "broken.jsonl, line 2",
            "nothing.json": "nothing.json",
            "nothing.jsonl": "nothing.jsonl",
            "values.jsonl": "values.jsonl",
            "lists.jsonl": "lists.jsonl",
            "noise.jsonl": "noise.jsonl",
            "number.json": "number.json",
            "text.json": "text.json",
            "null.json": "null.json",
            "no_rows.json": "no_rows.json",
            "numbers.json": "numbers.json",
            "lists.json": "lists.json",
            "deep.json": "Columns: 'data'",
            "missing_key.json": "label",
            "not_a_number.json": "40 empty_answer",
            "nulls.json": "40 empty_answer",
            "text.parquet": "text.parquet",
            "noise.parquet": "noise.parquet",
            "cut.parquet": "cut.parquet",
            "no_rows.parquet": "no_rows.parquet",
            "not_a_number.parquet": "40 empty_answer",
            "bytes.parquet": "label",
            "text.sqlite": "text.sqlite",
            "cut.sqlite": "cut.sqlite",
            "no_tables.sqlite": "no_tables.sqlite",
            "two_tables.sqlite": "dataset.source.table",
            "no_rows.sqlite": "no_rows.sqlite",
            "text.xlsx": "text.xlsx",
            "table.pickle": "table.pickle",
        }.items()
    ),
    read_as("three", "two_tables.sqlite", "dataset.source.table=three"),
    read_as("query", "two_tables.sqlite", "dataset.source.query='select nonsense'"),
    read_as("query", "two_tables.sqlite", "dataset.source.query='drop table one'"),
    read_as("query", "two_tables.sqlite", "dataset.source.query='select 1; select 2'"),
    read_as("dataset.source.delimiter", "good.csv", "dataset.source.delimiter=ab"),
    read_as("dataset.source.delimiter", "good.csv", "dataset.source.delimiter=''"),
    read_as("dataset.history: a cell holds str", "text_history.json", "dataset.history=past"),
    read_as("dataset.conversation: a turn has the role ''", "no_roles.json", *TALK),
    read_as("dataset.conversation: a cell holds int", "number_talk.json", *TALK),
    read_as("without an answer to learn (40)", "lonely_user.json", *TALK),
    read_as("ghost", "odd_role.json", *TALK),
    read_as("talk", "good.csv", *TALK),
    read_as("txt", "good.csv", "dataset.prompt='{{txt}}'"),
    read_as("lable", "good.csv", "dataset.answer='{{lable}}'"),
    read_as("dataset.prompt", "good.csv", "dataset.prompt='no column'"),
    read_as("dataset.prompt", "good.csv", "dataset.prompt=''"),
    read_as("dataset.prompt", "good.csv", "dataset.prompt='{{text'"),
    read_as("dataset.prompt", "good.csv", "dataset.prompt='{{}}'"),
    read_as("dataset.prompt", "good.csv", "dataset.prompt='{{text.upper}}'"),
    read_as("put it in braces", "good.csv", "dataset.answer=label"),
    read_as("put it in braces", "good.csv", "dataset.prompt=text"),
    read_as("dataset.system", "good.csv", "dataset.system='{{nothing}}'"),
    read_as("nothing", "good.csv", "dataset.group=[nothing]"),
    read_as("nothing", "good.csv", "dataset.strata=[nothing]"),
    read_as("nothing", "good.csv", "dataset.label=nothing"),
    read_as("nothing", "good.csv", "dataset.history=nothing"),
    read_as("nothing", "good.csv", "dataset.rejected=nothing"),
    read_as("nothing", "good.csv", "dataset.split.column=nothing"),
    read_as("fold0", "split_unknown.csv", "dataset.split.column=s"),
    read_as("dataset.split.names", "good.csv", "dataset.split.column=part",
          "dataset.split.names={{train:0}}"),
    read_as("dataset.group=['part'] stay together", "one_group.csv", "dataset.group=[part]"),
    read_as("dataset.split", "good.csv", "dataset.split.test=1"),
    read_as("few_shot", "good.csv", "dataset.few_shot=1000"),
    read_as("left out", "good.csv", "dataset.filter.min_prompt_chars=1000"),
    read_as("left out", "good.csv", "dataset.filter.max_answer_chars=1"),
    read_as("dataset.max_length", "good.csv", "dataset.max_length=8"),
    read_as("test", "good.csv", "dataset.split.test=0"),
    read_as("evaluation.objective=primary", "good.csv", "dataset.split.validation=0",
          "evaluation.objective=primary"),
    ("nowhere.csv", "dataset.source.path={{train: '{d}/good.csv', validation: '{d}/nowhere.csv'}}"),
    ("folder.csv", "dataset.source.path={{train: '{d}/folder.csv', test: '{d}/good.csv'}}"),
    ("only_header.csv",
     "dataset.source.path={{train: '{d}/only_header.csv', test: '{d}/good.csv'}}"),
    ("dataset.split.column", "dataset.source.path={{train: '{d}/good.csv', test: '{d}/good.csv'}}",
     "dataset.split.column=part"),
    ("Start the command again", "dataset.source.sha256=0123456789abcdef"),
    ("nobody/nothing", "dataset.source.kind=hub", "dataset.source.path=nobody/nothing"),
    ("nobody", "dataset.source.kind=hub", "dataset.source.path='nobody/no thing'"),
    ("nothing", "dataset.source.kind=embedded", "dataset.source.path=nothing"),
    ("dataset.parts", "dataset.source.kind=mixture"),
    ("nowhere.csv", "eval_dataset=[csv]", "eval_dataset.csv.source.path={d}/nowhere.csv",
     "eval_dataset.csv.prompt='{{text}}'", "eval_dataset.csv.answer='{{label}}'"),
    ("txt", "eval_dataset=[csv]", "eval_dataset.csv.source.path={d}/good.csv",
     "eval_dataset.csv.prompt='{{txt}}'", "eval_dataset.csv.answer='{{label}}'"),
    ("dataset.parts.a", "dataset=mixture", "+dataset.parts.a={{name:a}}"),
    ("dataset.parts.a", "dataset=mixture", "+dataset.parts.a=3"),
    ("dataset.parts.a", "dataset=mixture", "+dataset.parts.a={{promt:x}}"),
]  # fmt: skip
