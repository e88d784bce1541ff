"""Certificates of a test cluster: one authority, P-256 keys, files that are made once and kept.

A certificate file that is there is taken as it is: the folder belongs to one cluster and goes with it.
"""

import base64
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from .folders import write_private

LIFETIME = timedelta(days=365)
CLOCK_SKEW = timedelta(minutes=10)


@dataclass(frozen=True, kw_only=True)
class Pair:
    """The files of a certificate and its private key."""

    certificate: Path
    key: Path


class Authority:
    """A certificate authority whose files lie in one folder."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self.pair = Pair(certificate=folder / "ca.crt", key=folder / "ca.key")
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])

    def create(self) -> None:
        """Make the authority's key and certificate unless they are there."""
        if self.pair.certificate.exists():
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        key = ec.generate_private_key(ec.SECP256R1())
        usage = x509.KeyUsage(
            digital_signature=True, key_cert_sign=True, crl_sign=True, content_commitment=False, key_encipherment=False,
            data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
        )  # fmt: skip
        certificate = (
            _builder(self._name, self._name, key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        _write(self.pair, key, certificate)

    def issue(self, file: str, *, name: str, organization: str = "", hosts: Sequence[str] = ()) -> Pair:
        """Return the certificate kept under this file name; hosts are DNS names and IP addresses.

        One that does not name them all is replaced: a Docker engine that starts again may give nodes other addresses.
        """
        pair = Pair(certificate=self.folder / f"{file}.crt", key=self.folder / f"{file}.key")
        if pair.certificate.exists() and set(hosts) <= _hosts(pair.certificate):
            return pair
        authority_key = serialization.load_pem_private_key(self.pair.key.read_bytes(), None)
        assert isinstance(authority_key, ec.EllipticCurvePrivateKey)
        subject = [x509.NameAttribute(NameOID.COMMON_NAME, name)]
        if organization:
            subject.insert(0, x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization))
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(x509.Name(subject), self._name, key.public_key())
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        usages = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        signer = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key())
        builder = builder.add_extension(signer, critical=False)
        if hosts:
            names = x509.SubjectAlternativeName([_general_name(host) for host in hosts])
            builder = builder.add_extension(names, critical=False)
        _write(pair, key, builder.sign(authority_key, hashes.SHA256()))
        return pair

    def kubeconfig(self, path: Path, *, server: str, pair: Pair, context: str) -> Path:
        """Write a kubeconfig that holds its certificates itself."""

        def embedded(file: Path) -> str:
            return base64.b64encode(file.read_bytes()).decode()

        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {
                    "name": context,
                    "cluster": {"server": server, "certificate-authority-data": embedded(self.pair.certificate)},
                }
            ],
            "users": [
                {
                    "name": context,
                    "user": {
                        "client-certificate-data": embedded(pair.certificate),
                        "client-key-data": embedded(pair.key),
                    },
                }
            ],
            "contexts": [{"name": context, "context": {"cluster": context, "user": context}}],
            "current-context": context,
        }
        write_private(path, yaml.safe_dump(document).encode())
        return path


def service_account_key(folder: Path) -> Pair:
    """Return the key pair that signs service account tokens (RSA, as kubeadm makes it)."""
    pair = Pair(certificate=folder / "service-accounts.pub", key=folder / "service-accounts.key")
    if not pair.certificate.exists():
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        write_private(pair.key, _private_pem(key))
        public = key.public_key()
        pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        write_private(pair.certificate, pem)
    return pair


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return x509.CertificateBuilder(
        subject_name=subject,
        issuer_name=issuer,
        public_key=key,
        serial_number=x509.random_serial_number(),
        not_valid_before=now - CLOCK_SKEW,
        not_valid_after=now + LIFETIME,
    )


def _hosts(certificate: Path) -> set[str]:
    """Return what a certificate vouches for."""
    extensions = x509.load_pem_x509_certificate(certificate.read_bytes()).extensions
    try:
        names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return set()
    return {str(name.value) for name in names}


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _private_pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write(pair: Pair, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
    # The certificate comes last: where it is, the key is too.
    write_private(pair.key, _private_pem(key))
    write_private(pair.certificate, certificate.public_bytes(serialization.Encoding.PEM))
