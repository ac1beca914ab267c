"""What stops a run: one tree of errors, each with an exit code and a hint.

    AuditError
    ├── InputUnusable          65  no header, no valid line, not text
    ├── InputMissing           66  no such file
    ├── AtlasUnavailable       69  unreachable, or withdrawn, for the whole run
    ├── ProgramFault           70  a law broken, an unexpected exception
    ├── OutputsUnwritable      73  the output folder refuses us
    │   └── JournalDamaged     73  what a run had collected cannot be relied on
    ├── LoadRefused            74  a run was not loaded into a warehouse
    ├── AlreadyRunning         75  another run of this audit holds the lock
    ├── CredentialsRefused     77  missing, incomplete, or refused by Atlas
    ├── ConfigurationWrong     78  an option, a variable or a policy is wrong
    └── Interrupted  129/130/143  a signal asked us to stop

Trouble with one checkpoint is never raised: it is a value (see `outcomes`).
"""

from enum import IntEnum
from typing import ClassVar


class ExitCode(IntEnum):
    """How the process ends. A run folder is published exactly on 0, 1, 3 and 4."""

    COMPLETE = 0
    OPEN = 1
    USAGE = 2
    INCOMPLETE = 3
    OPEN_AND_INCOMPLETE = 4
    INPUT_UNUSABLE = 65
    INPUT_MISSING = 66
    ATLAS_UNAVAILABLE = 69
    PROGRAM_FAULT = 70
    OUTPUTS_UNWRITABLE = 73
    LOAD_REFUSED = 74
    ALREADY_RUNNING = 75
    CREDENTIALS_REFUSED = 77
    CONFIGURATION_WRONG = 78
    HUNG_UP = 129
    INTERRUPTED = 130
    TERMINATED = 143


#: One sentence for people, for the codes under which a run is published.
MEANINGS: dict[ExitCode, str] = {
    ExitCode.COMPLETE: "complete, nothing open",
    ExitCode.OPEN: "complete; checkpoints or clusters are open: see the findings",
    ExitCode.INCOMPLETE: (
        "not complete: some triples or lines could not be judged, or the population is not whole"
    ),
    ExitCode.OPEN_AND_INCOMPLETE: (
        "not complete: some triples or lines could not be judged, or the population is not whole; "
        "and of the rest some are open"
    ),
}


class AuditError(Exception):
    """Why the run cannot go on.

    `str()` says what was wanted and what was found, `hint` what to do next.
    Neither ever holds a secret.
    """

    exit_code: ClassVar[ExitCode] = ExitCode.PROGRAM_FAULT
    hint: str = ""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint or self.hint


class InputUnusable(AuditError):
    """The input was read and holds nothing that can be audited."""

    exit_code = ExitCode.INPUT_UNUSABLE
    hint = "give a CSV with the columns project_id, cluster_name and checkpoint_id"


class InputMissing(AuditError):
    """There is no such input, or it may not be read."""

    exit_code = ExitCode.INPUT_MISSING
    hint = "check the path and its permissions; `-` reads standard input"


class AtlasUnavailable(AuditError):
    """Atlas gave no usable answer to anything this run asked."""

    exit_code = ExitCode.ATLAS_UNAVAILABLE
    hint = "nothing was published; start the same command again to go on where it stopped"


class ProgramFault(AuditError):
    """This program is at fault; nothing is published."""

    exit_code = ExitCode.PROGRAM_FAULT
    hint = "nothing was published; please report this with the lines above"


class OutputsUnwritable(AuditError):
    """A file or folder of the outputs, or of the journal, cannot be written."""

    exit_code = ExitCode.OUTPUTS_UNWRITABLE
    hint = "check the folder's permissions and free space, or name another with --output-dir"


class JournalDamaged(OutputsUnwritable):
    """A journal does not hold any more what was written into it."""

    hint = "start the same command again: it sets the journal aside and asks anew"


class LoadRefused(AuditError):
    """A run was not loaded: the warehouse refuses it, or what is there is better."""

    exit_code = ExitCode.LOAD_REFUSED
    hint = "nothing was changed in the warehouse; load the run again"


class AlreadyRunning(AuditError):
    """Another process is running this audit now."""

    exit_code = ExitCode.ALREADY_RUNNING
    hint = "wait for it to end; audits with different names can run side by side"


class CredentialsRefused(AuditError):
    """Credentials are missing or incomplete, or Atlas refuses them."""

    exit_code = ExitCode.CREDENTIALS_REFUSED
    hint = (
        "set MONGODB_ATLAS_CLIENT_ID and MONGODB_ATLAS_CLIENT_SECRET of a service account "
        "with the role Project Read Only"
    )


class ConfigurationWrong(AuditError):
    """An option, an environment variable or a policy cannot be used as given."""

    exit_code = ExitCode.CONFIGURATION_WRONG


class Interrupted(AuditError):
    """A signal asked the run to stop; what was answered so far is in the journal."""

    hint = "start the same command again to go on where it stopped"

    def __init__(self, signal_number: int, *, kept: str = "", hint: str = "") -> None:
        """`kept` says what the run has so far."""
        stopped = f"stopped by signal {signal_number}"
        super().__init__(f"{stopped}; {kept}" if kept else stopped, hint=hint)
        self.code = ExitCode(128 + signal_number)


def exit_code_of(error: BaseException) -> int:
    """Give the exit code that an error ends the process with."""
    if isinstance(error, Interrupted):
        return error.code
    return error.exit_code if isinstance(error, AuditError) else AuditError.exit_code
