"""The commands `policy check` and `policy explain`."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.access import set_up_talk
from pipeline.errors import ConfigurationWrong
from pipeline.options import LogFormat, LogFormatOption, Quiet, TextOrJson

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Check a policy file, or say what a policy provides.",
)


@app.command()
def check(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A policy, TOML.")],
    log_format: LogFormatOption = LogFormat.TEXT,
    quiet: Quiet = False,
) -> None:
    """Check a policy FILE: one line when it is good, else every fault in a line of its own (78)."""
    from pipeline.cells import on_one_line
    from pipeline.discover import writing
    from pipeline.policy import PolicyWrong, read_policy_file
    from pipeline.provisions import in_short

    set_up_talk(log_format, quiet=quiet)
    with writing(None) as write:
        try:
            policy = read_policy_file(file)
        except PolicyWrong as wrong:
            write("".join(f"{on_one_line(fault)}\n" for fault in wrong.faults))
            count = len(wrong.faults)
            raise ConfigurationWrong(
                f"{file} has {count} fault" + ("s" if count != 1 else ""),
                hint="mend what standard output lists; docs/policy.md tells every key",
            ) from wrong
        write(f"{on_one_line(in_short(policy, datetime.now(UTC)))}\n")


@app.command()
def explain(
    file: Annotated[
        Path | None,
        typer.Argument(metavar="[FILE]", help="A policy, TOML. Without one: the default policy."),
    ] = None,
    format_: Annotated[
        TextOrJson, typer.Option("--format", help="text, or json with everything.")
    ] = TextOrJson.TEXT,
    log_format: LogFormatOption = LogFormat.TEXT,
    quiet: Quiet = False,
) -> None:
    """Say what a policy provides: thresholds, rules and waivers, and where each is said."""
    from pipeline.discover import writing
    from pipeline.policy import default_policy, read_policy_file
    from pipeline.provisions import as_json, as_text, provisions

    set_up_talk(log_format, quiet=quiet)
    policy = default_policy() if file is None else read_policy_file(file)
    found = provisions(policy, "" if file is None else str(file), datetime.now(UTC))
    with writing(None) as write:
        write((as_json(found) if format_ is TextOrJson.JSON else as_text(found)) + "\n")
