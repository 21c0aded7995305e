"""What a configuration may build, and what of a record is believed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.security.hostile import plant_module

from sizewise.composition.compose import compose_config, compose_run
from sizewise.composition.inputs import pinned
from sizewise.config.evaluation import LoggerConfig
from sizewise.config.targets import build, check_own, foreign_code, recorded_config
from sizewise.errors import ConfigError
from sizewise.job.finished import of_finished_run
from sizewise.job.fitting import callbacks
from sizewise.metrics.base import ExampleMetric, build_metrics
from sizewise.metrics.length import Length
from sizewise.metrics.similarity import Similarity
from sizewise.record.identity import run_identity
from sizewise.tracking.loggers import make_loggers

LENGTH = "sizewise.metrics.length.Length"
CALLED = (
    {"_target_": "canary.strike"},
    {"_target_": "os.system", "command": "false"},
    {"_target_": "pandas.read_pickle", "filepath_or_buffer": "x.pkl"},
    {"_target_": "torch.load", "f": "x.pt", "weights_only": False},
    {"_target_": "builtins.exec", "_args_": ["1"]},
    {"_target_": "canary.Strike"},
    {"_target_": "hydra.utils.call", "config": {"_target_": "canary.strike"}},
    {"_target_": "sizewise.metrics.base.Metric"},
)


@pytest.fixture
def canary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that appears once anything of the module ``canary`` is called."""
    return plant_module(tmp_path, monkeypatch, on_import=False)


@pytest.mark.parametrize("node", CALLED, ids=lambda node: node["_target_"])
def test_no_class_but_one_of_ours_is_called(node: dict[str, Any], canary: Path) -> None:
    with pytest.raises(ConfigError, match=r"metric\.x"):
        build_metrics({"x": node})
    with pytest.raises(ConfigError, match=r"logger\.backends\.x"):
        make_loggers(LoggerConfig(False, {"x": node}), canary.parent, "a")
    cfg = compose_run(["callbacks=none"])
    cfg.callbacks["x"] = node
    with pytest.raises(ConfigError, match=r"callbacks\.x"):
        callbacks(cfg, canary.parent)
    assert not canary.exists()


def test_a_nested_class_is_refused_before_anything_is_called(canary: Path) -> None:
    for value in ({"_target_": "canary.strike"}, [{"a": {"_target_": "canary.strike"}}]):
        with pytest.raises(ConfigError, match="its values may not"):
            build({"_target_": LENGTH, "x": value}, "metric.length", ExampleMetric)
    assert not canary.exists()


def test_a_metric_of_the_users_own_is_built(canary: Path) -> None:
    (metric,) = build_metrics({"own": {"_target_": "canary.Own", "_convert_": "all", "x": [1]}})
    assert (metric.name, metric.x) == ("own", [1])  # type: ignore[attr-defined]
    assert isinstance(build({"_target_": LENGTH}, "metric.a", ExampleMetric), Length)


def test_a_record_names_only_classes_of_sizewise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    canary = plant_module(tmp_path, monkeypatch, on_import=True)
    nodes = {"a": {"_target_": LENGTH}, "b": {"_target_": "canary.Own"}}
    with pytest.raises(ConfigError, match=r"metric\.b\._target_='canary\.Own'.*--trust"):
        check_own(nodes, "metric")
    assert "canary" not in sys.modules
    assert not canary.exists()
    check_own(nodes, "metric", trust=True)
    check_own({"a": nodes["a"]}, "metric")


def test_code_of_a_base_is_never_taken_over_from_a_record(tmp_path: Path) -> None:
    config = compose_config(["lora=none", "model.trust_remote_code=true"])
    config["trust"] = True
    cfg = recorded_config(config)
    assert not cfg.model.trust_remote_code
    assert not cfg.trust
    assert recorded_config(config, remote_code=True).model.trust_remote_code
    config["model"]["attn_implementation"] = "somebody/kernels"
    with pytest.raises(ConfigError, match="kernel of the hub"):
        recorded_config(config)
    config["model"]["attn_implementation"] = "sdpa"
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    for typed in (False, True):
        asked = [f"run='{tmp_path}'", f"model.trust_remote_code={str(typed).lower()}"]
        done = of_finished_run(compose_run(asked, "evaluate"), asked)
        assert done.model.trust_remote_code is typed


def test_a_foreign_metric_of_a_run_is_scored_only_where_trust_is_typed(tmp_path: Path) -> None:
    config = compose_config(["lora=none"])
    config["metric"]["own"] = {"_target_": "canary.Own"}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    asked = [f"run='{tmp_path}'"]
    with pytest.raises(ConfigError, match="trust=true"):
        of_finished_run(compose_run(asked, "evaluate"), asked)
    asked.append("trust=true")
    assert "own" in of_finished_run(compose_run(asked, "evaluate"), asked).metric


def test_a_command_that_starts_a_server_is_never_a_records(tmp_path: Path) -> None:
    planted = ["lora=none", "evaluation.engine=server", "evaluation.server.command=strike"]
    config = compose_config(planted)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    asked = [f"run='{tmp_path}'"]
    found = of_finished_run(compose_run(asked, "evaluate"), asked).evaluation
    assert (found.engine, found.server.command) == (None, None)
    asked += ["evaluation.engine=server", "evaluation.server.command=mine"]
    found = of_finished_run(compose_run(asked, "evaluate"), asked).evaluation
    assert (found.engine, found.server.command) == ("server", "mine")


def test_an_encoder_of_a_record_imports_no_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    canary = plant_module(tmp_path, monkeypatch, on_import=True)
    for path in ("package:canary.x/model", "package:canary/model", "package:../canary/model"):
        with pytest.raises(ConfigError, match="no such package"):
            Similarity(path).check_settings()
    assert not canary.exists()


@pytest.mark.parametrize("text", ["${oc.env:HOME}", "a ${b} c", "\\${x}", "${", "$5 {x}", "\\\\${"])
def test_a_text_of_a_record_is_a_text(text: str) -> None:
    config = compose_config(["lora=none"])
    config["dataset"]["prompt"] = text
    config["metric"]["x"] = {"_target_": LENGTH, "note": [text]}
    cfg = recorded_config(config)
    assert cfg.dataset.prompt == text
    assert cfg.metric["x"]["note"] == [text]


def test_trust_is_no_part_of_what_a_run_is() -> None:
    one, two = (compose_config([f"trust={t}"]) for t in ("true", "false"))
    assert run_identity(one).hash == run_identity(two).hash
    del one["trust"]
    assert run_identity(one).hash == run_identity(two).hash, "runs of before are the same runs"


def test_foreign_code_of_a_command_is_named() -> None:
    assert foreign_code(compose_config([])) == []
    given = ["+metric.own._target_=canary.Own", "optimizer.target=canary.Strike", "trust=true"]
    given += ["model.trust_remote_code=true", "evaluation.server.command=strike"]
    assert foreign_code(compose_config(given)) == [
        "metric.own._target_=canary.Own",
        "optimizer.target=canary.Strike",
        "model.trust_remote_code=true",
        "evaluation.server.command=strike",
        "trust=true",
    ]


EVIL = "https://evil.example/v1"
ELSEWHERE = f"{{option: endpoint, base_url: '{EVIL}', path: m, name: m}}"


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (
            ["model=endpoint", "model.path=m", f"model.base_url={EVIL}", "lora=none"],
            "model.base_url",
        ),
        ([f"evaluation.server.base_url={EVIL}"], "evaluation.server.base_url"),
        ([f"+dataset.teacher={ELSEWHERE}"], "dataset.teacher.model.base_url"),
        (
            ["metric=[judge,rouge]", f"metric.judge.models={ELSEWHERE}"],
            "metric.judge.models.m.model.base_url",
        ),
    ],
)
def test_a_server_elsewhere_that_a_command_would_ask_is_named(given: list[str], named: str) -> None:
    def found(words: list[str]) -> list[str]:
        return foreign_code(pinned(compose_config(words)))

    assert found(given) == [f"{named}={EVIL}"]
    assert (
        found([word.replace("https://evil.example", "http://127.0.0.1:1") for word in given]) == []
    )
