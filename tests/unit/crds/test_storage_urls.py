"""The rules for a storage URL in the custom resources; the API server's own evaluation is in tests/apiserver."""

import re
from typing import Any

import pytest
import yaml

from tests.cluster.folders import PROJECT

READ_AND_WRITTEN = [
    "s3://acme",
    "s3://acme/digits/v1",
    "gs://acme_data.example/digits",
    "abfss://acme@account1.dfs.core.windows.net/digits",
]
READ = ["https://data.example.com:8443/digits", "https://data.example.com"]
REFUSED = [
    "s3://acme/",
    "s3://Acme/x",
    "gs://acme/x?y",
    "abfss://acme/digits",
    "abfss://acme@account1.blob.core.windows.net/x",
    "abfss://acme@evil.example/x.dfs.core.windows.net",
    "az://acme/x",
    "http://data.example.com/x",
    "https://user@data.example.com/x",
    "file:///etc",
    "s3://acme/x\nhttps://evil",
]


def patterns(name: str, *path: str) -> list[str]:
    """Return the patterns of which a URL must match one."""
    document = yaml.safe_load((PROJECT / "crds" / f"{name}.yaml").read_text())
    found: Any = document["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    for step in ("spec", *path, "storage", "url"):
        found = found["properties"][step]
    return re.findall(r"self\.matches\('(\^.*?\$)'\)", found["x-kubernetes-validations"][0]["rule"])


def matches(found: list[str], url: str) -> bool:
    # RE2's $ is the end of the text, Python's also the place before a last line break.
    return any(re.search(pattern.removesuffix("$") + r"\Z", url) for pattern in found)


@pytest.mark.parametrize("url", READ_AND_WRITTEN)
def test_datasets_and_outputs_lie_in_buckets(url: str) -> None:
    assert matches(patterns("encrypteddatasets"), url)
    assert matches(patterns("securetrainingjobs", "outputs"), url)


@pytest.mark.parametrize("url", READ)
def test_only_datasets_lie_on_web_servers(url: str) -> None:
    assert matches(patterns("encrypteddatasets"), url)
    assert not matches(patterns("securetrainingjobs", "outputs"), url)


@pytest.mark.parametrize("url", REFUSED)
def test_others_are_refused(url: str) -> None:
    assert not matches(patterns("encrypteddatasets"), url)
    assert not matches(patterns("securetrainingjobs", "outputs"), url)
