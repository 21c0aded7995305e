"""A model behind an OpenAI-compatible server, asked once per example and within a budget.

What a request may cost is on the disk before it is sent (``Ledger``) and each answer as soon as it
comes (``PredictionStore``): a killed evaluation asks no kept answer again and forgets no money.
"""

from __future__ import annotations

import logging
import os
import random
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sizewise.config import GenerationConfig, ModelConfig, RunConfig
from sizewise.config.endpoint import EndpointConfig, check_base_url, is_local
from sizewise.data.example import Example
from sizewise.data.tokens.reasoning import answer_of
from sizewise.errors import ConfigError, DataError, EvaluationError
from sizewise.evaluation.answer import of_example
from sizewise.evaluation.predict import Predicted
from sizewise.files import parse_json
from sizewise.record.predictions import Prediction, PredictionStore
from sizewise.record.spending import PER_1000, Ledger, at_most

if TYPE_CHECKING:
    from openai import APIError, OpenAI
    from openai.types.chat import ChatCompletion

log = logging.getLogger(__name__)

# Beginning of what only a server's answers carry beside the scores of metrics.
SERVED = "endpoint/"
REFUSED, TOO_LONG = f"{SERVED}refused", f"{SERVED}too_long"
REASONING, CACHED = f"{SERVED}reasoning_tokens", f"{SERVED}cached_tokens"
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
# Tokens of a chat template around each message, generously.
AROUND_A_MESSAGE = 16
# For estimates alone; budgets count every byte as a token.
BYTES_A_TOKEN = 4


@dataclass(frozen=True)
class Server:
    """One model of one server, and how it is asked.

    ``client`` has no retries of its own: each attempt is counted here.
    """

    client: OpenAI
    model: str
    generation: GenerationConfig
    options: EndpointConfig
    ledger: Ledger
    pace: Callable[[], None]

    def say_what_leaves(self, name: str, examples: Sequence[Example], where: str) -> None:
        """Say how many texts go where, and what they may cost, before the first is sent."""
        prompts = [[m.content for m in e.messages] for e in examples]
        tokens = sum(len(text.encode()) for texts in prompts for text in texts) // BYTES_A_TOKEN
        answers = len(examples) * self.generation.max_new_tokens
        price = self.options.prices
        money = f", {at_most(price.cost(tokens, answers))}" if price.known else ""
        log.warning(
            "%s: %d prompts (about %d tokens) go to %s, model %s%s.",
            name, len(examples), tokens, where, self.model, money,
        )  # fmt: skip

    def ask(self, example: Example, alone: bool = False) -> Prediction:
        """Return the answer to one example; its latency counts where it is asked ``alone``.

        Raises:
            EvaluationError: the server refuses the request for good, retries are used up, or the
                budget is.
        """
        import openai

        most = most_tokens(_messages(example))
        deadline, pause = time.monotonic() + self.options.retry_seconds, FIRST_PAUSE
        while True:
            number = self.ledger.reserve(most, self.generation.max_new_tokens)
            self.pace()
            started = time.perf_counter()
            try:
                found = self._request(example)
            except openai.APIError as error:
                if is_too_long(error):
                    self.ledger.settle(number, 0.0)
                    return answered(example, finished=False, scores={REFUSED: 0.0, TOO_LONG: 1.0})
                self._wait(error, number, pause, deadline, example.id)
                pause = min(2 * pause, LONGEST_PAUSE)
            else:
                seconds = time.perf_counter() - started if alone else float("nan")
                return self._prediction(example, found, seconds, number)

    def _wait(
        self, error: APIError, number: int, pause: float, deadline: float, example: str
    ) -> None:
        """Wait after a failure that may pass; of the others say what to do.

        A lost connection or a time-out may have been answered, so its price stays written down.
        """
        import openai

        asked = None
        if isinstance(error, openai.APIStatusError):
            self.ledger.settle(number, 0.0)
            if error.status_code != 429 and error.status_code < 500:
                raise EvaluationError(_explained(error)) from error
            asked = _seconds(error.response.headers.get("retry-after"))
        pause = pause * random.uniform(0.5, 1.0) if asked is None else asked
        if time.monotonic() + pause > deadline:
            raise EvaluationError(
                f"The server gave no answer to example {example} within model.endpoint."
                f"retry_seconds={self.options.retry_seconds:g}: {error}. The answers so far are "
                "kept; start the same command again when it is well."
            ) from error
        log.warning("The server said: %s. Asking again in %.1f s.", error, pause)
        time.sleep(pause)

    def _request(self, example: Example) -> Any:
        body: dict[str, Any] = {self.options.max_tokens_key: self.generation.max_new_tokens}
        sampled = self.generation.do_sample
        body["temperature"] = self.generation.temperature if sampled else 0.0
        if sampled:
            body |= {"top_p": self.generation.top_p, "seed": self.generation.seed}
        if self.options.log_probs:
            body["logprobs"] = True
        create: Any = self.client.chat.completions.create
        return create(
            model=self.model,
            messages=_messages(example),
            extra_body=self.options.extra or None,
            **body,
        )

    def _prediction(
        self, example: Example, found: ChatCompletion, seconds: float, number: int
    ) -> Prediction:
        choice, usage = found.choices[0], token_counts(found)
        scores = {CACHED: float(usage.cached), REASONING: float(usage.reasoning)}
        if self.options.prices.known:
            cost = self.options.prices.cost(usage.prompt, usage.answer, usage.cached)
            self.ledger.settle(number, cost)
            scores[PER_1000] = 1000 * cost
        refused = choice.finish_reason == "content_filter" or bool(choice.message.refusal)
        return answered(
            example,
            text="" if refused else answer_of(choice.message.content or "").strip(),
            finished=choice.finish_reason != "length",
            tokens=(usage.prompt, usage.answer),
            latency=seconds,
            confidence=mean_log_prob(choice),
            scores={REFUSED: float(refused), TOO_LONG: 0.0, **scores},
        )


def _messages(example: Example) -> list[dict[str, str]]:
    return [{"role": m.role, "content": m.content} for m in example.messages]


def is_too_long(error: APIError) -> bool:
    """Whether a server refused a prompt for its length alone."""
    said = f"{error.code} {error}".lower().replace("_", " ")
    refused = getattr(error, "status_code", None) in (400, 413)
    return refused and ("context length" in said or "too long" in said)


def _explained(error: Any) -> str:
    advice = {
        401: "Set the variable that model.endpoint.api_key_env names to a valid key.",
        403: "This key may not use this model.",
        404: "Check model.base_url (it usually ends in /v1) and model.path, the name there.",
    }.get(error.status_code, "Check model.path, generation and model.endpoint.")
    return f"The server refused the request ({error.status_code}): {error.message}. {advice}"


def _seconds(text: str | None) -> float | None:
    try:
        return min(float(text or ""), LONGEST_PAUSE)
    except ValueError:  # a date, or nothing
        return None


@dataclass(frozen=True)
class TokenCounts:
    """Tokens of one request as the server counts them; ``answer`` includes ``reasoning``."""

    prompt: int
    answer: int
    cached: int
    reasoning: int


def token_counts(found: ChatCompletion) -> TokenCounts:
    usage = found.usage
    if usage is None:
        return TokenCounts(0, 0, 0, 0)
    before, after = usage.prompt_tokens_details, usage.completion_tokens_details
    return TokenCounts(
        usage.prompt_tokens,
        usage.completion_tokens,
        (before.cached_tokens if before else 0) or 0,
        (after.reasoning_tokens if after else 0) or 0,
    )


def mean_log_prob(choice: Any) -> float | None:
    """Return the mean log-probability of an answer's tokens, where the server gave them."""
    tokens = choice.logprobs.content if choice.logprobs else None
    return sum(token.logprob for token in tokens) / len(tokens) if tokens else None


def most_tokens(messages: Sequence[Mapping[str, str]]) -> int:
    """Return more tokens than a prompt can have: one for each byte, and a template around each."""
    return sum(len(m["content"].encode()) + AROUND_A_MESSAGE for m in messages)


def answered(
    example: Example,
    text: str = "",
    finished: bool = True,
    tokens: tuple[int, int] = (0, 0),
    latency: float = float("nan"),
    confidence: float | None = None,
    scores: Mapping[str, float] | None = None,
) -> Prediction:
    """Return the row of an answer; what a server does not tell is not a number.

    ``tokens``: of prompt and answer, as the server counts them.
    """
    return Prediction(
        **of_example(example),
        text=text,
        log_prob=float("nan"),
        answer_tokens=1,
        prompt_tokens=tokens[0],
        new_tokens=tokens[1],
        finished=finished,
        latency=latency,
        batch_size=1,
        token_log_prob=confidence,
        scores=dict(scores or {}),
    )


def ask_all(
    server: Server,
    examples: Sequence[Example],
    store: PredictionStore,
    progress: Callable[[int, int], None] | None = None,
) -> Predicted:
    """Ask every example that ``store`` does not hold yet and return all answers.

    Whoever got an answer puts it on the disk before asking for the next. If one fails for good,
    those under way are still waited for and kept.

    Raises:
        EvaluationError: there is no example, or as of ``Server.ask``.
    """
    if not examples:
        raise EvaluationError("There is no example to evaluate. Check the filters of the data set.")
    done = {row.id: row for row in store.read()}
    unique = list({e.id: e for e in examples if e.id not in done}.values())
    whole, started = not done, time.perf_counter()
    if progress is not None:  # here: threads know nothing of the job that is under way
        progress(len(examples) - len(unique), len(examples))
    alone = max(server.options.alone - len(done), 0)
    one_at_a_time = threading.Lock()

    def keep(example: Example, alone: bool = False) -> None:
        row = server.ask(example, alone)
        with one_at_a_time:
            store.append([row])
            done[row.id] = row
            if progress is not None:
                progress(len(done), len(examples))

    for example in unique[:alone]:
        keep(example, alone=True)
    with ThreadPoolExecutor(server.options.concurrency) as pool:
        _wait_for([pool.submit(keep, example) for example in unique[alone:]])
    seconds = time.perf_counter() - started if whole else None
    found = tuple(done[example.id] for example in examples)
    return Predicted(found, seconds, None, server.options.concurrency, observed=observed(found))


def _wait_for(futures: Sequence[Future[None]]) -> None:
    """Wait for all; after a failure only for those under way, and raise it."""
    try:
        for future in as_completed(futures):
            future.result()
    finally:  # failed or interrupted: what has not begun is not asked any more
        for future in futures:
            future.cancel()


def observed(rows: Sequence[Prediction]) -> dict[str, float]:
    """Sum up what only a server's answers have: shares of refused and too long, tokens, money.

    Money is that of 1,000 answers; it is missing where prices are not known.
    """
    found = {
        name: sum(row.scores.get(name, 0.0) for row in rows) / len(rows)
        for name in (REFUSED, TOO_LONG, REASONING, CACHED)
    }
    priced = [row.scores[PER_1000] for row in rows if PER_1000 in row.scores]
    if priced:
        found[PER_1000] = sum(priced) / len(priced)
    return found


def warnings_of(name: str, predicted: Predicted) -> tuple[str, ...]:
    """Say how many answers were refused, or never asked for because the prompt was too long."""
    rows, found = predicted.predictions, []
    for key, what in ((REFUSED, "refused by the server"), (TOO_LONG, "too long for the server")):
        count = sum(row.scores.get(key, 0.0) == 1.0 for row in rows)
        if count:
            found.append(f"{name}: {count} of {len(rows)} prompts were {what} and count as wrong.")
    return tuple(found)


def check_endpoint(cfg: RunConfig) -> None:
    """Refuse what a server cannot do, a missing key, and a budget without prices.

    Raises:
        ConfigError: the message names the keys.
    """
    model, generation = cfg.model, cfg.generation
    if not cfg.dry_run:
        check_base_url(model.base_url)
    refused = {
        f"lora={cfg.lora.method}": cfg.lora.trains,
        f"quantization={cfg.quantization.method}": cfg.quantization.method != "none",
        f"stage={cfg.stage}": cfg.stage == "train",
        f"adapter={cfg.adapter}": cfg.adapter is not None,
        f"generation.top_k={generation.top_k}": generation.top_k > 0,
        f"generation.repetition_penalty={generation.repetition_penalty:g}": (
            generation.repetition_penalty != 1.0
        ),
    }
    wrong = [key for key, found in refused.items() if found]
    if wrong:
        raise ConfigError(
            f"model={model.name} is behind a server, which takes no {', '.join(wrong)}. Choose "
            "lora=none quantization=none, and give further fields of a request in "
            "model.endpoint.extra."
        )
    if model.budget is not None and not model.endpoint.prices.known:
        raise ConfigError(
            f"model.budget={model.budget:g} needs to know what tokens cost. Set "
            "model.endpoint.prices.prompt and model.endpoint.prices.answer (of 1,000 tokens)."
        )
    if not cfg.dry_run:
        _key_of(model)


NO_KEY = "none"


def _key_of(model: ModelConfig) -> str:
    """Return the key from the environment; a server on this machine needs none."""
    if is_local(model.base_url or ""):
        return os.environ.get(model.endpoint.api_key_env) or NO_KEY
    return key_from(model.endpoint.api_key_env, str(model.base_url), "model.endpoint.api_key_env")


def key_from(name: str, url: str, option: str) -> str:
    """Return the key that the environment variable ``name`` holds, which ``option`` names.

    Raises:
        ConfigError: it is not set.
    """
    if key := os.environ.get(name):
        return key
    raise ConfigError(
        f"The environment variable {name} is not set, and {url} needs a key. Set it, or "
        f"name another variable in {option}."
    )


def check_messages(examples: Iterable[Example]) -> None:
    """Raise DataError where prompts hold tools, which are not sent to a server."""
    odd = [e.id for e in examples if any(m.role == "tools" or m.extra for m in e.messages)]
    if odd:
        raise DataError(
            f"{len(odd)} prompts hold tools or their calls, which are not sent to a server (the "
            f"first one is example {odd[0]}). Leave these rows or the endpoint out."
        )


def open_client(model: ModelConfig) -> OpenAI:
    """Return the client of a model's server; nothing is sent yet.

    Raises:
        ConfigError: the package is missing, or the key.
    """
    return client_of(str(model.base_url), _key_of(model), model.endpoint.timeout)


def client_of(url: str, key: str, timeout: float) -> OpenAI:
    """Return the client of the server at ``url``; ConfigError where the package is missing."""
    try:
        from openai import OpenAI
    except ImportError as error:
        raise ConfigError(
            "A server is asked by the package openai: pip install 'sizewise[endpoint]'."
        ) from error
    for name in ("httpx", "httpx2"):  # a line for every request
        logging.getLogger(name).setLevel(logging.WARNING)
    return OpenAI(api_key=key, base_url=url, timeout=timeout, max_retries=0)


def stand_in_client() -> OpenAI:
    """Return a client whose server is a few lines here: a dry run sends nothing anywhere."""
    import httpx2 as httpx
    from openai import OpenAI

    log.warning("A stand-in answers for the server: nothing is sent.")

    def reply(request: httpx.Request) -> httpx.Response:
        asked = parse_json(request.content.decode())
        message = {"role": "assistant", "content": "This is a stand-in's answer."}
        choice = {"index": 0, "finish_reason": "stop", "message": message}
        usage = {"prompt_tokens": 10, "completion_tokens": 6, "total_tokens": 16}
        body = {"id": "0", "object": "chat.completion", "created": 0, "model": asked["model"]}
        return httpx.Response(200, json={**body, "choices": [choice], "usage": usage})

    transport = httpx.Client(transport=httpx.MockTransport(reply))
    return OpenAI(api_key="none", base_url="http://stand-in/v1", http_client=transport)


def make_pace(per_minute: int | None) -> Callable[[], None]:
    """Return a wait that lets at most ``per_minute`` requests start in a minute, evenly."""
    if per_minute is None:
        return lambda: None
    lock, gap, following = threading.Lock(), 60.0 / per_minute, [0.0]

    def wait() -> None:
        with lock:
            start = max(time.monotonic(), following[0])
            following[0] = start + gap
        time.sleep(max(0.0, start - time.monotonic()))

    return wait
