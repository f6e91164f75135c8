"""The webhook's own certificates: an authority, a serving certificate, and when each is followed by another.

Pure but for the random numbers in new keys: the time is an argument, and where a bundle is kept is
`webhook.certificates.stores`'. An authority is replaced in three steps, each when the one before has had time to reach everybody:
first the new one is trusted beside the old one, then it signs, then the old one is forgotten. So no handshake fails, whichever
client learns of a step first.
"""

from __future__ import annotations

import datetime
import ipaddress
import secrets
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from webhook.certificates.stores import Files
from webhook.errors import CertificateError

AUTHORITIES_FILE, AUTHORITY_KEY_FILE, SERVING_FILE, SERVING_KEY_FILE = "ca.crt", "ca.key", "tls.crt", "tls.key"
"""As a Secret of type kubernetes.io/tls names them, and the authority beside them."""

BACKDATED_SECONDS = 10 * 365 * 24 * 3600
"""A certificate begins this long before it is made. So one that is made while our clock is a year ahead is good now, too, and a
clock that falls back finds none that has yet to begin."""
RENEWED_AT = 0.6
"""The part of a certificate's life after which another is made: before two thirds, with time left to find out that it failed."""
AUTHORITIES_MAX = 4
"""Authorities trusted at once; more could only come from a clock that jumps about."""


@dataclass(frozen=True)
class Lifetimes:
    """All in seconds."""

    serving: float
    authority: float
    overlap: float
    """How long each step of an authority's replacement has before the next: every replica and API server knows of it by then."""


@dataclass(frozen=True)
class Bundle:
    """Everything that is kept. `authorities` are trusted, the newest first; its key is None when somebody else signs."""

    authorities: tuple[x509.Certificate, ...]
    authority_key: ec.EllipticCurvePrivateKey | None
    serving: x509.Certificate
    files: Files
    """The same, as it is stored."""

    @property
    def trust(self) -> bytes:
        """The authorities in PEM: what a client has to trust, and what goes into caBundle."""
        return self.files.get(AUTHORITIES_FILE, b"")

    def serves(self, now: float) -> bool:
        """Whether a client accepts the serving certificate now."""
        return _valid(self.serving, now)


def advanced(files: Files | None, names: tuple[str, ...], lifetimes: Lifetimes, now: float) -> Files:
    """What should be stored in place of `files` (None: nothing is stored): the same unless something is missing or due.

    A serving certificate without an authority's key beside it was given to us, and is never touched. Raises CertificateError
    if it is broken.
    """
    bundle = parse(files) if files else None
    if bundle is None and files and SERVING_FILE in files and AUTHORITY_KEY_FILE not in files:
        raise CertificateError(f"{SERVING_FILE} and {SERVING_KEY_FILE} are no certificate and key that belong together")
    if bundle is None:
        return _first(names, lifetimes, now)
    if bundle.authority_key is None:
        return bundle.files
    newest = bundle.authorities[0]
    if not _valid(newest, now) or _due(newest, now):
        return _with_another_authority(bundle, names, lifetimes, now)
    signed_by_newest = _signed_by(bundle.serving, newest)
    announced = now - _made(newest) >= lifetimes.overlap
    if not bundle.serves(now) or not _is_for(bundle.serving, names) or (announced and not signed_by_newest):
        return _with_another_serving(bundle, names, lifetimes, now)
    if _due(bundle.serving, now) and signed_by_newest:
        return _with_another_serving(bundle, names, lifetimes, now)
    if len(bundle.authorities) > 1 and signed_by_newest and now - _made(bundle.serving) >= lifetimes.overlap:
        return {**bundle.files, AUTHORITIES_FILE: _pem(newest)}
    return bundle.files


def parse(files: Files) -> Bundle | None:
    """The bundle in the files, or None if they hold none that belongs together, such as after a crash between two of them."""
    try:
        serving = x509.load_pem_x509_certificate(files[SERVING_FILE])
        serving_key = serialization.load_pem_private_key(files[SERVING_KEY_FILE], None)
        authorities = tuple(x509.load_pem_x509_certificates(files[AUTHORITIES_FILE])) if files.get(AUTHORITIES_FILE) else ()
        authority_key = (
            serialization.load_pem_private_key(files[AUTHORITY_KEY_FILE], None) if files.get(AUTHORITY_KEY_FILE) else None
        )
    except (KeyError, ValueError, TypeError):
        return None
    if serving_key.public_key() != serving.public_key():
        return None
    if authority_key is None:
        return Bundle(authorities, None, serving, files)
    if not isinstance(authority_key, ec.EllipticCurvePrivateKey) or not authorities:
        return None
    if authority_key.public_key() != authorities[0].public_key():
        return None
    return Bundle(authorities, authority_key, serving, files)


def _first(names: tuple[str, ...], lifetimes: Lifetimes, now: float) -> Files:
    key, authority = _make_authority(lifetimes, now)
    # The authority's key first: what a crash leaves behind is then known to be ours.
    return {
        AUTHORITY_KEY_FILE: _key_pem(key),
        AUTHORITIES_FILE: _pem(authority),
        **_make_serving(authority, key, names, lifetimes, now),
    }


def _with_another_authority(bundle: Bundle, names: tuple[str, ...], lifetimes: Lifetimes, now: float) -> Files:
    key, authority = _make_authority(lifetimes, now)
    old = tuple(certificate for certificate in bundle.authorities if _valid(certificate, now))
    trusted = (authority, *old)[:AUTHORITIES_MAX]
    files = {**bundle.files, AUTHORITIES_FILE: b"".join(map(_pem, trusted)), AUTHORITY_KEY_FILE: _key_pem(key)}
    accepted = bundle.serves(now) and any(_signed_by(bundle.serving, certificate) for certificate in old)
    return files if accepted else {**files, **_make_serving(authority, key, names, lifetimes, now)}


def _with_another_serving(bundle: Bundle, names: tuple[str, ...], lifetimes: Lifetimes, now: float) -> Files:
    assert bundle.authority_key is not None  # noqa: S101 (for the type checker; `advanced` returned before)
    return {**bundle.files, **_make_serving(bundle.authorities[0], bundle.authority_key, names, lifetimes, now)}


def _make_authority(lifetimes: Lifetimes, now: float) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    key = ec.generate_private_key(ec.SECP256R1())
    # Names differ, so that a client with an old and a new authority never tries a signature against the wrong one.
    name = _name(f"darner webhook authority {secrets.token_hex(8)}")
    certificate = (
        _builder(name, name, key, lifetimes.authority, now)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return key, certificate


def _make_serving(
    authority: x509.Certificate,
    authority_key: ec.EllipticCurvePrivateKey,
    names: tuple[str, ...],
    lifetimes: Lifetimes,
    now: float,
) -> Files:
    key = ec.generate_private_key(ec.SECP256R1())
    issuer_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key())
    certificate = (
        _builder(_name("darner webhook"), authority.subject, key, lifetimes.serving, now)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(issuer_key, critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    return {SERVING_FILE: _pem(certificate), SERVING_KEY_FILE: _key_pem(key)}


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, life: float, now: float
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_moment(now - BACKDATED_SECONDS))
        .not_valid_after(_moment(now + life))
    )


def _usage(signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


def _valid(certificate: x509.Certificate, now: float) -> bool:
    return certificate.not_valid_before_utc.timestamp() <= now < certificate.not_valid_after_utc.timestamp()


def _made(certificate: x509.Certificate) -> float:
    return certificate.not_valid_before_utc.timestamp() + BACKDATED_SECONDS


def _due(certificate: x509.Certificate, now: float) -> bool:
    made = _made(certificate)
    return now >= made + RENEWED_AT * (certificate.not_valid_after_utc.timestamp() - made)


def _signed_by(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _is_for(certificate: x509.Certificate, names: tuple[str, ...]) -> bool:
    try:
        alternatives = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return False
    return {_general_name(name) for name in names} <= set(alternatives)


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _moment(seconds: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(int(seconds), datetime.UTC)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
