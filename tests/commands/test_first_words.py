"""What a newcomer types first: --help, --version, dashes, a file that is not there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hydra._internal.utils import get_args_parser
from typer.testing import CliRunner

from sizewise import __version__
from sizewise.commands import main
from sizewise.commands.run import FLAGS, MAY_HAVE_VALUE, WITH_VALUE, check_flags, flags_first
from sizewise.errors import ConfigError

ROOT = Path(__file__).parents[2]


def said_by(*words: str) -> str:
    done = subprocess.run(
        [sys.executable, *words], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.e2e
def test_help_is_short_and_begins_with_examples() -> None:
    """That of train.py, which takes Hydra seconds, is looked at in tests/sweep/test_command.py."""
    check_help("evaluate", said_by("evaluate.py", "--help"))


def check_help(script: str, text: str) -> None:
    assert text.index(f"sizewise {script} ") < text.index("dataset=my ") < text.index("lora:")
    assert len(text.splitlines()) < 45


@pytest.mark.e2e
def test_the_version_is_that_of_sizewise() -> None:
    assert said_by("train.py", "--version") == f"sizewise {__version__}\n"
    assert CliRunner().invoke(main.app, ["--version"]).output == f"sizewise {__version__}\n"


def test_the_command_completes_words_in_a_shell() -> None:
    assert "--install-completion" in CliRunner().invoke(main.app, ["--help"]).output


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["sizewise", "exp"], {"explore", "export"}),
        (["sizewise", "train", "mod"], {"model="}),
        (
            ["sizewise", "train", "lora.al"],
            {"lora.alpha=", "lora.alpha_ratio=", "lora.alpha_pattern="},
        ),
        (["sizewise", "train", "model=na"], {"model=nano"}),
        (["sizewise", "train", "seed=1", "model", "=", "na"], {"nano"}),
        (["sizewise", "plan", "quantization", "="], {"none", "nf4", "int8"}),
        (["sizewise", "plan", "dataset.task", "=", "c"], {"classification", "codes", "chat"}),
    ],
)
def test_commands_groups_keys_and_options_are_completed(
    words: list[str], found: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = {
        "_SIZEWISE_COMPLETE": "complete_bash",
        "COMP_WORDS": "\n".join(words),
        "COMP_CWORD": str(len(words) - 1),
    }
    said = CliRunner().invoke(main.app, [], prog_name="sizewise", env=environment).output
    assert set(said.split()) == found


def test_the_known_flags_are_those_of_hydra() -> None:
    actions = get_args_parser()._actions
    assert {flag for action in actions for flag in action.option_strings} == FLAGS
    valued = {flag for action in actions if action.nargs != 0 for flag in action.option_strings}
    assert valued == WITH_VALUE | MAY_HAVE_VALUE


@pytest.mark.parametrize(
    ("words", "ordered"),
    [
        ("model=nano -m lora.r=2,4", "-m model=nano lora.r=2,4"),
        ("seed=1 --cfg job lora.r=2", "--cfg job seed=1 lora.r=2"),
        ("seed=1 -cd a=b --resolve lora.r=2", "-cd a=b --resolve seed=1 lora.r=2"),
        ("seed=1 --info lora.r=2", "seed=1 lora.r=2 --info"),
        ("seed=1 --info", "seed=1 --info"),
        ("seed=1 --info plugins lora.r=2 ~sweep", "--info plugins seed=1 lora.r=2 ~sweep"),
        ("-m model=nano", "-m model=nano"),
        ("", ""),
    ],
)
def test_flags_may_stand_anywhere(words: str, ordered: str) -> None:
    """Hydra takes no override that follows a flag amid others."""
    found = flags_first(words.split())
    assert found == ordered.split()
    overrides = [word for word in words.split() if word.startswith(("seed", "lora", "model", "~"))]
    assert get_args_parser().parse_args(found).overrides == overrides


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["--model", "x"], "model=x"),
        (["--model=x"], "model=x"),
        (["seed=1", "--lr", "1e-3"], "optimizer.lr=1e-3"),
        (["--learning-rate", "1e-3"], "optimizer.lr=1e-3"),
        (["--lora.rank", "8"], "lora.r=8"),
        (["--num_train_epochs=2"], "trainer.max_epochs=2"),
        (["--load_in_4bit"], "quantization=nf4"),
        (["--epochs", "seed=1"], "trainer.max_epochs=VALUE"),
    ],
)
def test_words_with_dashes_are_spelt_as_they_are_here(words: list[str], meant: str) -> None:
    with pytest.raises(ConfigError, match="no dashes") as caught:
        check_flags(words)
    assert f"Did you mean {meant}?" in str(caught.value)


def test_hydras_own_flags_and_negative_numbers_pass() -> None:
    check_flags(["-m", "seed=1,2", "--config-dir=x", "-cd", "y", "-cjob", "--cfg=job", "-1"][:5])
    check_flags(["--cfg", "job", "--resolve", "optimizer.lr=-1"])
    with pytest.raises(ConfigError, match="show one job"):
        check_flags(["-m", "--cfg", "job"])


@pytest.mark.e2e
def test_a_missing_file_is_said_before_anything_large_is_imported() -> None:
    program = (
        "import sys\n"
        "from sizewise.commands.main import main\n"
        "sys.argv = ['sizewise', 'explore', 'dataset=csv', 'dataset.source.path=none.csv',"
        " \"dataset.prompt='{q}'\", \"dataset.answer='{a}'\"]\n"
        "try:\n    main()\n"
        "except SystemExit as end:\n"
        "    print(end.code, 'torch' in sys.modules, 'transformers' in sys.modules)\n"
    )
    assert said_by("-c", program) == "1 False False\n"
