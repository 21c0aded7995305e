"""The model card of an export, from the run's record alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from sizewise.config.data import SPLITS, SourceConfig
from sizewise.files import write_atomically
from sizewise.models.sources import EMBEDDED, HUB_ID
from sizewise.record.outcome import Evaluation, TeacherFacts
from sizewise.release.generate import FinishedRun
from sizewise.release.merging import MergeReport

TEMPLATE = Path(__file__).with_name("card.md.jinja")
CLINICAL = ("icd10", "medsynth", "counsel", "psycho", "therapy", "empathetic")


def write_card(run: FinishedRun, out: Path, merged: bool, report: MergeReport | None) -> Path:
    """Write ``README.md``: origin, results beside the base's, licence, limits, intended use."""
    environment = Environment(
        autoescape=False, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined
    )
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    path = out / "README.md"
    write_atomically(path, template.render(card_values(run, merged, report)) + "\n")
    return path


def card_values(run: FinishedRun, merged: bool, report: MergeReport | None) -> dict[str, Any]:
    cfg, outcome = run.cfg, run.outcome
    model, cost, code = outcome.model, outcome.cost, outcome.provenance.get("code") or {}
    name = outcome.data.name
    tuned, base = (outcome.tuned or {}).get(name), outcome.base.get(name)
    sizes = outcome.data.sizes
    return {
        "base": public_name(cfg.model.path),
        "on_hub": is_on_hub(cfg.model.path),
        "full": cfg.lora.method == "full",
        "few_shot": cfg.dataset.few_shot,
        "revision": model.revision,
        "license": cfg.model.license,
        "merged": merged,
        "seq2seq": cfg.model.family == "seq2seq",
        "title": f"{cfg.model.name} on {name}",
        "method": model.lora_method,
        "dataset": name,
        "dry_run": cfg.dry_run,
        "report": report,
        "report_dtype": report.base_dtype if report else model.dtype,
        "examples": tuned.examples if tuned else 0,
        "rows": score_rows(base, tuned),
        "seed": outcome.seed,
        "source": f"{cfg.dataset.source.kind}: {_file_names(cfg.dataset.source)}"
        if cfg.dataset.source.kind != "hub"
        else cfg.dataset.source.path,
        "data_license": cfg.dataset.license,
        "sizes": " / ".join(str(sizes.get(s, 0)) for s in SPLITS),
        "teacher": _teacher(outcome.data.report.get("teacher")),
        "shared_groups": outcome.data.report.get("shared_groups", 0),
        "params_total": f"{model.params_total:,}",
        "params_trainable": f"{model.params_trainable:,}",
        "r": model.lora_r,
        "alpha": model.lora_alpha,
        "dropout": cfg.lora.dropout,
        "quantization": model.quantization,
        "dtype": model.dtype,
        "steps": cost.train_steps,
        "seconds": f"{cost.train_seconds or 0:.0f}",
        "batch": (cost.batch_size or 0) * (cost.accumulate or 1),
        "version": outcome.provenance.get("sizewise"),
        "commit": code.get("commit"),
        "clinical": any(word in name for word in CLINICAL),
    }


def _file_names(source: SourceConfig) -> str:
    return ", ".join(Path(part.path).name for _, part in source.by_split())


def score_rows(base: Evaluation | None, tuned: Evaluation | None) -> list[dict[str, str]]:
    """Return quality scores of base and tuned side by side; timings stay in the record."""
    names = [n for n in (tuned.scores if tuned else {}) if not n.startswith("efficiency/")]
    return [
        {"name": name, "base": _value(base, name), "tuned": _value(tuned, name)}
        for name in sorted(names)
    ]


def _teacher(facts: TeacherFacts | None) -> dict[str, str] | None:
    if not facts:
        return None
    place = public_name(str(facts.get("path")))
    kept, source = str(facts.get("kept")), str(facts.get("answers_from"))
    return {"model": str(facts.get("model")), "path": place, "kept": kept, "answers_from": source}


def _value(evaluation: Evaluation | None, name: str) -> str:
    value = evaluation.scores.get(name) if evaluation else None
    return "–" if value is None else f"{value:.4f}"


def is_on_hub(path: str) -> bool:
    """Whether ``model.path`` is a hub id, and no folder of this machine."""
    return HUB_ID.match(path) is not None and not Path(path).expanduser().is_dir()


def public_name(path: str) -> str:
    """Return ``model.path`` without what only this machine knows: of a folder, its name."""
    if path.startswith(EMBEDDED) or is_on_hub(path):
        return path
    return Path(path).expanduser().name
