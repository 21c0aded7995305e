"""What somebody meant who typed a key or an option that there is not."""

from __future__ import annotations

import dataclasses
import difflib
import typing
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from sizewise.config.run import RunConfig

# The field's words for our keys, as other trainers spell them; compared without - and _.
WORDS = {
    "lora.r": "rank lorar lorarank",
    "lora.alpha": "alpha loraalpha",
    "lora.dropout": "loradropout",
    "lora.target": "targetmodules loratarget loratargetmodules",
    "lora.method": "peft adapter",
    "optimizer.lr": "lr learningrate",
    "optimizer.weight_decay": "weightdecay wd",
    "scheduler.warmup": "warmup warmupratio warmupsteps",
    "trainer.max_epochs": "epochs epoch numepochs numtrainepochs maxepochs",
    "trainer.max_steps": "steps maxsteps numsteps",
    "trainer.batch_size": "batch batchsize perdevicetrainbatchsize trainbatchsize microbatchsize",
    "evaluation.batch_size": "evalbatchsize perdeviceevalbatchsize",
    "trainer.accumulate": "accumulate accumulategradbatches gradientaccumulationsteps",
    "trainer.precision": "precision bf16 fp16 dtype torchdtype",
    "trainer.devices": "gpus gpu devices numgpus",
    "trainer.accelerator": "device accelerator cpu cuda",
    "dataset.source.path": "data datapath datafile file csv trainfile path datasetpath",
    "dataset.prompt": "prompt question input inputcolumn textcolumn",
    "dataset.answer": "answer target output labelcolumn targetcolumn",
    "dataset.system": "system systemprompt",
    "dataset.max_length": "maxlength maxlen maxseqlength maxseqlen seqlen cutofflen contextlength",
    "dataset.max_train": "maxtrain maxtrainsamples trainsize ntrain",
    "dataset.max_samples": "maxsamples limit nsamples",
    "dataset.few_shot": "fewshot shots numfewshot",
    "dataset.split.test": "testsize testsplit",
    "dataset.split.validation": "valsize validationsize validationsplit",
    "dataset.primary": "primary score metricforbestmodel",
    "dataset.task": "task tasktype",
    "generation.max_new_tokens": "maxnewtokens maxtokens",
    "generation.temperature": "temperature",
    "quantization=nf4": "load4bit loadin4bit loadin8bit 4bit 8bit bits quantize quantisation qlora",
    "model": "modelname modelnameorpath modelid base basemodel pretrained checkpoint",
    "model.base_url": "baseurl apibase endpoint",
    "logger": "wandb reportto tracker",
    "paths.outputs": "outputdir outdir output",
    "seed": "randomstate randomseed seeds",
}  # fmt: skip
_MEANT = {word: key for key, words in WORDS.items() for word in words.split()}


def did_you_mean(key: str) -> str:
    """Return `` Did you mean …?`` for a key that does not exist, "" where nothing is near."""
    found = nearest_key(key)
    if found is None:
        return ""
    return f" Did you mean {found}{'' if '=' in found else '=…'}?"


def nearest_key(key: str) -> str | None:
    """Return the key that is meant: a slip of the pen, the field's word for it, or a near one."""
    plain = _plain(key)
    group, last = key.rpartition(".")[0], _plain(key.rpartition(".")[2])
    beside = {_plain(k.rpartition(".")[2]): k for k in all_keys() if k.rpartition(".")[0] == group}
    if group and (slip := difflib.get_close_matches(last, beside, 1, 0.9)):
        return beside[slip[0]]
    if (meant := _MEANT.get(plain) or _MEANT.get(last)) is not None:
        return meant
    groups = [name.rpartition(".")[0] for name in all_keys() if "." in name]
    spelt = {_plain(name): name for name in (*groups, *all_keys())}
    ends = [name for name in all_keys() if _plain(name.rpartition(".")[2]) == last]
    if len(ends) == 1:
        return ends[0]
    # Beside the key's own neighbours a far one that looks alike is seldom meant.
    inside = [name for name in spelt if name.startswith(_plain(key.rpartition(".")[0]))]
    near = difflib.get_close_matches(plain, inside, 1, 0.7) or difflib.get_close_matches(
        plain, [*spelt, *_MEANT], 1, 0.8
    )
    return spelt.get(near[0]) or _MEANT[near[0]] if near else None


def nearest_options(name: str, options: Iterable[str], count: int = 4) -> list[str]:
    """Return the options of a group that are meant: those that begin so, else those near it."""
    plain, spelt = _plain(name), {_plain(option): option for option in options}
    begin = [option for key, option in spelt.items() if plain and key.startswith(plain)]
    near = difflib.get_close_matches(plain, list(spelt), count, 0.6)
    return begin[:count] if begin else [spelt[key] for key in near]


def options_of(group: str, places: Iterable[Path]) -> list[str]:
    """Return the names of a group's options in several folders of configuration, sorted."""
    return sorted({file.stem for place in places for file in (place / group).glob("*.yaml")})


@cache
def all_keys() -> tuple[str, ...]:
    """Return every dotted key of a job that has a value of its own."""
    return tuple(_keys(RunConfig, ""))


def _keys(schema: type[Any], prefix: str) -> Iterator[str]:
    hints = typing.get_type_hints(schema)
    for field in dataclasses.fields(schema):
        kinds = (hints[field.name], *typing.get_args(hints[field.name]))
        inner: Any = next((kind for kind in kinds if dataclasses.is_dataclass(kind)), None)
        if inner is not None and field.name != "eval_dataset":
            yield from _keys(inner, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}"


def _plain(text: str) -> str:
    return text.casefold().replace("_", "").replace("-", "").lstrip("+~")
