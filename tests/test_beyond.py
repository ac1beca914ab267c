"""What Atlas lists beyond an input."""

import gzip
import json
from pathlib import Path

import pytest

from pipeline.beyond import SHOWN_CLUSTERS, find_beyond
from pipeline.checkpoints import CheckpointRef
from pipeline.errors import InputUnusable
from pipeline.intake import KeptInput
from pipeline.population import Beyond, BeyondCluster
from tests.durability import write_input
from tests.nights import NO_FAULTS, Night, summary

G, H = "5f" * 12, "60" * 12
HEAD = "group_id,cluster_name,checkpoint_id\n"


def ref(number: int, cluster: str = "orders", group: str = G) -> CheckpointRef:
    return CheckpointRef(group, cluster, f"{number:024x}")


def kept(path: Path, *refs: CheckpointRef, more: str = "") -> KeptInput:
    lines = "".join(f"{r.group_id},{r.cluster_name},{r.checkpoint_id}\n" for r in refs)
    path.write_bytes(gzip.compress((HEAD + lines + more).encode()))
    return KeptInput(path, "ab" * 32, "found.csv")


def beyond(tmp_path: Path, listed: list[CheckpointRef], asked: list[CheckpointRef]) -> Beyond:
    return find_beyond(kept(tmp_path / "found.csv.gz", *listed), asked)


def test_nothing_is_beyond_an_input_that_names_all_that_is_listed(tmp_path: Path) -> None:
    found = beyond(tmp_path, [ref(1), ref(2)], [ref(2), ref(1), ref(3)])

    assert (found.listed_count, found.count, found.cluster_count) == (2, 0, 0)
    assert found.clusters == ()
    assert str(found) == "found.csv lists 2 checkpoints, all of them in the input."


def test_clusters_that_the_input_never_names_come_first(tmp_path: Path) -> None:
    listed = [ref(1), ref(2), ref(3), ref(4, "billing"), ref(5, "billing", H)]
    found = beyond(tmp_path, listed, [ref(1), ref(9, "billing", H)])

    assert found.clusters == (
        BeyondCluster(G, "billing", 1, f"{4:024x}", is_asked=False),
        BeyondCluster(G, "orders", 2, f"{3:024x}", is_asked=True),
        BeyondCluster(H, "billing", 1, f"{5:024x}", is_asked=True),
    )
    assert (found.count, found.cluster_count) == (4, 3)
    assert "5 checkpoints, 4 of them, of 3 clusters, beyond the input." in str(found)


def test_a_checkpoint_listed_twice_counts_once(tmp_path: Path) -> None:
    found = beyond(tmp_path, [ref(1), ref(1)], [])

    assert (found.listed_count, found.count) == (1, 1)


def test_places_that_could_not_be_listed_are_said(tmp_path: Path) -> None:
    """`discover` leaves a line for each of them that is no triple."""
    found = find_beyond(kept(tmp_path / "found.csv.gz", ref(1), more=f"{G},orders,\n"), [ref(1)])

    assert found.bad_line_count == 1
    assert "1 of its lines are places that could not be listed" in str(found)


def test_a_list_without_a_checkpoint_is_no_good_news(tmp_path: Path) -> None:
    empty = beyond(tmp_path, [], [ref(1)])
    unlisted = find_beyond(kept(tmp_path / "found.csv.gz", more=f"{G},orders,\n"), [ref(1)])

    assert str(empty) == "found.csv lists nothing: no line of it names a checkpoint."
    assert str(unlisted).startswith("found.csv lists nothing: no line of it names a checkpoint; 1")


def test_more_clusters_than_are_shown_are_counted(tmp_path: Path) -> None:
    listed = [ref(1, f"c{number}") for number in range(SHOWN_CLUSTERS + 5)]
    found = beyond(tmp_path, listed, [])

    assert len(found.clusters) == SHOWN_CLUSTERS
    assert found.cluster_count == SHOWN_CLUSTERS + 5


def test_a_file_without_the_columns_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "found.csv.gz"
    path.write_bytes(gzip.compress(b"a,b\n1,2\n"))

    with pytest.raises(InputUnusable):
        find_beyond(KeptInput(path, "", "found.csv"), [])


# --- the command line ---


def test_a_run_says_and_keeps_what_is_beyond_it(night: Night, tmp_path: Path) -> None:
    listed = tmp_path / "discovered.csv"
    write_input(listed, night.scene.triples)
    night.write(4)
    ended = night.run("--discovered", listed)
    (run,) = night.books.runs

    assert f"{len(night.scene.triples) - 4} of them" in ended.err
    found = summary(run)["beyond"]
    assert found["count"] == len(night.scene.triples) - 4
    manifest = json.loads((run / "manifest.json").read_bytes())
    paths = {file["path"] for file in manifest["files"]}
    assert "evidence/discovered.csv.gz" in paths
    assert gzip.decompress((run / "evidence/discovered.csv.gz").read_bytes()) == listed.read_bytes()
    assert not list(night.out.rglob(".work/*.csv.gz"))


def test_judged_anew_it_names_the_same_list(night: Night, tmp_path: Path) -> None:
    listed, policy = tmp_path / "discovered.csv", tmp_path / "policy.toml"
    write_input(listed, night.scene.triples)
    policy.write_text('name = "another"\n', "utf-8")
    night.write(4)
    night.run("--discovered", listed)
    (run,) = night.books.runs
    night.say("report", run, "--policy", policy, "--to", tmp_path / "anew")

    assert summary(tmp_path / "anew")["beyond"] == summary(run)["beyond"]
    assert summary(run)["beyond"]["source"] == str(listed)


def test_a_file_that_discover_did_not_write_stops_before_the_first_request(
    night: Night, tmp_path: Path
) -> None:
    listed = tmp_path / "other.csv"
    listed.write_text("a,b\n1,2\n", "utf-8")
    ended = night.run("--discovered", listed)

    assert ended.code == 65
    assert f"--discovered {listed}" in ended.err
    assert night.asked == 0


def test_a_file_that_is_not_there_is_told_of_the_option(night: Night) -> None:
    ended = night.run("--discovered", "nope.csv")

    assert ended.code == 66
    assert "--discovered nope.csv: nope.csv cannot be opened" in ended.err
    assert "the input" not in ended.err
    assert night.asked == 0


def test_standard_input_is_read_once(night: Night) -> None:
    ended = night.start("-", "--audit-name", "nightly", "--discovered", "-")

    assert ended.code == 2
    assert "cannot both be standard input" in " ".join(ended.err.split())
    assert not night.out.exists()


def test_a_completed_run_calls_the_list_by_its_name(night: Night, tmp_path: Path) -> None:
    listed = tmp_path / "discovered.csv"
    write_input(listed, night.scene.triples)
    night.write(4)
    night.down(0)
    first = night.run("--discovered", listed)
    night.atlas.play(NO_FAULTS)
    ended = night.start("--complete", "nightly")

    assert ended.run != first.run
    assert summary(ended.run)["beyond"] == summary(first.run)["beyond"]
    assert f"{listed} lists" in ended.err
