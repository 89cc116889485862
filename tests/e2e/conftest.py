"""Fixtures: services and the program once a session, topics and folders of its own for each test."""

from __future__ import annotations

import itertools
import pathlib
import uuid

import pytest

import lab
import siltstone
import spark
from proxies import RegistryProxy
from stores import AzureContainer, Bucket, Folder, GoogleBucket


@pytest.fixture(scope="session", autouse=True)
def services():
    lab.start()
    yield
    spark.stop()


@pytest.fixture(scope="session")
def binary() -> pathlib.Path:
    return siltstone.build()


@pytest.fixture
def folder(tmp_path) -> Folder:
    return Folder(str(tmp_path / "lake"))


@pytest.fixture
def bucket() -> Bucket:
    return Bucket(f"run-{uuid.uuid4().hex[:10]}")


@pytest.fixture
def google() -> GoogleBucket:
    return GoogleBucket(f"run-{uuid.uuid4().hex[:10]}")


@pytest.fixture(params=[True, False], ids=["emulator", "endpoint"])
def azure(request) -> AzureContainer:
    return AzureContainer(f"run-{uuid.uuid4().hex[:10]}", request.param)


@pytest.fixture
def engine(binary, tmp_path, folder, services):
    """Makes engines: `engine([tables], clusters=..., store=..., env=...)`. Their workers end with the test."""
    made = []
    numbers = itertools.count()

    def make(tables, clusters=None, store=None, env=None) -> siltstone.Siltstone:
        home = tmp_path / f"engine-{next(numbers)}"
        home.mkdir()
        one = siltstone.Siltstone(binary, home, store or folder, tables, clusters, env)
        made.append(one)
        return one

    yield make
    for one in made:
        one.close()


@pytest.fixture
def registry_proxy(services):
    proxy = RegistryProxy(lab.address("REGISTRY"))
    yield proxy
    proxy.close()


@pytest.fixture
def name(request) -> str:
    """A table name of its own, told by the test's name."""
    words = "".join(c if c.isalnum() else "_" for c in request.node.name.removeprefix("test_"))[:40]
    return f"e2e.{words.lower().strip('_')}_{uuid.uuid4().hex[:6]}"
