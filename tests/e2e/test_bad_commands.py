"""Whole commands that cannot work: one message, exit code 1, and nothing is begun."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.e2e.commands import ROOT, train

pytestmark = pytest.mark.e2e
CSV = ("dataset=csv", "dataset.prompt='{a}'", "dataset.answer='{b}'")
SEARCH = ("-m", "hydra/sweeper=search")


def refused(tmp_path: Path, *overrides: str) -> str:
    """Run train.py, which has to refuse in one message and leave nothing; return the message."""
    said = tmp_path / "said.txt"
    folders = [f"paths.{name}={tmp_path / name}" for name in ("outputs", "sweeps", "cache")]
    code = train(said, *overrides, "logger=none", *folders)
    text = said.read_text()
    assert code == 1, text
    assert text.count("sizewise: ") == 1, text
    assert "Traceback" not in text
    assert not (tmp_path / "sweeps").exists()
    assert not (tmp_path / "outputs").exists()
    return text


@pytest.mark.parametrize(
    ("said", "overrides"),
    [
        ("job 2 (model=nanno", ["model=nano,nanno"]),
        ("job 2 (seed=-1", ["seed=1,-1,2"]),
        ("job 3 (lora.r=x", ["lora.r=4,8,x"]),
        ("2 of 4 jobs are invalid", ["seed=1,2", "optimizer.lr=1e-3,inf"]),
        ("job 2 (optimizer.lr=1e-3 metric=[none_such]", ["optimizer.lr=1e-3",
                                                        "metric=[label],[none_such]"]),
        ("/no/such/folder", ["model=local", "model.path=embedded:nano,/no/such/folder"]),
        ("job 2 (dataset=csv", [*CSV, "dataset.source.path=train.py,/no/such.csv"]),
        ("/nor/this.csv", [*CSV, "dataset.source.path='/nor/this.csv'", "seed=1,2"]),
        ("is no whole number", ["trainer.max_epochs=1,0.5"]),
        ("model=3: no option of a group", ["model=nano,3"]),
    ],
)  # fmt: skip
def test_a_grid_in_which_one_job_is_wrong_names_it_before_any_starts(
    tmp_path: Path, said: str, overrides: list[str]
) -> None:
    text = refused(tmp_path, "-m", *overrides)
    assert said in text
    assert "nothing was started" in text


@pytest.mark.parametrize(
    ("said", "overrides"),
    [
        ("lora.r=range(1,4,0)", ["-m", "lora.r=range(1,4,0)"]),
        ("names no value to sweep over", ["-m", "lora.r=range(4,1)"]),
        ("hydra/sweeper=search", ["-m", "optimizer.lr=interval(1e-5,1e-3)"]),
        ("hydra.sweep.subdir=x", ["-m", "seed=1,2", "hydra.sweep.subdir=x"]),
        ("hydra.launcher.n_jobs=0", ["-m", "seed=1,2", "hydra.launcher.n_jobs=0"]),
        ("hydra.launcher.n_jobs=-2", ["-m", "seed=1,2", "hydra.launcher.n_jobs=-2"]),
        ("hydra.launcher.threads=0", ["-m", "seed=1,2", "hydra.launcher.threads=0"]),
        ("n_jobs", ["-m", "seed=1,2", "hydra.launcher.n_jobs=many"]),
        ("n_job", ["-m", "seed=1,2", "hydra.launcher.n_job=2"]),
        ("launcher", ["-m", "seed=1,2", "hydra/launcher=pbs"]),
        ("sweep.order='fast'", ["-m", "seed=1,2", "sweep.order=fast"]),
        ("sweep.limit=0", ["-m", "seed=1,2", "sweep.limit=0"]),
        ("beside it", ["-m", "seed=1,2", "sweep.prices.api_per_1000_tokens=1"]),
        ("sweep.arms", ["+sweep.arms.one=3"]),
        ("sweep.arms.one", ["+sweep.arms.one=['lora.r=[']"]),
        ("none_such", ["sweep=none_such"]),
        ("nothing to search over", [*SEARCH, "seed=1"]),
        ("hydra.sweeper.parallel=0", [*SEARCH, "seed=1,2", "hydra.sweeper.parallel=0"]),
        ("sampler", [*SEARCH, "seed=1,2", "hydra.sweeper.sampler=grid"]),
        ("pruner", [*SEARCH, "seed=1,2", "hydra.sweeper.pruner=hyperband"]),
        ("objective", [*SEARCH, "seed=1,2", "hydra.sweeper.objectives=[smallest:objective]"]),
        ("n_trials", [*SEARCH, "seed=1,2", "hydra.sweeper.n_trials=0"]),
        ("n_trials", [*SEARCH, "seed=1,2", "hydra.sweeper.n_trials=some"]),
        ("sweep.limit", [*SEARCH, "seed=1,2", "sweep.limit=3"]),
        ("seed=-1", [*SEARCH, "seed=-1,2"]),
        ("hydra.sweeper.seed=-1", [*SEARCH, "lora.r=1,2", "hydra.sweeper.seed=-1"]),
        ("lora.dropout=2", [*SEARCH, "lora.dropout=interval(0.0,2.0)"]),
        ("/no/such/folder", [*SEARCH, "model=local", "model.path=/no/such/folder", "seed=1,2"]),
        ("metric=null", ["metric=null"]),
        ("lora.r=0", ["lora.r=0"]),
        ("KEY=VALUE", ["lora.r=["]),
        ("KEY=VALUE", ["lora.r"]),
        ("seed", ["seed=1,2"]),
    ],
)  # fmt: skip
def test_a_wrong_sweep_search_or_launcher_is_one_message(
    tmp_path: Path, said: str, overrides: list[str]
) -> None:
    assert said in refused(tmp_path, *overrides)


def test_a_sweep_directory_that_is_a_file_is_refused(tmp_path: Path) -> None:
    place = tmp_path / "file"
    place.touch()
    text = refused(tmp_path, "-m", "seed=1,2", f"sweep.dir={place}")
    assert f"sweep.dir={place} is a file" in text


@pytest.mark.parametrize("place", ["/proc/nowhere/run", "{tmp}/file/run"])
def test_a_run_directory_that_cannot_be_made_is_refused(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    place = place.format(tmp=tmp_path)
    assert f"{place} cannot be written" in refused(tmp_path, f"hydra.run.dir={place}")


def test_comparing_a_folder_without_runs_ends_with_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from sizewise.commands import main

    (tmp_path / "empty").mkdir()
    for place in (tmp_path / "empty", tmp_path / "nowhere", ROOT / "train.py"):
        monkeypatch.setattr("sys.argv", ["sizewise", "compare", str(place)])
        with pytest.raises(SystemExit) as ended:
            main.main()
        assert ended.value.code == 1
        said = capsys.readouterr().err
        assert str(place) in said.replace("\n", "")
        assert "Traceback" not in said


def test_a_dry_run_fails_where_the_data_fit_no_job(tmp_path: Path) -> None:
    """Nobody has to read the plan's last lines to learn that the sweep cannot work."""
    (tmp_path / "own.csv").write_text("question,answer\nwhy,so\nwhen,now\n")
    data = ["dataset=csv", f"dataset.source.path={tmp_path / 'own.csv'}", "dataset.answer=answer"]
    asked = [*data, "dataset.prompt='{text}'", "model=qwen3_0_6b", "lora=none,attention"]
    text = refused(tmp_path, "-m", *asked, "sweep.dry_run=true")
    assert "2 of 2 jobs are invalid; nothing was started" in text
    assert text.count("dataset.prompt names the column 'text', which the data does not have") == 1
