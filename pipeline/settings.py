"""What one run is asked to do."""

from datetime import date, datetime
from pathlib import Path

import msgspec

from pipeline.auth import Credentials
from pipeline.collect import Asking
from pipeline.policy import Policy, default_policy
from pipeline.population import Expected
from pipeline.published import Outputs, PublishedRun
from pipeline.signing import Signer


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What one run is asked to do.

    `source` is a path, or `-` for standard input; with `parent`, the run that is completed, it is
    that run's input. `audit_date` None: today in UTC, or the date of the unfinished run that is
    gone on with. `discovered` is a CSV that `discover` wrote, to compare the input with. Nothing is
    asked any more when what is left until `deadline` (None: for ever) is needed for publishing. Of
    published runs those of the latest `keep` dates stay (None: all).
    With `signer`, manifests are signed. `work_dir`: see `runs` and `stored`.
    """

    source: str
    output_dir: Outputs
    audit_name: str
    credentials: Credentials
    base_url: str
    work_dir: Path | None = None
    audit_date: date | None = None
    parent: PublishedRun | None = None
    ca_file: Path | None = None
    proxy: str | None = None
    timeout: float = 30.0
    asking: Asking = Asking()
    expected: Expected = Expected()
    discovered: str | None = None
    policy: Policy = msgspec.field(default_factory=default_policy)
    deadline: datetime | None = None
    keep: int | None = None
    signer: Signer | None = None
    fresh: bool = False
    strict: bool = False
