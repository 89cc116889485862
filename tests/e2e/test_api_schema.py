"""The API against its own OpenAPI document, by a fuzzer that only knows the document (Schemathesis)."""

import subprocess
import sys

import control_plane
import pytest
from control_plane import API, ControlPlane, Worker

LIMITS = "\n[limits]\nrequests_per_second = 100000\nfailures_per_minute = 1000000\n"
TABLE = "shop.orders"
# 422: a key that says that two requests are one was sent with two different ones.
CONFIG = """request-timeout = 60
[checks]
positive_data_acceptance.expected-statuses = ["2xx", "401", "403", "404", "409", "422"]
"""
# What a schema cannot say is refused all the same: cursors are those that were given out, a worker's right is bound to
# one cluster, versions follow each other.
MAY_REFUSE = ("--exclude-checks", "positive_data_acceptance")
# Things that are there, so that requests get to them.
THERE = """
[parameters]
"path.environment" = "{environment}"
"path.cluster" = "{cluster}"
"path.table" = "{table}"
"""


@pytest.fixture
def plane(tmp_path):
    one = ControlPlane(control_plane.build(), tmp_path, LIMITS)
    one.start()
    yield one
    one.stop()


def ids(plane: ControlPlane) -> dict[str, str]:
    environment = plane.admin("POST", f"{API}/environments", {"name": "fuzzed"})["id"]
    path = f"{API}/environments/{environment}/clusters"
    return {"environment": environment, "cluster": plane.admin("POST", path, {"name": "fuzzed"})["id"]}


def fuzz(plane: ControlPlane, key: str, paths: str, config: str, *more: str) -> None:
    written = plane.home / "schemathesis.toml"
    written.write_text(config)
    command = [sys.executable, "-m", "schemathesis.cli", f"--config-file={written}", "run"]
    command += [f"{plane.url}{API}/openapi.json", "-H", f"Authorization: Bearer {key}", "--no-color"]
    command += ["--include-path-regex", paths, "--max-examples", "10", "--checks", "all", "--seed", "1"]
    command += ["--phases", "examples,coverage,fuzzing", *more]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False, cwd=plane.home)
    assert ended.returncode == 0, ended.stdout[-8000:] + ended.stderr[-2000:]
    assert plane.is_up()
    log = (plane.home / "log").read_text()
    assert "panicked" not in log, log[-3000:]


def test_the_api_is_as_its_document_says(plane):
    # Networks have a form that the document does not know; a sign-on ends well with a provider alone.
    apart = ("createRoleBinding", "createApiKey", "createAllowedNetwork", "beginSignOn", "finishSignOn")
    apart = [word for one in apart for word in ("--exclude-operation-id", one)]
    fuzz(plane, plane.admin.key, "^/(api|healthz)", CONFIG, *apart)
    fuzz(plane, plane.admin.key, "^/api/v1/(role-bindings|api-keys|ip-allow-lists|oidc/.*)$", CONFIG, *MAY_REFUSE)


def test_the_api_of_a_table_that_is_there(plane):
    here = ids(plane)
    key = plane.key("worker", ("worker", "environment/{environment}/cluster/{cluster}".format(**here)))
    Worker(key).table(TABLE, [{"id": 1, "name": "id", "required": True, "type": "long"}], appends=20)
    there = THERE.format(**here, table=TABLE)
    fuzz(plane, plane.admin.key, "clusters/[{]cluster", CONFIG + there, "--exclude-method", "DELETE", *MAY_REFUSE)


def test_what_workers_say_is_as_the_document_says(plane):
    here = ids(plane)
    key = plane.key("worker", ("worker", "environment/{environment}/cluster/{cluster}".format(**here)))
    paths = "^/worker/v1/(report|image|health|presence|events|profile|commands/outcome)"
    fuzz(plane, key.key, paths, CONFIG, *MAY_REFUSE)
