"""The command line `generative`. It imports what a command needs when that command runs, so that --help is quick."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
import typer.main

from generative.allocator import keep_freed_memory
from generative.errors import GenerativeError
from generative.threads import spin_briefly
from launch import (
    bench_cli,
    campaign_cli,
    chaos_cli,
    configs_cli,
    data_cli,
    demo_cli,
    doctor_cli,
    edit_cli,
    enhance_cli,
    erase_cli,
    export_cli,
    import_cli,
    measure_cli,
    plan_cli,
    push_cli,
    restore_cli,
    run_cli,
    submit_cli,
)

UsageError: Any = typer.BadParameter.__base__
"""A word of the command line that cannot be; typer gives no other public name to it."""

app = typer.Typer(
    help="Train, sample, edit and evaluate generative models, from one laptop core to many nodes.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("train")(run_cli.train)
app.command("plan")(plan_cli.plan)
app.command("status")(run_cli.status)
app.command("logs")(run_cli.logs)
app.command("sample")(run_cli.sample)
app.command("evaluate")(run_cli.evaluate)
app.command("enhance")(enhance_cli.enhance)
app.command("restore")(restore_cli.restore)
app.command("edit")(edit_cli.edit)
app.command("erase")(erase_cli.erase)
app.command("debias")(erase_cli.debias)
app.command("measure-erasure")(measure_cli.measure)
app.command("export")(export_cli.export)
app.command("import")(import_cli.import_)
app.command("push")(push_cli.push)
app.command("submit")(submit_cli.submit)
app.command("chaos")(chaos_cli.chaos)
app.command("doctor")(doctor_cli.doctor)
app.command("bench")(bench_cli.bench)
app.command("gallery")(demo_cli.gallery)
app.command("demo-all")(demo_cli.demo_all)
app.add_typer(campaign_cli.app, name="campaign")
app.add_typer(submit_cli.app, name="jobs")
app.add_typer(configs_cli.app, name="config")
app.add_typer(data_cli.app, name="data")


def _print_version(wanted: bool) -> None:
    if wanted:
        from generative import __version__

        typer.echo(f"generative {__version__}")
        raise typer.Exit()


@app.callback()
def options(
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error (anywhere in a command).")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Options of all commands."""


@functools.cache
def command() -> Callable[..., Any]:
    """The whole tree of commands: once a process, since reading all their signatures takes a tenth of a second."""
    return typer.main.get_command(app)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code.

    0 done, 75 interrupted (the same command goes on), 2 a mistake in configuration or data, 3 run folder, checkpoint or
    resources, 4 a training anomaly; 1 where of several things (files, benchmarks, demonstrations) some failed, or by a
    fault of this program (its traceback is saved).
    """
    keep_freed_memory()
    spin_briefly()
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    code = _run([word for word in words if word != "--debug"], debug)
    from launch.stopping import abandoned

    if abandoned.is_set():
        # Threads of a half-started cluster must not keep the process; its own processes end with this one.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def _run(words: list[str], debug: bool) -> int:
    try:
        code = command()(args=words, prog_name="generative", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except UsageError as error:
        _tell_usage(error)
        return int(error.exit_code)
    except GenerativeError as error:
        if debug:
            _print_traceback()
        typer.echo(str(error), err=True)
        return error.exit_code
    except BrokenPipeError:
        # The reader of a pipe (head) has left; nothing is wrong.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    except Exception as error:
        if debug:
            _print_traceback()
        typer.echo(_unexpected(error), err=True)
        return 1


def _tell_usage(error: Any) -> None:
    """Words of the command line that cannot be: in the form of every error; a group alone shows its help."""
    context, message = error.ctx, error.format_message()
    if context is None or message.startswith("Usage:"):
        error.show()
        return
    usage = " ".join(context.get_usage().removeprefix("Usage:").replace("{", "").replace("}", "").split())
    message = message.replace("Value error, ", "").rstrip(".")
    problem = f"{context.command_path}: {message[:1].lower()}{message[1:]}"
    told = GenerativeError(problem, usage, f"`{context.command_path} --help` explains each")
    typer.echo(str(told), err=True)


def _print_traceback() -> None:
    import traceback

    traceback.print_exc()


def _unexpected(error: Exception) -> str:
    """The message for a fault of this program; saves the traceback."""
    first = (str(error).strip().splitlines() or [""])[0]
    return (
        f"unexpected {type(error).__name__}: {first}\n"
        "expected: no such thing; this is a fault of the program, not of your input\n"
        f"to fix: please report it with the traceback in {_save_traceback()} (--debug shows it)"
    )


def _save_traceback() -> str:
    """Writes the current traceback to the logs of the run that was going on, or to the folder for temporary files."""
    import tempfile
    import time
    import traceback

    from launch.run_cli import current_run

    name = f"traceback-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.txt"
    folders = [Path(run) / "logs" for run in current_run] + [Path(tempfile.gettempdir())]
    for folder in folders:
        with contextlib.suppress(OSError):
            (folder / name).write_text(traceback.format_exc(), encoding="utf-8")
            return str(folder / name)
    return "(it could not be saved)"


if __name__ == "__main__":
    sys.exit(main())
