"""A small hub on loopback, spoken to by the real clients ``huggingface_hub`` and ``datasets``.

It knows as much of the protocol as downloads and uploads of a model and downloads of data need.
What it refuses, and how, follows what the real hub answers: a status and the header
``X-Error-Code``. Code that asks it runs in forks of one process (`tests.forks`): the clients read
much of their environment when they are imported, so that one knows this hub from its beginning.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import pty
import re
import termios
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from subprocess import CompletedProcess

from tests.forks import Forks, forking

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_loopback"
# The client waits a second before it asks again for what a download has not brought.
AT_ONCE = """
import time
from types import SimpleNamespace
from huggingface_hub import file_download
file_download.time = SimpleNamespace(**{**vars(time), "sleep": lambda seconds: None})
"""
FILE = re.compile(r"^/((?:datasets/)?[^/]+/[^/]+)/resolve/([^/]+)/(.+)$")
REPOSITORY = re.compile(
    r"^/api/(?:models/|(?=datasets/))((?:datasets/)?[^/]+/[^/]+)"
    r"(?:/(revision|tree|preupload|commit)/(.+))?$"
)


@dataclass
class Repository:
    """Files by name, who may read them, and after how many bytes a download breaks off."""

    files: dict[str, bytes] = field(default_factory=dict)
    private: bool = False
    gated: bool = False
    breaks_after: int | None = None


class Hub:
    """Repositories by ``owner/name``, data as ``datasets/owner/name``.

    ``requests`` are method and path of all that was asked.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.requests: list[tuple[str, str]] = []
        self.forks: Forks

    def add(self, name: str, folder: Path, **how: object) -> Repository:
        files = {f.name: f.read_bytes() for f in sorted(folder.iterdir()) if f.is_file()}
        self.repositories[name] = Repository(files, **how)  # type: ignore[arg-type]
        return self.repositories[name]

    def asked(self, method: str, ending: str) -> int:
        return sum(m == method and path.endswith(ending) for m, path in self.requests)

    def run(self, code: str, home: Path, token: str | None = None) -> CompletedProcess[str]:
        """Run Python code in a process that knows this hub alone."""
        return self.forks.run(AT_ONCE + code, home, {"HF_TOKEN": token} if token else {})

    def in_terminal(self, code: str, home: Path) -> str:
        """Run Python code as `run` does, with a terminal as its output; return what it shows."""
        ours, theirs = pty.openpty()
        termios.tcsetwinsize(theirs, (40, 120))
        terminal = Path(os.ttyname(theirs))
        shown: list[bytes] = []

        def read() -> None:
            with contextlib.suppress(OSError):  # what a terminal without a writer gives
                while block := os.read(ours, 65536):
                    shown.append(block)

        reader = threading.Thread(target=read)
        reader.start()
        self.forks.ask(code, home, (terminal, terminal), {})
        os.close(theirs)
        reader.join(timeout=60)
        os.close(ours)
        return b"".join(shown).decode()


@contextmanager
def hub(*modules: str) -> Iterator[Hub]:
    """A running hub, whose clients have imported ``modules``; it ends with the block."""
    made = Hub()

    class Handler(_Handler):
        known = made

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING_FACE_"))}
    # A cache of its own for each: where it is is told from the folder that the code runs in.
    own = {"HF_ENDPOINT": url, "HF_HOME": "hub", "HF_HUB_DISABLE_XET": "1", "NO_PROXY": "*"}
    own["HF_HUB_DISABLE_TELEMETRY"] = "1"  # as the commands set it
    try:
        with forking(modules, {**kept, **own}) as made.forks:
            yield made
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=10)


class _Handler(BaseHTTPRequestHandler):
    known: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Keep the tests' output clean: ``Hub.requests`` has it all."""

    def do_HEAD(self) -> None:
        self._read(body=False)

    def do_GET(self) -> None:
        self._read(body=True)

    def _read(self, body: bool) -> None:
        self.known.requests.append((self.command, self.path))
        path = self.path.partition("?")[0]
        if path == "/api/whoami-v2":
            me = {"name": "me", "type": "user", "orgs": []}
            return self._json(me) if self._token == TOKEN else self._refuse(401, "")
        if found := FILE.match(path):
            return self._file(*found.groups(), body=body)
        if found := REPOSITORY.match(path):
            return self._facts(found[1], found[2], found[3])
        return self._refuse(404, "")

    def do_POST(self) -> None:
        self.known.requests.append(("POST", self.path))
        sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self._token != TOKEN:
            return self._refuse(401, "")
        if self.path == "/api/repos/create":
            wanted = json.loads(sent)
            name = f"{wanted.get('organization') or 'me'}/{wanted['name']}"
            private = wanted.get("visibility") == "private" or bool(wanted.get("private"))
            self.known.repositories[name] = Repository(private=private)
            return self._json({"url": f"{self._url}/{name}"})
        if self.path == "/api/validate-yaml":
            return self._json({"errors": [], "warnings": []})
        found = REPOSITORY.match(self.path.partition("?")[0])
        if found is None or found[1] not in self.known.repositories:
            return self._refuse(404, "RepoNotFound")
        if found[2] == "preupload":
            files = json.loads(sent)["files"]
            modes = [{**f, "uploadMode": "regular", "shouldIgnore": False} for f in files]
            return self._json({"files": modes})
        return self._commit(found[1], sent)

    @property
    def _url(self) -> str:
        return f"http://{self.headers['Host']}"

    @property
    def _token(self) -> str:
        return (self.headers.get("Authorization") or "").removeprefix("Bearer ")

    def _allowed(self, name: str) -> Repository | None:
        """The repository, if it is there for who asks; else the refusal is sent."""
        repository = self.known.repositories.get(name)
        if repository is None or (repository.private and self._token != TOKEN):
            self._refuse(404 if self._token else 401, "RepoNotFound")
        elif repository.gated:
            self._refuse(403 if self._token else 401, "GatedRepo")
        else:
            return repository
        return None

    def _facts(self, name: str, what: str | None, place: str | None) -> None:
        repository = self._allowed(name)
        if repository is None:
            return None
        revision, _, folder = (place or "main").partition("/")
        if revision not in ("main", COMMIT):
            return self._refuse(404, "RevisionNotFound")
        if folder:
            return self._refuse(404, "EntryNotFound")
        if what == "tree":
            files = repository.files.items()
            listed = [{"type": "file", "path": f, "size": len(c), "oid": "0"} for f, c in files]
            return self._json(listed)
        facts = {
            "_id": "0", "id": name, "sha": COMMIT, "private": repository.private, "gated": False,
            "siblings": [{"rfilename": file} for file in repository.files], "tags": [],
        }  # fmt: skip
        return self._json(facts)

    def _file(self, name: str, revision: str, file: str, body: bool) -> None:
        repository = self._allowed(name)
        if repository is None:
            return None
        if revision not in ("main", COMMIT):
            return self._refuse(404, "RevisionNotFound")
        if file not in repository.files:
            return self._refuse(404, "EntryNotFound")
        content = repository.files[file]
        start = self._start()
        self.send_response(206 if start else 200)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(content) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if not body:
            return None
        ends = repository.breaks_after if file.endswith((".safetensors", ".jsonl")) else None
        self.wfile.write(content[start:ends])
        if ends is not None:
            self.close_connection = True
        return None

    def _start(self) -> int:
        found = re.match(r"bytes=(\d+)-", self.headers.get("Range") or "")
        return int(found[1]) if found else 0

    def _commit(self, name: str, sent: bytes) -> None:
        for line in sent.decode().splitlines():
            entry = json.loads(line)
            if entry["key"] == "file":
                value = entry["value"]
                content = base64.b64decode(value["content"])
                self.known.repositories[name].files[value["path"]] = content
        answer = {"commitUrl": f"{self._url}/{name}/commit/{COMMIT}", "commitOid": COMMIT}
        self._json(answer)

    def _json(self, value: object) -> None:
        content = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()
