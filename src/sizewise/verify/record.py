"""Does the record of a run say what its configuration and its base's files say, and is it whole?"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path, PurePosixPath
from typing import Any

from safetensors import SafetensorError, safe_open

from sizewise.config import LoraConfig
from sizewise.config.model import ENCODER
from sizewise.config.targets import recorded_config
from sizewise.errors import ConfigError, OutcomeError, SizewiseError
from sizewise.files import read_json
from sizewise.job.finished import of_finished_run, stored_config
from sizewise.models.sources import EMBEDDED, weight_files
from sizewise.record.directories import ADAPTER_CONFIG, CONFIG_FILE, RunDir
from sizewise.record.fit import FitResult, load_result
from sizewise.record.history import parse_lines
from sizewise.record.identity import differing_keys, run_identity
from sizewise.record.outcome import Evaluation, Outcome
from sizewise.record.predictions import Spent, bill_path, read_bill
from sizewise.verify import FAILED, OK, UNCHECKED, Check
from sizewise.verify.data import same

ABSENT = object()


def record_checks(outcome: Outcome) -> Iterator[Check]:
    """Compare what the record repeats of the configuration, and which scores have to be there."""
    wrong = [
        f"{name} is recorded as {found!r}, the configuration says {said!r}"
        for name, found, said in _repeated(outcome)
        if said is not ABSENT and found != said
    ]
    yield Check.of("record and configuration", wrong)
    yield Check.of("objective", _objective(outcome))
    yield Check.of("which models were scored", _missing(outcome))
    yield _prompts(outcome)
    for kind, evaluations in scored(outcome):
        for name, entry in evaluations.items():
            faults = _evaluation(outcome, kind, name, entry)
            yield Check.of(f"{kind} on {name}: what was scored", faults)


def scored(outcome: Outcome) -> Iterator[tuple[str, Mapping[str, Evaluation]]]:
    """Yield the evaluations of the untouched model, then those of the tuned one."""
    yield "base", outcome.base
    yield "tuned", outcome.tuned or {}


def _said(config: Mapping[str, Any], dotted: str) -> Any:
    node: Any = config
    for key in dotted.split("."):
        if not isinstance(node, Mapping) or key not in node:
            return ABSENT
        node = node[key]
    return node


def _repeated(outcome: Outcome) -> Iterator[tuple[str, Any, Any]]:
    """Yield name, recorded value and the configuration's (ABSENT where it has none)."""
    model = outcome.model
    said: dict[str, Any] = {"seed": outcome.seed}
    said |= {"dataset.primary": outcome.primary, "dataset.direction": outcome.direction}
    said |= {"dataset.name": outcome.data.name, "quantization.method": model.quantization}
    said |= {f"model.{key}": getattr(model, key) for key in ("name", "path", "family")}
    trained_here = _said(outcome.config, "stage") != "evaluate"
    if trained_here:  # an adapter that was only evaluated says itself what it is
        said |= {"lora.method": model.lora_method}
    if trained_here and model.lora_method in ("lora", "dora", "rslora"):
        said |= {"lora.r": model.lora_r}
        yield "lora.alpha", model.lora_alpha, _alpha(outcome.config)
    for dotted, found in said.items():
        yield dotted, found, _said(outcome.config, dotted)


def _alpha(config: Mapping[str, Any]) -> Any:
    """The alpha that a configuration asks for (see ``LoraConfig``)."""
    alpha, ratio, r = (_said(config, f"lora.{key}") for key in ("alpha", "alpha_ratio", "r"))
    if ABSENT in (alpha, ratio, r):
        return ABSENT
    return LoraConfig(alpha=alpha, alpha_ratio=ratio, r=r).effective_alpha


def _objective(outcome: Outcome) -> list[str]:
    chosen = _said(outcome.config, "evaluation.objective")
    found = outcome.validation.get(outcome.primary if chosen == "primary" else "val_loss")
    if found == outcome.objective or outcome.objective != outcome.objective:
        return []
    return [f"it is {outcome.objective!r}, and the validation figures hold {found!r}"]


def _missing(outcome: Outcome) -> list[str]:
    """Say which evaluations the configuration asks for and the record lacks, or the reverse."""
    config = outcome.config
    further = (entry or {} for entry in (config.get("eval_dataset") or {}).values())
    names = {str(entry.get("name")) for entry in further}
    if outcome.data.sizes.get("test") or not names:
        names.add(outcome.data.name)
    specialises = _specialises(config)
    answered = config.get("stage", "full") != "train"
    zero_shot = _said(config, "evaluation.zero_shot") is not False or not specialises
    zero_shot = zero_shot and outcome.model.family != ENCODER  # untouched, it has no head
    faults = []
    if specialises != (outcome.tuned is not None):
        state = "a tuned model" if specialises else "no training"
        faults.append(f"the configuration describes {state}, the record does not")
    for kind, wanted in (("base", zero_shot), ("tuned", specialises)):
        expected = names if wanted and answered else set()
        found = set(dict(scored(outcome))[kind])
        faults += [f"scores of {kind} on {name} are missing" for name in sorted(expected - found)]
        faults += [f"nobody asked for {kind} on {name}" for name in sorted(found - expected)]
    return faults


def _specialises(config: Mapping[str, Any]) -> bool:
    if config.get("stage") == "evaluate":
        return config.get("adapter") is not None
    return bool(_said(config, "lora.method") not in ("none", ABSENT))


def _evaluation(outcome: Outcome, kind: str, name: str, entry: Evaluation) -> Iterator[str]:
    if entry.dataset != name:
        yield f"it is filed under {name} and says to be of {entry.dataset}"
    if entry.split != "test":
        yield f"it is of the {entry.split} split"
    if not PurePosixPath(entry.predictions.path).name.startswith(f"{kind}."):
        yield f"its answers are those in {entry.predictions.path}"
    if name == outcome.data.name:
        recorded, size = outcome.data.fingerprints.get("test"), outcome.data.sizes.get("test")
        if entry.fingerprint != recorded:
            yield f"its fingerprint is {entry.fingerprint}, that of the test split {recorded}"
        if entry.examples != size:
            yield f"it has {entry.examples} examples, the test split {size}"


def _prompts(outcome: Outcome) -> Check:
    """Hash anew what decides, beside the rows, what a model reads."""
    from sizewise.data.splits.mixture import prompt_fingerprint

    title, recorded = "prompt fingerprint", outcome.data.prompt_fingerprint
    try:
        found = prompt_fingerprint(recorded_config(outcome.config).dataset)
    except ConfigError as error:
        return Check(title, UNCHECKED, f"the configuration is not whole: {error}")
    said = f"the configuration gives {found}, recorded was {recorded}"
    return Check.of(title, [] if found == recorded else [said])


def training_check(outcome: Outcome, directory: Path) -> Check:
    """Compare the recorded cost and validation loss with what the fit and its history say."""
    title = "training figures"
    if not RunDir(directory).fit.is_file():
        return Check(title, UNCHECKED, "the run keeps no record of a training")
    try:
        fit = load_result(directory)
    except (ValueError, OSError) as error:
        return Check(title, FAILED, str(error))
    faults = [
        f"{name} is recorded as {found!r}, {source} says {said!r}"
        for name, found, said, source in _of_training(outcome, fit, directory)
        if found != said
    ]
    return Check.of(title, faults)


OF_FIT = {
    "train_seconds": "seconds",
    "train_tokens": "tokens",
    "train_answer_tokens": "answer_tokens",
    "train_steps": "steps",
    "train_peak_bytes": "peak_bytes",
    "batch_size": "batch_size",
    "accumulate": "accumulate",
    "out_of_memory": "out_of_memory",
}


def _of_training(
    outcome: Outcome, fit: FitResult, directory: Path
) -> Iterator[tuple[str, Any, Any, str]]:
    """Yield name, recorded value, what proves it, and where that stands."""
    run = RunDir(directory)
    for name, field in OF_FIT.items():
        yield f"cost.{name}", getattr(outcome.cost, name), getattr(fit, field), run.fit.name
    loss = outcome.validation.get("val_loss")
    if fit.best_val_loss is None or loss is None:
        return
    yield "validation.val_loss", loss, fit.best_val_loss, run.fit.name
    lines = parse_lines(run.history.read_bytes()) if run.history.is_file() else []
    there = [line.values for line in lines if line.step == fit.best_step]
    logged = [values["val_loss"] for values in there if "val_loss" in values]
    if logged:
        yield "validation.val_loss", loss, logged[-1], f"{run.history.name}, step {fit.best_step},"


def evaluation_check(outcome: Outcome, directory: Path) -> Check:
    """Compare what evaluation cost with what was noted beside the predictions."""
    title, cost = "evaluation figures", outcome.cost
    bills = [_bill(entry, directory) for entry in outcome.best.values()]
    noted = [bill for bill in bills if bill is not None]
    seconds = sum(bill.seconds for bill in noted)
    peak = max((p for bill in noted if (p := bill.peak_bytes) is not None), default=None)
    whole = bool(noted) and len(noted) == len(bills)
    said = "beside the predictions stands"
    faults = []
    if (whole and not same(cost.eval_seconds, seconds)) or (cost.eval_seconds or seconds) < seconds:
        faults.append(f"cost.eval_seconds is recorded as {cost.eval_seconds!r}, {said} {seconds!r}")
    found = cost.eval_peak_bytes
    if (whole and found != peak) or (found is not None and peak is not None and found < peak):
        faults.append(f"cost.eval_peak_bytes is recorded as {found!r}, {said} {peak!r}")
    if faults or whole:
        return Check.of(title, faults)
    return Check(title, UNCHECKED, "what its answers took is not noted beside all of them")


def _bill(entry: Evaluation, directory: Path) -> Spent | None:
    """What the predictions took; None where that was not noted for all of them."""
    try:
        last = read_bill(bill_path(directory / entry.predictions.path))[-1]
    except (OSError, ValueError, TypeError, IndexError):
        return None
    return last if last.predictions == entry.examples else None


TITLE = "size of the base"
OTHER_SIZES = "other sizes of the model"
ELEMENT_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
# Bytes of a quantised weight without its constants; what is not quantised takes more.
PACKED_BYTES = {"int8": 1.0, "nf4": 0.5}
BUFFERS = 64 * 2**20


def size_checks(outcome: Outcome, directory: Path) -> Iterator[Check]:
    """Compare parameters and bytes of base, adapter and memory with the files that are here."""
    yield _base(outcome)
    faults = [*_adapter(outcome, directory), *_settings(outcome, directory), *_memory(outcome)]
    detail = "trained parameters and dtype are those of the loaded model"
    if not faults and _stored(directory) is not None:
        yield Check(OTHER_SIZES, OK)
    else:
        yield Check(OTHER_SIZES, FAILED if faults else UNCHECKED, "; ".join(faults) or detail)


def _adapter(outcome: Outcome, directory: Path) -> Iterator[str]:
    stored = _stored(directory)
    model = outcome.model
    recorded = (model.params_trainable, model.adapter_bytes)
    if stored is not None and stored != recorded:
        yield (
            f"{recorded[0]:,} trained parameters in {recorded[1]:,} bytes are recorded, "
            f"the adapter holds {stored[0]:,} in {stored[1]:,}"
        )


def _settings(outcome: Outcome, directory: Path) -> Iterator[str]:
    """Compare rank, alpha and scale with what the adapter itself says."""
    stored = read_json(RunDir(directory).adapter / ADAPTER_CONFIG) or {}
    r, alpha, model = stored.get("r"), stored.get("lora_alpha"), outcome.model
    if not (isinstance(r, int) and r > 0 and isinstance(alpha, (int, float))):
        return
    scale = alpha / (r**0.5 if stored.get("use_rslora") else r)
    for name, said in (("lora_r", r), ("lora_alpha", alpha), ("lora_scale", scale)):
        found = getattr(model, name)
        if not same(found, said):
            yield f"{name} is recorded as {found!r}, {ADAPTER_CONFIG} says {said!r}"


def _stored(directory: Path) -> tuple[int, int] | None:
    """Return parameters and bytes of the trained weights; None where they are not here."""
    try:
        (file,) = RunDir(directory).adapter.glob("*.safetensors")
        with safe_open(file, "pt") as weights:
            tensors = [weights.get_tensor(name) for name in weights.keys()]  # noqa: SIM118
    except (ValueError, OSError, SafetensorError):
        return None
    return sum(t.numel() for t in tensors), sum(t.numel() * t.element_size() for t in tensors)


def _memory(outcome: Outcome) -> Iterator[str]:
    """Say where the weights in memory are fewer, or far more, than they can be."""
    model = outcome.model
    element = ELEMENT_BYTES.get(model.dtype)
    if element is None or not model.lora_method:
        return
    added = 0 if model.lora_method == "full" else model.adapter_bytes
    least = int(model.params_base * PACKED_BYTES.get(model.quantization, element)) + added
    most = int(model.params_base * max(element, 4) * 1.25) + added + BUFFERS
    if not least <= model.memory_bytes <= most:
        yield (
            f"memory_bytes is recorded as {model.memory_bytes:,}; {model.params_base:,} weights "
            f"({model.dtype}, quantization={model.quantization}) take {least:,} or more"
        )


def _base(outcome: Outcome) -> Check:
    model = outcome.model
    said: Any = outcome.config.get("model")
    if isinstance(said, dict) and said.get("init", "pretrained") != "pretrained":
        return Check(TITLE, UNCHECKED, "its weights were random and lie nowhere")
    try:
        files = weight_files(_folder(model.path))
        parameters = sum(map(_parameters, files))
        size = sum(file.stat().st_size for file in files)
    except (SizewiseError, OSError, ValueError, KeyError, SafetensorError) as error:
        return Check(TITLE, UNCHECKED, f"its weights could not be read: {error}")
    if not files:
        return Check(TITLE, UNCHECKED, f"no weights of {model.path} lie in a folder here")
    recorded = f"{model.params_base:,} parameters in {model.base_bytes:,} bytes are recorded"
    found = f"the files hold {parameters:,} in {size:,}"
    if (model.params_base, model.base_bytes) == (parameters, size):
        return Check(TITLE, OK)
    # A foreign file may hold tied weights twice, or parts that are never loaded.
    own = model.path.startswith(EMBEDDED) or model.base_bytes != size
    return Check(TITLE, FAILED if own else UNCHECKED, f"{recorded}, {found}")


def _folder(path: str) -> Path:
    if path.startswith(EMBEDDED):
        from sizewise.models.sources import embedded_model_path

        return embedded_model_path(path.removeprefix(EMBEDDED))
    return Path(path).expanduser()


def _parameters(file: Path) -> int:
    """Count the weights in a safetensors file by their shapes; none is read."""
    with safe_open(file, "np") as weights:
        return sum(math.prod(weights.get_slice(n).get_shape()) for n in weights.keys())  # noqa: SIM118


def asked_config(outcome: Outcome, directory: Path) -> Mapping[str, Any]:
    """Return the configuration that names a run; OutcomeError if ``config.yaml`` is damaged.

    An evaluation of a finished run is named by what was asked for (its ``config.yaml``); what its
    outcome records is what it took over from that run.
    """
    stored = stored_config(directory) if outcome.config.get("run") else None
    return stored if stored is not None else outcome.config


def config_checks(outcome: Outcome, directory: Path, trust: bool = False) -> Iterator[Check]:
    try:
        stored = stored_config(directory)
    except OutcomeError as error:
        yield Check(CONFIG_FILE, FAILED, str(error))
        return
    scored_run = outcome.config.get("run")
    yield _identity(outcome, stored if scored_run and stored else outcome.config)
    if stored is None:
        yield Check(CONFIG_FILE, UNCHECKED, "there is none")
    elif scored_run:
        yield _taken_over(outcome, stored, trust)
    else:
        yield _compared(outcome, stored)


def _compared(outcome: Outcome, config: Mapping[str, Any]) -> Check:
    try:
        recorded = run_identity(outcome.config).config
        changed = differing_keys(run_identity(config).config, recorded)
    except (AttributeError, TypeError, ValueError, OSError) as error:
        return Check(CONFIG_FILE, FAILED, f"is no configuration of a job: {error}")
    return Check.of(CONFIG_FILE, changed)


def _taken_over(outcome: Outcome, stored: dict[str, Any], trust: bool) -> Check:
    """Compare the recorded configuration with what the scored run gives today."""
    overrides = outcome.provenance.get("overrides")
    try:
        asked = replace(recorded_config(stored), trust=trust)
        done = asdict(of_finished_run(asked, overrides))
        # Whether code of the base was let in is typed with each command, and no part of the run.
        done["model"]["trust_remote_code"] = outcome.config["model"]["trust_remote_code"]
    except (SizewiseError, OSError, ValueError, KeyError, TypeError) as error:
        detail = f"most of the configuration is that of {outcome.config['run']}: {error}"
        return Check(CONFIG_FILE, UNCHECKED, detail)
    return _compared(outcome, done)


def _identity(outcome: Outcome, config: Mapping[str, Any]) -> Check:
    try:
        found = run_identity(config).hash
    except (AttributeError, TypeError, ValueError, OSError) as error:
        return Check("identity", FAILED, f"the configuration is none of a job: {error}")
    if found == outcome.identity:
        return Check("identity", OK)
    # These go into the identity by their content.
    given = [str(config[key]) for key in ("run", "adapter") if config.get(key)]
    absent = [place for place in given if not Path(place).exists()]
    if absent:
        return Check("identity", UNCHECKED, f"{', '.join(absent)} is not on this machine")
    detail = (
        f"the recorded configuration hashes to {found} and not to {outcome.identity}: "
        "it was changed, or written by another version"
    )
    return Check("identity", FAILED, detail)
