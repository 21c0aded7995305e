"""One answer, token by token, exactly as an evaluation would write it."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

import torch
from transformers import StoppingCriteria

from sizewise.evaluation.generate import Generated
from sizewise.evaluation.template import AnswerTemplate, decode_answer

Generate = Callable[[StoppingCriteria], Generated]


class Watcher(StoppingCriteria):
    """Passes every new token on, and ends the answer when it is told to.

    Args:
        prompt_length: ids at the start of the sequence that belong to the prompt.
        tell: called with all new ids after each of them.
    """

    def __init__(self, prompt_length: int, tell: Callable[[list[int]], None]) -> None:
        self.prompt_length = prompt_length
        self.tell = tell
        self.stop = threading.Event()

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        """Return, for each of the sequences [B], whether it shall end."""
        self.tell(input_ids[0, self.prompt_length :].tolist())
        return torch.full(
            (input_ids.shape[0],), self.stop.is_set(), device=input_ids.device, dtype=torch.bool
        )


def stream_answer(
    generate: Generate, template: AnswerTemplate, prompt_length: int
) -> Iterator[str]:
    """Yield the answer so far after every token; the last value is the whole answer.

    The model runs in a thread of its own. A consumer that goes away (a closed page) ends it.

    Args:
        generate: makes the answer; gets the criteria to pass on.
        template: decodes.
        prompt_length: ids before the answer (1 for an encoder-decoder model).

    Raises:
        Exception: whatever ``generate`` raises.
    """
    items: queue.Queue[list[int] | Generated | BaseException] = queue.Queue()
    watcher = Watcher(prompt_length, items.put)

    def work() -> None:
        try:
            items.put(generate(watcher))
        except BaseException as error:
            items.put(error)

    thread = threading.Thread(target=work, name="answer", daemon=True)
    thread.start()
    try:
        while True:
            item = items.get()
            if isinstance(item, BaseException):
                raise item
            if isinstance(item, Generated):
                yield item.text
                return
            yield whole_characters(decode_answer(template, item))
    finally:
        watcher.stop.set()
        thread.join()


def whole_characters(text: str) -> str:
    """Leave out a last character of which only some bytes are there yet."""
    return text.rstrip("\ufffd")
