"""A server of token ids like vLLM's: a base, and adapters that are given or lent to it.

Also a program, for jobs that start their server: ``tokens_server MODEL PORT [NAME=ADAPTER]``.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import torch

from sizewise.config.model import ModelConfig
from sizewise.late_imports import leave_until_used
from sizewise.models.adapter.attach import load_adapter
from sizewise.models.base import load_base


class TokensServer:
    """Answers greedily, one at a time.

    The first ``spoil`` answers lack a token; ``runtime``: adapters may be lent to it; after
    ``most`` answers it gives errors. ``keys`` are those it was sent.
    """

    def __init__(
        self, place: str, spoil: int = 0, runtime: bool = True, most: int = 1_000_000
    ) -> None:
        self.place, self.spoil, self.runtime, self.most = place, spoil, runtime, most
        self.keys: set[str | None] = set()
        self.models: dict[str, Any] = {place: load_base(ModelConfig(name="x", path=place))}
        self.asked: list[dict[str, Any]] = []
        self.lent: list[str] = []
        self.lock = threading.Lock()

    def take(self, name: str, adapter: str) -> None:
        base = load_base(ModelConfig(name="x", path=self.place))
        self.models[name] = load_adapter(base, Path(adapter))

    def complete(self, body: dict[str, Any]) -> dict[str, Any]:
        with self.lock, torch.no_grad():
            self.asked.append(body)
            prompt, stops = torch.tensor([body["prompt"]]), body["stop_token_ids"]
            written = self.models[body["model"]].generate(
                prompt, attention_mask=torch.ones_like(prompt), eos_token_id=stops,
                do_sample=False, max_new_tokens=body["max_tokens"], pad_token_id=stops[0],
            )[0, prompt.shape[1] :].tolist()  # fmt: skip
        ended = written[-1] in stops
        ids = written[:-1] if ended else written
        if len(self.asked) <= self.spoil:
            ids = ids[:-1]
        choice = {"index": 0, "text": "", "finish_reason": "stop" if ended else "length",
                  "logprobs": None, "token_ids": ids}  # fmt: skip
        usage = {"prompt_tokens": 1, "completion_tokens": len(written), "total_tokens": 1}
        head = {"id": "x", "object": "text_completion", "created": 0, "model": body["model"]}
        return {**head, "choices": [choice], "usage": usage}


class Handler(BaseHTTPRequestHandler):
    state: TokensServer

    def do_GET(self) -> None:
        self.state.keys.add(self.headers["Authorization"])
        self._send(200, {"object": "list", "data": [{"id": name} for name in self.state.models]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.state.keys.add(self.headers["Authorization"])
        name, there = body.get("lora_name"), body.get("lora_name") in self.state.models
        if self.path == "/v1/completions" and len(self.state.asked) >= self.state.most:
            self._send(400, {"error": {"message": "no more", "code": None}})
        elif self.path == "/v1/completions":
            self._send(200, self.state.complete(body))
        elif self.state.runtime and self.path == "/v1/load_lora_adapter" and not there:
            self.state.take(name, body["lora_path"])
            self.state.lent.append(name)
            self._send(200, {})
        elif self.state.runtime and self.path == "/v1/load_lora_adapter":
            self._send(400, {"detail": f"{name} has already been loaded"})
        elif self.state.runtime and self.path == "/v1/unload_lora_adapter" and there:
            del self.state.models[name]
            self._send(200, {})
        else:
            self._send(404, {"detail": "Not Found"})

    def _send(self, status: int, body: dict[str, Any]) -> None:
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing is printed."""


def bound(state: TokensServer, port: int) -> ThreadingHTTPServer:
    return ThreadingHTTPServer(("127.0.0.1", port), type("Bound", (Handler,), {"state": state}))


@contextmanager
def tokens_server(place: str, **options: Any) -> Iterator[tuple[TokensServer, str]]:
    """Serve a base in this process; yields the server and its address."""
    state = TokensServer(place, **options)
    server = bound(state, 0)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield state, f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


if __name__ == "__main__":
    leave_until_used()
    torch.set_num_threads(1)
    given = TokensServer(sys.argv[1])
    for pair in sys.argv[3:]:
        given.take(*pair.split("=", 1))
    bound(given, int(sys.argv[2])).serve_forever()
