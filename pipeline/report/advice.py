"""What each failure kind means for people, and what to do about it."""

from pipeline.outcomes import FailureKind

#: Kind → (what it means, what to do next).
ADVICE: dict[FailureKind, tuple[str, str]] = {
    FailureKind.CHECKPOINT_ABSENT: (
        "Atlas says that there is no such checkpoint",
        "if it should be there, look at the cluster's backup schedule and retention",
    ),
    FailureKind.BACKUPS_ABSENT: (
        "Atlas says that the cluster has no legacy backups",
        "take the cluster off the list, or find out who switched its backups off",
    ),
    FailureKind.CLUSTER_NOT_FOUND: (
        "Atlas does not know the cluster, or does not show it to this credential",
        "check the cluster's name, and the role Project Read Only in its project",
    ),
    FailureKind.PROJECT_NOT_FOUND: (
        "Atlas does not know the project, or does not show it to this credential",
        "check the project's id, and the role Project Read Only in it",
    ),
    FailureKind.ENDPOINT_NOT_FOUND: (
        "the address itself is unknown there",
        "check the base URL; see whether the API still offers legacy backup",
    ),
    FailureKind.NOT_FOUND: (
        "a 404 without a known Atlas code, perhaps of a proxy in between",
        "check the base URL and the proxy; the evidence holds the body",
    ),
    FailureKind.BAD_REQUEST: (
        "Atlas refuses the request as malformed",
        "read the detail; check the triple",
    ),
    FailureKind.UNAUTHENTICATED: (
        "the project answers that the credential is not accepted, though others accept it",
        "check that the project belongs to the credential's organization",
    ),
    FailureKind.PROJECT_REFUSED: (
        "the credential may not read this project",
        "give it the role Project Read Only there",
    ),
    FailureKind.ACCOUNT_SUSPENDED: ("the account is suspended", "settle the account with MongoDB"),
    FailureKind.ACCESS_LIST: (
        "this machine's address is not on the API access list",
        "add the address to the access list of the credential",
    ),
    FailureKind.NOT_ACCEPTABLE: (
        "the API no longer offers the version this program asks for",
        "look for a newer release of this program",
    ),
    FailureKind.GONE: (
        "the API version, or legacy backup itself, was withdrawn",
        "look for a newer release of this program, and at MongoDB's announcements",
    ),
    FailureKind.UNEXPECTED_STATUS: (
        "a status that this API does not document",
        "see what stands between this machine and Atlas; redirects are not followed",
    ),
    FailureKind.OTHER_CHECKPOINT: (
        "the answer is about another checkpoint or project than the one asked for",
        "see whether a proxy or cache answers in Atlas's place",
    ),
    FailureKind.TOO_LARGE: (
        "the body was larger than any checkpoint's",
        "see what stands between this machine and Atlas",
    ),
    FailureKind.THROTTLED: (
        "the project's rate limit was used up for longer than this run waits",
        "run later or lower --max-share; see who else uses the project's quota",
    ),
    FailureKind.SERVER_ERROR: (
        "Atlas answered with a server error, every time",
        "run again later; see MongoDB's status page",
    ),
    FailureKind.UNREACHABLE: (
        "no connection, every time",
        "check network, proxy and name resolution",
    ),
    FailureKind.TIMED_OUT: (
        "no whole answer in time, every time",
        "run again later; raise --timeout if answers are slow as a rule",
    ),
    FailureKind.CUT: (
        "the body ended early or could not be decompressed, every time",
        "see what stands between this machine and Atlas",
    ),
    FailureKind.UNREADABLE: (
        "the body was not an answer of this API, every time",
        "see what stands between this machine and Atlas; the evidence holds the body",
    ),
    FailureKind.NOT_ASKED: (
        "not asked: the project's requests before it all failed, or the deadline came",
        "ask just these again: run --complete RUN",
    ),
}
