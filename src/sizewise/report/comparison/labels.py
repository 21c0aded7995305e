"""Short names of configurations: base, adapter, storage, and whatever else differs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any

from sizewise.files import hash_text
from sizewise.record.identity import flatten
from sizewise.record.outcome import ModelFacts
from sizewise.words import cut

# Mostly said by the base, the adapter and the storage: named where nothing else tells apart.
SAID = (
    "model.", "quantization.", "lora.method", "lora.r", "lora.alpha", "metric.", "eval_dataset.",
)  # fmt: skip
SHORT = {
    "optimizer.lr": "lr",
    "dataset.max_train": "n",
    "trainer.max_epochs": "epochs",
    "trainer.max_steps": "steps",
    "dataset.few_shot": "shots",
    "dataset.prompt": "prompt",
    "dataset.system": "system",
    "dataset.answers_from": "answers",
}
# Of wordings the words that all begin with tell nothing apart.
WORDINGS = ("dataset.prompt", "dataset.system")
LONGEST_WORDING = 20
# What the configuration does not say: the rows trained on, and facts of the model and the prompt.
FACTS = {
    "data.train": "training-data",
    "data.validation": "validation-data",
    "facts.revision": "revision",
    "facts.dtype": "dtype",
    "facts.template": "template",
    "facts.prompt": "prompt",
}
LIMITS = ("dataset.max_train", "dataset.max_validation", "dataset.max_test", "dataset.max_samples")
LONGEST = 40
HASH_LENGTH = 4
Fact = tuple[ModelFacts, bool, Mapping[str, Any]]


def name_all(facts: Sequence[Fact]) -> list[str]:
    """Return one label per (model, tuned, configuration), no two alike."""
    plain = [_plain(model, tuned) for model, tuned, _ in facts]
    flat = [flatten(config) for _, _, config in facts]
    labels = list(plain)
    for base in [name for name, number in Counter(plain).items() if number > 1]:
        same = [i for i, name in enumerate(plain) if name == base]
        for i, more in zip(same, tell_apart([flat[i] for i in same]), strict=True):
            labels[i] = f"{base} {more}".rstrip()
    return _numbered(labels)


def tell_apart(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """What differs between flat configurations, as ``n=100 lr=0.001`` for each.

    Keys that tell nothing more than the ones before them are left out: short names first, then
    those that the plain name mostly says, last the facts. Different configurations never get the
    same text: values that look alike are given with a hash.
    """
    names = {**SHORT, **FACTS}
    columns = [
        [f"{names.get(key, key)}={text}" for text in _texts(key, [c.get(key) for c in configs])]
        for key in _needed(configs, _differing(configs))
    ]
    return [" ".join(column[i] for column in columns) for i in range(len(configs))]


def _plain(model: ModelFacts, tuned: bool) -> str:
    parts = [model.name]
    if model.family == "classical":
        return model.name
    if not tuned:
        parts.append("zero-shot")
    elif model.lora_r is not None:
        named = {"lora": "LoRA", "dora": "DoRA", "rslora": "rsLoRA"}
        parts.append(f"{named.get(model.lora_method, model.lora_method)} r={model.lora_r}")
    else:
        parts.append("fully tuned" if model.lora_method == "full" else "adapter")
    if model.quantization != "none":
        parts.append(model.quantization)
    return " ".join(parts)


def _differing(flat: Sequence[Mapping[str, Any]]) -> list[str]:
    keys = sorted({key for config in flat for key in config})
    return [k for k in keys if len({repr(c.get(k)) for c in flat}) > 1]


def _needed(configs: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> list[str]:
    needed: list[str] = []
    told = 1
    for key in sorted(keys, key=lambda key: (_rank(key), key)):
        number = len({repr([config.get(k) for k in (*needed, key)]) for config in configs})
        if number > told:
            needed.append(key)
            told = number
    return needed


def _rank(key: str) -> int:
    if key in SHORT:
        return 0
    return 3 if key in FACTS else 2 if key.startswith(SAID) else 1


def _texts(key: str, values: Sequence[Any]) -> list[str]:
    texts = [_value(key, value) for value in values]
    if key in WORDINGS:
        texts = _without_common_start([str(value) for value in values])
    meant: dict[str, set[str]] = {}
    for text, value in zip(texts, values, strict=True):
        meant.setdefault(text, set()).add(repr(value))
    return [
        text if len(meant[text]) == 1 else f"{text}({hash_text(repr(value), HASH_LENGTH)})"
        for text, value in zip(texts, values, strict=True)
    ]


def _without_common_start(texts: Sequence[str]) -> list[str]:
    """Leave out the words that all texts begin with: ``…is that?`` for the end of a question."""
    split = [text.split() for text in texts]
    columns = zip(*split, strict=False)
    shared = sum(1 for _ in takewhile(lambda words: len(set(words)) == 1, columns))
    rest = [("…" if shared else "") + " ".join(words[shared:]) for words in split]
    return [cut(text, LONGEST_WORDING) for text in rest]


def _value(key: str, value: Any) -> str:
    missing = "all" if key in LIMITS else "gold" if key == "dataset.answers_from" else "none"
    text = missing if value is None else f"{value:g}" if isinstance(value, float) else str(value)
    return cut(" ".join(text.split()), LONGEST)


def _numbered(labels: Sequence[str]) -> list[str]:
    """Number what is still alike from the second on."""
    given: list[str] = []
    for label in labels:
        free, number = label, 1
        while free in given or (number > 1 and free in labels):
            number += 1
            free = f"{label} #{number}"
        given.append(free)
    return given
