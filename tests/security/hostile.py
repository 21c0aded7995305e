"""Run directories with something in them that would like to be run."""

from __future__ import annotations

import json
import pickle
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

SECRET = "the-secret-of-this-machine"
MODULE = """
from pathlib import Path
from sizewise.metrics.base import ExampleMetric

def strike(*args, **kwargs):
    Path({place!r}).touch()

class Strike:
    def __init__(self, *args, **kwargs):
        strike()

class Own(ExampleMetric):
    name = "own"

    def __init__(self, x=None):
        super().__init__()
        self.x = x

    def score(self, prediction):
        return {{"one": 1.0}}
"""


def plant_module(root: Path, monkeypatch: pytest.MonkeyPatch, on_import: bool) -> Path:
    """Make the module ``canary`` importable and return the file that it leaves when it is run."""
    place, folder = root / "struck", root / "modules"
    folder.mkdir()
    text = MODULE.format(place=str(place)) + ("\nstrike()\n" if on_import else "")
    (folder / "canary.py").write_text(text)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "canary", raising=False)
    monkeypatch.setenv("SIZEWISE_SECRET", SECRET)
    return place


class Pickled:
    """Runs a shell command when it is unpickled."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[Any, ...]:
        import os

        return os.system, (f"touch {self.place}",)


Attack = Callable[[Path, Path], None]  # a file of the run, and the place of the canary


def as_pickle(file: Path, place: Path) -> None:
    file.write_bytes(pickle.dumps(Pickled(place)))


def as_torch_archive(file: Path, place: Path) -> None:
    torch.save({"state_dict": Pickled(place)}, file)


def as_yaml_object(file: Path, place: Path) -> None:
    file.write_text(f"!!python/object/apply:os.system ['touch {place}']\n")


def as_python(file: Path, place: Path) -> None:
    file.write_text(f"import os\nos.system('touch {place}')\n")


def as_template(file: Path, place: Path) -> None:
    file.write_text(template_of(place))


def shell_texts(file: Path, place: Path) -> None:
    change_texts(file, lambda text: f"{text}\n$(touch {place}); `touch {place}`\ntouch {place}\n")


def template_texts(file: Path, place: Path) -> None:
    change_texts(file, lambda text: f"{text} {template_of(place)} {{x.__class__}}")


def template_of(place: Path) -> str:
    return "{{ cycler.__init__.__globals__.os.popen('touch PLACE') }}".replace("PLACE", str(place))


def interpolated_texts(file: Path, place: Path) -> None:
    change_texts(file, lambda text: f"${{oc.env:SIZEWISE_SECRET}} [/b] {text} \x1b]0;x\x07")


def foreign_classes(file: Path, place: Path) -> None:
    """Put a class of somebody's wherever a configuration names one: its import is enough."""

    def change(config: dict[str, Any]) -> None:
        config["metric"] = {name: {"_target_": "canary.Own"} for name in config["metric"]}
        config["callbacks"] = {"x": {"_target_": "canary.Strike"}}
        config["logger"]["backends"] = {"x": {"_target_": "canary.Strike"}}
        config["optimizer"]["target"] = "canary.Strike"
        config["trust"] = True

    change_configs(file, change)


def foreign_calls(file: Path, place: Path) -> None:
    """Name functions in the place of metrics, and within the values of an honest one."""
    pickled = place.with_name("struck.pt")
    as_pickle(pickled, place)
    calls = (
        {"_target_": "pandas.read_pickle", "filepath_or_buffer": str(pickled)},
        {"_target_": "torch.load", "f": str(pickled), "weights_only": False},
        {"_target_": "os.system", "command": f"touch {place}"},
    )

    def change(config: dict[str, Any]) -> None:
        for number, call in enumerate(calls):
            config["metric"][f"a{number}"] = call
            inner = {"_target_": "sizewise.metrics.memorization.Memorization", "n": call}
            config["metric"][f"b{number}"] = inner

    change_configs(file, change)


def remote_code(file: Path, place: Path) -> None:
    """Name a base that brings a Python file, with the permission to run it."""
    folder = place.with_name("base")
    folder.mkdir(exist_ok=True)
    names = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}
    maps = {"auto_map": {**names, "AutoTokenizer": ["evil.Slow", "evil.Fast"]}}
    (folder / "config.json").write_text(json.dumps({"model_type": "evil", **maps}))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "Slow", **maps}))
    (folder / "evil.py").write_text(f"import os\nos.system('touch {place}')\n")

    def change(config: dict[str, Any]) -> None:
        config["model"] |= {"path": str(folder), "trust_remote_code": True, "content": None}
        config["model"] |= {"architecture": None}
        config["trust"] = True

    change_configs(file, change)


def paths(file: Path, place: Path) -> None:
    """Name a template, an encoder, candidates and an adapter that would like to be more."""
    folder = place.with_name("elsewhere")
    folder.mkdir(exist_ok=True)
    template, modules = folder / "chat.jinja", [{"idx": 0, "name": "0", "path": ""}]
    template.write_text(template_of(place) + "{{ messages[0]['content'] }}")
    (folder / "modules.json").write_text(json.dumps([modules[0] | {"type": "canary.Strike"}]))
    (folder / "config.json").write_text("{}")
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))
    as_torch_archive(folder / "adapter_model.bin", place)
    similarity = {"_target_": "sizewise.metrics.similarity.Similarity", "encoder": str(folder)}

    def change(config: dict[str, Any]) -> None:
        config["model"]["chat_template"] = str(template)
        config["metric"]["similarity"] = similarity
        config["evaluation"]["candidates"] = str(folder / "adapter_model.bin")
        config["adapter"] = str(folder)

    change_configs(file, change)


def hostile_command(file: Path, place: Path) -> None:
    """Record overrides, versions and a revision that would run something when they are pasted."""
    record = json.loads(file.read_text())
    record["provenance"] |= {
        "overrides": [
            f"dataset.prompt=$(touch {place})", f"; touch {place}", "--config-dir=/somewhere",
            "hydra.job_logging.handlers.x.()=canary.strike", f"seed=1\ntouch {place}",
            "+metric.own._target_=canary.Own", "sweep.arms={a: [trust=true]}", "trust=true",
            "model.trust_remote_code=true", "seed=1\x1b[201~\rls",
        ],
        "code": {"commit": f"main; touch {place}", "dirty": False},
        "packages": {"torch": "1; touch x", "--find-links=http://192.0.2.1 numpy": "1.0"},
        "python": f"3.11\ntouch {place}",
        "hardware": {"devices": [{"name": f"GPU\ntouch {place}"}]},
    }  # fmt: skip
    file.write_text(json.dumps(record))


WHOLE: dict[str, Attack] = {
    "pickle": as_pickle,
    "torch": as_torch_archive,
    "yaml": as_yaml_object,
    "python": as_python,
    "jinja": as_template,
}
TEXTS: dict[str, Attack] = {
    "shell": shell_texts,
    "template": template_texts,
    "interpolation": interpolated_texts,
}
CONFIGS: dict[str, Attack] = {
    "classes": foreign_classes,
    "calls": foreign_calls,
    "remote_code": remote_code,
    "paths": paths,
}


def attacks_on(file: Path) -> dict[str, Attack]:
    """All that fit a file."""
    found = dict(WHOLE)
    if parsed(file) is not None:
        found |= TEXTS
    if configs_in(parsed(file)):
        found |= CONFIGS
    if file.name == "outcome.json":
        found["command"] = hostile_command
    return found


def parsed(file: Path) -> Any:
    """The records of a JSON, YAML or JSON-lines file, as a list; None for anything else."""
    if file.suffix not in (".json", ".jsonl", ".yaml"):
        return None
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".jsonl":
        return [json.loads(line) for line in text.splitlines()]
    return [yaml.safe_load(text) if file.suffix == ".yaml" else json.loads(text)]


def write(file: Path, records: list[Any]) -> None:
    if file.suffix == ".yaml":
        file.write_text(yaml.safe_dump(records[0]))
    else:
        file.write_text("".join(json.dumps(record) + "\n" for record in records))


def change_texts(file: Path, change: Callable[[str], str]) -> None:
    """Change every text of a record that is no name of a file or a hash (those are checked)."""

    def walk(value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {name: walk(item, name) for name, item in value.items()}
        if isinstance(value, list):
            return [walk(item) for item in value]
        return change(value) if isinstance(value, str) and key in FREE else value

    write(file, [walk(record) for record in parsed(file)])


# Texts that people write; others (methods, hashes, kinds) are refused as soon as they are odd.
FREE = (
    "name", "prompt", "answer", "label", "text", "reference", "license", "system", "primary",
    "revision", "run_id", "chat_template", "message", "host", "dataset", "group", "cpu", "platform",
    "overrides", "commit", "python", "base_model_name_or_path", "encoder", "candidates", "cache",
)  # fmt: skip


def configs_in(records: Any) -> list[dict[str, Any]]:
    """The configurations of a job among records."""
    found = []
    for record in records or []:
        for node in (record, record.get("config")) if isinstance(record, dict) else ():
            if isinstance(node, dict) and {"metric", "model", "lora"} <= node.keys():
                found.append(node)
    return [node for node in found if isinstance(node["model"], dict) and "path" in node["model"]
            and isinstance(node["metric"], dict)]  # fmt: skip


def change_configs(file: Path, change: Callable[[dict[str, Any]], None]) -> None:
    records = parsed(file)
    for config in configs_in(records):
        change(config)
    write(file, records)


def files_of(run: Path) -> Iterator[Path]:
    """Every file below a run, sorted."""
    yield from sorted(path for path in run.rglob("*") if path.is_file())
