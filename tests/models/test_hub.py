"""The hub for real: the client of ``huggingface_hub`` against a hub on loopback."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.hub import COMMIT, TOKEN, Hub, Repository, hub

from sizewise.models.sources import embedded_model_path

FIND = """
from sizewise.errors import ModelError
from sizewise.models.sources import find_source
try:
    print(find_source({path!r}, {revision!r}))
except ModelError as error:
    print(error)
"""
LOAD = """
from sizewise.config.model import ModelConfig
from sizewise.errors import ModelError
from sizewise.models.base import load_base
from sizewise.models.tokenizer import load_tokenizer
model = ModelConfig(name="x", path={path!r})
try:
    print(len(load_tokenizer(model)), type(load_base(model)).__name__)
except ModelError as error:
    print(error)
"""
ADAPTER = """
from sizewise.errors import ModelError
from sizewise.models.adapter.attach import adapter_folder
try:
    print(sorted(file.name for file in adapter_folder({path!r}).iterdir()))
except ModelError as error:
    print(error)
"""
PUSH = """
from pathlib import Path
from sizewise.errors import ModelError
from sizewise.release.export import push
try:
    print(push(Path({folder!r}), {name!r}, private=True))
except ModelError as error:
    print(error)
"""


@pytest.fixture(scope="module")
def running() -> Iterator[Hub]:
    with hub("sizewise.models.base", "sizewise.release.export") as made:
        yield made


@pytest.fixture
def models(running: Hub) -> Hub:
    """The hub as it is before anybody has asked it."""
    folder = Path(embedded_model_path("nano"))
    running.repositories.clear()
    running.requests.clear()
    running.add("who/open", folder)
    running.add("who/gated", folder, gated=True)
    running.add("who/private", folder, private=True)
    running.add("who/broken", folder, breaks_after=1000)
    return running


@pytest.mark.parametrize(
    ("path", "revision", "token", "said"),
    [
        ("who/gated", None, None, "is gated. Accept its licence"),
        ("who/gated", None, TOKEN, "is gated. Accept its licence"),
        ("who/private", None, None, "was not found on the hub, or it is private"),
        ("who/none", None, TOKEN, "was not found on the hub, or it is private"),
        ("who/open", "v9", None, "(revision 'v9'): there is no such revision on the hub"),
    ],
)  # fmt: skip
def test_what_the_hub_refuses_is_one_clear_message(
    models: Hub, tmp_path: Path, path: str, revision: str | None, token: str | None, said: str
) -> None:
    done = models.run(FIND.format(path=path, revision=revision), tmp_path, token)
    assert (done.returncode, done.stderr) == (0, "")
    (line,) = done.stdout.splitlines()
    assert line.startswith(f"model.path={path!r}")
    assert said in line


@pytest.mark.parametrize(("path", "token"), [("who/open", None), ("who/private", TOKEN)])
def test_what_may_be_read_is_found_and_nothing_is_fetched_yet(
    models: Hub, tmp_path: Path, path: str, token: str | None
) -> None:
    done = models.run(FIND.format(path=path, revision=None), tmp_path, token)
    assert "local_only=False" in done.stdout
    assert models.asked("GET", ".safetensors") == 0


def test_a_base_is_downloaded_once_with_a_progress_bar(models: Hub, tmp_path: Path) -> None:
    code = LOAD.format(path="who/open")
    first = models.in_terminal(code, tmp_path)
    assert "Qwen3ForCausalLM" in first
    assert "model.safetensors: 100%" in first
    assert models.asked("GET", ".safetensors") == 1
    assert f"resolve/{COMMIT}" in " ".join(path for _, path in models.requests)
    models.requests.clear()
    again = models.run(code, tmp_path)
    assert "Qwen3ForCausalLM" in again.stdout
    assert models.requests == []


def test_a_broken_download_says_so_and_the_next_start_goes_on(models: Hub, tmp_path: Path) -> None:
    code = LOAD.format(path="who/broken")
    done = models.run(code, tmp_path)
    (line,) = done.stdout.splitlines()
    assert line.startswith("The download of 'who/broken' broke off")
    assert "Start the same command again" in line
    models.repositories["who/broken"].breaks_after = None
    assert "Qwen3ForCausalLM" in models.run(code, tmp_path).stdout


def test_a_broken_download_of_an_adapter_says_so_too(models: Hub, tmp_path: Path) -> None:
    weights = (Path(embedded_model_path("nano")) / "model.safetensors").read_bytes()
    made = models.repositories["who/adapter"] = Repository(
        {"adapter_config.json": b"{}", "adapter_model.safetensors": weights}, breaks_after=1000
    )
    code = ADAPTER.format(path="who/adapter")
    (line,) = models.run(code, tmp_path).stdout.splitlines()
    assert line.startswith("The download of 'who/adapter' broke off")
    made.breaks_after = None
    assert "adapter_model.safetensors" in models.run(code, tmp_path).stdout


def test_an_export_is_uploaded_to_a_private_repository(models: Hub, tmp_path: Path) -> None:
    folder = tmp_path / "export"
    folder.mkdir()
    (folder / "README.md").write_text("# A tuned model\n")
    (folder / "model.safetensors").write_bytes(b"weights")
    code = PUSH.format(folder=str(folder), name="me/tuned")
    assert "Log in with `hf auth login`" in models.run(code, tmp_path).stdout
    assert "me/tuned" not in models.repositories
    assert "me/tuned" in models.run(code, tmp_path, TOKEN).stdout
    made = models.repositories["me/tuned"]
    assert (made.private, made.files["model.safetensors"]) == (True, b"weights")
    assert made.files["README.md"].decode() == "# A tuned model\n"


def test_private_weights_are_not_uploaded_to_a_public_repository(
    models: Hub, tmp_path: Path
) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"mine")
    done = models.run(PUSH.format(folder=str(tmp_path), name="who/open"), tmp_path, TOKEN)
    assert "is an existing public repository and private=true" in done.stdout
    assert models.repositories["who/open"].files["model.safetensors"] != b"mine"
    assert not [path for method, path in models.requests if "/commit/" in path]
