"""The command `explain`: the story of one triple."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.audited import print_result
from pipeline.errors import ExitCode
from pipeline.options import LogFormat, LogFormatOption, OutputDir, Quiet, Run, TextOrJson


def explain(
    run: Run,
    triple: Annotated[
        str,
        typer.Argument(
            metavar="TRIPLE", help="project/cluster/checkpoint, or the checkpoint's id alone."
        ),
    ],
    output_dir: OutputDir = Path("outputs"),
    output_format: Annotated[
        TextOrJson, typer.Option("--format", help="What is printed: text or json.")
    ] = TextOrJson.TEXT,
    log_format: LogFormatOption = LogFormat.TEXT,
    quiet: Quiet = False,
) -> None:
    """Tell the story of one triple: its line, requests, waits, replies, rules, verdict, excuse."""
    import msgspec

    from pipeline import talk
    from pipeline.published import find_run
    from pipeline.story import as_text, find_triple, story_of
    from pipeline.tables import only_write

    talk.set_up(log_format=log_format, quiet=quiet)
    only_write()
    found = find_run(output_dir, run)
    story = story_of(found, find_triple(found, triple))
    if output_format is TextOrJson.JSON:
        print_result(msgspec.json.format(msgspec.json.encode(story), indent=2).decode())
    else:
        print_result("\n".join(map(talk.shown, as_text(story).splitlines())))
    raise typer.Exit(ExitCode.COMPLETE)
