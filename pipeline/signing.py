"""Signatures over manifests, made and checked by OpenSSH's own `ssh-keygen`.

This program holds no key and sees no passphrase: it names a key's file, and OpenSSH signs with it,
or with the agent where the file is a public key. Nothing here waits for anybody: there is no
terminal to prompt on, no askpass, and a time after which it is given up.
"""

import base64
import binascii
import os
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO

import msgspec

from pipeline.errors import AuditError, ConfigurationWrong

#: What a signature is for: one made for anything else does not count (PROTOCOL.sshsig).
NAMESPACE = "checkpoint-audit"

#: Seconds after which a key that does not sign is given up; an agent may wait for a finger.
_PATIENCE_S = 30.0

_BEGIN, _END = "-----BEGIN SSH SIGNATURE-----", "-----END SSH SIGNATURE-----"
_ARMOUR_COLUMNS = 70


class SignatureWrong(AuditError):
    """A signature that is not one over this file."""


class Signature(msgspec.Struct, frozen=True):
    """What a manifest says of the signature beside it; `key` is the key's fingerprint."""

    namespace: str
    key: str


class Signer:
    """Signs with the key in a file: a private one, or a public one whose other half an agent has.

    Making one signs a probe. Raises `ConfigurationWrong` where that cannot be done.
    """

    def __init__(self, key: Path) -> None:
        self._key = key
        with TemporaryDirectory() as folder:
            probe = Path(folder, "probe")
            probe.write_bytes(b"checkpoint-audit\n")
            self.sign(probe)
            self.signature = Signature(NAMESPACE, fingerprint(probe))

    def sign(self, file: Path) -> None:
        """Write the signature of `file` beside it, as `file`.sig."""
        if not self._key.is_file():
            raise ConfigurationWrong(f"--sign-key {self._key} is no file", hint=_KEYS)
        args = ("-Y", "sign", "-n", NAMESPACE, "-f", str(self._key), str(file))
        done = _ssh_keygen(args, subprocess.DEVNULL)
        if done.returncode or not signature_of(file).is_file():
            raise ConfigurationWrong(
                f"--sign-key {self._key} does not sign: {_words(done.stderr)}", hint=_KEYS
            )


_KEYS = (
    "name a private key without a passphrase, or a public key whose private half is in the agent "
    "(SSH_AUTH_SOCK); nobody is asked for a passphrase"
)


def signature_of(file: Path) -> Path:
    """Where the signature of a file is."""
    return file.with_name(f"{file.name}.sig")


def fingerprint(file: Path) -> str:
    """Check that the signature beside `file` is one over it; gives the key's fingerprint.

    Whose key it is, and whether to trust it, is another question. Raises `SignatureWrong`, and
    `ConfigurationWrong` where there is no `ssh-keygen`.
    """
    signature = signature_of(file)
    _check_form(signature)
    args = ("-Y", "check-novalidate", "-n", NAMESPACE, "-s", str(signature))
    done = _checked(args, file)
    found = re.search(r"\bSHA256:[A-Za-z0-9+/]+", done)
    if found is None:
        raise SignatureWrong(f"of {signature} no key is told: {_words(done)}")
    return found[0]


_SIGNERS = "write lines as ssh-keygen(1) has them under ALLOWED SIGNERS: identity, key"


def check_signer(file: Path, allowed_signers: Path, identity: str) -> None:
    """Check that the signature beside `file` is by a key that the list allows this identity.

    Raises `SignatureWrong`, and `ConfigurationWrong` where there is no `ssh-keygen` or no list.
    """
    if not allowed_signers.is_file():
        raise ConfigurationWrong(
            f"--allowed-signers {allowed_signers} is no file",
            hint=_SIGNERS,
        )
    named = ("-f", str(allowed_signers), "-I", identity)
    signature = str(signature_of(file))
    try:
        _checked(("-Y", "verify", *named, "-n", NAMESPACE, "-s", signature), file)
    except SignatureWrong as error:
        if re.search(rf"{re.escape(str(allowed_signers))}:\d+: ", str(error)):
            raise ConfigurationWrong(
                f"--allowed-signers {allowed_signers} cannot be used: {error}", hint=_SIGNERS
            ) from error
        raise SignatureWrong(f"by {allowed_signers} it is not signed by {identity}") from error


def _checked(args: Sequence[str], file: Path) -> str:
    with file.open("rb") as content:
        done = _ssh_keygen(args, content)
    if done.returncode:
        raise SignatureWrong(f"{signature_of(file)}: {_words(done.stderr or done.stdout)}")
    return done.stdout


def _check_form(signature: Path) -> None:
    """Check that every byte is as OpenSSH writes it: its reader forgives some."""
    try:
        text = signature.read_text("ascii")
        inside = text.removeprefix(f"{_BEGIN}\n").removesuffix(f"\n{_END}\n")
        blob = base64.b64decode(inside.replace("\n", ""), validate=True)
    except (OSError, UnicodeDecodeError, binascii.Error) as error:
        raise SignatureWrong(f"{signature} is no signature: {error}") from error
    if text != _armoured(blob):
        raise SignatureWrong(f"{signature} is not as OpenSSH writes signatures")


def _armoured(blob: bytes) -> str:
    text = base64.b64encode(blob).decode()
    lines = [text[n : n + _ARMOUR_COLUMNS] for n in range(0, len(text), _ARMOUR_COLUMNS)]
    return "\n".join([_BEGIN, *lines, _END, ""])


def _ssh_keygen(args: Sequence[str], stdin: int | IO[bytes]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(  # noqa: S603 - no shell; options come first, then our own paths
            ["ssh-keygen", *args],  # noqa: S607 - the one that the user's PATH has
            stdin=stdin,
            capture_output=True,
            check=False,
            encoding="utf-8",
            errors="backslashreplace",
            env={**os.environ, "SSH_ASKPASS_REQUIRE": "never", "LC_ALL": "C"},
            start_new_session=True,  # without a terminal there is nothing to prompt on
            timeout=_PATIENCE_S,
        )
    except OSError as error:
        raise ConfigurationWrong(
            f"ssh-keygen cannot be run: {error.strerror}",
            hint="install OpenSSH's client, 8.2 or newer",
        ) from error
    except subprocess.TimeoutExpired as error:
        raise ConfigurationWrong(
            f"ssh-keygen did not end within {_PATIENCE_S:.0f} s; does the key wait for somebody?",
            hint=_KEYS,
        ) from error


def _words(said: str) -> str:
    return " ".join(said.split()) or "it says nothing"
