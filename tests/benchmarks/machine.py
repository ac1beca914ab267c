"""Where and with what the figures were measured."""

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_PACKAGES = ("aiohttp", "uvloop", "requests", "pandas", "pyarrow", "msgspec")


def machine() -> dict[str, str]:
    """Give date, processor, cores, Python and the packages that bear on the figures."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **{name: _version(name) for name in _PACKAGES},
    }


def described(facts: dict[str, str]) -> str:
    """Give the facts as a sentence."""
    versions = ", ".join(f"{name} {facts[name]}" for name in _PACKAGES)
    return (
        f"Measured on {facts['date']}: {facts['processor']}, {facts['cores']} cores, "
        f"{facts['system']}; Python {facts['python']}, {versions}."
    )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


def _processor() -> str:
    """Linux names the model in a file of its own; elsewhere the platform says what it can."""
    path = Path("/proc/cpuinfo")
    if path.exists():
        for line in path.read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
