import ssl
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509

from lethe.crypto.certificates import SERVER_LIFE, Authority, Credentials
from lethe.model.errors import CryptoError

NOW = datetime(2030, 1, 1, tzinfo=UTC)
NAMES = ("keys.example", "keys")


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.generate("test", NOW)


def test_a_strict_client_takes_the_server(authority: Authority, tmp_path: pytest.TempPathFactory) -> None:
    """A real TLS 1.3 handshake in memory, with RFC 5280's checks."""
    now = datetime.now(UTC)
    fresh = Authority.generate("test", now)
    issued = fresh.issue(NAMES, now)
    chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"  # type: ignore[operator]
    chain.write_bytes(issued.certificate)
    key.write_bytes(issued.private_key)
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_side.load_cert_chain(chain, key)
    client_side = ssl.create_default_context(cadata=fresh.certificate.decode())
    client_side.verify_flags |= ssl.VERIFY_X509_STRICT
    client_side.minimum_version = ssl.TLSVersion.TLSv1_3
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_side.wrap_bio(to_client, to_server, server_hostname=NAMES[0])
    server = server_side.wrap_bio(to_server, to_client, server_side=True)
    for side in (client, server, client, server):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
    assert client.version() == "TLSv1.3"
    assert ("DNS", NAMES[0]) in client.getpeercert()["subjectAltName"]  # type: ignore[index,operator]


def test_a_server_is_no_authority(authority: Authority) -> None:
    certificate = x509.load_pem_x509_certificate(authority.issue(NAMES, NOW).certificate)
    assert certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False
    own = x509.load_pem_x509_certificate(authority.certificate)
    assert own.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length == 0


@pytest.mark.parametrize(
    ("later", "reason"),
    [
        (timedelta(0), None),
        (SERVER_LIFE / 2 - timedelta(days=1), None),
        (SERVER_LIFE / 2 + timedelta(days=1), "less than half"),
        (SERVER_LIFE + timedelta(days=1), "less than half"),
    ],
    ids=["new", "before half", "after half", "ended"],
)
def test_renewal_comes_in_time(authority: Authority, later: timedelta, reason: str | None) -> None:
    why = authority.why_renew(authority.issue(NAMES, NOW).certificate, NAMES, NOW + later)
    assert (why is None) if reason is None else (why is not None and reason in why)


@pytest.mark.parametrize(
    ("certificate", "reason"),
    [
        (Authority.generate("other", NOW).issue(NAMES, NOW).certificate, "another authority"),
        (b"nonsense", "not a PEM certificate"),
    ],
    ids=["other authority", "no certificate"],
)
def test_a_certificate_of_no_use_is_renewed(authority: Authority, certificate: bytes, reason: str) -> None:
    assert reason in (authority.why_renew(certificate, NAMES, NOW) or "")


def test_other_names_are_renewed(authority: Authority) -> None:
    assert "names" in (authority.why_renew(authority.issue(NAMES[:1], NOW).certificate, NAMES, NOW) or "")


def test_a_server_does_not_outlive_its_authority(authority: Authority) -> None:
    late = authority.ends_at() - timedelta(days=30)
    certificate = x509.load_pem_x509_certificate(authority.issue(NAMES, late).certificate)
    assert certificate.not_valid_after_utc <= authority.ends_at()


def test_two_authorities_differ(authority: Authority) -> None:
    assert Authority.generate("test", NOW).private_key != authority.private_key


@pytest.mark.parametrize("key", [b"nonsense", b""])
def test_a_broken_authority_says_so(authority: Authority, key: bytes) -> None:
    with pytest.raises(CryptoError, match="private key"):
        Authority(certificate=authority.certificate, private_key=key).issue(NAMES, NOW)


def test_credentials_are_pem(authority: Authority) -> None:
    issued: Credentials = authority.issue(NAMES, NOW)
    assert issued.certificate.startswith(b"-----BEGIN CERTIFICATE-----")
    assert issued.private_key.startswith(b"-----BEGIN PRIVATE KEY-----")
