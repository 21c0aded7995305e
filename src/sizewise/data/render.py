"""Rendering of messages through a jinja chat template, with its habits found by probing."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sizewise.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Turns = Sequence[Mapping[str, str]]

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
        self.folds_system = False
        self.folds_system = not self._takes_system()
        question = [{"role": "user", "content": _PROBE}]
        self.closing = self._around(question)[1]

    def prompt(self, turns: Turns) -> str:
        """Render a prompt, up to where the answer begins."""
        return self._render(turns, True)

    def answer(self, turns: Turns, answer: str, prompt: str | None = None) -> str:
        """Render an answer after ``turns``: what follows the prompt, without what closes it.

        What the template puts between prompt and answer (an empty thought) belongs to the answer,
        since the model has to write it. ``prompt`` is the rendered prompt, if it is at hand.
        """
        prompt = self.prompt(turns) if prompt is None else prompt
        whole = self._render([*turns, {"role": "assistant", "content": answer}], False)
        if not whole.startswith(prompt):
            prompt = self._around(turns)[0]
        if not whole.startswith(prompt) or not whole.endswith(self.closing):
            return answer
        return whole[len(prompt) : len(whole) - len(self.closing)]

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

        conversation = fold_system(turns) if self.folds_system else [dict(t) for t in turns]
        try:
            text = self._tokenizer.apply_chat_template(
                conversation,
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

    Args:
        source: jinja text.
        date: such as ``26 Jul 2024``; another layout is printed as it is.
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


def fold_system(turns: Turns) -> list[dict[str, str]]:
    """Put the system text before the first user turn's, for templates without that role."""
    system = "\n\n".join(turn["content"] for turn in turns if turn["role"] == "system")
    rest = [dict(turn) for turn in turns if turn["role"] != "system"]
    if system and rest and rest[0]["role"] == "user":
        rest[0]["content"] = f"{system}\n\n{rest[0]['content']}"
    return rest
