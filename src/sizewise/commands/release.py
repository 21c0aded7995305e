"""``sizewise export`` and ``sizewise generate``."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from sizewise.commands.explore import check_language_model
from sizewise.composition.inputs import names_hub
from sizewise.errors import ConfigError
from sizewise.evaluation.generate import generate_batch
from sizewise.models.adapter.full import is_full
from sizewise.models.adapter.wrapping import base_only
from sizewise.models.tokenizer import load_template
from sizewise.release.export import export_run, push
from sizewise.release.generate import (
    conversation,
    load_run_base,
    load_run_model,
    open_run,
    prompt_ids,
)
from sizewise.runtime import prepare_environment, quiet
from sizewise.words import visible

REMOTE_CODE = "trust_remote_code"
EXPORT_KEYS = ("run", "out", "merge", "push_to", "private", "examples", REMOTE_CODE)
FLAGS = {"true": True, "false": False}


def export_command(values: Sequence[str]) -> None:
    """Export a run: ``run=DIR [out=DIR] [merge=true] [push_to=owner/name private=true]``.

    ``trust_remote_code=true``: let code run that comes with the base; no record says so.

    Raises:
        SizewiseError: a value is wrong, the run trained nothing, or the hub refuses.
    """
    given = pairs(values, EXPORT_KEYS)
    run_dir = Path(required(given, "run"))
    merged = flag(given, "merge", False)
    private = flag(given, "private", True)
    out = Path(given.get("out") or run_dir / ("merged" if merged else "release"))
    if not given.get("push_to", "x/y"):
        raise ConfigError("push_to= names no repository. Give push_to=owner/name, or leave it out.")
    prepare_environment(hub="push_to" in given or names_hub(open_run(run_dir).cfg))
    quiet()
    remote_code = flag(given, REMOTE_CODE, False)
    done = export_run(run_dir, out, merged, number(given, "examples", 32), remote_code)
    report = done.report
    sys.stdout.write(f"{'Whole model' if done.merged else 'Adapter'} and card: {done.folder}\n")
    if report is not None:
        sys.stdout.write(
            f"Loaded again: {report.equal_texts} of {report.examples} greedy answers equal; "
            f"loss per answer token {report.nll_before:.5f} before, {report.nll_after:.5f} after.\n"
        )
    if "push_to" in given:
        sys.stdout.write(push(done.folder, given["push_to"], private) + "\n")


def generate_command(values: Sequence[str], base: bool) -> None:
    """Answer ``run=DIR "question"``, put as the test examples are; ``base``: its answer, too."""
    known = ("run", REMOTE_CODE)
    named = [v for v in values if v.partition("=")[0] in known and "=" in v]
    given = pairs(named, known)
    questions = [v for v in values if v not in named]
    if len(questions) != 1 or not questions[0].strip():
        raise ConfigError('Ask one question: sizewise generate run=DIR "question".')
    run = open_run(Path(required(given, "run")), flag(given, REMOTE_CODE, False))
    check_language_model(run.cfg.model, "ask")
    prepare_environment(hub=names_hub(run.cfg))
    quiet()
    template = load_template(run.cfg.model)
    prompt = prompt_ids(run, template, conversation(run, questions[0]))
    model = load_run_model(run)
    answer = generate_batch(model, [prompt], template, run.cfg.generation)[0]
    if not base:
        sys.stdout.write(visible(answer.text) + "\n")
        return
    if is_full(model):
        model = load_run_base(run)
    with base_only(model):
        before = generate_batch(model, [prompt], template, run.cfg.generation)[0]
    sys.stdout.write(visible(f"base:  {before.text}\ntuned: {answer.text}\n"))


def pairs(values: Sequence[str], known: Sequence[str]) -> dict[str, str]:
    """Split ``key=value`` words; ConfigError for an unknown key or a word without ``=``."""
    found = {}
    for value in values:
        key, sign, text = value.partition("=")
        if not sign or key not in known:
            raise ConfigError(
                f"{value!r} is not understood. Give key=value with: {', '.join(known)}."
            )
        found[key] = text
    return found


def required(given: Mapping[str, str], key: str) -> str:
    if not given.get(key):
        raise ConfigError(f"{key}= is missing. Give {key}=DIR, the directory of a finished run.")
    return given[key]


def flag(given: Mapping[str, str], key: str, default: bool) -> bool:
    text = given.get(key, str(default)).lower()
    if text not in FLAGS:
        raise ConfigError(f"{key}={given[key]} is neither true nor false.")
    return FLAGS[text]


def number(given: Mapping[str, str], key: str, default: int) -> int:
    text = given.get(key, str(default))
    if not text.isdigit():
        raise ConfigError(f"{key}={text} is no whole number of at least 0.")
    return int(text)
