"""Generated passwords and certificates: dynamic resources, stored only in the stack's state, encrypted."""

import secrets
import string
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any

from pulumi import Input, Output, ResourceOptions, dynamic
from pulumi.dynamic import CheckResult, CreateResult, DiffResult, UpdateResult

PASSWORD_LENGTH = 32
"""Letters and digits: 190 bits, and no characters that are special in URLs or shells."""
AUTHORITY_DAYS = 3650
CERTIFICATE_DAYS = 397
"""The maximum that browsers accept (CA/Browser Forum, Baseline Requirements 6.3.2, until 2026-03)."""
RENEW_DAYS = 30
"""The next `up` renews a certificate with fewer days left."""


class PasswordProvider(dynamic.ResourceProvider):
    """Generates a password once."""

    serialize_as_secret_always = False

    def diff(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> DiffResult:
        """A password never changes; `lab up --replace` generates a new one."""
        return DiffResult(changes=False)

    def create(self, props: dict[str, Any]) -> CreateResult:
        """Generate the password."""
        letters = string.ascii_letters + string.digits
        value = "".join(secrets.choice(letters) for _ in range(PASSWORD_LENGTH))
        return CreateResult(secrets.token_hex(8), {**props, "value": value})


class Password(dynamic.Resource, module="credentials", name="Password"):
    """A random password."""

    value: Output[str]

    def __init__(self, name: str, opts: ResourceOptions | None = None) -> None:
        secret = ResourceOptions.merge(opts, ResourceOptions(additional_secret_outputs=["value"]))
        super().__init__(PasswordProvider(), name, {"value": None}, secret)


class CertificateProvider(dynamic.ResourceProvider):
    """Issues a certificate with its key: for a CA, or signed by one."""

    serialize_as_secret_always = False

    def check(self, olds: dict[str, Any], news: dict[str, Any]) -> CheckResult:
        """Record the day of issue in the inputs, so that a preview shows a renewal.

        Pulumi passes the old inputs to `check`, not the outputs.
        """
        today = datetime.now(UTC).date()
        issued = date.fromisoformat(olds["issued"]) if "issued" in olds else today
        validity = CERTIFICATE_DAYS if news.get("authority_certificate") else AUTHORITY_DAYS
        due = issued + timedelta(days=validity - RENEW_DAYS) <= today
        return CheckResult({**news, "issued": (today if due else issued).isoformat()}, [])

    def diff(self, _id: str, olds: dict[str, Any], news: dict[str, Any]) -> DiffResult:
        """New names, a new CA or an approaching end are an update."""
        keys = ["names", "authority_certificate"]
        if "issued" in olds:
            keys.append("issued")
        return DiffResult(changes=any(olds.get(key) != news.get(key) for key in keys))

    def create(self, props: dict[str, Any]) -> CreateResult:
        """Issue key and certificate."""
        return CreateResult(secrets.token_hex(8), {**props, **issue(props)})

    def update(self, _id: str, _olds: dict[str, Any], news: dict[str, Any]) -> UpdateResult:
        """Issue both again."""
        return UpdateResult({**news, **issue(news)})


class Certificate(dynamic.Resource, module="credentials", name="Certificate"):
    """A TLS certificate with its key, in PEM. Without `authority` it is a CA."""

    certificate: Output[str]
    key: Output[str]

    def __init__(
        self,
        name: str,
        names: Input[list[str]],
        authority: "Certificate | None" = None,
        opts: ResourceOptions | None = None,
    ) -> None:
        props: dict[str, Any] = {"names": names, **dict.fromkeys(("certificate", "key", "expires"))}
        if authority is not None:
            props |= {"authority_certificate": authority.certificate, "authority_key": authority.key}
        secret = ResourceOptions.merge(opts, ResourceOptions(additional_secret_outputs=["key", "authority_key"]))
        super().__init__(CertificateProvider(), name, props, secret)


def issue(props: Mapping[str, Any]) -> dict[str, str]:
    """Issue key and certificate; return them with the end. The first of `names` is the subject; a CA has no others."""
    # Imported here because the program and previews do not need it.
    from cryptography import x509  # noqa: PLC0415
    from cryptography.hazmat.primitives import hashes  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415
    from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415
        Encoding,
        NoEncryption,
        PrivateFormat,
        load_pem_private_key,
    )
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID  # noqa: PLC0415

    key = ec.generate_private_key(ec.SECP256R1())
    names = [str(name) for name in props["names"]]
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:64])])
    is_authority = not props.get("authority_certificate")
    # Starts early, because clocks differ.
    begin = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)
    end = begin + timedelta(days=AUTHORITY_DAYS if is_authority else CERTIFICATE_DAYS)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=0 if is_authority else None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.KeyUsage(
                digital_signature=not is_authority,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                key_cert_sign=is_authority,
                crl_sign=is_authority,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
    )
    if is_authority:
        certificate = builder.issuer_name(subject).sign(key, hashes.SHA256())
    else:
        issuer = x509.load_pem_x509_certificate(props["authority_certificate"].encode())
        issuer_key = load_pem_private_key(props["authority_key"].encode(), password=None)
        assert isinstance(issuer_key, ec.EllipticCurvePrivateKey)
        certificate = (
            builder.issuer_name(issuer.subject)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
            .sign(issuer_key, hashes.SHA256())
        )
    return {
        "certificate": certificate.public_bytes(Encoding.PEM).decode(),
        "key": key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode(),
        "expires": end.isoformat(),
    }
