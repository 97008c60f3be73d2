"""Renews the gateway's certificate before it expires: a new key, the same names, signed by the stack's authority.

Settings are environment variables: NAMESPACE, and DAYS, the number of days before expiry.
"""

from __future__ import annotations

import base64
import os
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from kubernetes import client, config

MANAGER = "certificate-renewal"
CERTIFICATE, AUTHORITY = "certificate", "authority"
COPIED = (x509.BasicConstraints, x509.KeyUsage, x509.ExtendedKeyUsage, x509.SubjectAlternativeName)


def main() -> None:
    """Entry point.

    Raises:
        kubernetes.client.ApiException: a Secret is missing, or the API server refuses.
    """
    config.load_config()
    api, namespace = client.CoreV1Api(), os.environ["NAMESPACE"]
    secret = api.read_namespaced_secret(CERTIFICATE, namespace)
    current, _ = contents(secret)
    left = current.not_valid_after_utc - datetime.now(UTC)
    print(f"The certificate ends on {current.not_valid_after_utc:%Y-%m-%d}, in {left.days} days.")
    if left > timedelta(days=int(os.environ["DAYS"])):
        return
    renewed, key = renew(current, *contents(api.read_namespaced_secret(AUTHORITY, namespace)))
    put(api, secret, {"tls.crt": renewed.public_bytes(Encoding.PEM), "tls.key": key})
    print(f"Renewed: it ends on {renewed.not_valid_after_utc:%Y-%m-%d}.")


def contents(secret: client.V1Secret) -> tuple[x509.Certificate, bytes]:
    """Certificate and key, in PEM, of a Secret."""
    certificate, key = (base64.b64decode((secret.data or {})[part]) for part in ("tls.crt", "tls.key"))
    return x509.load_pem_x509_certificate(certificate), key


def put(api: client.CoreV1Api, secret: client.V1Secret, content: dict[str, bytes]) -> None:
    """Change a Secret as the manager that applied it, which can then apply it again without a conflict."""
    about = secret.metadata
    assert about is not None
    assert about.name is not None
    assert about.namespace is not None
    owner = next(
        (
            entry.manager
            for entry in about.managed_fields or ()
            if entry.operation == "Apply" and "f:tls.crt" in (entry.fields_v1 or {}).get("f:data", {})
        ),
        None,
    )
    data = {name: base64.b64encode(value).decode() for name, value in content.items()}
    if owner is None:
        api.patch_namespaced_secret(about.name, about.namespace, {"data": data}, field_manager=MANAGER)
        return
    named = {"name": about.name, "namespace": about.namespace, "labels": about.labels, "annotations": about.annotations}
    applied = {"apiVersion": "v1", "kind": "Secret", "metadata": named, "type": secret.type, "data": data}
    api.patch_namespaced_secret(
        about.name, about.namespace, applied, field_manager=owner, force=True,
        _content_type="application/apply-patch+yaml",
    )  # fmt: skip


def renew(
    current: x509.Certificate, authority: x509.Certificate, authority_key: bytes
) -> tuple[x509.Certificate, bytes]:
    """A certificate like the current one, with the same duration from now, and its key in PEM."""
    key, signer = ec.generate_private_key(ec.SECP256R1()), load_pem_private_key(authority_key, password=None)
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    # For clocks that are behind.
    begin = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)
    end = min(begin + (current.not_valid_after_utc - current.not_valid_before_utc), authority.not_valid_after_utc)
    builder = (
        x509.CertificateBuilder()
        .subject_name(current.subject)
        .issuer_name(authority.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )
    for extension in current.extensions:
        if isinstance(extension.value, COPIED):
            builder = builder.add_extension(extension.value, extension.critical)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return builder.sign(signer, hashes.SHA256()), pem


if __name__ == "__main__":
    main()
