"""A server of this machine (vLLM, SGLang) that answers for a base and its adapter.

Prompts go there as token ids and come back as ids where the server gives them, so that template,
thoughts and ends are those of a fit. Before its answers count, 64 of them are compared with
transformers' own (``check_parity``).
"""

from __future__ import annotations

import ctypes
import json
import logging
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sizewise.config.evaluation import ServerConfig
from sizewise.data.example import Example
from sizewise.data.tokens.template import Template
from sizewise.errors import ConfigError, EvaluationError
from sizewise.evaluation.endpoint import (
    NO_KEY,
    SERVED,
    Server,
    answered,
    key_from,
    token_counts,
)
from sizewise.evaluation.text import decode_answer, opened_thought
from sizewise.files import hash_text, tail
from sizewise.record.predictions import Prediction

log = logging.getLogger(__name__)
PARITY, COMPARED = f"{SERVED}parity", f"{SERVED}parity_examples"
PARITY_EXAMPLES, PARITY_SHARE = 64, 0.995
POLL_SECONDS, LEAVE_SECONDS = 0.5, 30.0
LOAD_SECONDS = 120.0  # for an adapter
LAST_LINES = 12
WITH_ADAPTER = re.compile(r"\[([^\[\]]*)\]")  # the part of a command that an untouched base skips
# Looked up here: between fork and exec nothing may be loaded.
LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


@dataclass(frozen=True)
class Address:
    """Where a server is, and the key that it gets. ``url`` ends in ``/v1``."""

    url: str
    key: str = NO_KEY

    def get(self, path: str) -> Any:
        """Return what stands there; OSError or ValueError without an answer.

        Raises:
            EvaluationError: the server wants a key, or another one.
        """
        try:
            with urllib.request.urlopen(self._request(path), timeout=POLL_SECONDS * 10) as reply:
                return json.loads(reply.read())
        except urllib.error.HTTPError as error:
            if error.code not in (401, 403):
                raise
            raise EvaluationError(
                f"The server at {self.url} wants a key ({error.code}). Name the environment "
                "variable that holds it: evaluation.server.api_key_env."
            ) from error

    def post(self, path: str, body: Mapping[str, str]) -> str | None:
        """Send ``body``; return None where it was taken, else what went wrong."""
        request = self._request(path, json.dumps(body).encode())
        request.add_header("Content-Type", "application/json")
        try:
            with urllib.request.urlopen(request, timeout=LOAD_SECONDS):
                return None
        except urllib.error.HTTPError as error:
            return f"{error.code}: {error.read(300).decode(errors='replace')}"
        except OSError as error:
            return str(error)

    def _request(self, path: str, data: bytes | None = None) -> urllib.request.Request:
        request = urllib.request.Request(f"{self.url}/{path}", data)
        if self.key != NO_KEY:  # a redirect does not take it elsewhere
            request.add_unredirected_header("Authorization", f"Bearer {self.key}")
        return request


@dataclass(frozen=True)
class Engine:
    """A server that is up; ``model`` is its name of what is asked."""

    at: Address
    model: str


def server_key(options: ServerConfig) -> str:
    """Return the key that ``evaluation.server.api_key_env`` names; ConfigError if it is not set."""
    if options.api_key_env is None:
        return NO_KEY
    url = options.base_url or "the server of evaluation.server.command"
    return key_from(options.api_key_env, url, "evaluation.server.api_key_env")


@contextmanager
def engine_up(
    options: ServerConfig, place: str, adapter: Path | None, log_file: Path
) -> Iterator[Engine]:
    """Give a server for the base at ``place`` (a folder or hub id), with an adapter or without.

    One that ``options.command`` starts ends with the block; to one that somebody else started the
    adapter is lent meanwhile.

    Raises:
        EvaluationError: it does not come up, does not hold the base, or takes no adapter.
    """
    if options.command is None:
        at = Address(str(options.base_url).rstrip("/"), server_key(options))
        base = _base_name(at, place)
        if adapter is None:
            yield Engine(at, base)
            return
        with _lent(at, adapter) as name:
            yield Engine(at, name)
        return
    with _started(options, place, adapter, log_file) as at:
        names = _names(at)
        if adapter is not None and options.adapter_name not in names:
            raise EvaluationError(
                f"The server that evaluation.server.command started serves {', '.join(names)} and "
                f"no {options.adapter_name}. Write the adapter into the command: "
                f"'… [--enable-lora --lora-modules {options.adapter_name}={{adapter}}]'."
            )
        yield Engine(at, _base_name(at, place) if adapter is None else options.adapter_name)


def command_line(template: str, place: str, adapter: Path | None, port: int) -> list[str]:
    """Fill in ``{model}``, ``{adapter}`` and ``{port}``; ``[…]`` stands with an adapter only.

    Raises:
        ConfigError: a brace or quote is left open, or another name stands in braces.
    """
    text = WITH_ADAPTER.sub(r"\1" if adapter is not None else "", template)
    values = {"model": place, "adapter": str(adapter or ""), "port": str(port)}
    try:
        return [word.format_map(values) for word in shlex.split(text)]
    except (KeyError, ValueError, IndexError) as error:
        raise ConfigError(
            f"evaluation.server.command={template!r} cannot be read ({error}). It may hold "
            "{model}, {adapter} and {port}, and in square brackets what only a base with an "
            "adapter needs."
        ) from error


@contextmanager
def _started(
    options: ServerConfig, place: str, adapter: Path | None, log_file: Path
) -> Iterator[Address]:
    port = _free_port()
    words = command_line(str(options.command), place, adapter, port)
    log.info("Starting the server: %s (its log: %s).", shlex.join(words), log_file)
    log_file.parent.mkdir(parents=True, exist_ok=True)
    with log_file.open("wb") as output:
        try:
            process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                start_new_session=True, preexec_fn=_end_with_parent,
            )  # fmt: skip
        except OSError as error:
            raise EvaluationError(
                f"evaluation.server.command cannot be started: {error}. Install {words[0]}, or "
                "give its whole path."
            ) from error
    try:
        at = Address(f"http://127.0.0.1:{port}/v1", server_key(options))
        _wait_until_up(at, process, options.start_seconds, log_file)
        yield at
    finally:
        _end(process)


def _end_with_parent() -> None:
    """Let the server end with this process however that ends (Linux); it is called in the child.

    What the server itself has started learns of that from the server alone.
    """
    if LIBC is not None:
        LIBC.prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _wait_until_up(
    at: Address, process: subprocess.Popen[bytes], seconds: float, log_file: Path
) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise EvaluationError(
                f"The server of evaluation.server.command ended with status {process.returncode} "
                f"before it answered. Its last words ({log_file}):\n{_last_lines(log_file)}"
            )
        with suppress(OSError, ValueError):
            at.get("models")
            return
        time.sleep(POLL_SECONDS)
    raise EvaluationError(
        f"The server of evaluation.server.command did not answer {at.url}/models within "
        f"evaluation.server.start_seconds={seconds:g}. Its last words ({log_file}):\n"
        f"{_last_lines(log_file)}"
    )


def _last_lines(log_file: Path) -> str:
    return "\n".join(tail(log_file, LAST_LINES))


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a server and all that it has started, which hold the GPU's memory."""
    deadline = time.monotonic() + LEAVE_SECONDS
    _tell_all(process, signal.SIGTERM)
    while _tell_all(process, 0) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS / 10)
    _tell_all(process, signal.SIGKILL)
    process.wait()


def _tell_all(process: subprocess.Popen[bytes], number: int) -> bool:
    """Send a signal to a server and what it has started; return whether there was anybody."""
    process.poll()  # one that has ended counts until it is asked
    try:
        os.killpg(process.pid, number)
    except OSError:
        return False
    return True


def _names(at: Address) -> list[str]:
    """Return what a server serves.

    Raises:
        EvaluationError: it cannot be reached.
    """
    try:
        return [str(model["id"]) for model in at.get("models")["data"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EvaluationError(
            f"evaluation.server.base_url={at.url} does not answer {at.url}/models ({error}). Start "
            "the server first, or let the job start it: evaluation.server.command."
        ) from error


def _base_name(at: Address, place: str) -> str:
    names = _names(at)
    if place in names:
        return place
    if len(names) == 1:  # under a name of its own; whether it is the base, parity tells
        return names[0]
    raise EvaluationError(f"The server at {at.url} serves {', '.join(names)} and no {place}.")


@contextmanager
def _lent(at: Address, adapter: Path) -> Iterator[str]:
    """Load an adapter into a running server, under a name of this run, and unload it afterwards.

    One that a killed process has left there is unloaded first: its name is taken, and it may be
    older than the file.
    """
    name = f"sizewise-{hash_text(str(adapter.resolve()), 12)}"
    body, refused = {"lora_name": name, "lora_path": str(adapter.resolve())}, ""
    for root in (at, replace(at, url=at.url.removesuffix("/v1"))):  # vLLM's place, and SGLang's
        root.post("unload_lora_adapter", {"lora_name": name})  # mostly there is none
        if (said := root.post("load_lora_adapter", body)) is None:
            break
        refused = refused or said
    else:
        raise EvaluationError(
            f"The server at {at.url} took no adapter ({refused}). Start vLLM with --enable-lora "
            "and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True, SGLang with --enable-lora; or let the job "
            "start it: evaluation.server.command."
        )
    try:
        yield name
    finally:
        if (kept := root.post("unload_lora_adapter", {"lora_name": name})) is not None:
            log.warning("The server at %s kept the adapter %s: %s", at.url, name, kept)


@dataclass(frozen=True)
class TokenServer(Server):
    """Asks for what follows token ids. ``prompts`` holds the ids of each example."""

    template: Template
    prompts: Mapping[str, Sequence[int]]

    def _request(self, example: Example) -> Any:
        extra: dict[str, Any] = {
            "stop_token_ids": list(self.template.stop_ids), "return_token_ids": True,
        }  # fmt: skip
        if self.generation.repetition_penalty != 1.0:
            extra["repetition_penalty"] = self.generation.repetition_penalty
        create: Any = self.client.completions.create
        return create(
            model=self.model,
            prompt=list(self.prompts[example.id]),
            max_tokens=self.generation.max_new_tokens,
            temperature=0.0,
            extra_body=extra,
        )

    def _prediction(self, example: Example, found: Any, seconds: float, number: int) -> Prediction:
        choice, usage = found.choices[0], token_counts(found)
        opened = opened_thought(self.template.tokenizer, self.prompts[example.id])
        ids = getattr(choice, "token_ids", None)
        text = decode_answer(self.template, ids, opened) if ids else opened + choice.text.strip()
        return answered(
            example,
            text=text,
            finished=choice.finish_reason != "length",
            tokens=(len(self.prompts[example.id]), usage.answer),
            latency=seconds,
        )


def check_parity(name: str, local: Sequence[str], served: Sequence[Prediction]) -> dict[str, float]:
    """Compare a server's greedy answers with transformers' to the same examples.

    Returns:
        The share that is equal, and of how many.

    Raises:
        EvaluationError: fewer than 99.5 % are, so that the server's numbers do not count.
    """
    odd = [(row, text) for row, text in zip(served, local, strict=True) if row.text != text]
    share = 1 - len(odd) / len(local)
    if share < PARITY_SHARE:
        row, text = odd[0]
        raise EvaluationError(
            f"{name}: {len(local) - len(odd)} of {len(local)} greedy answers of the server are "
            f"those of transformers ({share:.1%}; {PARITY_SHARE:.1%} are needed), so that its "
            f"numbers do not count. The first other one is example {row.id}: {row.text!r} for "
            f"{text!r}. Let it compute as model.dtype and quantization say, from the same weights; "
            "or leave evaluation.engine out."
        )
    return {PARITY: share, COMPARED: float(len(local))}
