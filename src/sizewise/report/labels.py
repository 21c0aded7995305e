"""Short names of configurations: base, adapter, storage, and whatever else differs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from sizewise.outcome import ModelFacts

# Already said by the base, the adapter and the storage.
SAID = (
    "model.",
    "quantization.",
    "lora.method",
    "lora.r",
    "lora.alpha",
    "metric.",
    "eval_dataset.",
)
SHORT = {
    "optimizer.lr": "lr",
    "dataset.max_train": "n",
    "trainer.max_epochs": "epochs",
    "trainer.max_steps": "steps",
    "dataset.few_shot": "shots",
}
LONGEST = 40
Fact = tuple[ModelFacts, bool, Mapping[str, Any]]


def name_all(facts: Sequence[Fact]) -> list[str]:
    """Return one label per (model, tuned, configuration); equal only for equal configurations."""
    plain = [_plain(model, tuned) for model, tuned, _ in facts]
    flat = [flatten(config) for _, _, config in facts]
    labels = list(plain)
    for base in [name for name, number in Counter(plain).items() if number > 1]:
        same = [i for i, name in enumerate(plain) if name == base]
        for i, more in zip(same, tell_apart([flat[i] for i in same]), strict=True):
            labels[i] = f"{base} {more}".rstrip()
    return labels


def tell_apart(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """What differs between flat configurations, as ``n=100 lr=0.001`` for each.

    Keys that tell nothing more than the ones before them are left out, short names first.
    """
    differing = _needed(configs, _differing(configs))
    return [" ".join(f"{SHORT.get(k, k)}={_value(c.get(k))}" for k in differing) for c in configs]


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


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one level of dotted keys."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            found |= flatten(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def _differing(flat: Sequence[Mapping[str, Any]]) -> list[str]:
    keys = sorted({key for config in flat for key in config})
    different = [k for k in keys if len({repr(c.get(k)) for c in flat}) > 1]
    return [k for k in different if not k.startswith(SAID)] or different


def _needed(configs: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> list[str]:
    needed: list[str] = []
    told = 1
    for key in sorted(keys, key=lambda key: (key not in SHORT, keys.index(key))):
        number = len({repr([config.get(k) for k in (*needed, key)]) for config in configs})
        if number > told:
            needed.append(key)
            told = number
    return needed


def _value(value: Any) -> str:
    text = "all" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
    text = " ".join(text.split())
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
