"""The story of one triple: what was asked, what came back, what the rules make of it.

All of it is read from the run's own folder. Verdict, findings and the cluster's standing are what
was published; the checkpoint is read from the reply once more.
"""

from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.cells import visible
from pipeline.checkpoints import Checkpoint, CheckpointRef
from pipeline.columns import RUN_COLUMNS
from pipeline.derive import answer_of, facts_of
from pipeline.errors import ConfigurationWrong, InputMissing, InputUnusable
from pipeline.evidence import Evidence, batches_of, policy_of
from pipeline.journal import Answered, StoredReply
from pipeline.outcomes import FailureKind, Verdict, moment
from pipeline.policy import Policy, default_policy
from pipeline.published import AS_IT_WAS, PublishedRun
from pipeline.rules import RULES, RULES_VERSION
from pipeline.rules.rule import Rule
from pipeline.tables import CLUSTERS, FINDINGS, OUTCOMES, Table


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """One request and what came back; times in seconds.

    `waited_s`: since the reply before, None for the first. `is_the_answer`: it is the reply that
    counts.
    """

    reply_id: int
    purpose: str
    path: str
    sent_at: str
    waited_s: float | None
    took_s: float
    http_status: int
    failure_kind: str | None
    trouble: str | None
    headers: dict[str, str]
    body_bytes: int
    body_sha256: str
    is_the_answer: bool


class State(StrEnum):
    """What a rule makes of a triple, or of its cluster."""

    OBJECTS = "objects"
    NO_OBJECTION = "no_objection"
    NOT_JUDGED = "not_judged"


class Ruling(msgspec.Struct, frozen=True, kw_only=True):
    """What one rule makes of it; `said`: what it saw, or why it does not judge."""

    rule_id: str
    scope: str
    state: State
    said: str = ""
    severity: str = ""
    fails: bool = False
    waiver_id: str | None = None


class Story(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a run knows of one triple.

    `item` is its place in a page of its cluster's list, where that answered it. `outcome` and
    `cluster` are rows of the tables of these names.
    """

    run_id: str
    audit_date: str
    rules_version: str
    policy: str
    triple: str
    owner: str
    outcome: dict[str, Any]
    asks: tuple[Ask, ...]
    refusals: int
    item: int | None
    checkpoint: Checkpoint | None
    rulings: tuple[Ruling, ...]
    cluster: dict[str, Any]


def find_triple(run: PublishedRun, named: str) -> CheckpointRef:
    """Find a triple by project/cluster/checkpoint, or by its checkpoint's id alone.

    Raises `InputMissing` where the run has none, `ConfigurationWrong` where it has several.
    """
    *place, checkpoint_id = named.strip().split("/")
    given = dict(zip(("cluster_name", "group_id"), reversed(place), strict=False))
    given["checkpoint_id"] = checkpoint_id.lower()
    if "group_id" in given:
        given["group_id"] = given["group_id"].lower()
    found = [] if len(place) > 2 else list(_rows(run, OUTCOMES, given))  # noqa: PLR2004 - a triple
    if not found:
        raise InputMissing(
            f"{run.run_id} has no triple {named!r}",
            hint="name it project/cluster/checkpoint, or by its checkpoint's id",
        )
    refs = [
        CheckpointRef(*(row[name] for name in CheckpointRef.__struct_fields__)) for row in found
    ]
    if len(refs) > 1:
        names = ", ".join(map(str, refs[:3]))
        raise ConfigurationWrong(f"{named!r} is several triples: {names}", hint="name one of them")
    return refs[0]


def story_of(run: PublishedRun, ref: CheckpointRef) -> Story:
    """Tell the story of a triple; raises `InputUnusable` where the run is not as it was."""
    facts = facts_of(run)
    (batch,) = Evidence(run, only=ref).batches()
    (answered,) = batch.answered
    key = {name: getattr(ref, name) for name in ("group_id", "cluster_name", "checkpoint_id")}
    cluster_key = {name: key[name] for name in ("group_id", "cluster_name")}
    outcome = _only(run, OUTCOMES, key)
    cluster = _only(run, CLUSTERS, cluster_key)
    found = answer_of(answered).found
    checkpoint = found if isinstance(found, Checkpoint) else None
    policy = _policy(run, facts.rules_version)
    labels = msgspec.json.decode(answered.labels, type=dict[str, str])
    findings = [
        row
        for row in _rows(run, FINDINGS, cluster_key)
        if row["checkpoint_id"] in {None, ref.checkpoint_id}
    ]
    return Story(
        run_id=facts.run_id,
        audit_date=facts.audit_date.isoformat(),
        rules_version=facts.rules_version,
        policy=policy.name,
        triple=str(ref),
        owner=policy.owner_of(ref.group_id, ref.cluster_name, labels),
        outcome=outcome,
        asks=tuple(_asks(answered, batch.replies)),
        refusals=sum(each.failure_kind == FailureKind.THROTTLED for each in batch.replies),
        item=answered.item,
        checkpoint=checkpoint,
        rulings=tuple(_rulings(ref, outcome, checkpoint, findings, policy, facts.rules_version)),
        cluster=cluster,
    )


def _policy(run: PublishedRun, rules_version: str) -> Policy:
    """The run's policy; one of another version of the rules may not be understood any more."""
    if rules_version != RULES_VERSION:
        return default_policy()
    return policy_of(run)


# --- rows ----------------------------------------------------------------------------------------


def _only(run: PublishedRun, table: Table, key: dict[str, str]) -> dict[str, Any]:
    rows = list(_rows(run, table, key))
    if len(rows) != 1:
        words = "/".join(key.values())
        raise InputUnusable(f"{table.name} has {len(rows)} rows about {words}", hint=AS_IT_WAS)
    return rows[0]


def _rows(run: PublishedRun, table: Table, key: dict[str, str]) -> Iterator[dict[str, Any]]:
    """Rows of a table with these values, without what every table begins with."""
    names = table.names[len(RUN_COLUMNS) :]
    for path in run.files(table.name):
        if path.suffix == ".parquet":
            for batch in batches_of(path, names):
                yield from batch.filter(_mask(batch, key)).to_pylist()


def _mask(batch: pa.RecordBatch, key: dict[str, str]) -> pa.Array:
    mask = pa.repeat(pa.scalar(value=True), batch.num_rows)
    for name, value in key.items():
        mask = pc.and_(mask, pc.equal(batch.column(name), value))
    return mask


# --- requests ------------------------------------------------------------------------------------


def _asks(answered: Answered, replies: Sequence[StoredReply]) -> Iterator[Ask]:
    """Every request for the triple in the order of sending, and the page that answers it."""
    page = [answered.reply] if answered.item is not None and answered.reply is not None else []
    answer = answered.reply.reply_id if answered.reply is not None else None
    before: StoredReply | None = None
    for stored in sorted([*replies, *page], key=lambda each: (each.sent_at, each.reply_id)):
        yield Ask(
            reply_id=stored.reply_id,
            purpose=stored.purpose,
            path=stored.path,
            sent_at=moment(stored.sent_at).isoformat(timespec="milliseconds"),
            waited_s=None if before is None else (stored.sent_at - before.received_at) / 1e6,
            took_s=(stored.received_at - stored.sent_at) / 1e6,
            http_status=stored.http_status,
            failure_kind=stored.failure_kind,
            trouble=stored.trouble_detail or stored.trouble,
            headers=msgspec.json.decode(stored.headers, type=dict[str, str]),
            body_bytes=len(stored.body),
            body_sha256=stored.body_sha256,
            is_the_answer=stored.reply_id == answer,
        )
        before = stored


# --- rules ---------------------------------------------------------------------------------------


def _rulings(
    ref: CheckpointRef,
    outcome: dict[str, Any],
    checkpoint: Checkpoint | None,
    findings: Sequence[dict[str, Any]],
    policy: Policy,
    rules_version: str,
) -> Iterator[Ruling]:
    """What was published, and of today's rules those that had nothing to object to."""
    known = policy.rules
    for row in findings:
        terms = known.get(row["rule_id"])
        yield Ruling(
            rule_id=row["rule_id"],
            scope=row["scope"],
            state=State.OBJECTS,
            said=f"{row['message']} (saw {row['observed']}; wanted {row['expected']})",
            severity=row["severity"],
            fails=terms is not None and terms.fails,
            waiver_id=row["waiver_id"],
        )
    if rules_version != RULES_VERSION:
        return
    objecting = {row["rule_id"] for row in findings}
    thresholds = policy.thresholds_of(ref.group_id, ref.cluster_name)
    limits = msgspec.structs.asdict(thresholds)
    for rule in RULES.values():
        if rule.rule_id not in objecting:
            is_on = rule.rule_id not in known or known[rule.rule_id].enabled
            why = _why_not(rule, limits, is_on=is_on) or _why_no_case(rule, outcome, checkpoint)
            state = State.NOT_JUDGED if why else State.NO_OBJECTION
            yield Ruling(rule_id=rule.rule_id, scope=rule.scope, state=state, said=why)


def _why_not(rule: Rule[Any], limits: dict[str, Any], *, is_on: bool) -> str:
    """Why the policy has a rule not judge; empty where it has it judge."""
    if not is_on:
        return "the policy has switched it off"
    if rule.thresholds and not any(limits.get(name) for name in rule.thresholds):
        return f"the policy has no limit for it ({', '.join(rule.thresholds)})"
    return ""


#: Attributes of a checkpoint that a rule cannot do without.
_STATED = ("restorable", "started", "completed", "timestamp")


def _why_no_case(rule: Rule[Any], outcome: dict[str, Any], checkpoint: Checkpoint | None) -> str:
    """Why a rule over checkpoints has nothing to judge here; empty where it has."""
    if rule.scope != "checkpoint":
        return ""
    if checkpoint is None:
        is_about_absence = rule.reads == ("id",)
        return "" if is_about_absence and outcome["verdict"] == Verdict.ABSENT else _NO_CHECKPOINT
    if rule.reads == ("id",):
        return "Atlas has it"
    lacking = [n for n in _STATED if n in rule.reads and getattr(checkpoint, n) is None]
    return f"{', '.join(lacking)} is not reported" if lacking else ""


_NO_CHECKPOINT = "there is no checkpoint to judge"


# --- words ---------------------------------------------------------------------------------------


def as_text(story: Story) -> str:
    """Tell a story in lines; what Atlas, the input and the policy say begins none of its own."""
    outcome = story.outcome
    judged = f"rules version {story.rules_version}, policy {story.policy}"
    owner = f", owner {story.owner}" if story.owner else ""
    lines = [
        story.triple,
        f"run {story.run_id}, {story.audit_date}; {judged}",
        f"input: line {outcome['input_line']}, labels {outcome['labels']}{owner}",
        "",
        *_verdict_lines(outcome),
        "",
        f"asked {len(story.asks)} times, {story.refusals} of them refused (429)",
        *(line for ask in story.asks for line in _ask_lines(ask)),
        "",
        *_checkpoint_lines(story),
        "",
        "rules",
        *(_ruling_line(ruling) for ruling in story.rulings),
        "",
        *_cluster_lines(story.cluster),
    ]
    return "\n".join(map(visible, lines)) + "\n"


def _verdict_lines(outcome: dict[str, Any]) -> Iterator[str]:
    excuse = f", excused by {outcome['excused_by']}" if outcome["excused_by"] else ""
    yield f"verdict: {outcome['verdict']}{excuse}"
    if outcome["failure_kind"]:
        told = (outcome["http_status"], outcome["error_code"], outcome["error_detail"])
        yield f"  {outcome['failure_kind']}: {' '.join(str(each) for each in told if each)}"


def _ask_lines(ask: Ask) -> Iterator[str]:
    waited = "" if ask.waited_s is None else f", {ask.waited_s:.3f} s after the last reply"
    kind = ask.failure_kind or "good"
    mark = "  <- the answer" if ask.is_the_answer else ""
    yield f"  {ask.sent_at}{waited}: {ask.http_status} {kind}, took {ask.took_s:.3f} s{mark}"
    yield f"    {ask.purpose} {ask.path}"
    yield f"    reply {ask.reply_id}, {ask.body_bytes:,} bytes, sha256:{ask.body_sha256}"
    if ask.trouble:
        yield f"    {ask.trouble}"
    yield from (f"    {name}: {value}" for name, value in sorted(ask.headers.items()))


def _checkpoint_lines(story: Story) -> Iterator[str]:
    if story.checkpoint is None:
        yield "checkpoint: none"
        return
    where = f", item {story.item} of a page of its cluster's list" if story.item is not None else ""
    yield f"checkpoint{where}"
    told = msgspec.to_builtins(story.checkpoint)
    for name in ("restorable", "started", "completed", "timestamp"):
        yield f"  {name}: {told[name] if told[name] is not None else 'not reported'}"
    for part in told["parts"]:
        yield f"  part: {', '.join(f'{name} {value}' for name, value in part.items())}"
    if told["anomalies"]:
        yield f"  anomalies: {', '.join(told['anomalies'])}"


def _ruling_line(ruling: Ruling) -> str:
    said = f": {ruling.said}" if ruling.said else ""
    leads = f" ({ruling.severity}{', leads to FAIL' if ruling.fails else ''})"
    terms = leads if ruling.state is State.OBJECTS else ""
    waived = f" [waived: {ruling.waiver_id}]" if ruling.waiver_id else ""
    return f"  {ruling.state.replace('_', ' ')}{terms}: {ruling.rule_id}{said}{waived}"


def _cluster_lines(cluster: dict[str, Any]) -> Iterator[str]:
    yield f"cluster {cluster['cluster_name']}: {cluster['verdict']}"
    counts = ("pass", "fail", "absent", "inconclusive")
    said = ", ".join(f"{cluster[f'{name}_count']} {name}" for name in counts)
    yield f"  {cluster['triple_count']} triples: {said}"
    yield f"  newest restorable point: {cluster['newest_restorable_at'] or 'none'}"
    if cluster["rpo_age_s"] is not None:
        limit = cluster["rpo_limit_s"]
        allowed = "no limit" if limit is None else f"limit {limit:,.0f} s"
        yield f"  its age at the last reply: {cluster['rpo_age_s']:,.0f} s ({allowed})"
