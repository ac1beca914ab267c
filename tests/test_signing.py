"""Signing with the user's own SSH key, and checking it, with this program and without."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline import signing
from pipeline.errors import ConfigurationWrong
from pipeline.published import PublishedRun
from pipeline.signing import SignatureWrong, Signer, check_signer, fingerprint, signature_of
from pipeline.verify import verify
from pipeline.verify.intact import Trust
from tests.nights import Night
from tests.recorded import Recorder, of_every_kind

ROOT = Path(__file__).parents[1]
ME = "auditor@example.com"


def make_key(path: Path, kind: str = "ed25519", passphrase: str = "") -> Path:
    options = ("-t", kind, "-N", passphrase, "-C", "test", "-f", path)
    subprocess.run(["ssh-keygen", "-q", *options], check=True)
    return path


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_key(tmp_path_factory.mktemp("key") / "key")


@pytest.fixture
def allowed(key: Path, tmp_path: Path) -> Path:
    path = tmp_path / "allowed_signers"
    path.write_text(f"{ME} {key.with_suffix('.pub').read_text()}")
    return path


@pytest.fixture
def run(key: Path, tmp_path: Path) -> PublishedRun:
    return Recorder(tmp_path / "outputs", signer=Signer(key)).publish(of_every_kind())


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_text("content")
    return path


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
def test_what_is_signed_is_checked(kind: str, tmp_path: Path, file: Path) -> None:
    signer = Signer(make_key(tmp_path / "key", kind))
    signer.sign(file)

    assert fingerprint(file) == signer.signature.key
    file.write_text("Content")
    with pytest.raises(SignatureWrong):
        fingerprint(file)


def test_a_signature_for_something_else_does_not_count(key: Path, file: Path) -> None:
    subprocess.run(["ssh-keygen", "-Y", "sign", "-q", "-n", "git", "-f", key, file], check=True)

    with pytest.raises(SignatureWrong):
        fingerprint(file)


def test_white_space_that_ssh_forgives(key: Path, file: Path) -> None:
    Signer(key).sign(file)
    signature = signature_of(file)
    lines = signature.read_text("ascii").splitlines()
    signature.write_text("\n".join([lines[0], "".join(lines[1:-1]), lines[-1], ""]), "ascii")
    options = ("-Y", "check-novalidate", "-q", "-n", signing.NAMESPACE, "-s", signature)
    with file.open("rb") as content:
        subprocess.run(["ssh-keygen", *options], stdin=content, check=True)

    with pytest.raises(SignatureWrong, match="not as OpenSSH writes"):
        fingerprint(file)


def test_whose_signature_it_is(key: Path, file: Path, allowed: Path, tmp_path: Path) -> None:
    Signer(key).sign(file)
    check_signer(file, allowed, ME)
    with pytest.raises(SignatureWrong):
        check_signer(file, allowed, "somebody@example.com")
    other = make_key(tmp_path / "other")
    allowed.write_text(f"{ME} {other.with_suffix('.pub').read_text()}")
    with pytest.raises(SignatureWrong):
        check_signer(file, allowed, ME)


def test_a_list_of_signers_that_is_none(key: Path, file: Path, allowed: Path) -> None:
    """The run is not to blame for it."""
    Signer(key).sign(file)
    allowed.write_text(f"{ME} no-key\n")
    with pytest.raises(ConfigurationWrong, match="--allowed-signers"):
        check_signer(file, allowed, ME)


# ── keys that do not sign ────────────────────────────────────────────────────────────────────────


def test_a_locked_key_is_told_before_anything_is_asked(tmp_path: Path, night: Night) -> None:
    """Nobody is there at night to type a passphrase; nothing prompts, and nothing waits."""
    locked = make_key(tmp_path / "locked", passphrase="secret words")
    ended = night.run("--sign-key", locked)

    assert ended.code == 78
    assert "does not sign" in ended.err
    assert "nobody is asked for a passphrase" in ended.err
    assert sum(night.atlas.asked.values()) == 0


@pytest.mark.parametrize("named", ["none", "folder", "no-key", "lonely.pub"])
def test_keys_that_are_none(named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    (tmp_path / "folder").mkdir()
    (tmp_path / "no-key").write_text("nothing")
    make_key(tmp_path / "lonely").unlink()

    with pytest.raises(ConfigurationWrong, match="--sign-key"):
        Signer(tmp_path / named)


def test_without_openssh(key: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(ConfigurationWrong, match="ssh-keygen cannot be run: No such file"):
        Signer(key)
    (tmp_path / "ssh-keygen").write_text("nothing that can be run")
    with pytest.raises(ConfigurationWrong, match="ssh-keygen cannot be run: "):
        Signer(key)


def test_a_key_that_waits_for_somebody_is_given_up(
    key: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    waiting = tmp_path / "ssh-keygen"
    waiting.write_text("#!/bin/sh\nexec sleep 60\n")
    waiting.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(signing, "_PATIENCE_S", 0.1)

    with pytest.raises(ConfigurationWrong, match="did not end within"):
        Signer(key)


@pytest.fixture
def agent(tmp_path: Path, key: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An agent that holds the key; gives the file with its public half alone."""
    socket = tmp_path / "s"
    running = subprocess.Popen(["ssh-agent", "-D", "-a", socket], stdout=subprocess.DEVNULL)
    try:
        monkeypatch.setenv("SSH_AUTH_SOCK", str(socket))
        for _ in range(1000):
            added = subprocess.run(["ssh-add", "-q", key], check=False, capture_output=True)
            if added.returncode == 0:
                break
        assert added.returncode == 0, added.stderr
        public = tmp_path / "only.pub"
        public.write_bytes(key.with_suffix(".pub").read_bytes())
        yield public
    finally:
        running.terminate()
        running.wait(30)


def test_a_public_key_signs_by_its_agent(agent: Path, key: Path, file: Path) -> None:
    signer = Signer(agent)
    signer.sign(file)

    assert fingerprint(file) == signer.signature.key == Signer(key).signature.key


# ── runs ─────────────────────────────────────────────────────────────────────────────────────────


def test_a_nightly_run_is_signed(key: Path, night: Night, allowed: Path) -> None:
    ended = night.run("--sign-key", key)
    found = verify(ended.run, Trust(allowed_signers=allowed, signer=ME))

    assert ended.code == 4
    assert found.sound, found
    assert any(each.startswith(f"signature: by {ME}") for each in found.intact.said)


def test_nobody_said_whose_key_is_trusted(run: PublishedRun) -> None:
    found = verify(run.path)

    assert found.sound
    assert any("nobody said whose key is trusted" in each for each in found.intact.said)


def test_a_signer_who_did_not_sign(run: PublishedRun, allowed: Path, tmp_path: Path) -> None:
    assert not verify(run.path, Trust(allowed_signers=allowed, signer="you@example.com")).sound
    unsigned = Recorder(tmp_path / "unsigned").publish(of_every_kind())
    found = verify(unsigned.path, Trust(allowed_signers=allowed, signer=ME)).intact

    assert found.problems == (f"no signature is there, and {ME}'s is wanted",)


def test_a_signature_by_another_key_than_announced(run: PublishedRun, tmp_path: Path) -> None:
    other = Signer(make_key(tmp_path / "other"))
    signature_of(run.path / "manifest.json").unlink()
    other.sign(run.path / "manifest.json")

    assert any("announced was" in each for each in verify(run.path).intact.problems)


def test_a_signature_that_was_added_later(key: Path, tmp_path: Path) -> None:
    """By a third party, with the plain command."""
    run = Recorder(tmp_path).publish(of_every_kind())
    Signer(key).sign(run.path / "manifest.json")

    assert verify(run.path).sound
