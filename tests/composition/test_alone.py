"""Options of a sweep beside one job."""

from __future__ import annotations

from typing import Any

import pytest

from sizewise.composition.alone import check_alone
from sizewise.errors import ConfigError

TUNED: dict[str, Any] = {"sweep": {"tuning": {"lr_factors": [0.3, 1]}, "halving": {"rungs": []}}}
HALVED: dict[str, Any] = {"sweep": {"halving": {"rungs": [0.3]}}}


def test_a_dry_run_is_refused_with_what_to_type() -> None:
    config = {"sweep": {"dry_run": True}}
    asked = ["model=nano", "dataset.system=a b", "sweep.dry_run=true", "hydra.run.dir=x"]
    with pytest.raises(ConfigError) as error:
        check_alone(config, asked, "train")
    assert str(error.value).endswith("sizewise plan model=nano 'dataset.system=a b' --time")
    with pytest.raises(ConfigError) as error:
        check_alone(config, ["run=outputs/x", "sweep.dry_run=true"], "evaluate")
    assert "sizewise plan" not in str(error.value), "it plans what trains"
    with pytest.raises(ConfigError, match=r"sizewise\.sweep"):
        check_alone(config, asked)


@pytest.mark.parametrize(
    ("config", "typed"),
    [
        (TUNED, "sweep.tuning.lr_factors=[0.3,1]"),
        (TUNED, "+sweep.tuning={lr_factors: [0.3, 1]}"),
        (HALVED, "sweep.halving.rungs=[0.3]"),
    ],
)
def test_what_makes_many_jobs_is_refused_where_the_command_asks_for_it(
    config: dict[str, Any], typed: str
) -> None:
    with pytest.raises(ConfigError, match="is for a sweep, and this is one job"):
        check_alone(config, [typed], "train")


def test_one_job_of_an_experiment_that_brings_a_sweep_runs() -> None:
    check_alone(TUNED, ["experiment=empathy_flan_t5", "sweep=none", "sweep.name=x"], "train")
    check_alone({"sweep": {"tuning": {"lr_factors": []}}}, ["sweep.tuning.lr_factors=[]"], "train")
    check_alone({}, [], "train")
