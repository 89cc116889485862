"""A Postgres of one test's own, which can crash."""

from __future__ import annotations

import subprocess

import lab


class Postgres:
    """Empty at first."""

    def __init__(self):
        self._do("down")
        self._do("up")
        self.url = self._do("url").strip()

    def crash(self) -> None:
        """As in a power cut; it starts on what it left."""
        self._do("crash")

    def stop(self) -> None:
        self._do("down")

    @staticmethod
    def _do(verb: str) -> str:
        script = lab.TESTS / "services" / "postgres.sh"
        return subprocess.run([script, verb, "crashing"], check=True, stdout=subprocess.PIPE, text=True).stdout
