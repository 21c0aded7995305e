"""Files that are no good, each in its own way, beside one good table."""

from __future__ import annotations

import json
import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.numpy import save

from sizewise.embedded.ladder import embedded_model_path

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
