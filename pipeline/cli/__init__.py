"""The command line: argv and environment → one command → one exit code."""

import sys
from typing import Annotated, Any

import typer

from pipeline import __version__
from pipeline.cli import (
    demo,
    discover,
    explain,
    history,
    load,
    plan,
    policy,
    report,
    run,
    schema,
    simulate,
    verify,
    views,
)
from pipeline.errors import ExitCode

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    no_args_is_help=True,
    help="Audit MongoDB Atlas legacy backup checkpoints: one verdict each, with its evidence.",
)
for command in (
    run.run,
    discover.discover,
    plan.plan,
    history.diff,
    history.history,
    report.report,
    explain.explain,
    verify.verify,
    views.views,
    load.load,
    demo.demo,
    schema.schema,
    simulate.simulate,
):
    app.command()(command)
app.add_typer(policy.app, name="policy")


@app.callback(invoke_without_command=True)
def _common(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    if version:
        sys.stdout.write(f"checkpoint-audit {__version__}\n")
        raise typer.Exit(0)


def start() -> int:
    """Run the command that argv names; gives its exit code. Other endings are raised."""
    try:
        code = app(standalone_mode=False)
    except _WRONG_USAGE as error:
        return _say_usage(error, sys.argv[1:])
    return code if isinstance(code, int) else ExitCode.COMPLETE


#: What typer raises for a wrong command line. It brings its own click, and of its errors exports
#: this one only, whose base has all of them below it.
_WRONG_USAGE: type[Any] = typer.BadParameter.__mro__[2]


def _say_usage(error: Any, argv: list[str]) -> int:
    """Say what is wrong with the command line in the way that, as far as can be seen, it wants."""
    from pipeline import talk

    if talk.wanted_by(argv) == ("text", False):
        error.show()
    else:
        talk.say_end(ExitCode.USAGE, error.format_message(), hint="see checkpoint-audit --help")
    return ExitCode.USAGE
