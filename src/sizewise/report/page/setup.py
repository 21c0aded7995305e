"""How a comparison was made: data, prompt, training, machine and code, from its records alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sizewise import words
from sizewise.record.outcome import Outcome
from sizewise.report.comparison.arms import CLASSICAL, Arm, TestSet
from sizewise.report.comparison.readings import reading_of

MOST_VALUES = 8
PARITY, COMPARED = "endpoint/parity", "endpoint/parity_examples"
LONGEST_PROMPT = 2_000
PACKAGES = ("torch", "transformers", "peft", "pytorch-lightning", "bitsandbytes", "numpy")


@dataclass(frozen=True)
class Fact:
    """A name and what is to be said of it, one line or several."""

    name: str
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Part:
    """Facts under one heading."""

    title: str
    facts: tuple[Fact, ...]


def setup_of(test: TestSet) -> list[Part]:
    """Everything that somebody would need to judge, or to do it again; unknown facts left out."""
    outcomes = [member.run.outcome for arm in test.arms for member in arm.members]
    parts = {
        "Data": _data(test, outcomes),
        "Prompt and answers": _prompt(test, outcomes),
        "Models": _models(test),
        "Training": _training(test),
        "Machine and code": _machine(outcomes),
    }
    known = {
        title: tuple(Fact(name, found) for name, lines in facts.items() if (found := _kept(lines)))
        for title, facts in parts.items()
    }
    return [Part(title, facts) for title, facts in known.items() if facts]


Lines = Mapping[str, Iterable[str]]


def _kept(lines: Iterable[str]) -> tuple[str, ...]:
    """Each line once, without empty ones."""
    found = list(dict.fromkeys(filter(None, lines)))
    more = len(found) - MOST_VALUES
    return (*found[:MOST_VALUES], *([f"and {more} more"] if more > 0 else []))


def _group(outcome: Outcome, name: str) -> Mapping[str, Any]:
    """A group of the configuration; empty where a record lacks it."""
    found = outcome.config.get(name)
    return found if isinstance(found, Mapping) else {}


def _listed(values: Iterable[object]) -> str:
    """The distinct values in order: ``4, 16``."""
    known = sorted({v for v in values if v is not None}, key=_order)
    return ", ".join(f"{v:g}" if isinstance(v, float) else str(v) for v in known)


def _order(value: object) -> tuple[bool, float, str]:
    number = isinstance(value, int | float)
    return (not number, float(value) if number else 0.0, str(value))  # type: ignore[arg-type]


def _data(test: TestSet, outcomes: Iterable[Outcome]) -> Lines:
    own = [o for o in outcomes if o.data.name == test.dataset]
    groups = len(set(test.groups))
    tested = words.plural(len(test.ids), "example")
    if groups < len(test.ids):
        tested += f" in {words.plural(groups, 'group')}"
    return {
        "Data set": [
            f"{test.dataset}, {words.plural(o.data.report.get('rows') or 0, 'row')}{_source(o)}"
            for o in own
        ],
        "Test": [tested + (f" ({test.left_out:,} left out)" if test.left_out else "")],
        "Training": [_sizes([o for o in own if o.tuned])],
        "Splits": [_split(o) for o in own],
        "Leaks": [_leaks(o) for o in own],
        "Fingerprint of the test split": [test.fingerprint],
    }


def _source(outcome: Outcome) -> str:
    source = _group(outcome, "dataset").get("source")
    if not isinstance(source, Mapping) or not source.get("path"):
        return ""
    revision = f", revision {source['revision']}" if source.get("revision") else ""
    return f" ({source.get('kind')}: {source['path']}{revision})"


def _sizes(outcomes: Sequence[Outcome]) -> str:
    sizes = {
        split: sorted({o.data.sizes[split] for o in outcomes if split in o.data.sizes})
        for split in ("train", "validation")
    }
    train, validation = (", ".join(f"{n:,}" for n in found) for found in sizes.values())
    if not train:
        return ""
    return f"{train} examples, {validation} for validation"


def _split(outcome: Outcome) -> str:
    split = _group(outcome, "dataset").get("split")
    if not isinstance(split, Mapping):
        return ""
    if split.get("column"):
        return f"by the data's own column {split['column']}"
    return (
        f"drawn by whole groups with seed {split.get('seed')}: validation "
        f"{split.get('validation')}, test {split.get('test')}"
    )


def _leaks(outcome: Outcome) -> str:
    report = outcome.data.report
    shared, leaking = (int(report.get(name) or 0) for name in ("shared_groups", "leaking_rows"))
    text = (
        f"{words.plural(shared, 'group')} in more than one split"
        if shared
        else "no group is in more than one split"
    )
    if leaking:
        text += f"; {words.plural(leaking, 'row')} of the source's own evaluation were in training"
    avoided = report.get("row_split_leak")
    if isinstance(avoided, int | float) and avoided > 0:
        share = words.Scale(True).value(float(avoided))
        text += f"; a random split of rows would have leaked {share} of the test rows"
    return text


def _prompt(test: TestSet, outcomes: Iterable[Outcome]) -> Lines:
    outcomes = [o for o in outcomes if o.model.family != CLASSICAL]
    asked = [_group(o, "dataset") for o in outcomes]
    generation = [_group(o, "generation") for o in outcomes]
    read = f", answers read {reading_of(test)}" if test.primary != test.said else ""
    better = "more is better" if test.sign > 0 else "less is better"
    return {
        "System prompt": [_cut(d.get("system")) for d in asked],
        "Prompt": [_cut(d.get("prompt")) for d in asked],
        "Answer": [_cut(d.get("answer")) for d in asked],
        "Examples in the prompt": [_listed(d.get("few_shot") for d in asked)],
        "Limit of prompt and answer (tokens)": [_listed(d.get("max_length") for d in asked)],
        "Decoding": [_decoding(g) for g in generation if g],
        "Score": [f"{test.primary}, {better}{read}"],
    }


def _cut(text: object) -> str:
    said = "" if text is None else str(text)
    return words.cut(said, LONGEST_PROMPT)


def _decoding(generation: Mapping[str, Any]) -> str:
    limit = f"at most {generation.get('max_new_tokens')} new tokens"
    if not generation.get("do_sample"):
        return f"greedy, {limit}"
    heat, top = generation.get("temperature"), generation.get("top_p")
    return f"sampled at temperature {heat}, top-p {top}, seed {generation.get('seed')}, {limit}"


def _models(test: TestSet) -> Lines:
    arms = sorted((a for a in test.arms if a.kind != CLASSICAL), key=lambda a: a.size)
    baselines = [a.label for a in test.arms if a.kind == CLASSICAL]
    return {
        "Bases": [_base(arm) for arm in arms],
        "Storage": [_listed(a.model.quantization for a in arms if a.model.quantization != "none")],
        "Answered by a server": [_parity(arm) for arm in arms],
        "Baselines": [", ".join(baselines)],
    }


def _parity(arm: Arm) -> str:
    """Say how many of a server's answers were compared with transformers' own, and were equal."""
    compared = [m.evaluation.scores for m in arm.members if PARITY in m.evaluation.scores]
    if not compared:
        return ""
    count = sum(scores[COMPARED] for scores in compared)
    equal = sum(round(scores[PARITY] * scores[COMPARED]) for scores in compared)
    return f"{arm.label}: {equal:.0f} of {count:.0f} greedy answers equal to transformers'"


def _base(arm: Arm) -> str:
    model = arm.model
    size = f"{words.count(model.params_base)} parameters" if model.params_base else "size not known"
    revision = f", revision {model.revision}" if model.revision else ""
    return f"{model.name}: {model.path}{revision}, {size}, {model.dtype}"


def _training(test: TestSet) -> Lines:
    arms = trained(test)
    outcomes = [member.run.outcome for arm in arms for member in arm.members]
    return {
        "Adapters": [_adapter(arm) for arm in arms],
        "Optimiser": [_optimizer(o) for o in outcomes],
        "Learning rates": [_listed(_group(o, "optimizer").get("lr") for o in outcomes)],
        "Epochs": [_listed(epochs_of(o) for o in outcomes)],
        "Batch": [_listed(batch_of(o) for o in outcomes)],
        "Seeds": [_listed(o.seed for o in outcomes)],
        "Stops early": [_early(o) for o in outcomes],
    }


def trained(test: TestSet) -> list[Arm]:
    """What was trained, by size and rank."""
    arms = [arm for arm in test.arms if arm.has_seeds]
    return sorted(arms, key=lambda arm: (arm.size, arm.model.lora_r or 0, arm.label))


def _early(outcome: Outcome) -> str:
    rule = _group(outcome, "callbacks").get("early_stopping")
    if not isinstance(rule, Mapping):
        return ""
    return f"after {rule.get('patience')} validations without a better {rule.get('monitor')}"


def _adapter(arm: Arm) -> str:
    model, lora = arm.model, _group(arm.first.run.outcome, "lora")
    if model.lora_r is None:
        return "all weights" if model.lora_method == "full" else ""
    alpha = f", alpha {model.lora_alpha:g}" if model.lora_alpha else ""
    where = f" on {words.spelled(str(lora['target']))}" if lora.get("target") else ""
    dropout = f", dropout {lora['dropout']}" if lora.get("dropout") else ""
    return f"{model.lora_method} r={model.lora_r}{alpha}{where}{dropout}"


def _optimizer(outcome: Outcome) -> str:
    optimizer, scheduler = _group(outcome, "optimizer"), _group(outcome, "scheduler")
    if not optimizer.get("target"):
        return ""
    text = str(optimizer["target"]).rpartition(".")[2]
    if optimizer.get("weight_decay") is not None:
        text += f", weight decay {optimizer['weight_decay']}"
    if scheduler.get("name"):
        text += f", {scheduler['name']} schedule, warm-up {scheduler.get('warmup')}"
    clip = _group(outcome, "trainer").get("gradient_clip")
    return text + (f", gradients clipped at {clip}" if clip else "")


def epochs_of(outcome: Outcome) -> object:
    """Epochs, or steps where these were asked for."""
    trainer = _group(outcome, "trainer")
    steps = trainer.get("max_steps")
    return f"{steps} steps" if isinstance(steps, int) and steps > 0 else trainer.get("max_epochs")


def batch_of(outcome: Outcome) -> int | None:
    """Examples of an optimiser step on one device."""
    trainer = _group(outcome, "trainer")
    size = outcome.cost.batch_size or trainer.get("batch_size")
    times = outcome.cost.accumulate or trainer.get("accumulate") or 1
    return size * times if isinstance(size, int) and isinstance(times, int) else None


def _machine(outcomes: Iterable[Outcome]) -> Lines:
    known = [o.provenance for o in outcomes]
    dates = sorted(str(p["finished_at"]) for p in known if p.get("finished_at"))
    ends = list(dict.fromkeys((dates[0], dates[-1]))) if dates else []
    return {
        "Device": [_device(p.get("hardware") or {}) for p in known],
        "Software": [_software(p) for p in known],
        "Code": [_code(p) for p in known],
        "System": [str(p.get("platform") or "") for p in known],
        "Finished": [" to ".join(end[:16].replace("T", " ") for end in ends) + " UTC"]
        if ends
        else [],
    }


def _device(hardware: Mapping[str, Any]) -> str:
    devices = [str(device.get("name")) for device in hardware.get("devices") or ()]
    if devices:
        return ", ".join(devices)
    cpu = hardware.get("cpu")
    return (
        f"{cpu} processor, {hardware.get('threads')} of {hardware.get('cores')} cores"
        if cpu
        else ""
    )


def _software(provenance: Mapping[str, Any]) -> str:
    packages = provenance.get("packages") or {}
    parts = [f"sizewise {provenance['sizewise']}"] if provenance.get("sizewise") else []
    parts += [f"Python {provenance['python']}"] if provenance.get("python") else []
    return ", ".join([*parts, *(f"{n} {packages[n]}" for n in PACKAGES if packages.get(n))])


def _code(provenance: Mapping[str, Any]) -> str:
    code = provenance.get("code") or {}
    if not code.get("commit"):
        return ""
    return f"commit {str(code['commit'])[:12]}" + (", with changes" if code.get("dirty") else "")
