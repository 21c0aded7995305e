"""Logs of Inspect: ``.eval`` (a zip archive) and ``.json``, by their documented fields."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sizewise.errors import OutcomeError
from sizewise.files import parse_json
from sizewise.report.imports.samples import GENERATED, HarnessLog, Sample, plain_fields

HARNESS = "Inspect"
PATTERN = "*.eval"
ZSTANDARD = 93  # the method that newer versions compress with; Python 3.11 cannot read it
LOCAL_HEADER = 30
LARGEST = 256 * 2**20
# Grades of its scorers as numbers (inspect_ai.scorer.value_to_float).
GRADES = {"C": 1.0, "I": 0.0, "P": 0.5, "N": 0.0}


def read_inspect(path: Path) -> HarnessLog:
    """Read a log; of several epochs the first one's samples are taken.

    Raises:
        OutcomeError: it cannot be read, or is no such log.
    """
    try:
        header, rows = _json(path) if path.suffix == ".json" else _archive(path)
        facts = header["eval"]
        kept = [row for row in rows if row.get("epoch", 1) == 1]
        answered = [row for row in kept if not row.get("error")]
        samples = [_sample(row) for row in answered]
        model, task = str(facts["model"]), str(facts["task"])
    except OutcomeError:
        raise
    except OSError as error:
        raise OutcomeError(f"{path} cannot be read: {error.strerror or error}.") from error
    except (zipfile.BadZipFile, ValueError, KeyError, TypeError, AttributeError) as error:
        raise OutcomeError(
            f"{path} is no log of {HARNESS} that is known here ({error!r}). Give an .eval or .json "
            "log of a finished evaluation."
        ) from error
    notes = []
    if len(kept) < len(rows):
        notes.append(f"of {len(rows)} samples over several epochs the first epoch's are read")
    if len(answered) < len(kept):
        notes.append(f"{len(kept) - len(answered)} samples ended in an error and are left out")
    return HarnessLog(path, HARNESS, task, model, None, GENERATED, samples, tuple(notes))


Contents = tuple[Mapping[str, Any], list[dict[str, Any]]]


def _json(path: Path) -> Contents:
    found = parse_json(path.read_bytes())
    return found, list(found["samples"])


def _archive(path: Path) -> Contents:
    with zipfile.ZipFile(path) as archive:
        header = parse_json(_member(archive, archive.getinfo("header.json")))
        return header, list(_samples(archive))


def _samples(archive: zipfile.ZipFile) -> Iterator[dict[str, Any]]:
    for info in archive.infolist():
        if info.filename.startswith("samples/") and info.filename.endswith(".json"):
            yield parse_json(_member(archive, info))


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    """Return the content of a file in an archive, whatever it is compressed with.

    Raises:
        OutcomeError: it is larger than any sample is.
    """
    if info.file_size > LARGEST:
        raise OutcomeError(
            f"{archive.filename}: {info.filename} is {info.file_size:,} bytes long, more than is "
            "read here."
        )
    if info.compress_type != ZSTANDARD:
        return archive.read(info)
    import pyarrow

    file = archive.fp
    assert file is not None
    file.seek(info.header_offset)
    name, extra = struct.unpack("<HH", file.read(LOCAL_HEADER)[26:30])
    file.seek(name + extra, 1)
    packed = pyarrow.py_buffer(file.read(info.compress_size))
    content: bytes = pyarrow.input_stream(packed, compression="zstd").read(info.file_size)
    return content


def _sample(row: Mapping[str, Any]) -> Sample:
    fields = plain_fields(row.get("metadata")) | {"id": str(row["id"])}
    given = row["input"]
    turns = [given] if isinstance(given, str) else [_text(message) for message in given]
    target = row.get("target")
    targets = [target] if isinstance(target, str) else list(target or ())
    output = row["output"]
    return Sample(
        texts=("\n\n".join(turns), *turns, *(v for v in fields.values() if len(v) > 1)),
        target=str(targets[0]) if len(targets) == 1 else None,
        response=str(output.get("completion") or _first_choice(output)).strip(),
        fields=fields,
        scores={
            name: value
            for name, score in (row.get("scores") or {}).items()
            if (value := _grade(score.get("value"))) is not None
        },
    )


def _text(message: Mapping[str, Any]) -> str:
    """Return the text of a message; of one in parts the texts among them."""
    content = message["content"]
    if isinstance(content, str):
        return content
    return "\n".join(str(part["text"]) for part in content if part.get("type") == "text")


def _first_choice(output: Mapping[str, Any]) -> str:
    choices = output.get("choices") or ()
    return _text(choices[0]["message"]) if choices else ""


def _grade(value: Any) -> float | None:
    if isinstance(value, str):
        return GRADES.get(value)
    return float(value) if isinstance(value, (int, float)) else None
