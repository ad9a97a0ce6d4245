"""Who may connect to the CSMS: the security profiles of OCPP.

=======  =========================================================================================
profile  how a station and the CSMS know each other
=======  =========================================================================================
0        not at all: on the loopback interface only
1        HTTP basic authentication: the identity as user name, and its password
2        the same over TLS; the station checks the CSMS's certificate
3        TLS with certificates on both sides: the station's names its identity
=======  =========================================================================================

Passwords are kept as salted scrypt hashes, one line a station: ``IDENTITY:scrypt:SALT:HASH``, as
``evgrid ocpp password`` prints it. They are compared in constant time, and never logged or printed.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import ipaddress
import secrets
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evgrid.errors import ScenarioError

MAX_MESSAGE_BYTES = 1 << 18
"""Largest message that the CSMS reads, bytes."""
MESSAGES_PER_S, BURST = 50.0, 500.0
"""Messages of a station that are read in a second on average, and at once; the others wait."""
MALFORMED = 10
"""Malformed messages in a row after which a station is cut off."""
SILENT = 3
"""Requests without an answer after which a station in lockstep, where each holds up the run, is cut off."""
_COST = 2**12


def hashed(password: str, salt: bytes | None = None) -> str:
    """What is kept of a password: ``scrypt:SALT:HASH`` in hexadecimal digits."""
    salt = secrets.token_bytes(16) if salt is None else salt
    digest = hashlib.scrypt(password.encode(), salt=salt, n=_COST, r=8, p=1, dklen=32)
    return f"scrypt:{salt.hex()}:{digest.hex()}"


def read_passwords(path: Path) -> dict[str, str]:
    """The hashes of a file of passwords by identity; empty lines and those that begin with # are left out.

    Raises
    ------
    ScenarioError
        If it can't be read, or for every line that is none; the lines are not quoted.

    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ScenarioError([f"passwords {path} can't be read: {error}"]) from None
    found, faults = dict[str, str](), []
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        identity, _, kept = line.strip().partition(":")
        parts = kept.split(":")
        good = len(parts) == 3 and parts[0] == "scrypt" and len(parts[2]) == 64
        try:
            bytes.fromhex("".join(parts[1:]))
        except ValueError:
            good = False
        if not good or not identity:
            faults.append(
                f"passwords {path}, line {number}: must be IDENTITY:scrypt:SALT:HASH, as evgrid ocpp "
                "password prints it"
            )
        elif identity in found:
            faults.append(f"passwords {path}, line {number}: {identity} is given twice")
        found[identity] = kept
    if faults:
        raise ScenarioError(faults)
    return found


@dataclass(frozen=True)
class Security:
    """How stations are known.

    passwords : hashes by identity; None: no basic authentication
    certificate, key : of the CSMS, PEM files; None: no TLS
    client_ca : certificates of who signs those of the stations, PEM file; None: stations need none
    """

    passwords: Mapping[str, str] | None = field(default=None, repr=False)
    certificate: Path | None = None
    key: Path | None = None
    client_ca: Path | None = None

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise ScenarioError(["--tls-cert and --tls-key are given together"])
        if self.client_ca is not None and self.certificate is None:
            raise ScenarioError(
                ["--client-ca needs --tls-cert and --tls-key: certificates are shown over TLS"]
            )

    @property
    def profile(self) -> int:
        """Security profile of OCPP, 1 to 3; 0: none."""
        if self.client_ca is not None:
            return 3
        if self.passwords is None:
            return 0
        return 2 if self.certificate is not None else 1

    def check_address(self, host: str) -> None:
        """Raise ScenarioError for an address that others reach, without authentication."""
        try:
            loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
        except ValueError:
            loopback = False
        if not loopback and self.profile == 0:
            raise ScenarioError(
                [f"--listen {host}: an address other than loopback needs authentication: give --passwords, "
                 "or --client-ca with --tls-cert and --tls-key"]
            )  # fmt: skip

    def context(self) -> ssl.SSLContext | None:
        """The TLS context, None without TLS. Raises ScenarioError for files that are at fault."""
        if self.certificate is None:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_cert_chain(self.certificate, self.key)
            if self.client_ca is not None:
                context.load_verify_locations(self.client_ca)
                context.verify_mode = ssl.CERT_REQUIRED
        except (OSError, ssl.SSLError) as error:
            raise ScenarioError([f"the TLS files can't be used: {error}"]) from None
        return context

    def admits(self, identity: str, authorization: str | None, certificate: Mapping[str, Any] | None) -> bool:
        """Whether who says that it is ``identity`` has shown it.

        authorization : the header of basic authentication
        certificate : as ``ssl.SSLSocket.getpeercert`` gives it
        """
        if self.client_ca is not None and identity not in names_of(certificate):
            return False
        if self.passwords is None:
            return True
        user, password = _credentials(authorization)
        kept = self.passwords.get(identity)
        compared = kept or hashed("", b"as long as with a known identity")
        salt = bytes.fromhex(compared.split(":")[1])
        same = hmac.compare_digest(hashed(password, salt), compared)
        return same and kept is not None and hmac.compare_digest(user.encode(), identity.encode())


def names_of(certificate: Mapping[str, Any] | None) -> set[str]:
    """Common name and DNS names of a certificate."""
    if not certificate:
        return set()
    subject = {key: value for parts in certificate.get("subject", ()) for key, value in parts}
    names = {value for kind, value in certificate.get("subjectAltName", ()) if kind == "DNS"}
    return names | ({subject["commonName"]} if "commonName" in subject else set())


def _credentials(authorization: str | None) -> tuple[str, str]:
    """User and password of basic authentication; empty ones where there is none."""
    scheme, _, given = (authorization or "").partition(" ")
    if scheme.lower() != "basic":
        return "", ""
    try:
        user, _, password = base64.b64decode(given, validate=True).decode("utf-8").partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return "", ""
    return user, password
