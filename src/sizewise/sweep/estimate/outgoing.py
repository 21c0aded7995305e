"""Texts that a sweep sends to servers, judges and teachers, and what that may cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sizewise.composition.others import TEACHER, judge_key, judge_nodes, judges_of, other_model
from sizewise.config import ModelConfig
from sizewise.config.register import to_run_config
from sizewise.files import hash_text
from sizewise.job.submit import Job
from sizewise.record.directories import RunDir
from sizewise.record.identity import asks_untouched, is_taught, trains
from sizewise.record.spending import Ledger
from sizewise.sweep.estimate.calibration import Measured, Texts

# For estimates; budgets count every byte as a token.
BYTES_A_TOKEN = 4
NOTHING = Texts(0, 0, 0)


@dataclass(frozen=True)
class Outgoing:
    """Texts for one model: who, as what, how many, their tokens (about), money at most.

    ``place``: a server's address, or empty for a model on this machine. ``money`` None: prices are
    not known, or there are none. ``spent``: what the runs have spent so far. ``unknown``: why
    these are not all; empty where they are. ``priced``: whether what is unknown has a price.
    """

    model: str
    role: str
    place: str
    texts: int
    tokens: int
    money: float | None = None
    spent: float = 0.0
    unknown: str = ""
    priced: bool = False

    def plus(self, other: Outgoing) -> Outgoing:
        paid = [each for each in (self.money, other.money) if each is not None]
        return replace(
            self,
            texts=self.texts + other.texts,
            tokens=self.tokens + other.tokens,
            money=sum(paid) if paid else None,
            spent=self.spent + other.spent,
            unknown=self.unknown or other.unknown,
            priced=self.priced or other.priced,
        )


def outgoing(jobs: Sequence[tuple[Job, Measured, float]]) -> list[Outgoing]:
    """Sum up what jobs ask of others; each comes with its kind and how likely it is to run.

    What several jobs, or several parts of one, ask alike is asked once and kept, and so it is
    counted: as whatever of them is most likely.
    """
    asked: dict[str, Outgoing] = {}
    for job, measured, weight in jobs:
        for key, each in _of_job(job, measured, weight):
            if not measured.texts:
                each = _not_counted(each, measured.reason)
            if key not in asked or each.texts > asked[key].texts:
                asked[key] = each
    found: dict[tuple[str, str, str], Outgoing] = {}
    for each in asked.values():
        name = (each.model, each.role, each.place)
        found[name] = found[name].plus(each) if name in found else each
    return list(found.values())


def _not_counted(each: Outgoing, reason: str) -> Outgoing:
    """What a kind asks whose texts nobody has counted: not nothing, and not for nothing."""
    return replace(each, money=None, unknown=reason, priced=each.money is not None)


def _of_job(job: Job, measured: Measured, weight: float) -> Iterator[tuple[str, Outgoing]]:
    config = job.config
    cfg = to_run_config(
        {name: config[name] for name in ("model", "generation") if name in config},
        check_types=False,
    )
    splits = _answered(config, measured)
    if cfg.model.family == "endpoint":
        texts = [measured.texts.get(name, NOTHING) for name in splits[0]]
        each = _priced(cfg.model, "answers", texts, cfg.generation.max_new_tokens)
        spent = Ledger(RunDir(job.run_dir).spending, cfg.model.endpoint.prices, None).spent
        yield job.identity.hash, replace(each, spent=spent)
    yield from _judged(job, measured, splits, weight)
    yield from _taught(job, measured, cfg.generation.max_new_tokens)


def _answered(config: Mapping[str, Any], measured: Measured) -> tuple[list[str], list[str]]:
    """The splits that the untouched and the tuned model of a job answer."""
    tests = [name for name in measured.texts if name == "test" or name.startswith("test/")]
    both = [
        [*tests, *(["validation"] if validates else [])]
        for validates in measured.answers_validation
    ]
    return both[0] if asks_untouched(config) else [], both[1] if trains(config) else []


def _judged(
    job: Job, measured: Measured, splits: tuple[list[str], list[str]], weight: float
) -> Iterator[tuple[str, Outgoing]]:
    """Each pair in both orders; the judge reads prompt and both answers."""
    for node in judge_nodes(job.config):
        for name, value in judges_of(node.get("models")).items():
            other = other_model(value, f"metric.judge.models.{name}").model
            for side, names in zip((_base_of(job.config), job.identity.hash), splits, strict=True):
                texts = [_questions(measured.texts[n], str(node.get("prompt"))) for n in names]
                likely = weight if side == job.identity.hash else 1.0
                texts = [_share(each, likely) for each in texts]
                found = _priced(other, "judging", texts, int(node.get("max_new_tokens", 16)))
                yield f"{judge_key(node, name)} {side}", found


def _questions(texts: Texts, prompt: str) -> Texts:
    read = texts.prompt_bytes + 2 * texts.answer_bytes + len(prompt.encode()) * texts.count
    return Texts(2 * texts.count, 2 * read, 0)


def _share(texts: Texts, weight: float) -> Texts:
    return Texts(round(weight * texts.count), round(weight * texts.prompt_bytes), 0)


def _taught(job: Job, measured: Measured, most: int) -> Iterator[tuple[str, Outgoing]]:
    dataset = job.config.get("dataset") or {}
    if not is_taught(dataset) or not trains(job.config):
        return
    samples = int((dataset.get("teaching") or {}).get("samples", 1))
    texts = [measured.texts.get("train", NOTHING)] * samples
    other = other_model(dataset["teacher"], TEACHER).model
    parts = {name: value for name, value in dataset.items() if name != "answers_from"}
    yield f"teacher {hash_text(repr(parts), 16)}", _priced(other, "teaching", texts, most)


def _base_of(config: Mapping[str, Any]) -> str:
    parts = [config.get(name) for name in ("model", "quantization", "dataset", "generation")]
    return hash_text(repr(parts), 16)


def _priced(model: ModelConfig, role: str, texts: Sequence[Texts], most: int) -> Outgoing:
    """What texts cost at most: every answer as long as it may be."""
    count = sum(each.count for each in texts)
    tokens = sum(each.prompt_bytes for each in texts) // BYTES_A_TOKEN
    prices, server = model.endpoint.prices, model.family == "endpoint"
    money = prices.cost(tokens, count * most) if server and prices.known else None
    return Outgoing(
        model.name, role, (model.base_url or "") if server else "", count, tokens, money
    )
