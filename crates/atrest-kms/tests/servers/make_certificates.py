"""Writes a CA and certificates for 127.0.0.1 to the directory given.

ECDSA, since PyKMIP offers TLS 1.2 only and rustls takes its GCM suites with ECDSA alone.
"""

import datetime
import ipaddress
import pathlib
import sys

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

target = pathlib.Path(sys.argv[1])
now = datetime.datetime.now(datetime.timezone.utc)


def write(name, certificate, key=None):
    pem = serialization.Encoding.PEM
    (target / f"{name}.pem").write_bytes(certificate.public_bytes(pem))
    if key is not None:
        path = target / f"{name}.key"
        path.write_bytes(
            key.private_bytes(
                pem,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        path.chmod(0o600)


def certificate(common_name, issuer=None, issuer_key=None, usage=None):
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer.subject if issuer else name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=2))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
    )
    if usage:
        names = [
            x509.DNSName("localhost"),
            x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
        ]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), False)
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), False)
    return builder.sign(issuer_key or key, hashes.SHA256()), key


ca, ca_key = certificate("test CA")
write("ca", ca)
write("other-ca", certificate("another CA")[0])
write("server", *certificate("server", ca, ca_key, ExtendedKeyUsageOID.SERVER_AUTH))
write("client", *certificate("client", ca, ca_key, ExtendedKeyUsageOID.CLIENT_AUTH))
write("stranger", *certificate("stranger", ca, ca_key, ExtendedKeyUsageOID.CLIENT_AUTH))
write("self-signed", *certificate("self-signed"))

# Google's service accounts have RSA keys.
for name in ("account", "other-account"):
    rsa_key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    private = rsa_key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = rsa_key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    (target / f"{name}.key").write_bytes(private)
    (target / f"{name}.pub").write_bytes(public)
