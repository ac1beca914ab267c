"""Golden runs: real published runs of this version, which every later one must verify.

    python -m tests.golden

makes those of this version anew, in tests/data/golden/VERSION. Do so last before a release, and
never again for one that is out: a run that was published cannot be published otherwise.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from pipeline import __version__
from pipeline.policy import default_policy
from pipeline.simulator import FaultPlan
from tests.durability import ROOT, Small, small, write_input

GOLDEN = Path(__file__).parent / "data" / "golden"
SIGNER = "auditor@example.com"

#: What a policy can do to verdicts: limits that are kept and not, an owner, a waiver.
POLICY = """\
name = "golden"
owner_label = "owner"

[thresholds]
rpo_age = "7d"
retention = "30d"

[rules.restorable-false]
severity = "medium"

[[waivers]]
id = "W-1"
reason = "the cluster is being retired"
owner = "team-payments"
approver = "risk"
expires = 2037-12-31
rules = ["restorable-false", "token-not-discovered", "no-restorable-checkpoint"]
kinds = ["checkpoint_absent"]
"""

#: The program as it is, on a machine that nobody knows.
_PROGRAM = (
    "import platform, pipeline.__main__ as program, tests.durability as durability;"
    "platform.node = lambda: 'host.example.com';"
    "durability.no_waits();"
    "program.main()"
)


def make(to: Path) -> None:
    """Publish runs of every kind, and put their folders into `to`, which is new."""
    with tempfile.TemporaryDirectory() as name, small() as scene:
        maker = _Maker(Path(name), scene)
        runs = maker.runs()
        for kind, run in runs.items():
            shutil.copytree(run, to / kind)
        (to / "allowed_signers").write_text(maker.allowed_signers, "utf-8")


class _Maker:
    """Publishes runs of a small audit from a folder of its own."""

    def __init__(self, folder: Path, scene: Small) -> None:
        self._folder = folder
        self._scene = scene
        write_input(folder / "nightly.csv", scene.triples)
        (folder / "policy.toml").write_text(POLICY, "utf-8")
        (folder / "default.toml").write_text(default_policy().text, "utf-8")
        options = ("-t", "ed25519", "-N", "", "-C", SIGNER, "-f", folder / "key")
        subprocess.run(["ssh-keygen", "-q", *options], check=True)
        self.allowed_signers = f"{SIGNER} {(folder / 'key.pub').read_text('utf-8')}"

    def runs(self) -> dict[str, Path]:
        """Give the folders of the runs by what they show."""
        down = self._scene.triples[0].checkpoint_id
        self._scene.atlas.play(
            FaultPlan(rate=0.5, kinds=("500", "429-zero"), checkpoints={down: "always-500"})
        )
        runs = {
            "get": self._run("nightly.csv"),
            "list": self._run("nightly.csv", "--fetch", "list"),
        }
        self._scene.atlas.play(FaultPlan.none())
        runs |= {
            "completed": self._run("--complete", runs["get"].name),
            "waivers": self._run("nightly.csv", "--policy", "policy.toml"),
            "signed": self._run("nightly.csv", "--sign-key", "key"),
        }
        anew = ("--to", "anew", "--policy", "default.toml")
        return runs | {"judged-anew": self._start("report", runs["waivers"].name, *anew)}

    def _run(self, *args: str) -> Path:
        return self._start("run", *args)

    def _start(self, *args: str) -> Path:
        """Start the program as its users do; gives the folder that it names in the end."""
        known = {**self._scene.atlas.env, "LOGNAME": "auditor", "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [sys.executable, "-c", _PROGRAM, *args],
            cwd=self._folder,
            env={**os.environ, **known},
            capture_output=True,
            check=False,
            text=True,
        )
        if done.returncode not in {0, 1, 3, 4}:
            raise SystemExit(done.stderr)
        return self._folder / done.stdout.splitlines()[-1]


def main() -> None:
    """Make the golden runs of this version anew."""
    to = GOLDEN / __version__
    if to.exists():
        shutil.rmtree(to)
    make(to)
    size = sum(path.stat().st_size for path in to.rglob("*") if path.is_file())
    sys.stdout.write(f"{to}: {size:,} bytes\n")


if __name__ == "__main__":
    main()
