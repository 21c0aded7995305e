"""The answerer for a model behind a server."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from sizewise.config import RunConfig
from sizewise.config.data import SplitName
from sizewise.data.example import Example
from sizewise.evaluation.endpoint import (
    Server,
    ask_all,
    check_endpoint,
    check_messages,
    make_pace,
    open_client,
    stand_in_client,
    warnings_of,
)
from sizewise.evaluation.predict import Answers, Predicted, evaluation_bar
from sizewise.evaluation.score import EvaluationResult
from sizewise.evaluation.zero_shot import cached, zero_shot_key
from sizewise.files import hash_text
from sizewise.job.answerer import Answerer
from sizewise.job.bases import evaluation_cost
from sizewise.job.data import PreparedJob, Task, load_plain_tasks
from sizewise.record.directories import RunDir
from sizewise.record.outcome import CostFacts, ModelFacts
from sizewise.record.predictions import PredictionStore
from sizewise.record.spending import Ledger


@dataclass(frozen=True)
class Endpoint(Answerer):
    """A model behind an OpenAI-compatible server. Nothing but its prompts leaves this machine."""

    server: Server

    @staticmethod
    def check(cfg: RunConfig) -> tuple[str, ...]:
        """Refuse what a server cannot do, a missing key, and a budget without prices."""
        check_endpoint(cfg)
        return ()

    @staticmethod
    def read_data(cfg: RunConfig, run_dir: Path) -> tuple[None, list[Task]]:
        """Split all data; messages go to the server as they are, which has its own template."""
        tasks = load_plain_tasks(cfg)
        for task in tasks:
            check_messages(chain(task.splits.validation, task.splits.test))
        return None, tasks

    @classmethod
    def load(cls, job: PreparedJob) -> Endpoint:
        """Open the connection; nothing is sent."""
        cfg = job.cfg
        ledger = Ledger(RunDir(job.run_dir).spending, cfg.model.endpoint.prices, cfg.model.budget)
        client = stand_in_client() if cfg.dry_run else open_client(cfg.model)
        pace = make_pace(cfg.model.endpoint.requests_per_minute)
        return cls(Server(client, cfg.model.path, cfg.generation, cfg.model.endpoint, ledger, pace))

    def answer(self, job: PreparedJob, task: Task, split: SplitName, kind: str) -> Answers:
        """Ask every example that no earlier run of the same cache has asked."""
        examples = task.examples(split)
        parts = self._parts(job.cfg, examples)
        store = job.store(kind, task, zero_shot_key(parts))
        predicted, reused = cached(
            Path(job.cfg.paths.cache),
            parts,
            lambda: self._ask(job, task, examples, store),
            [example.id for example in examples],
        )
        return Answers(predicted, store, reused, warnings_of(task.name, predicted))

    def facts(self, job: PreparedJob) -> ModelFacts:
        """Describe what is known of the model; a size of 0 is one that is not known."""
        cfg = job.cfg.model
        params = cfg.parameters or 0
        return ModelFacts.without_weights(cfg.name, cfg.path, cfg.family, "endpoint", params)

    def cost(self, evaluations: Sequence[EvaluationResult], joules: float | None) -> CostFacts:
        """Sum up time and money; money is what this run spent, kept answers cost nothing again."""
        known = self.server.options.prices.known
        money = self.server.ledger.spent if known else None
        return dataclasses.replace(evaluation_cost(evaluations, None), money=money)

    def give_back(self, job: PreparedJob) -> None:
        """Close the connection."""
        self.server.client.close()

    def _ask(
        self, job: PreparedJob, task: Task, examples: Sequence[Example], store: PredictionStore
    ) -> Predicted:
        self.server.say_what_leaves(task.name, examples, job.cfg.model.base_url or "a stand-in")
        with evaluation_bar(store.path.stem, job.cfg.trainer.progress_bar) as progress:
            return ask_all(self.server, examples, store, progress)

    def _parts(self, cfg: RunConfig, examples: Sequence[Example]) -> dict[str, Any]:
        """Everything that the answers depend on, as far as it can be known from here."""
        prompts = [[e.id, [[m.role, m.content] for m in e.messages]] for e in examples]
        options = cfg.model.endpoint
        return {
            "server": [cfg.model.base_url, cfg.model.path, cfg.dry_run],
            "request": [options.max_tokens_key, options.log_probs, options.extra],
            "generation": asdict(cfg.generation),
            "prices": asdict(options.prices),
            "prompts": hash_text(json.dumps(prompts), 32),
        }
