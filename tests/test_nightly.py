"""The recipes of docs/nightly.md, taken from the document and tried as far as a test can.

A stand-in for `checkpoint-audit` ends as it is told, one for the loader writes down what it is
given.
"""

import ast
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import yaml

from pipeline.errors import ExitCode
from pipeline.metrics import ClusterFigures, CountFigures, End, Figures, RunFigures, metrics_text
from tests.doubles import MOMENT

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "nightly.md").read_text("utf-8")
PUBLISHED = (0, 1, 3, 4)
ALL_CODES = sorted({*ExitCode, 137})


def recipe(name: str) -> str:
    """The block whose first comment names a file that ends in `name`."""
    blocks = re.findall(r"^```\w+\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    named = re.compile(rf"^# \S*\b{re.escape(name)}(\s|$)", re.MULTILINE)
    (found,) = filter(named.search, blocks)
    return str(found)


def executable(path: Path, text: str) -> None:
    path.write_text(text, "utf-8")
    path.chmod(0o755)


class Machine:
    """A machine with the script of the document, and stand-ins for what it starts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.outputs = folder / "outputs"
        self.run = self.outputs / "nightly" / "runs" / "the-run"
        self.run.mkdir(parents=True)
        (self.outputs / "nightly" / "current").symlink_to("runs/the-run")
        self.loaded = folder / "loaded"
        self.bin = folder / "bin"
        self.bin.mkdir()
        self.script = self.bin / "nightly-audit"
        executable(self.script, recipe("nightly-audit"))
        executable(self.bin / "load-into-warehouse", f'#!/bin/sh\necho "$@" >>{self.loaded}\n')
        self.env = {
            "PATH": f"{self.bin}:{os.environ['PATH']}",
            "AUDIT_OUTPUTS": str(self.outputs),
        }

    def audit(self, text: str) -> None:
        executable(self.bin / "checkpoint-audit", f"#!/bin/sh\n{text}\n")

    def night(self, **env: str) -> int:
        return subprocess.run(
            [self.script, "in.csv"], env={**self.env, **env}, check=False, timeout=60
        ).returncode


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


# --- the script ---------------------------------------------------------------------------------


@pytest.mark.parametrize("code", ALL_CODES)
def test_the_script_loads_what_is_published(code: int, machine: Machine) -> None:
    """On 0, 1, 3 and 4, never on 2 or anything else; the code stays."""
    machine.audit(f"exit {code}")

    assert machine.night() == code
    assert machine.loaded.exists() is (code in PUBLISHED)
    if machine.loaded.exists():
        assert machine.loaded.read_text("utf-8") == f"{machine.run.resolve()}\n"


@pytest.mark.parametrize("code", PUBLISHED)
def test_a_loader_that_fails_is_74(code: int, machine: Machine) -> None:
    machine.audit(f"exit {code}")
    executable(machine.bin / "load-into-warehouse", "#!/bin/sh\nexit 9\n")

    assert machine.night() == ExitCode.OUTPUTS_UNWRITABLE + 1 == 74


def test_the_script_hands_on_its_options(machine: Machine) -> None:
    machine.audit(f'printf "%s\\n" "$@" >{machine.folder}/args')
    machine.night(AUDIT_METRICS="/a folder/x.prom")
    wanted = ["run", "in.csv", "--audit-name", "nightly", "--output-dir", str(machine.outputs)]
    args = (machine.folder / "args").read_text("utf-8").splitlines()

    assert args == [*wanted, "--quiet", "--metrics-file", "/a folder/x.prom"]
    machine.night()
    assert (machine.folder / "args").read_text("utf-8").splitlines() == [*wanted, "--quiet"]


@pytest.mark.parametrize(("late_code", "is_loaded"), [(143, False), (1, True)])
def test_the_script_passes_a_stop_on_and_waits(
    late_code: int, is_loaded: bool, machine: Machine
) -> None:
    """The audit's own code counts, also where it published just before the signal came."""
    heard, began = machine.folder / "heard", machine.folder / "began"
    machine.audit(
        f"trap 'echo once >>{heard}; sleep 0.3; exit {late_code}' TERM; : >{began}\n"
        "while :; do sleep 0.05; done"
    )
    with stopped_when(began, machine) as process:
        code = process.wait(timeout=60)

    assert code == late_code
    assert heard.read_text("utf-8") == "once\n"
    assert machine.loaded.exists() is is_loaded


@contextmanager
def stopped_when(began: Path, machine: Machine) -> Iterator[subprocess.Popen[bytes]]:
    """Start the script, and stop it once `began` is there; whatever happens, nothing stays."""
    process = subprocess.Popen([machine.script, "in.csv"], env=machine.env, start_new_session=True)
    try:
        until = time.monotonic() + 60
        while not began.exists():
            assert time.monotonic() < until
            time.sleep(0.001)
        process.send_signal(signal.SIGTERM)
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_no_recipe_goes_by_success_alone() -> None:
    """`&&` between the audit and the loader stands only where the document warns of it."""
    lines = [line for line in TEXT.splitlines() if "&& load-into" in line]

    assert len(lines) == 1
    assert "would load the" in lines[0]


# --- what the document says ---------------------------------------------------------------------


def test_every_code_has_its_advice() -> None:
    section = TEXT.partition("## At three in the morning")[2]
    named = re.findall(r"^\| ([\d, ]+) \|", section, re.MULTILINE)

    assert sorted(int(code) for codes in named for code in codes.split(",")) == sorted(
        {*ALL_CODES, 74}
    )


def test_the_readme_leads_here() -> None:
    assert "docs/nightly.md" in (ROOT / "README.md").read_text("utf-8")


def own_metrics() -> set[str]:
    figures = Figures(
        RunFigures(MOMENT, 0, 0, 0),
        CountFigures(0, 0, 0, 0),
        True,
        1.0,
        (ClusterFigures("5f" * 12, "orders", MOMENT, 0),),
        0,
    )
    text = metrics_text(End("nightly", MOMENT, 0, figures, MOMENT))
    return set(re.findall(r"^checkpoint_audit_\w+", text, re.MULTILINE))


def test_the_table_of_metrics_is_whole() -> None:
    table = TEXT.partition("| metric, after")[2].partition("\n\n")[0]
    first_column = "".join(re.findall(r"^\| (`.*?) \|", table, re.MULTILINE))
    named = {f"checkpoint_audit_{name}" for name in re.findall(r"`(\w+)`", first_column)}

    assert named == own_metrics()


def test_alerts_are_about_metrics_that_there_are() -> None:
    rules = yaml.safe_load(recipe("checkpoint-audit.rules.yaml"))["groups"][0]["rules"]
    used = {name for rule in rules for name in re.findall(r"checkpoint_audit_\w+", rule["expr"])}

    assert used < own_metrics()
    for rule in rules:
        assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
        assert rule["annotations"]["summary"]


# --- cron ---------------------------------------------------------------------------------------


def test_the_crontab_line_runs(machine: Machine) -> None:
    """By cron's shell, with cron's environment: only what the crontab itself sets."""
    lines = [line for line in recipe("crontab").splitlines() if not line.startswith("#")]
    settings = dict(line.split("=", 1) for line in lines[:-1])
    schedule, command = lines[-1].split(maxsplit=5)[:5], lines[-1].split(maxsplit=5)[5]
    env_file = machine.folder / "env"
    env_file.write_text(recipe("env"), "utf-8")
    seen = machine.folder / "seen"
    machine.audit(f"env >{seen}; exit 3")

    assert all(re.fullmatch(r"\*|\d+", field) for field in schedule)
    assert "%" not in command  # which cron would turn into a line end
    done = subprocess.run(
        [settings["SHELL"], "-c", command.replace("/etc/checkpoint-audit/env", str(env_file))],
        env={
            **settings,
            "PATH": f"{machine.bin}:{settings['PATH']}",
            "AUDIT_OUTPUTS": str(machine.outputs),
        },
        check=False,
        timeout=60,
    )

    assert done.returncode == 3
    assert machine.loaded.exists()
    told = seen.read_text("utf-8")
    assert "CHECKPOINT_AUDIT_PING_URL=https://hc-ping.com/your-uuid-here\n" in told
    assert (
        f"MONGODB_ATLAS_CLIENT_SECRET_FILE={settings['MONGODB_ATLAS_CLIENT_SECRET_FILE']}" in told
    )


# --- systemd ------------------------------------------------------------------------------------


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd here")
def test_systemd_accepts_the_units(machine: Machine) -> None:
    """What it runs is put where it is here; a unit that names nonsense is not accepted."""
    machine.audit("exit 0")
    text = recipe("checkpoint-audit.service")
    service = text.replace("/usr/local/bin/nightly-audit", str(machine.script))
    assert verify(machine.folder, service) == ""
    assert "nonsense" in verify(
        machine.folder, service.replace("SuccessExitStatus=75", "SuccessExitStatus=nonsense")
    )


def verify(folder: Path, service: str) -> str:
    (folder / "checkpoint-audit.service").write_text(service, "utf-8")
    timer = recipe("checkpoint-audit.timer")
    (folder / "checkpoint-audit.timer").write_text(timer, "utf-8")
    units = [folder / f"checkpoint-audit.{kind}" for kind in ("service", "timer")]
    done = subprocess.run(
        ["systemd-analyze", "verify", "--recursive-errors=no", *units],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return done.stderr


def test_systemd_stops_the_audit_gently() -> None:
    """One signal, by the script, and time enough; no restart would repeat a night with findings."""
    unit = dict(
        line.split("=", 1)
        for line in recipe("checkpoint-audit.service").splitlines()
        if "=" in line
    )

    assert unit["KillMode"] == "mixed"
    assert int(unit["TimeoutStopSec"]) > 8 + 10
    assert unit["Type"] == "oneshot"
    assert "Restart" not in unit
    assert unit["SuccessExitStatus"] == "75"


# --- Kubernetes ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def job() -> Any:
    return yaml.safe_load(recipe("cronjob.yaml"))["spec"]


def action_for(rules: list[dict[str, Any]], code: int, *conditions: str) -> str:
    """What Kubernetes does with a pod that failed: the first rule that fits, else it is counted.

    https://kubernetes.io/docs/concepts/workloads/controllers/job/#pod-failure-policy
    """
    for rule in rules:
        exits, wanted = rule.get("onExitCodes"), rule.get("onPodConditions", [])
        if exits and (code in exits["values"]) is (exits["operator"] == "In"):
            return str(rule["action"])
        if any(each["type"] in conditions for each in wanted):
            return str(rule["action"])
    return "Count"


@pytest.mark.parametrize("code", [code for code in ALL_CODES if code])
def test_kubernetes_tries_only_again_what_may_end_otherwise(code: int, job: Any) -> None:
    rules = job["jobTemplate"]["spec"]["podFailurePolicy"]["rules"]

    assert action_for(rules, code) == ("Count" if code in (69, 143) else "FailJob")
    assert action_for(rules, code, "DisruptionTarget") == "Ignore"


def test_a_pod_can_do_what_the_audit_needs(job: Any) -> None:
    pod = job["jobTemplate"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    env = {each["name"]: each.get("value", "") for each in container["env"]}
    (exits,) = [
        rule["onExitCodes"]
        for rule in job["jobTemplate"]["spec"]["podFailurePolicy"]["rules"]
        if "onExitCodes" in rule
    ]

    assert job["concurrencyPolicy"] == "Forbid"
    assert pod["restartPolicy"] == "Never"  # without which there is no podFailurePolicy
    assert exits["containerName"] == container["name"]
    assert pod["terminationGracePeriodSeconds"] > 8 + 10
    assert "persistentVolumeClaim" in volumes[mounts[env["AUDIT_OUTPUTS"]]]
    assert volumes["secrets"]["secret"]["defaultMode"] == 0o440
    assert mounts[str(Path(env["MONGODB_ATLAS_CLIENT_SECRET_FILE"]).parent)] == "secrets"
    assert set(mounts.values()) == set(volumes)
    assert container["securityContext"]["readOnlyRootFilesystem"] is True


def test_a_secret_mounted_so_is_accepted(tmp_path: Path, job: Any) -> None:
    from pipeline.auth import read_credentials

    mode = job["jobTemplate"]["spec"]["template"]["spec"]["volumes"][2]["secret"]["defaultMode"]
    secret = tmp_path / "client-secret"
    secret.write_text("a-made-up-secret", "utf-8")
    secret.chmod(mode)
    found = read_credentials(
        {
            "MONGODB_ATLAS_CLIENT_ID": "an-id",
            "MONGODB_ATLAS_CLIENT_SECRET_FILE": str(secret),
        }
    )

    assert found.secret == "a-made-up-secret"


# --- Airflow ------------------------------------------------------------------------------------


class Output(str):
    """What a task hands on, here a word for it."""

    __slots__ = ()


class Task:
    """As much of an Airflow task as the DAG of the document uses."""

    made: list["Task"] = []  # noqa: RUF012 - emptied before each use

    def __init__(self, task_id: str, **options: Any) -> None:
        self.id, self.options, self.before = task_id, options, set[str]()
        self.output = Output(task_id)
        env = options.get("env", {})
        self.before |= {value for value in env.values() if isinstance(value, Output)}
        Task.made.append(self)

    def __rshift__(self, other: "Task") -> "Task":
        other.before.add(self.id)
        return other


class FailError(Exception):
    """Stands for AirflowFailException."""


def task(**options: Any) -> Any:
    def decorate(work: Callable[[str], None]) -> Callable[[Output], Task]:
        def call(given: Output) -> Task:
            made = Task(work.__name__, work=work, **options)
            made.before.add(given)
            return made

        return call

    return decorate


def dag(**options: Any) -> Any:
    def decorate(work: Callable[[], None]) -> Callable[[], None]:
        def call() -> None:
            work()
            Task("the DAG", **options)

        return call

    return decorate


@pytest.fixture
def dag_tasks(monkeypatch: pytest.MonkeyPatch) -> dict[str, Task]:
    """The tasks of the document's DAG, made with stand-ins for Airflow."""
    stands: dict[str, dict[str, Any]] = {
        "airflow.providers.standard.operators.bash": {"BashOperator": Task},
        "airflow.sdk": {"dag": dag, "task": task},
        "airflow.sdk.exceptions": {"AirflowFailException": FailError},
    }
    for name, content in stands.items():
        module = ModuleType(name)
        for word, stand in content.items():
            setattr(module, word, stand)
        monkeypatch.setitem(sys.modules, name, module)
    Task.made = []
    exec(compile(ast.parse(recipe("checkpoint_audit.py")), "DAG", "exec"), {})  # noqa: S102 - ours
    return {made.id: made for made in Task.made}


def test_airflow_loads_before_it_judges(dag_tasks: dict[str, Task]) -> None:
    assert {name: made.before for name, made in dag_tasks.items() if name != "the DAG"} == {
        "audit": set(),
        "load": {"audit"},
        "judge": {"load", "audit"},
    }
    assert dag_tasks["judge"].options["retries"] == 0
    assert dag_tasks["the DAG"].options["max_active_runs"] == 1


@pytest.mark.parametrize("code", ALL_CODES)
def test_airflow_goes_on_after_a_published_run(
    code: int, dag_tasks: dict[str, Task], machine: Machine
) -> None:
    """The task succeeds and hands on the run's folder; skipped it would be with its code."""
    machine.audit(f"echo said >&2; echo {machine.run}; exit {code}")
    options = dag_tasks["audit"].options
    done = subprocess.run(
        ["bash", "-c", options["bash_command"]],
        env=machine.env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=60,
    )

    assert done.returncode == (0 if code in PUBLISHED else code)
    assert (done.stdout.splitlines()[-1] == str(machine.run)) is (code in PUBLISHED)
    assert "skip_on_exit_code" not in options


@pytest.mark.parametrize("code", PUBLISHED)
def test_airflow_shows_what_was_found(
    code: int, dag_tasks: dict[str, Task], tmp_path: Path
) -> None:
    (tmp_path / "summary.json").write_text(f'{{"exit_code": {code}, "headline": "H"}}', "utf-8")
    judge = SimpleNamespace(**dag_tasks["judge"].options).work
    if not code:
        judge(str(tmp_path))
        return
    with pytest.raises(FailError, match="H"):
        judge(str(tmp_path))


def test_airflow_loads_the_run_it_was_given(dag_tasks: dict[str, Task], machine: Machine) -> None:
    command = dag_tasks["load"].options["bash_command"]
    env = {**machine.env, "RUN": str(machine.run)}
    subprocess.run(["bash", "-c", command], env=env, check=True, timeout=60)

    assert machine.loaded.read_text("utf-8") == f"{machine.run}\n"
