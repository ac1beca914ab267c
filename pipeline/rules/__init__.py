"""The rules: each small and pure, with its own id, and the attributes of the API that it reads.

What a checkpoint is good for (MongoDB's documentation of legacy backups): Atlas stops the balancer
of a sharded cluster and writes a token into the oplog of every shard and of the config servers; a
restore replays each oplog up to its token. A part without a token, or a shard set without its
config part, is no consistent cut.

What a rule is worth, and whether it leads to FAIL, is the policy's to say. No rule reads a token's
`increment`: its documented minimum is a fault of the documentation.
"""

from typing import Any

from pipeline.rules import absence, parts, recovery, restorable, shards, times
from pipeline.rules.listed import Listed
from pipeline.rules.rule import Rule
from pipeline.rules.standing import Standing

#: Changes with every change of judgement: a rule more or less, another comparison, another bound,
#: another condition under which nothing is judged. Not with words, severities or thresholds: these
#: are the policy's, whose digest stands beside this in every run.
RULES_VERSION = "3"

#: In the order in which a checkpoint's findings are told.
CHECKPOINT_RULES: tuple[Rule[Listed], ...] = (
    *restorable.RULES,
    *parts.RULES,
    *times.RULES,
    *absence.RULES,
)

CLUSTER_RULES: tuple[Rule[Standing], ...] = (*recovery.RULES, *shards.RULES)

#: Every rule by its id.
RULES: dict[str, Rule[Any]] = {rule.rule_id: rule for rule in CHECKPOINT_RULES}
RULES |= {rule.rule_id: rule for rule in CLUSTER_RULES}
