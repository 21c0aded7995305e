"""Where candidate answers come from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sizewise.data.example import Example, Message
from sizewise.errors import ConfigError
from sizewise.evaluation.template import AnswerTemplate
from sizewise.evaluation.trie import Trie, build_trie


@dataclass(frozen=True)
class CandidateSet:
    """Candidate answers as texts and as one tree of their tokens."""

    texts: tuple[str, ...]
    trie: Trie


def read_candidates(
    choice: str, train_examples: Sequence[Example], all_examples: Sequence[Example] = ()
) -> tuple[str, ...]:
    """Return candidate answers: ``train``, ``labels``, or a file's lines.

    Args:
        choice: ``train`` (all different training answers), ``labels`` (those of all splits: the
            closed list of a task's labels, which never says whose label it is), or a file.
        train_examples: the training split.
        all_examples: the examples of all splits.

    Raises:
        ConfigError: the file cannot be read, or there is no candidate.
    """
    if choice == "train":
        texts = sorted({example.answer for example in train_examples})
    elif choice == "labels":
        texts = sorted({example.answer for example in (*train_examples, *all_examples)})
    else:
        try:
            lines = Path(choice).read_text(encoding="utf-8").splitlines()
        except OSError as error:
            raise ConfigError(
                f"evaluation.candidates={choice!r} is neither `train` nor `labels` nor a readable "
                f"file: {error}"
            ) from error
        texts = sorted({line.strip() for line in lines if line.strip()})
    if not texts:
        raise ConfigError(f"evaluation.candidates={choice!r} gives no candidate answer.")
    return tuple(texts)


def encode_candidates(
    texts: Sequence[str], template: AnswerTemplate, messages: Sequence[Message]
) -> CandidateSet:
    """Encode candidates as answers to ``messages`` (of any example) and merge them to a tree."""
    ids = [template.answer_ids(messages, text) for text in texts]
    return CandidateSet(tuple(texts), build_trie(ids))
