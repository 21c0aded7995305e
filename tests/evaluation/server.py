"""A small OpenAI-compatible server on loopback that can be told to fail."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = Callable[[dict[str, Any]], dict[str, Any]]


def echo(body: dict[str, Any]) -> dict[str, Any]:
    """Answer with the last word of the prompt."""
    return {"content": body["messages"][-1]["content"].split()[-1]}


class FakeServer:
    """Counts requests; ``faults`` is what happens to the first ones, the others are answered.

    A fault is a status, ``hang`` (no answer while the server lives) or ``cut`` (the connection is
    closed without one). ``together`` is the highest number of requests under way at once.
    """

    def __init__(self, reply: Reply = echo, faults: tuple[int | str, ...] = ()) -> None:
        self.reply, self.faults = reply, list(faults)
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.answered: list[str] = []
        self.together = self._now = 0
        self.pause = 0.0
        self.lock, self.closing = threading.Lock(), threading.Event()
        self.url = ""

    def enter(self, body: dict[str, Any], headers: dict[str, str]) -> int | str | None:
        with self.lock:
            self.bodies.append(body)
            self.headers.append(headers)
            self._now += 1
            self.together = max(self.together, self._now)
            return self.faults.pop(0) if self.faults else None

    def leave(self) -> None:
        with self.lock:
            self._now -= 1

    @property
    def questions(self) -> list[str]:
        return [body["messages"][-1]["content"] for body in self.bodies]


def completion(body: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    message = {"role": "assistant", "content": given["content"], "refusal": given.get("refusal")}
    choice = {
        "index": 0,
        "finish_reason": given.get("finish_reason", "stop"),
        "message": message,
        "logprobs": given.get("logprobs"),
    }
    usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
    usage |= given.get("usage", {})
    head = {"id": "x", "object": "chat.completion", "created": 0, "model": body["model"]}
    return {**head, "choices": [choice], "usage": usage}


class Handler(BaseHTTPRequestHandler):
    state: FakeServer

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        fault = self.state.enter(body, {k.lower(): v for k, v in self.headers.items()})
        try:
            self._answer(body, fault)
        finally:
            self.state.leave()

    def _answer(self, body: dict[str, Any], fault: int | str | None) -> None:
        if fault == "cut":
            self.connection.close()
        elif fault == "hang":
            self.state.closing.wait(20)
        elif isinstance(fault, int):
            self._send(fault, {"error": {"message": f"fault {fault}", "code": None}})
        else:
            time.sleep(self.state.pause)
            given = self.state.reply(body)
            if "status" in given:
                self._send(given["status"], {"error": given["error"]})
            else:
                self.state.answered.append(body["messages"][-1]["content"])
                self._send(200, completion(body, given))

    def _send(self, status: int, body: dict[str, Any]) -> None:
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        if status in (429, 503):
            self.send_header("Retry-After", "0.01")
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing is printed."""


@contextmanager
def serving(state: FakeServer) -> Iterator[FakeServer]:
    handler = type("Bound", (Handler,), {"state": state})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_port}/v1"
    try:
        yield state
    finally:
        state.closing.set()
        server.shutdown()
        server.server_close()
        thread.join()
