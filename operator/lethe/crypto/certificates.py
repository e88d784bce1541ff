"""X.509 certificates for the TLS of the key service: one authority of our own, one server certificate.

1. ECDSA on P-256, SHA-256: what every TLS 1.3 client speaks.
2. The authority signs servers and nothing below it (path length 0). Its private key stays in the namespace of Lethe.
3. A server certificate is renewed when less than half of its life is left, when its names are not the wanted ones, or
   when another authority signed it.

Source: RFC 5280.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Self

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from lethe.model.errors import CryptoError

AUTHORITY_LIFE: Final = timedelta(days=3650)
SERVER_LIFE: Final = timedelta(days=730)

_BACKDATED: Final = timedelta(minutes=5)
"""Clocks of clients may be behind."""


@dataclass(frozen=True)
class Credentials:
    """A certificate and its private key, both PEM."""

    certificate: bytes
    private_key: bytes

    @classmethod
    def _pack(cls, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> Self:
        return cls(
            certificate=certificate.public_bytes(serialization.Encoding.PEM),
            private_key=key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            ),
        )


class Authority(Credentials):
    """A certificate authority."""

    @classmethod
    def generate(cls, name: str, now: datetime) -> Self:
        """Make a new authority."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = _name(name)
        certificate = (
            _builder(subject, subject, key.public_key(), now, AUTHORITY_LIFE)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs_certificates=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        return cls._pack(certificate, key)

    def issue(self, names: tuple[str, ...], now: datetime) -> Credentials:
        """Make a server certificate for these DNS names, of which the first is also its subject."""
        authority = _load(self.certificate)
        signer = _load_key(self.private_key)
        key = ec.generate_private_key(ec.SECP256R1())
        life = min(SERVER_LIFE, authority.not_valid_after_utc - now)
        certificate = (
            _builder(_name(names[0]), authority.subject, key.public_key(), now, life)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
            .sign(signer, hashes.SHA256())
        )
        return Credentials._pack(certificate, key)

    def ends_at(self) -> datetime:
        """Return when the authority's own certificate ends."""
        return _load(self.certificate).not_valid_after_utc

    def why_renew(self, certificate: bytes, names: tuple[str, ...], now: datetime) -> str | None:
        """Say why a server certificate must be replaced, or None when it is good."""
        try:
            found = _load(certificate)
        except CryptoError as error:
            return str(error)
        try:
            found.verify_directly_issued_by(_load(self.certificate))
        except (InvalidSignature, ValueError, TypeError):
            return "another authority signed it"
        try:
            alternatives = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except x509.ExtensionNotFound:
            return "it has no names"
        if set(alternatives.get_values_for_type(x509.DNSName)) != set(names):
            return "its names are not the wanted ones"
        life = found.not_valid_after_utc - found.not_valid_before_utc
        if found.not_valid_after_utc - now < life / 2:
            return f"less than half of its life is left: it ends on {found.not_valid_after_utc:%Y-%m-%d}"
        return None


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime, life: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(now + life)
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _load(pem: bytes) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(pem)
    except ValueError as error:
        raise CryptoError("it is not a PEM certificate") from error


def _load_key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except ValueError as error:
        raise CryptoError("the authority's key is not an unencrypted PEM private key") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise CryptoError(f"the authority's key is a {type(key).__name__}, expected ECDSA")
    return key
