"""Reasoning in answers: the tags it stands between, taking it out, and closing what was opened.

Reasoning never counts as an answer. It is taken out of answers and of references alike, so that an
answer that is its reference is right whatever was thought before it.
"""

from __future__ import annotations

import re

REASONING_TAGS = ("think", "thinking", "reasoning", "thought", "reflection")
_NAMES = "|".join(REASONING_TAGS)
_TAG = re.compile(rf"</?(?:{_NAMES})>", re.IGNORECASE)
_OPENED = re.compile(rf"<(?:{_NAMES})>\s*$", re.IGNORECASE)


def strip_reasoning(text: str) -> str:
    """Remove ``<think>…</think>`` and its like.

    A block that was never closed is removed to the end (nothing was answered), and what stands
    before a lone closing tag is removed too (some templates open the block in the prompt).
    """
    if not _TAG.search(text):
        return text
    for tag in REASONING_TAGS:
        text = re.sub(rf"<{tag}>.*?</{tag}>", " ", text, flags=re.DOTALL | re.IGNORECASE)
        text = re.sub(rf"<{tag}>.*", " ", text, flags=re.DOTALL | re.IGNORECASE)
        text = re.sub(rf".*</{tag}>", " ", text, flags=re.DOTALL | re.IGNORECASE)
    return text


def closed_tags(text: str) -> set[str]:
    """Return the names of the reasoning tags that a text closes."""
    if "</" not in text:
        return set()
    return {match[2:-1].casefold() for match in _TAG.findall(text) if match[1] == "/"}


def answer_of(text: str) -> str:
    """Return what is compared of an answer or of a reference: no reasoning, no outer space."""
    return strip_reasoning(text).strip()


def is_reasoning_tag(token: str) -> bool:
    """Whether a token of a vocabulary opens or closes reasoning."""
    return _TAG.fullmatch(token) is not None


def opened_thought(prompt: str) -> str:
    """Return the opening tag that a prompt ends in, with the white space after it; else ''."""
    found = _OPENED.search(prompt)
    return found.group() if found else ""


def close_thought(opened: str, answer: str) -> str:
    """Return a rendered ``answer`` as it goes on after a prompt that ends in ``opened``.

    An answer with reasoning of its own fills the thought; any other closes it first, as templates
    write an empty thought. ``opened`` is what ``opened_thought`` found; '' changes nothing.
    """
    tag = opened.strip()
    if not tag:
        return answer
    if answer.lstrip().startswith(tag):
        return answer.lstrip()[len(tag) :]
    closing = f"</{tag[1:]}"
    thought, closed, _ = answer.partition(closing)
    if closed and tag not in thought:
        return answer
    return f"\n{closing}\n\n" + answer.lstrip("\n")
