"""Texts and classes for an encoder: what is read, and which answer is which class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sizewise.data.example import Example
from sizewise.data.tokens.control import Neutraliser, PieceEncoder, special_tokens
from sizewise.data.tokens.encode import EncodedSplit
from sizewise.data.tokens.reasoning import answer_of
from sizewise.data.tokens.table import make_table
from sizewise.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def classes_of(train: Sequence[Example], shared: bool = True) -> tuple[str, ...]:
    """Return the different training answers, less reasoning, in order.

    Args:
        train: the training split.
        shared: refuse answers of which no two examples share one; the few of a dry run may.

    Raises:
        DataError: there are none, there is one only, or no two examples share one.
    """
    found = sorted({answer_of(example.answer) for example in train})
    if len(found) < 2:
        raise DataError(
            f"An encoder tells answers apart, and the training split has {len(found)} different "
            "ones. Check dataset.answer, dataset.max_train and the split."
        )
    if shared and len(found) == len(train) > 2:
        raise DataError(
            f"All {len(train)} training answers are different, so they are no classes that an "
            "encoder could learn. Choose a data set of labels or codes, or a language model."
        )
    return tuple(found)


def encode_texts(
    examples: Sequence[Example],
    classes: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    limit: int,
) -> EncodedSplit:
    """Encode the examples of one split; none is left out.

    A text is all that the prompt says, without a chat template: its turns with a blank line
    between. Beyond ``limit`` tokens the end is cut, as tokenizers of encoders do by default and as
    most published results were made (Sun et al. 2019, "head-only"). The control tokens of the
    tokenizer in people's text are text. An answer that is no class has no id: it can be asked for,
    not learnt, nor given.
    """
    marks, encoder = Neutraliser(special_tokens(tokenizer)), PieceEncoder(tokenizer)
    before, after = _around(tokenizer)
    room = limit - len(before) - len(after)
    texts = encoder.encode([marks.mark(example.prompt_text) for example in examples])
    number = {name: place for place, name in enumerate(classes)}
    answers = [number.get(answer_of(example.answer)) for example in examples]
    cut = [len(ids) > room for ids in texts]
    prompts = [[*before, *ids[:room], *after] for ids in texts]
    table = make_table([(prompts, [[] if a is None else [a] for a in answers], cut)])
    return EncodedSplit(table, tuple(examples), max_length=limit, shortened=sum(cut))


def _around(tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """Return the ids that a tokenizer puts before and after a text of its own accord."""
    own = list(tokenizer("a", add_special_tokens=False)["input_ids"])
    whole = list(tokenizer("a")["input_ids"])
    starts = [i for i in range(len(whole)) if whole[i : i + len(own)] == own]
    place = starts[0] if starts else 0
    return whole[:place], whole[place + len(own) :]
