"""The rules for a storage URL in the custom resources, one text in all of them (`test_schemas`).

They are matched here as Python matches; the API server's own evaluation is in tests/apiserver.
"""

import re
from typing import Any

import pytest
import yaml

from tests.cluster.folders import PROJECT

ACCEPTED = [
    "s3://acme",
    "s3://acme/digits/v1",
    "gs://acme_data.example/digits",
    "abfss://acme@account1.dfs.core.windows.net/digits",
    "https://data.example.com:8443/digits",
    "https://data.example.com",
]
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


def schema(name: str) -> Any:
    """Return the schema of a custom resource's spec."""
    document = yaml.safe_load((PROJECT / "crds" / f"{name}.yaml").read_text())
    return document["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]


def patterns(name: str) -> list[str]:
    """Return the patterns of which a storage URL must match one."""
    url = schema(name)["properties"]["storage"]["properties"]["url"]
    return re.findall(r"self\.matches\('(\^.*?\$)'\)", url["x-kubernetes-validations"][0]["rule"])


def matches(found: list[str], url: str) -> bool:
    # RE2's $ is the end of the text, Python's also the place before a last line break.
    return any(re.search(pattern.removesuffix("$") + r"\Z", url) for pattern in found)


@pytest.mark.parametrize("url", ACCEPTED)
def test_datasets_lie_in_buckets_and_on_web_servers(url: str) -> None:
    assert matches(patterns("encrypteddatasets"), url)


def test_results_go_to_no_web_server() -> None:
    outputs = schema("securetrainingjobs")["properties"]["outputs"]
    assert [rule["rule"] for rule in outputs["x-kubernetes-validations"]] == [
        "!self.storage.url.startsWith('https://')"
    ]


@pytest.mark.parametrize("url", REFUSED)
def test_others_are_refused(url: str) -> None:
    assert not matches(patterns("encrypteddatasets"), url)
