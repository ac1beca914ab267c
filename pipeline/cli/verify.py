"""The command `verify`: whether a run is intact, and follows from the replies in it."""

import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.audited import print_result
from pipeline.errors import ConfigurationWrong, ExitCode
from pipeline.options import LogFormat, LogFormatOption, OutputDir, Quiet, Run, TextOrJson

if TYPE_CHECKING:
    from pipeline.verify import Verification

log = logging.getLogger("pipeline")


def verify(
    run: Run,
    output_dir: OutputDir = Path("outputs"),
    manifest_sha256: Annotated[
        str,
        typer.Option(
            metavar="HEX", help="What the manifest's digest should be, from a log kept elsewhere."
        ),
    ] = "",
    allowed_signers: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Whose keys are trusted, as ssh-keygen has them."),
    ] = None,
    signer: Annotated[
        str, typer.Option(metavar="IDENTITY", help="Whose signature is wanted, by that file.")
    ] = "",
    output_format: Annotated[
        TextOrJson, typer.Option("--format", help="What is printed: text or json.")
    ] = TextOrJson.TEXT,
    log_format: LogFormatOption = LogFormat.TEXT,
    quiet: Quiet = False,
) -> None:
    """Verify a published run, offline: that it is intact, and follows from the replies in it.

    Ends with 0 where it is sound, and with 1 where it is not.
    """
    from pipeline import talk
    from pipeline.published import bring_to_verify, local_of
    from pipeline.tables import only_write
    from pipeline.verify import verify as verified
    from pipeline.verify.intact import Trust

    talk.set_up(log_format=log_format, quiet=quiet)
    only_write()
    _check_options(manifest_sha256, allowed_signers, signer)
    trust = Trust(
        manifest_sha256=manifest_sha256,
        allowed_signers=allowed_signers,
        signer=signer,
        output_dir=local_of(output_dir),
    )
    folder, strangers = bring_to_verify(output_dir, run)
    found = verified(folder, trust, strangers)
    code = ExitCode.COMPLETE if found.sound else ExitCode.OPEN
    if code or not quiet:
        print_result(_printed(found, output_format))
    said = "sound" if found.sound else f"not sound: {_first(found)}"
    talk.say_end(code, f"the run {found.run_id} is {said}")
    raise typer.Exit(code)


def _first(found: "Verification") -> str:
    answers = (found.intact, found.rederived)
    first = next(problem for answer in answers for problem in answer.problems)
    more = sum(answer.problem_count for answer in answers) - 1
    return first + (f" (and {more:,} more)" if more else "")


def _check_options(manifest_sha256: str, allowed_signers: Path | None, signer: str) -> None:
    if manifest_sha256 and not re.fullmatch(r"[0-9A-Fa-f]{64}", manifest_sha256):
        raise ConfigurationWrong(
            f"--manifest-sha256 {manifest_sha256!r} is no SHA-256",
            hint="give the 64 hexadecimal digits behind `manifest sha256:` of a run's last line",
        )
    if bool(signer) != (allowed_signers is not None):
        raise typer.BadParameter("--allowed-signers and --signer go together")


def _printed(found: "Verification", output_format: TextOrJson) -> str:
    import msgspec

    from pipeline.talk import shown
    from pipeline.verify import as_text

    if output_format is TextOrJson.JSON:
        return msgspec.json.format(msgspec.json.encode(found), indent=2).decode()
    return "\n".join(map(shown, as_text(found).splitlines()))
