"""What evaluation needs of a template: decoding, padding, and thoughts that a prompt opens."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from sizewise.data.tokens import reasoning
from sizewise.data.tokens.template import Template
from sizewise.errors import EvaluationError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def pad_id(template: Template) -> int:
    """Return an id to pad with; it is masked everywhere, so any valid one will do."""
    padding = template.tokenizer.pad_token_id
    if padding is not None:
        return int(padding)
    return int(template.stop_ids[0]) if template.stop_ids else 0


def decode_answer(template: Template, token_ids: Sequence[int], opened: str = "") -> str:
    """Decode generated ids to text, without special tokens and surrounding white space.

    What stands before the template's header of an answer (other channels) is no part of it. Tags
    around reasoning stay, special or not: without them a thought would be the answer. ``opened``:
    the tag that the prompt ended in; the answer is given as if it began with it.

    Raises:
        EvaluationError: an id is negative, such as the label value -100.
    """
    if any(token < 0 for token in token_ids):
        raise EvaluationError(
            f"Token ids {sorted({t for t in token_ids if t < 0})} cannot be decoded: labels were "
            "passed where generated ids belong."
        )
    stops, tokenizer = set(template.stop_ids), template.tokenizer
    kept = [token for token in _headed(template, token_ids) if token not in stops]
    thought = any(reasoning.is_reasoning_tag(str(t)) for t in tokenizer.convert_ids_to_tokens(kept))
    tags = special_tags(tokenizer) if thought else {}
    parts = [
        "".join(tags[token] for token in run) if tagged else _decode(tokenizer, list(run))
        for tagged, run in groupby(kept, tags.__contains__)
    ]
    return opened + "".join(parts).strip()


def _headed(template: Template, token_ids: Sequence[int]) -> Sequence[int]:
    """Return what follows the last header of an answer; everything where there is none."""
    lead, ids = list(template.answer_lead), list(token_ids)
    starts = range(len(ids) - len(lead), -1, -1) if lead else ()
    found = (start + len(lead) for start in starts if ids[start : start + len(lead)] == lead)
    return ids[next(found, 0) :]


def _decode(tokenizer: PreTrainedTokenizerBase, token_ids: list[int]) -> str:
    text = tokenizer.decode(token_ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return str(text)


def special_tags(tokenizer: PreTrainedTokenizerBase) -> dict[int, str]:
    """Return the special tokens that open or close reasoning, which decoding would drop."""
    return {
        number: token.content
        for number, token in tokenizer.added_tokens_decoder.items()
        if token.special and reasoning.is_reasoning_tag(token.content)
    }


TAIL = 24  # tokens of a prompt that hold its last tag, however it was cut into tokens


def opened_thought(tokenizer: PreTrainedTokenizerBase, prompt_ids: Sequence[int]) -> str:
    """Return the opening tag that a prompt ends in, such as ``<think>``; empty without one.

    Templates decide by the conversation (a system text may switch thinking off): the prompt tells.
    """
    text = tokenizer.decode(list(prompt_ids[-TAIL:]), skip_special_tokens=False)
    return reasoning.opened_thought(str(text)).strip()
