"""Certificates of the test cluster."""

import ipaddress
from pathlib import Path

import pytest
import yaml
from cryptography import x509
from cryptography.x509.oid import NameOID

from tests.cluster.pki import Authority


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    made = Authority(tmp_path, "test-authority")
    made.create()
    return made


def test_a_certificate_is_signed_by_the_authority_and_names_its_hosts(authority: Authority) -> None:
    pair = authority.issue("node", name="system:node:n", organization="system:nodes", hosts=["n", "10.0.0.1"])
    certificate = x509.load_pem_x509_certificate(pair.certificate.read_bytes())
    certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(authority.pair.certificate.read_bytes()))
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["n"]
    assert names.get_values_for_type(x509.IPAddress) == [ipaddress.ip_address("10.0.0.1")]
    [organization] = certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    assert organization.value == "system:nodes"


def test_what_is_there_is_kept(authority: Authority) -> None:
    before = authority.pair.certificate.read_bytes(), authority.issue("a", name="a").certificate.read_bytes()
    authority.create()
    assert (authority.pair.certificate.read_bytes(), authority.issue("a", name="a").certificate.read_bytes()) == before


def test_private_keys_are_their_owners_only(authority: Authority) -> None:
    pair = authority.issue("a", name="a")
    assert {path.stat().st_mode & 0o777 for path in (pair.key, authority.pair.key)} == {0o600}


def test_a_kubeconfig_holds_its_certificates_itself(authority: Authority, tmp_path: Path) -> None:
    pair = authority.issue("admin", name="admin")
    path = authority.kubeconfig(tmp_path / "kubeconfig", server="https://10.0.0.1:6443", pair=pair, context="c")
    document = yaml.safe_load(path.read_text())
    assert document["current-context"] == "c"
    assert document["clusters"][0]["cluster"]["server"] == "https://10.0.0.1:6443"
    assert set(document["users"][0]["user"]) == {"client-certificate-data", "client-key-data"}


def test_a_certificate_is_kept_until_it_lacks_a_host(authority: Authority) -> None:
    first = authority.issue("server", name="s3", hosts=["localhost", "172.18.0.2"]).certificate.read_bytes()
    assert authority.issue("server", name="s3", hosts=["172.18.0.2"]).certificate.read_bytes() == first
    moved = authority.issue("server", name="s3", hosts=["localhost", "172.18.0.7"]).certificate
    names = x509.load_pem_x509_certificate(moved.read_bytes()).extensions
    assert "172.18.0.7" in str(names.get_extension_for_class(x509.SubjectAlternativeName).value)
