"""Secrets, and text without them.

What comes from outside may repeat a secret: an error that echoes a request's headers, a variable
with the wrong thing in it. Whoever keeps or shows such text takes the secrets out first.

A secret is found as it is, and as it looks after the usual ways of putting text into text: JSON
(also in JSON again), percent-encoding, Python's `repr`. It is not found reversed, encrypted or cut
in two: this guards against carelessness, not against a server that wants its own client's secret
to be seen.
"""

import re

#: What stands in a secret's place.
TAKEN_OUT = "[secret]"

#: A secret of a few letters is in every text, and none that Atlas gives out is so short.
_SHORTEST = 6


class Secrets:
    """A set of secrets that only grows. What is added to it is added to `also`, too."""

    def __init__(self, *secrets: str, also: "Secrets | None" = None) -> None:
        self._patterns: dict[bytes, re.Pattern[bytes]] = {}
        self._also = also
        for secret in secrets:
            self.add(secret)

    def add(self, secret: str) -> None:
        """Take this one out as well from now on."""
        raw = secret.encode("utf-8", "surrogateescape")
        if len(raw) >= _SHORTEST:
            self._patterns.setdefault(raw, re.compile(b"".join(map(_any_form, raw))))
        if self._also is not None:
            self._also.add(secret)

    def without(self, data: bytes) -> bytes:
        """Give `data` with every secret replaced; the very same object where there is none."""
        is_escaped = b"\\" in data or b"%" in data  # else every character stands for itself
        for raw, pattern in self._patterns.items():
            if is_escaped:
                data = pattern.sub(TAKEN_OUT.encode(), data)
            elif raw in data:
                data = data.replace(raw, TAKEN_OUT.encode())
        return data

    def without_in(self, text: str) -> str:
        """Give `text` with every secret replaced; the very same object where there is none."""
        raw = text.encode("utf-8", "surrogatepass")
        clean = self.without(raw)
        return text if clean is raw else clean.decode("utf-8", "surrogatepass")


def _any_form(byte: int) -> bytes:
    """A pattern for one byte of a secret, as it is or escaped, up to three times.

    Repetitions are bounded, and each way begins with a character of its own, so that no text takes
    long to search.
    """
    itself, code = re.escape(bytes([byte])), b"(?i:%02x)" % byte
    return rb"(?:\\\\{0,7}(?:u00%b|x%b|%b)|%%(?:25){0,2}%b|%b)" % (code, code, itself, code, itself)


#: All secrets that this process has come to know: no line that people see holds one.
EVERY = Secrets()
