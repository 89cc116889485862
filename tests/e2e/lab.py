"""Where the services of the tests are, as `services/up.sh` wrote it down."""

from __future__ import annotations

import os
import pathlib
import subprocess

TESTS = pathlib.Path(__file__).resolve().parent.parent
REPOSITORY = TESTS.parent
HOME = pathlib.Path(os.environ.get("SILTSTONE_LAB") or pathlib.Path.home() / ".cache" / "siltstone-lab")


def start() -> None:
    """Starts what does not run yet. Raises when a service cannot start: no test is passed over for that."""
    subprocess.run([TESTS / "services" / "up.sh"], check=True)
    for line in (HOME / "run" / "services.env").read_text().splitlines():
        name, _, value = line.partition("=")
        os.environ.setdefault(name, value)


def address(name: str) -> str:
    """`KAFKA`, `REGISTRY`, `S3` and so on: the value of `SILTSTONE_TEST_<name>`."""
    return os.environ[f"SILTSTONE_TEST_{name}"]
