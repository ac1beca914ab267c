"""What a run was published with, held against what is asked for now.

A start that finds its run published already may take it for its own only where that run is what the
command line asks for: judged by this policy, signed by this key, compared with this list.
"""

import hashlib
from collections.abc import Iterator

from pipeline.evidence import BASE_POLICY_FILE
from pipeline.intake import KeptInput
from pipeline.policy import Policy
from pipeline.publication import Published
from pipeline.published import PublishedRun, read_run
from pipeline.rules import RULES_VERSION
from pipeline.settings import Settings


def unmet(found: Published, settings: Settings, discovered: KeptInput | None) -> tuple[str, ...]:
    """Say what of a published run is not as it is asked for; nothing where all is.

    `discovered` is what the input is to be compared with. What a run has beyond what is asked for,
    a signature or such a list, is no reason against it. Raises what `read_run` does.
    """
    run = read_run(found.path)
    return (
        *_of_rules(run, found, settings.policy),
        *_of_signature(run, settings),
        *(_of_discovered(found, discovered) if settings.discovered and discovered else ()),
    )


def _of_rules(run: PublishedRun, found: Published, policy: Policy) -> Iterator[str]:
    judged_by = found.summary.run.policy_sha256, run.digest_of(BASE_POLICY_FILE)
    if run.manifest.rules_version != RULES_VERSION:
        yield f"it is judged by rules version {run.manifest.rules_version}"
    elif judged_by != (policy.sha256, _digest(policy.base_text)):
        yield f"it is judged by another policy than {policy.name!r}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest() if text else ""


def _of_signature(run: PublishedRun, settings: Settings) -> Iterator[str]:
    wanted = settings.signer.signature.key if settings.signer is not None else None
    if wanted is not None and run.signed_by != wanted:
        yield f"it is {f'signed by {run.signed_by}' if run.signed_by else 'not signed'}"


def _of_discovered(found: Published, discovered: KeptInput) -> Iterator[str]:
    known = found.summary.beyond
    if known is None or known.sha256 != discovered.sha256:
        yield f"it is not compared with {discovered.source}"
