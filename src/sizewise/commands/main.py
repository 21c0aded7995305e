"""``sizewise …``: every command. ``train`` and ``evaluate`` take Hydra's grammar as it is."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from sizewise import __version__
from sizewise.errors import SizewiseError
from sizewise.words import visible

app = typer.Typer(
    name="sizewise",
    help="Does a small specialised model beat a larger general one, and at what cost?",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

Directories = Annotated[list[Path], typer.Argument(help="Directories of sweeps or runs.")]
Paths = Annotated[
    list[Path],
    typer.Argument(help="Directories of sweeps or runs; logs of lm-evaluation-harness or Inspect."),
]
Directory = Annotated[Path, typer.Argument(help="Directory of a sweep or a run.")]
Trust = Annotated[
    bool,
    typer.Option("--trust", help="Call classes that the record names and sizewise does not have."),
]


def _completed(context: typer.Context, incomplete: str) -> list[str]:
    """Complete a word of a command line: groups and keys, and behind ``=`` the group's options."""
    from sizewise.config import conf_dir
    from sizewise.config.data import TASKS
    from sizewise.config.suggest import all_keys, options_of

    group, separate, begun = incomplete.rpartition("=")
    before = list(context.params.get("overrides") or ())
    if not separate and before[1:] and before[-1] == "=":  # bash takes a word apart at it
        group, begun = before[-2], incomplete
    elif not incomplete and before and "=" not in before[-1]:
        group = before[-1]
    places = [conf_dir(), conf_dir().parent / "sweeps", Path("conf"), Path("sweeps")]
    if group:
        found = options_of(group, places) or list(TASKS if group == "dataset.task" else ())
        return [f"{group}={o}" if separate else o for o in found if o.startswith(begun)]
    folders = [folder for place in places if place.is_dir() for folder in place.iterdir()]
    groups = {f"{folder.name}=" for folder in folders if folder.is_dir() and folder.name != "hydra"}
    keys = [f"{key}=" for key in all_keys() if "." not in key or "." in incomplete]
    return [word for word in sorted({*groups, *keys}) if word.startswith(incomplete)]


Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        help="Overrides as for train.py: model=gemma4b lora.r=16 …", autocompletion=_completed
    ),
]


def _version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"sizewise {__version__}\n")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Does a small specialised model beat a larger general one, and at what cost?"""


AS_TYPED = {"ignore_unknown_options": True, "allow_extra_args": True}


@app.command(add_help_option=False, context_settings=AS_TYPED)
def train(overrides: Overrides = None) -> None:
    """Run one job, or with -m or sweep=NAME many: sizewise train -m model=nano,mini lora.r=8,16."""
    from sizewise.commands.run import hydra_command

    hydra_command("train", sys.argv[2:])


@app.command(add_help_option=False, context_settings=AS_TYPED)
def evaluate(overrides: Overrides = None) -> None:
    """Score an untouched base, a finished run (run=DIR) or an adapter (adapter=PATH_OR_ID)."""
    from sizewise.commands.run import hydra_command

    hydra_command("evaluate", sys.argv[2:])


@app.command()
def status(
    directory: Directory,
    watch: Annotated[
        bool, typer.Option("--watch", help="Show the board until nothing runs any more.")
    ] = False,
) -> None:
    """Show which jobs of a sweep are done, running, failed or waiting, and for how long yet."""
    from sizewise.sweep import status as found

    if not watch:
        found.print_status(directory)
        return
    with suppress(KeyboardInterrupt):
        found.watch(directory)


@app.command()
def compare(
    paths: Paths,
    by: Annotated[
        list[str] | None,
        typer.Option(help="Pair runs along these keys, instead of by the question."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write table, pictures and page here.")] = None,
    device_per_hour: Annotated[
        float | None, typer.Option(help="For the break-even: price of an hour of your device.")
    ] = None,
    api_per_1000_tokens: Annotated[
        float | None, typer.Option(help="For the break-even: a rented model's price per 1,000.")
    ] = None,
    margin: Annotated[
        float | None, typer.Option(help="Points that may be lost for a smaller model (default 2).")
    ] = None,
    id_field: Annotated[
        str | None, typer.Option(help="Of logs: the field that holds an example's id.")
    ] = None,
    harness_score: Annotated[
        str | None, typer.Option(help="Of logs: take this figure, do not score answers anew.")
    ] = None,
) -> None:
    """Compare finished runs, of one or many sweeps: table, paired tests, verdict."""
    from sizewise.commands.provenance import Imports, compare_command
    from sizewise.config import PricesConfig

    prices = PricesConfig(device_per_hour, api_per_1000_tokens)
    imports = Imports(id_field, harness_score)
    compare_command(paths, tuple(by or ()), out, prices, margin, imports)


@app.command()
def report(
    directory: Directory,
    wandb: Annotated[
        bool, typer.Option("--wandb", help="Build a W&B Report; saved where logged in.")
    ] = False,
) -> None:
    """Show the summary of a sweep or a run again; with --wandb make it a W&B Report."""
    from sizewise.commands.provenance import report_command

    report_command(directory, wandb)


@app.command()
def gate(
    paths: Paths,
    margin: Annotated[float, typer.Option(help="Points by which it may be worse.")] = 2.0,
    a: Annotated[str | None, typer.Option("--a", help="Label of what is to be taken.")] = None,
    b: Annotated[str | None, typer.Option("--b", help="Label of what it is held against.")] = None,
) -> None:
    """For CI: exit 0 if the small tuned model is better or not worse, 1 if worse, 2 if open.

    3: it cannot be answered (no such runs).
    """
    from sizewise.commands.provenance import gate_command

    raise typer.Exit(gate_command(paths, margin, a, b))


@app.command()
def plan(
    overrides: Overrides = None,
    time: Annotated[
        bool, typer.Option("--time", help="Also time a few steps and answers here.")
    ] = False,
) -> None:
    """Say how much memory a job needs and where it fits, without loading a weight."""
    from sizewise.commands.plan import plan_command

    plan_command(overrides or [], time)


@app.command()
def init(
    file: Annotated[Path, typer.Argument(help="CSV, TSV, Excel, JSON(L), Parquet or SQLite.")],
    name: Annotated[
        str | None, typer.Option(help="Name of the option (default: the file's).")
    ] = None,
    prompt: Annotated[str | None, typer.Option(help="Column that holds the question.")] = None,
    answer: Annotated[str | None, typer.Option(help="Column that holds the answer.")] = None,
    table: Annotated[
        str | None, typer.Option(help="Table of a SQLite file, or sheet of an Excel file.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace the option of that name.")
    ] = False,
) -> None:
    """Look at a file, write conf/dataset/NAME.yaml for it, and say what to type next."""
    from sizewise.commands.init import init_command

    init_command(file, name, prompt, answer, force, table)


@app.command()
def explore(
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option(help="Write pictures and figures here.")] = None,
    samples: Annotated[int, typer.Option(help="How many examples to show.")] = 3,
) -> None:
    """Show a data set: sizes, token lengths, duplicates, leaks, labels, samples."""
    from sizewise.commands.explore import explore_command

    explore_command(overrides or [], out, samples)


@app.command()
def export(
    values: Annotated[
        list[str],
        typer.Argument(
            help="run=DIR, and as wanted out=DIR merge=true push_to=… trust_remote_code=true"
        ),
    ],
) -> None:
    """Write adapter or merged model, tokenizer, settings and a model card; optionally push."""
    from sizewise.commands.release import export_command

    export_command(values)


@app.command()
def generate(
    values: Annotated[list[str], typer.Argument(help='run=DIR "question"')],
    base: Annotated[bool, typer.Option("--base", help="Show the base's answer, too.")] = False,
) -> None:
    """Answer one question with the model of a finished run."""
    from sizewise.commands.release import generate_command

    generate_command(values, base)


@app.command()
def verify(directory: Directory, trust: Trust = False) -> None:
    """Recompute every reported number from the stored predictions and check all hashes."""
    from sizewise.commands.provenance import verify_command

    if not verify_command(directory, trust):
        raise typer.Exit(1)


@app.command()
def reproduce(
    directory: Directory,
    run: Annotated[bool, typer.Option("--run", help="Run the command, too.")] = False,
    trust: Trust = False,
) -> None:
    """Print command, code and versions of a run; with --run, run it with those that are here."""
    from sizewise.commands.provenance import reproduce_command

    raise typer.Exit(reproduce_command(directory, run, trust))


@app.command()
def judge(
    directory: Directory,
    ratings: Annotated[
        Path | None, typer.Option(help="Sweep or run whose blind ratings are taken.")
    ] = None,
    trust: Annotated[
        bool, typer.Option("--trust", help="Ask servers elsewhere that the records name.")
    ] = False,
) -> None:
    """Ask the judges of finished runs what people rated in the app: how far do they agree?"""
    from sizewise.job.others.judge import compare_with_people

    for found in compare_with_people(directory, ratings, trust):
        typer.echo(visible(found.sentence))


@app.command("app")
def serve(
    directory: Directory,
    port: Annotated[int, typer.Option(help="Port on 127.0.0.1.")] = 8501,
    crisis: Annotated[Path | None, typer.Option(help="Settings of the crisis detector.")] = None,
    outputs: Annotated[Path | None, typer.Option(help="Where evaluations are written.")] = None,
    trust: Trust = False,
) -> None:
    """Open the app: explore data, results, chat, blind ratings, evaluations. Local only."""
    from sizewise.app.launch import app_command, launch

    raise typer.Exit(launch(app_command(directory, port, crisis, outputs, trust), port))


def main() -> None:
    """Run the command line; an error that sizewise raises on purpose is one message, exit 1."""
    try:
        app()
    except SizewiseError as error:
        sys.stderr.write(visible(f"sizewise: {error}\n"))
        raise SystemExit(1) from error


if __name__ == "__main__":
    main()
