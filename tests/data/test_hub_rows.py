"""Data of the hub for real: the client of ``datasets`` against a hub on loopback."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.hub import TOKEN, Hub, hub

READ = """
from sizewise.config.data import SourceConfig
from sizewise.data.rows.read import stream_rows
from sizewise.errors import DataError
try:
    print(list(stream_rows(SourceConfig(kind="hub", path={path!r}, revision={revision!r}))))
except DataError as error:
    print(error)
"""
ROWS = "[{'question': 'what', 'answer': 'this', '__split__': 'train'}]"


@pytest.fixture(name="data_hub", scope="module")
def fixture_data_hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    folder = tmp_path_factory.mktemp("data")
    (folder / "train.jsonl").write_text('{"question": "what", "answer": "this"}\n')
    with hub("datasets", "sizewise.data.rows.read") as running:
        running.add("datasets/them/open", folder)
        running.add("datasets/them/gated", folder, gated=True)
        running.add("datasets/me/private", folder, private=True)
        running.add("datasets/them/broken", folder, breaks_after=5)
        yield running


def read(running: Hub, home: Path, path: str, revision: str | None = None, token: str = "") -> str:
    done = running.run(READ.format(path=path, revision=revision), home, token or None)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_rows_are_downloaded_once_and_then_read_from_the_cache(
    data_hub: Hub, tmp_path: Path
) -> None:
    before = data_hub.asked("GET", "train.jsonl")
    assert read(data_hub, tmp_path, "them/open") == ROWS
    assert read(data_hub, tmp_path, "them/open") == ROWS
    assert data_hub.asked("GET", "train.jsonl") == before + 1


def test_private_rows_are_read_with_a_token_and_refused_without_one(
    data_hub: Hub, tmp_path: Path
) -> None:
    assert read(data_hub, tmp_path, "me/private", token=TOKEN) == ROWS
    other = tmp_path / "other"
    other.mkdir()
    assert "does not exist or is private" in read(data_hub, other, "me/private")


@pytest.mark.parametrize(
    ("path", "revision", "said"),
    [
        ("them/gated", None, "it is gated. Accept its terms"),
        ("them/none", None, "it does not exist or is private. Check dataset.source.path"),
        ("them/open", "gone", "dataset.source.revision"),
        ("them/broken", None, "cannot be loaded"),
    ],
)
def test_what_the_hub_refuses_or_breaks_off_is_one_clear_message(
    data_hub: Hub, tmp_path: Path, path: str, revision: str | None, said: str
) -> None:
    shown = read(data_hub, tmp_path, path, revision)
    assert shown.startswith(f"The data set '{path}' of the hub cannot be loaded: ")
    assert said in shown
    assert "Traceback" not in shown
