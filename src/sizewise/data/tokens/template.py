"""Conversations to token ids: a chat template with one answer mask for training and inference."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from sizewise.data.example import Message
from sizewise.data.tokens.cache import hash_parts, tokenizer_fingerprint
from sizewise.data.tokens.control import (
    BREAK,
    Neutraliser,
    PieceEncoder,
    control_tokens,
    special_tokens,
)
from sizewise.data.tokens.reasoning import close_thought, is_reasoning_tag, opened_thought
from sizewise.data.tokens.tools import ToolParts
from sizewise.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


NO_LIMIT = 10**7
Pair = tuple[Sequence[Message], str]


class Template(Protocol):
    """How prompts and answers of a model are written; causal and seq2seq models each have one."""

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer, which also decodes answers."""

    @property
    def source(self) -> str | None:
        """The jinja text, where there is one."""

    @property
    def template_kwargs(self) -> Mapping[str, Any]:
        """Arguments of the jinja text with pinned ones, as stored with an adapter."""

    @property
    def fingerprint(self) -> str:
        """Hash of everything that decides about token ids (16 hex digits)."""

    @property
    def context(self) -> int | None:
        """Longest sequence that the tokenizer's settings name, None where they name none."""

    @property
    def end_of_turn(self) -> int:
        """The id that ends an answer in training."""

    @property
    def stop_ids(self) -> Sequence[int]:
        """Every id that ends an answer in generation."""

    @property
    def answer_lead(self) -> Sequence[int]:
        """Ids of a header that each answer begins with (a channel), to be left out of its text."""

    def prompt(self, messages: Sequence[Message]) -> str:
        """Write the prompt as text, up to where the answer begins."""

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]: ...

    def answer_ids(self, messages: Sequence[Message], answer: str) -> list[int]:
        """Encode an answer after ``messages``, end of turn included."""

    def encode_prompts(self, prompts: Sequence[Sequence[Message]]) -> list[list[int]]: ...

    def encode_answers(self, pairs: Sequence[Pair]) -> list[list[int]]:
        """Encode many answers at once, each with the end of turn."""

    def encode_pairs(self, pairs: Sequence[Pair]) -> tuple[list[list[int]], list[list[int]]]:
        """Encode prompts and answers, rendering each prompt once."""

    def length(self, prompt: int, answer: int) -> int:
        """Tokens of the longest sequence that the model sees: both together, or the longer one."""

    def keeps_reasoning(self, tag: str) -> bool:
        """Whether reasoning between ``<tag>`` and ``</tag>`` stays in an answer that is learnt."""


class ChatTemplate:
    """Writes prompts and answers for a causal model.

    Prompt and answer are rendered together, cut where the prompt ends, encoded apart and joined:
    the answer's ids are exactly those of the rendered answer and one end-of-turn token. Prompts
    begin with exactly one BOS where the tokenizer or the template wants one. Control tokens within
    people's text are encoded as text. A thought that the prompt opens is closed in the answer.

    ``end_of_turn`` is the first special token that the template writes after an answer, else EOS;
    ``stop_ids`` are all of these, EOS, and ``own_stop_ids``. ``answer_lead`` is what the template
    writes before an answer, where special tokens are in it.

    Args:
        chat_template: None (the tokenizer's own), ``plain`` (for bases without one: prompt, an
            empty line, answer) or the path of a jinja file.
        template_kwargs: reach the template in training and inference alike; ``date_string`` is
            pinned where the template prints a date.
        own_stop_ids: ids that the model's own generation settings end at.

    Raises:
        ModelError: there is no template, it cannot be read, or there is no end-of-turn token.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        chat_template: str | None = None,
        template_kwargs: Mapping[str, Any] | None = None,
        own_stop_ids: Iterable[int] = (),
    ) -> None:
        self.tokenizer = tokenizer
        self._renderer = Renderer(tokenizer, chat_template, dict(template_kwargs or {}))
        self.source, self.template_kwargs = self._renderer.source, self._renderer.kwargs
        self.folds_system = self._renderer.folds_system  # into the first user turn
        control = control_tokens(tokenizer, self._renderer.source)
        special = [text for text in special_tokens(tokenizer) if not is_reasoning_tag(text)]
        self._prompt_marks, self._answer_marks = Neutraliser(control), Neutraliser(special)
        self._encoder = PieceEncoder(tokenizer)
        ends = self._find_ends(control)
        self.end_of_turn = ends[0]
        self.stop_ids = sorted({*ends, *own_stop_ids})
        lead = self._encoder.encode([self._renderer.lead], inner=True)[0]
        headed = not {*lead}.isdisjoint(tokenizer.convert_tokens_to_ids(special))
        self.answer_lead = lead if headed else []

    @property
    def context(self) -> int | None:
        limit = int(self.tokenizer.model_max_length)
        return limit if limit < NO_LIMIT else None

    @cached_property
    def fingerprint(self) -> str:
        tokenizer = tokenizer_fingerprint(self.tokenizer)
        return hash_parts("causal", tokenizer, self.source, self.template_kwargs)

    def prompt(self, messages: Sequence[Message]) -> str:
        return self._prompt(messages).replace(BREAK, "")

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        return self.encode_prompts([messages])[0]

    def answer_ids(self, messages: Sequence[Message], answer: str) -> list[int]:
        return self.encode_answers([(messages, answer)])[0]

    def encode_prompts(self, prompts: Sequence[Sequence[Message]]) -> list[list[int]]:
        return self._encode_prompts([self._prompt(messages) for messages in prompts])

    def encode_answers(self, pairs: Sequence[Pair]) -> list[list[int]]:
        return self._encode_answers([self._answer(*pair) for pair in pairs])

    def encode_pairs(self, pairs: Sequence[Pair]) -> tuple[list[list[int]], list[list[int]]]:
        prompts: list[str] = []
        answers: list[str] = []
        for messages, answer in pairs:
            turns = self._marked(messages)
            prompts.append(self._renderer.prompt(turns))
            marked = self._answer_marks.mark(answer)
            answers.append(self._renderer.answer(turns, marked, prompts[-1]))
        return self._encode_prompts(prompts), self._encode_answers(answers)

    def length(self, prompt: int, answer: int) -> int:
        return prompt + answer

    def keeps_reasoning(self, tag: str) -> bool:
        return self._renderer.keeps_reasoning(tag)

    def _encode_prompts(self, texts: Sequence[str]) -> list[list[int]]:
        return [self._one_bos(ids) for ids in self._encoder.encode(texts)]

    def _encode_answers(self, texts: Sequence[str]) -> list[list[int]]:
        return [[*ids, self.end_of_turn] for ids in self._encoder.encode(texts, inner=True)]

    def _prompt(self, messages: Sequence[Message]) -> str:
        return self._renderer.prompt(self._marked(messages))

    def _answer(self, messages: Sequence[Message], answer: str) -> str:
        return self._renderer.answer(self._marked(messages), self._answer_marks.mark(answer))

    def _marked(self, messages: Sequence[Message]) -> list[dict[str, Any]]:
        turns: list[dict[str, Any]] = []
        for message in messages:
            self._renderer.tools.require(message)
            marks = self._answer_marks if message.role == "assistant" else self._prompt_marks
            turn = message.as_dict()
            if message.role == "tools":
                turn["content"] = json.loads(message.content)
            turns.append({"role": turn.pop("role"), **marks.mark_all(turn)})
        return turns

    def _one_bos(self, ids: list[int]) -> list[int]:
        """Leave exactly one BOS where the tokenizer or the template puts one."""
        bos = self.tokenizer.bos_token_id
        if bos is None:
            return ids
        begins = bool(ids) and ids[0] == bos
        start = 0
        while start < len(ids) and ids[start] == bos:
            start += 1
        return [int(bos), *ids[start:]] if begins or self._adds_bos else ids

    @cached_property
    def _adds_bos(self) -> bool:
        ids = self.tokenizer("a")["input_ids"]
        return bool(ids) and ids[0] == self.tokenizer.bos_token_id

    def _find_ends(self, control: Sequence[str]) -> list[int]:
        """Return the special tokens that close a turn, in order, and the tokenizer's EOS."""
        ids = self._encoder.encode([self._renderer.closing.strip()])[0]
        known = set(self.tokenizer.convert_tokens_to_ids(list(control)))
        eos, unknown = self.tokenizer.eos_token_id, self.tokenizer.unk_token_id
        ends = [i for i in ids if i != unknown and (i in known or len(ids) == 1)]
        if not ends and eos is None:
            raise ModelError(
                f"The chat template ends a turn with {self._renderer.closing!r}, which holds no "
                "special token of the tokenizer, and the tokenizer has no EOS token: an answer "
                "would have no end. Add the token to the tokenizer, or set model.chat_template."
            )
        return ends if eos is None else [*ends, int(eos)]


Turns = Sequence[Mapping[str, Any]]

PLAIN = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}{{ message['content'] + eos_token }}"
    "{% else %}{{ message['content'] + '\n\n' }}{% endif %}{% endfor %}"
)
DATE, DATE_FORMAT = "26 Jul 2024", "%d %b %Y"
_CLOCK = re.compile(r"""strftime_now\s*\(\s*(["'])(.*?)\1\s*\)""")
_PROBE, _SYSTEM = "probe7q", "system7q"


class Renderer:
    """A template with its arguments: prompts, answers and what closes a turn.

    Raises:
        ModelError: there is no template, or it cannot render a question and an answer.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, chat_template: str | None, kwargs: dict[str, Any]
    ) -> None:
        self._tokenizer = tokenizer
        self.source = template_source(tokenizer, chat_template)
        dated = "date_string" in self.source or "strftime_now" in self.source
        self.kwargs = {**({"date_string": DATE} if dated else {}), **kwargs}
        self._undated = pin_date(self.source, str(self.kwargs.get("date_string", DATE)))
        self.tools = ToolParts(lambda turns: self._render(turns, False))
        self.folds_system = False
        self.folds_system = not self._takes_system()
        question = [{"role": "user", "content": _PROBE}]
        self.closing = self._around(question)[1]
        self.lead = self.answer(question, _PROBE + "a").partition(_PROBE + "a")[0]

    def prompt(self, turns: Turns) -> str:
        return self._render(turns, True)

    def answer(self, turns: Turns, answer: str, prompt: str | None = None) -> str:
        """Render an answer after ``turns``: what follows the prompt, without what closes it.

        What the template puts between prompt and answer (an empty thought) belongs to the answer,
        since the model has to write it; so does the end of a thought that only the prompt opens.
        ``prompt`` is the rendered prompt, if it is at hand.
        """
        prompt = self.prompt(turns) if prompt is None else prompt
        whole = self._render([*turns, {"role": "assistant", "content": answer}], False)
        opened = opened_thought(prompt.replace(BREAK, ""))
        if opened and not whole.startswith(prompt):
            prompt = prompt.removesuffix(opened)
        if not whole.startswith(prompt):
            prompt = self._around(turns)[0]
        if whole.startswith(prompt) and whole.endswith(self.closing):
            answer = whole[len(prompt) : len(whole) - len(self.closing)]
        return close_thought(opened, answer)

    def keeps_reasoning(self, tag: str) -> bool:
        thought = f"<{tag}>\n{_PROBE}b\n</{tag}>\n\n{_PROBE}a"
        turns = [{"role": "user", "content": _PROBE}, {"role": "assistant", "content": thought}]
        return f"{_PROBE}b" in self._render(turns, False)

    def _around(self, turns: Turns) -> tuple[str, str]:
        """Return what is rendered before and after an answer to ``turns``."""
        probe = {"role": "assistant", "content": _PROBE + "a"}
        whole = self._render([*turns, probe], False)
        before, found, after = whole.rpartition(_PROBE + "a")
        if not found:
            raise ModelError("The chat template does not write the assistant's answers.")
        return before, after

    def _takes_system(self) -> bool:
        turns = [{"role": "system", "content": _SYSTEM}, {"role": "user", "content": _PROBE}]
        try:
            return _SYSTEM in self._render(turns, True)
        except ModelError:
            return False

    def _render(self, turns: Turns, prompt: bool) -> str:
        from jinja2 import TemplateError

        tools = [tool for turn in turns if turn["role"] == "tools" for tool in turn["content"]]
        turns = [turn for turn in turns if turn["role"] != "tools"]
        conversation = fold_system(turns) if self.folds_system else [dict(t) for t in turns]
        try:
            text = self._tokenizer.apply_chat_template(
                conversation,
                tools=tools or None,
                chat_template=self._undated,
                add_generation_prompt=prompt,
                tokenize=False,
                **self.kwargs,
            )
        except (TemplateError, TypeError, ValueError) as error:
            roles = ", ".join(turn["role"] for turn in turns)
            raise ModelError(
                f"The chat template cannot render the turns ({roles}): {error}. "
                "Check the data's roles, model.template_kwargs and model.chat_template."
            ) from error
        return str(text)


def pin_date(source: str, date: str) -> str:
    """Replace the template's calls of the clock by a fixed date, in the layout it asks for.

    ``date`` is such as ``26 Jul 2024``; another layout is printed as it is.
    """

    def fixed(match: re.Match[str]) -> str:
        try:
            return repr(datetime.strptime(date, DATE_FORMAT).strftime(match[2]))
        except ValueError:
            return repr(date)

    pinned = _CLOCK.sub(fixed, source)
    if not re.search(r"strftime_now\s*\(", pinned):
        return pinned
    quoted = date.replace("{", "").replace("}", "")
    return f"{{% macro strftime_now(layout) %}}{quoted}{{% endmacro %}}{pinned}"


def template_source(tokenizer: PreTrainedTokenizerBase, chat_template: str | None) -> str:
    """Return the jinja text: the tokenizer's own, ours for plain bases, or a file's.

    Raises:
        ModelError: there is none.
    """
    if chat_template == "plain":
        return PLAIN
    if chat_template is not None:
        try:
            return Path(chat_template).expanduser().read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ModelError(
                f"model.chat_template={chat_template!r} cannot be read ({error}). "
                "Give the path of a jinja file, 'plain', or null for the tokenizer's own."
            ) from error
    if tokenizer.chat_template is None:
        raise ModelError(
            f"The tokenizer {tokenizer.name_or_path!r} has no chat template. "
            "Set model.chat_template=plain for a base model, or to the path of a jinja file."
        )
    return str(tokenizer.get_chat_template())


def fold_system(turns: Turns) -> list[dict[str, Any]]:
    """Put the system text before the first user turn's, for templates without that role."""
    system = "\n\n".join(turn["content"] for turn in turns if turn["role"] == "system")
    rest = [dict(turn) for turn in turns if turn["role"] != "system"]
    if system and rest and rest[0]["role"] == "user":
        rest[0]["content"] = f"{system}\n\n{rest[0]['content']}"
    return rest
