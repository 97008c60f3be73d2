"""Types of single settings. Each reports what is wrong with a value, and what to write instead."""

import binascii
import difflib
import ipaddress
import re
from datetime import UTC, datetime
from typing import Annotated, NoReturn
from urllib.parse import urlsplit
from zoneinfo import available_timezones

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_der_public_key, load_ssh_public_key
from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from infra.naming import is_dns_label

Network4 = ipaddress.IPv4Network
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

DOMAIN_LIMIT = 189
"""Longest domain, in characters: leaves room for `<service>.` in a name of 253 (RFC 1035)."""
EXAMPLE_KEY = "MCowBQYDK2VwAyEAMuI/+Zn1MpNqAOVvmlVxHRFsD9namhtuRyuV0dARrh0="
_KEY = re.compile(r"(?:^|[\s,;])\S+[ \t]+AAAA[0-9A-Za-z+/]")
"""The beginning of a public key: its type and, in Base64, the length of that."""

FORGE_NAMES = {
    "admin", "api", "assets", "attachments", "avatar", "avatars", "captcha", "explore", "favicon.ico", "ghost",
    "gitea-actions", "gitops", "issues", "lab", "login", "manifest.json", "metrics", "milestones", "notifications",
    "org", "pulls", "repo", "repo-avatars", "robots.txt", "sitemap.xml", "ssh_info", "user", "v2",
}  # fmt: skip
"""Names that users of the forge cannot have: its administrator, its organization, the GitOps controller, and what Gitea
reserves."""


def refuse(problem: str, remedy: str) -> NoReturn:
    """Report an invalid value to pydantic."""
    raise PydanticCustomError("refused", "{problem}", {"problem": problem, "remedy": remedy})


def _network(value: object) -> Network:
    if not isinstance(value, str):
        refuse("is not a CIDR range in quotes", 'Write it as text, such as "10.42.0.0/24".')
    if value != value.strip():
        refuse("begins or ends with a space", "Remove the space.")
    try:
        interface = ipaddress.ip_interface(value)
    except ValueError:
        refuse("is not a CIDR range", 'Write a network such as "10.42.0.0/24".')
    network = _ipv4_of(interface.network)
    if "%" in value:
        refuse("has a zone ID, which is local to a machine", f'Write "{value.partition("%")[0]}/{network.prefixlen}".')
    if "/" not in value:
        refuse("has no prefix length", f'Add one, such as "{network}" for a single address.')
    if network.version != interface.version:
        refuse("is an IPv4-mapped IPv6 range, which no packet uses", f'Write "{network}".')
    if interface.ip != network.network_address:
        meant = f'"{network}"' if network.prefixlen else f'the intended prefix, such as "{interface.ip}/32"'
        refuse("has host bits set", f"Write {meant}.")
    return network


def _ipv4_of(network: Network) -> Network:
    """The range itself, or the IPv4 range of an IPv4-mapped IPv6 range (`::ffff:10.0.0.0/104`)."""
    mapped = network.network_address.ipv4_mapped if isinstance(network, ipaddress.IPv6Network) else None
    return network if mapped is None or network.prefixlen < 96 else Network4((mapped, network.prefixlen - 96))


def _network4(value: object) -> Network4:
    network = _network(value)
    if not isinstance(network, Network4):
        refuse("is an IPv6 range", 'Write an IPv4 range such as "10.42.0.0/24".')
    return network


def _image_key(value: object) -> str:
    remedy = "Write the line between the first and the last of `openssl pkey -in images.pem -pubout`."
    try:
        key = load_der_public_key(binascii.a2b_base64(value if isinstance(value, str) else "", strict_mode=True))
    except (ValueError, UnsupportedAlgorithm):
        refuse("is not a public key in Base64", remedy)
    if not isinstance(key, Ed25519PublicKey):
        refuse("is not a key of Ed25519", remedy)
    return str(value)


def _address4(value: object) -> ipaddress.IPv4Address:
    try:
        return ipaddress.IPv4Address(value if isinstance(value, str) else "")
    except ValueError:
        refuse("is not an IPv4 address", 'Write an address such as "9.9.9.9".')


def _instant(value: object) -> datetime:
    hint = 'Write it as "2026-12-01T18:00Z", or with an offset such as "+01:00".'
    try:
        instant = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    except ValueError:
        refuse("is not a date with a time", hint)
    if instant.tzinfo is None:
        refuse("has no time zone", hint)
    try:
        return instant.astimezone(UTC).replace(second=0, microsecond=0)
    except OverflowError:
        refuse("has a year out of range", hint)


def public_key(value: str) -> str:
    """One public key on one line, without surrounding space."""
    value = value.strip()
    if "PRIVATE KEY" in value:
        refuse("is a private key", "Use the public key: the content of the file that ends in .pub.")
    if "SSH2 PUBLIC KEY" in value:
        refuse("is a public key in PuTTY's format (RFC 4716)", "Convert its file: `ssh-keygen -i -f FILE`.")
    if (count := len(_KEY.findall(value))) > 1:
        refuse(f"has {count} keys, not one", "Keep one; add the others to ~/.ssh/authorized_keys on the nodes.")
    if len(value.splitlines()) > 1:
        refuse("has more than one line", "Keep the line with the key: `ssh-ed25519 AAAA... you@laptop`.")
    kind = value.partition(" ")[0]
    if kind == "ssh-dss" or "-cert-v" in kind:
        what = "a DSA key, which OpenSSH no longer accepts" if kind == "ssh-dss" else "a certificate, not a key"
        refuse(f"is {what}", "Create a key with `ssh-keygen -t ed25519`.")
    try:
        load_ssh_public_key(value.encode())
    except (ValueError, UnsupportedAlgorithm):
        refuse("is not an OpenSSH public key", "Write one line such as `ssh-ed25519 AAAA... you@laptop`.")
    return value


def _timezone(value: str) -> str:
    if value not in available_timezones():
        near = difflib.get_close_matches(value, available_timezones(), n=1)
        refuse("is not a time zone", f'Did you mean "{near[0]}"?' if near else 'Write one such as "America/Chicago".')
    return value


def none_or_section(value: object) -> object:
    """An optional section: None for `none`. A blank section is refused because its meaning is unclear."""
    if value is None or (isinstance(value, str) and not value.strip()):
        refuse("is blank", "Write `none` or a group of settings, or remove the key, which means `none`.")
    if isinstance(value, str) and value != "none":
        refuse("is neither `none` nor a group of settings", "Write `none`, or a group of settings.")
    return None if value == "none" else value


def _visible(value: str) -> str:
    if not value.isprintable():
        refuse("has a line break or an invisible character", "Type it again by hand.")
    return value


def _login(value: str) -> str:
    if not re.fullmatch(r"[a-z_][a-z0-9_-]{0,31}", value):
        refuse("is not a valid user name", "Use lower case letters, digits, - and _, such as debian, ubuntu or cc.")
    return value


def _forge_user(value: str) -> str:
    if not re.fullmatch(r"[a-z0-9]+(?:[-_.][a-z0-9]+)*", value) or len(value) > 39:
        refuse("is not a user name of the forge", "Use lower case letters and digits, with - _ or . between them.")
    if value in FORGE_NAMES:
        refuse("is a name that the forge has itself", "Choose another.")
    return value


def _version(value: str) -> str:
    if not re.fullmatch(r"v\d+\.\d+\.\d+", value):
        meant = f"v{value}" if re.fullmatch(r"\d+\.\d+\.\d+", value) else "v1.37.2"
        refuse("is not a version of Kubernetes", f'Write the full version, such as "{meant}" (`lab bundle ls`).')
    return value


def _domain(value: str) -> str:
    plain = _plain_domain(value)
    remedy = f'Write "{plain}".' if not _domain_problem(plain) else 'Write one such as "lab.example.org".'
    if _is_address(plain) or _is_address(value):
        refuse("is an address, not a domain", "Remove it: the services then have names under sslip.io.")
    if "/" in value:
        refuse("is a URL, not a domain", remedy)
    if ":" in value:
        refuse("has a port", remedy)
    if value.startswith("*"):
        refuse("has a wildcard", f"{remedy} Every service has a name below it.")
    if value.endswith("."):
        refuse("ends with a dot", remedy)
    if not value.isascii():
        refuse("has non-ASCII letters, which must be encoded (IDNA)", remedy)
    if value != value.lower():
        refuse("has capital letters", remedy)
    if problem := _domain_problem(value):
        refuse(*problem)
    return value


def _plain_domain(value: str) -> str:
    """The domain that was probably meant by a URL, a host with a port, a wildcard or a non-ASCII name."""
    try:
        host = urlsplit(value if "//" in value else f"//{value}").hostname or value
    except ValueError:
        host = value
    host = host.removeprefix("*.").rstrip(".").lower()
    try:
        return host.encode("idna").decode()
    except UnicodeError:
        return host


def _domain_problem(domain: str) -> tuple[str, str] | None:
    """Problem and remedy of an invalid domain."""
    labels = domain.split(".")
    if bad := [label for label in labels if not is_dns_label(label)]:
        shown = f"the part {bad[0]!r}, which is not valid in a host name" if bad[0] else "an empty part"
        return f"has {shown}", "Use at most 63 lower case letters, digits and inner hyphens in each part (RFC 1123)."
    if len(domain) > DOMAIN_LIMIT:
        return f"has {len(domain)} characters", f"Use at most {DOMAIN_LIMIT}: the services' names come before it."
    if len(labels) == 1:
        problem = "is a single word: clients do not accept a wildcard certificate for it"
        return problem, f'Write one with a dot, such as "{domain}.internal".'
    if labels[-1].isdigit():
        return "ends with a number, like an address", 'Write one such as "lab.example.org".'
    return None


def _endpoint(value: str) -> str:
    hint = 'Write it as "https://s3.example.org", with a port if it has one of its own.'
    try:
        url = urlsplit(value)
        host, _ = url.hostname, url.port
    except ValueError:
        refuse("is not a URL", hint)
    if url.scheme not in {"http", "https"} or not host:
        refuse("is not the URL of an S3 service", hint)
    if url.username is not None or url.password is not None:
        refuse("has a login in it", f"{hint} The keys are accessKey and the secret backupSecretKey.")
    if url.path.strip("/") or url.query or url.fragment:
        refuse("has more than a host and a port", f"{hint} The bucket has a setting of its own, and so has its prefix.")
    if host == "localhost" or (_is_address(host) and ipaddress.ip_address(host).is_loopback):
        refuse("is the pod itself that makes the copy", "Give an address that the cluster's nodes reach.")
    return value.rstrip("/")


def _git_url(value: str) -> str:
    hint = 'Write it as "https://git.example.org/team/cluster.git".'
    try:
        url = urlsplit(value)
        host, _ = url.hostname, url.port
    except ValueError:
        refuse("is not a URL", hint)
    if url.scheme not in {"http", "https"} or not host or not url.path.strip("/"):
        refuse("is not the URL of a Git repository over HTTP", hint)
    if url.username is not None or url.password is not None:
        refuse("has a login in it", f"{hint} The login is username and the secret gitopsPassword.")
    if url.query or url.fragment:
        refuse("has more than a path", hint)
    if host == "localhost" or (_is_address(host) and ipaddress.ip_address(host).is_loopback):
        refuse("is the pod itself that fetches it", "Give an address that the cluster's nodes reach.")
    return value.rstrip("/")


def _branch(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._/-]*", value) or ".." in value or value.endswith(("/", ".", ".lock")):
        refuse("is not the name of a branch", "Write one such as main, or release/2027.")
    return value


def _folder(value: str) -> str:
    if not _is_path(value):
        refuse("is not a folder of the repository", "Write it from the repository's root, such as k8s.")
    return value


def _bucket(value: str) -> str:
    if "/" in value:
        refuse("is a path or a URL, not a bucket", "Give the bucket alone; what is before the keys is prefix.")
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", value) or ".." in value or _is_address(value):
        refuse(
            "is not the name of a bucket",
            "Use 3 to 63 lower case letters, digits, hyphens and dots, such as lab-backups (S3, Bucket naming rules).",
        )
    return value


def _prefix(value: str) -> str:
    if not _is_path(value):
        refuse("is not what keys can begin with", "Use letters, digits, - and _, with / between the parts: course/dev.")
    return value


def _is_path(value: str) -> bool:
    return bool(re.fullmatch(r"[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*", value)) and not {".", ".."} & set(value.split("/"))


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text.strip("[]"))
    except ValueError:
        return False
    return True


def _mail_address(value: str) -> str:
    if not re.fullmatch(r"[^@\s<>,;]+@[^@\s<>,;]+", value) or _domain_problem(value.rpartition("@")[2].lower()):
        refuse("is not an email address", "Write one such as you@example.org.")
    return value


def _host_port(value: str) -> str:
    host, _, port = value.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536 or "/" in host:
        refuse("is not a host with a port", "Write such as mail.example.org:587.")
    return value


def _address_port(value: str) -> str:
    host, _, port = value.rpartition(":")
    if not _is_address(host) or ":" in host or not port.isdecimal() or not 0 < int(port) < 65536:
        refuse("is not an IPv4 address with a port", "Write such as 172.25.0.2:9180.")
    if ipaddress.ip_address(host).is_loopback:
        refuse("is the pod itself that asks", "Give an address that the cluster's nodes reach.")
    return value


def _text(form: str, *examples: str) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "format": form, "examples": list(examples)})


Cidr = Annotated[Network, BeforeValidator(_network), _text("CIDR", "192.0.2.0/24")]
Cidr4 = Annotated[Network4, BeforeValidator(_network4), _text("IPv4 CIDR", "192.0.2.0/24")]
Address4 = Annotated[ipaddress.IPv4Address, BeforeValidator(_address4), _text("IPv4 address", "192.0.2.1")]
Instant = Annotated[datetime, BeforeValidator(_instant), _text("date and time with its zone (ISO 8601)")]
PublicKey = Annotated[str, AfterValidator(public_key), _text("OpenSSH public key")]
ImageKey = Annotated[str, AfterValidator(_image_key), _text("Ed25519 public key in Base64", EXAMPLE_KEY)]
TimeZone = Annotated[str, AfterValidator(_timezone), _text("IANA time zone")]
Name = Annotated[
    str, Field(min_length=1, max_length=255, pattern=r"(?s)^\S(.*\S)?$", examples=["name"]), AfterValidator(_visible)
]
ForgeUser = Annotated[str, AfterValidator(_forge_user), _text("text", "ada")]
Login = Annotated[str, AfterValidator(_login), _text("text", "debian")]
Version = Annotated[str, AfterValidator(_version), _text("text", "v1.37.2")]
Domain = Annotated[str, AfterValidator(_domain), _text("domain name", "lab.example.org")]
MailAddress = Annotated[str, AfterValidator(_mail_address), _text("mail address", "you@example.org")]
HostPort = Annotated[str, AfterValidator(_host_port), _text("host:port", "mail.example.org:587")]
AddressPort = Annotated[str, AfterValidator(_address_port), _text("IPv4 address:port", "172.25.0.2:9180")]
Port = Annotated[int, Field(ge=1, le=65535, examples=[1])]
Endpoint = Annotated[str, AfterValidator(_endpoint), _text("URL of an S3 service", "https://s3.example.org")]
Bucket = Annotated[str, AfterValidator(_bucket), _text("name of a bucket", "lab-backups")]
Prefix = Annotated[str, AfterValidator(_prefix), _text("text", "course/dev")]
GitUrl = Annotated[
    str, AfterValidator(_git_url), _text("URL of a Git repository", "https://git.example.org/team/cluster.git")
]
Branch = Annotated[str, AfterValidator(_branch), _text("text", "main")]
Folder = Annotated[str, AfterValidator(_folder), _text("text", "k8s")]
