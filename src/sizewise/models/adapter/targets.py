"""Which weights an adapter covers and with which rank, checked against the model that is there."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import nn

from sizewise.config.model import LoraConfig, LoraTargets
from sizewise.errors import ModelError
from sizewise.models.base import VISION_MODULES, quantized_linears
from sizewise.models.size import parameter_count

if TYPE_CHECKING:
    from transformers import PreTrainedModel


ATTENTION_NAMES = (
    "q_proj", "k_proj", "v_proj", "o_proj", "qkv_proj", "out_proj", "query_key_value", "dense",
    "c_attn", "q", "k", "v", "o", "Wqkv",
)  # fmt: skip
REGEX = "regex:"
LAYER = re.compile(r"\.(\d+)\.")


@dataclass(frozen=True)
class Targets:
    """What an adapter covers.

    Attributes:
        names: what PEFT is told of the linear layers: ends of their names, or whole names.
        experts: whole names of the stacked weights of experts (PEFT's ``target_parameters``).
        left_out: share of the language model's matrices, embeddings and head aside, that they
            leave without an adapter.
    """

    names: list[str]
    linears: frozenset[str]
    experts: list[str]
    left_out: float


def choose_targets(base: PreTrainedModel, lora: LoraConfig, known: LoraTargets) -> Targets:
    """Find what ``lora`` covers of ``base`` (the meta device will do).

    Raises:
        ModelError: a name, layer number or pattern matches nothing.
    """
    linears = adaptable_linears(base, known.exclude)
    experts = [] if lora.method == "dora" else expert_weights(base, known.exclude)
    names = _names(base, lora.target, known, linears, experts)
    wrapped = matching(linears, names)
    stacked = experts if lora.target == "all_linear" else sorted(matching(experts, names))
    if lora.layers_to_transform or lora.target.startswith(REGEX):
        wrapped, stacked = _of_layers(wrapped, lora), sorted(_of_layers(stacked, lora))
        names = sorted(wrapped)
    else:
        names = [name for name in names if matching(linears, [name])]
    covered = {f"{name}.weight" for name in wrapped} | set(stacked)
    _check_patterns(lora, wrapped | set(stacked))
    return Targets(names, frozenset(wrapped), stacked, _left_out(base, covered))


def _names(
    base: PreTrainedModel, target: str, known: LoraTargets, linears: list[str], experts: list[str]
) -> list[str]:
    """Turn ``target`` into names, each of which matches something; a regex into whole names."""
    present = sorted({name.rsplit(".", 1)[-1] for name in linears})
    if target.startswith(REGEX):
        names = _matched(target, [*linears, *experts])
    elif target == "all_linear":
        names = list(known.all_linear) or present
    elif target == "attention":
        names = list(known.attention) or [n for n in present if n in ATTENTION_NAMES]
    else:
        names = [name.strip() for name in target.split(",") if name.strip()]
    missing = [name for name in names if not matching([*linears, *experts], [name])]
    if missing or not names:
        stacked = sorted({name.rsplit(".", 1)[-1] for name in experts} - set(present))
        raise ModelError(
            f"lora.target={target!r}: no linear module is called {', '.join(missing) or target!r} "
            f"in {type(base).__name__}. It has: {', '.join([*present, *stacked])}."
        )
    return names


def _matched(target: str, names: list[str]) -> list[str]:
    try:
        pattern = re.compile(target.removeprefix(REGEX))
    except re.error as error:
        raise ModelError(f"lora.target={target!r} is no regular expression: {error}.") from error
    return [name for name in names if pattern.fullmatch(name)]


def _of_layers(names: Iterable[str], lora: LoraConfig) -> set[str]:
    """Keep the names within the layers that are to be adapted: all, unless some are named."""
    wanted = set(lora.layers_to_transform or ())
    numbers = {name: int(found[1]) for name in names if (found := LAYER.search(name))}
    missing = sorted(wanted - set(numbers.values())) if numbers else []
    if missing:
        raise ModelError(
            f"lora.layers_to_transform={sorted(wanted)}: there is nothing to adapt in layer "
            f"{missing[0]}. The layers are {min(numbers.values())} to {max(numbers.values())}."
        )
    return {name for name in names if not wanted or numbers.get(name) in wanted}


def _check_patterns(lora: LoraConfig, names: set[str]) -> None:
    for key in ("rank_pattern", "alpha_pattern"):
        for pattern in getattr(lora, key):
            if not any(is_named(name, pattern) for name in names):
                raise ModelError(
                    f"lora.{key}: {pattern!r} matches no adapted module. These are called "
                    f"{', '.join(sorted({name.rsplit('.', 1)[-1] for name in names}))}."
                )


def check_ranks(base: PreTrainedModel, lora: LoraConfig, targets: Targets) -> None:
    """Raise ModelError for a rank that is larger than the smaller side of every layer it is for.

    ``base`` may be on the meta device; unquantised.
    """
    weights = dict(base.named_parameters())
    whole = {name: f"{name}.weight" for name in targets.linears} | {n: n for n in targets.experts}
    sides = {name: min(weights[key].shape[-2:]) for name, key in whole.items()}
    for pattern, rank in (("", lora.r), *lora.rank_pattern.items()):
        own = [s for name, s in sides.items() if not pattern or is_named(name, pattern)]
        if own and rank > max(own):
            key = f"lora.rank_pattern.{pattern}" if pattern else "lora.r"
            raise ModelError(
                f"{key}={rank} is larger than the smaller side of every layer that it is for "
                f"({max(own)} at most): no update has a higher rank than that. Give at most "
                f"{max(own)}; 4 to 64 are usual."
            )


def is_named(name: str, pattern: str) -> bool:
    """Whether PEFT applies a pattern of ranks or alphas to the module ``name``."""
    return re.match(rf"(.*\.)?({pattern})$", name) is not None


def adaptable_linears(base: PreTrainedModel, exclude: str | None = None) -> list[str]:
    """Return full names of the linear layers of the language model, less its output head."""
    import transformers.pytorch_utils as hf

    kinds = (nn.Linear, hf.Conv1D, *{type(m) for m in quantized_linears(base).values()})
    head = base.get_output_embeddings()
    pattern = re.compile(exclude_pattern(base, exclude) or r"(?!)")
    return [
        name
        for name, module in base.named_modules()
        if isinstance(module, kinds) and module is not head and not pattern.fullmatch(name)
    ]


def expert_weights(base: PreTrainedModel, exclude: str | None = None) -> list[str]:
    """Return full names of the 3-dimensional weights in which a layer's experts are stacked."""
    pattern = re.compile(exclude_pattern(base, exclude) or r"(?!)")
    return [
        f"{name}.{key}"
        for name, module in base.named_modules()
        if "expert" in f"{name}.{type(module).__name__}".lower() and not pattern.fullmatch(name)
        for key, weight in module.named_parameters(recurse=False)
        if weight.dim() == 3
    ]


def exclude_pattern(base: PreTrainedModel, exclude: str | None = None) -> str | None:
    """Regular expression of module names that are never adapted: the user's, and vision parts."""
    parts = [exclude] if exclude else []
    if getattr(base.config, "vision_config", None) is not None:
        parts.append(rf".*({'|'.join(VISION_MODULES)}).*")
    return "|".join(f"(?:{part})" for part in parts) or None


def matching(found: Iterable[str], names: Iterable[str]) -> set[str]:
    """Return the members of ``found`` that one of ``names`` stands for."""
    ends = tuple(f".{name}" for name in names)
    return {name for name in found if f".{name}".endswith(ends)}


def _left_out(base: PreTrainedModel, covered: set[str]) -> float:
    outside = {id(m.weight) for m in (base.get_input_embeddings(), base.get_output_embeddings())}
    sizes: Mapping[str, int] = {
        name: parameter_count(weight)
        for name, weight in base.named_parameters()
        if weight.dim() >= 2
        and id(weight) not in outside
        and not any(part in name for part in VISION_MODULES)
    }
    kept = sum(count for name, count in sizes.items() if name not in covered)
    return kept / max(1, sum(sizes.values()))
