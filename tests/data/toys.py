"""Small tokenizers, templates and rows; nothing here is downloaded or trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from sizewise.config.data import DatasetConfig, FilterConfig, SourceConfig, SplitConfig
from sizewise.data.example import Example, Message

SPECIAL = ("<pad>", "<bos>", "<turn>", "<end>", "<eos>")

CHATML = (
    "{% for m in messages %}{{ '<turn>' + m['role'] + '\n' + m['content'] + '<end>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<turn>assistant\n' }}{% endif %}"
)
NO_SYSTEM = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
    "{{ raise_exception('no system role') }}{% endif %}"
    "{% for m in messages %}{{ '<turn>' + m['role'] + '\n' + m['content'] | trim + '<end>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<turn>assistant\n' }}{% endif %}"
)
DATED = "{{ strftime_now('%Y-%m-%d') }} {{ date_string }}\n" + CHATML
THINKING = (
    "{% for m in messages %}{{ '<turn>' + m['role'] + '\n' }}"
    "{% if m['role'] == 'assistant' and loop.last %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    "{{ m['content'] + '<end>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<turn>assistant\n' }}"
    "{% if enable_thinking is defined and not enable_thinking %}{{ '<think>\n\n</think>\n\n' }}"
    "{% endif %}{% endif %}"
)


def byte_tokenizer(template: str | None = CHATML, **kwargs: Any) -> PreTrainedTokenizerFast:
    """One token per byte, and the special tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    named = {"pad_token": "<pad>", "bos_token": "<bos>", "eos_token": "<eos>", **kwargs}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, clean_up_tokenization_spaces=False, **named
    )
    tokenizer.add_special_tokens({"additional_special_tokens": list(SPECIAL)})
    tokenizer.chat_template = template
    return tokenizer


def space_tokenizer() -> PreTrainedTokenizerFast:
    """One token per character; puts a space before whatever begins, as Llama's first did."""
    characters = ["<unk>", "▁", "\n", *"abcdefghijklmnopqrstuvwxyzABCDEFGHIJ.,?</>|"]
    vocabulary = {c: i for i, c in enumerate(characters)}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    core.decoder = decoders.Metaspace(prepend_scheme="first")
    return PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<s>", eos_token="</s>", pad_token="<unk>",
        clean_up_tokenization_spaces=False,
    )  # fmt: skip


def write_template(folder: Path, text: str) -> str:
    path = folder / "template.jinja"
    path.write_text(text, encoding="utf-8")
    return str(path)


def config(**changes: Any) -> DatasetConfig:
    """A data set of columns q and a, split 60/20/20 unless changed."""
    values: dict[str, Any] = {
        "name": "toy",
        "source": SourceConfig("csv", "unused.csv"),
        "prompt": "{q}",
        "answer": "{a}",
        "filter": FilterConfig(),
        "split": SplitConfig(validation=0.2, test=0.2),
    }
    return DatasetConfig(**(values | changes))


def rows(count: int, questions: int | None = None) -> list[dict[str, Any]]:
    """Rows whose questions recur when there are fewer of them."""
    return [
        {"q": f"question {i % (questions or count)}", "a": f"answer {i}", "k": str(i % 3)}
        for i in range(count)
    ]


def example(prompt: str = "hello", answer: str = "world", *turns: Message, **kw: Any) -> Example:
    messages = (*turns, Message("user", prompt))
    return Example(messages, answer, **({"group": "g"} | kw))
