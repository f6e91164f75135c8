"""Certificates in virtual time: what is made, what is due when, and that no handshake fails while one follows the other."""

from __future__ import annotations

import datetime
import ssl

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from webhook.certificates.authority import Bundle, Lifetimes, advanced, parse
from webhook.certificates.stores import Files
from webhook.errors import CertificateError

NOW = 1_800_000_000.0
DAY = 24 * 3600.0
NAMES = ("darner-webhook.darner-system.svc", "127.0.0.1", "0:0::1")
LIFETIMES = Lifetimes(serving=90 * DAY, authority=3650 * DAY, overlap=600)


def bundle_of(files: Files) -> Bundle:
    bundle = parse(files)
    assert bundle is not None
    return bundle


def made(now: float = NOW, lifetimes: Lifetimes = LIFETIMES) -> Files:
    return advanced(None, NAMES, lifetimes, now)


def verifies(trusted: Files, served: Files, now: float) -> bool:
    """Whether a client that trusts the one's authorities accepts the other's certificate at this time, for our name."""
    store = x509.verification.Store(bundle_of(trusted).authorities)
    moment = datetime.datetime.fromtimestamp(now, datetime.UTC).replace(tzinfo=None)
    verifier = x509.verification.PolicyBuilder().store(store).time(moment).build_server_verifier(x509.DNSName(NAMES[0]))
    try:
        verifier.verify(bundle_of(served).serving, [])
    except x509.verification.VerificationError:
        return False
    return True


def test_a_first_certificate_is_for_every_name_and_verifies_by_its_own_authority_alone() -> None:
    files, others = made(), made()
    names = bundle_of(files).serving.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["darner-webhook.darner-system.svc"]
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1", "::1"]
    assert verifies(files, files, NOW)
    assert not verifies(others, files, NOW)
    assert not verifies(files, files, NOW + 91 * DAY)


def test_a_strict_tls_library_takes_the_authority() -> None:
    context = ssl.create_default_context(cadata=bundle_of(made()).trust.decode())
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    assert context.get_ca_certs()[0]["serialNumber"]


def test_nothing_changes_while_nothing_is_due() -> None:
    files = made()
    for days in (0, 1, 30, 53):
        assert advanced(files, NAMES, LIFETIMES, NOW + days * DAY) == files


def test_a_serving_certificate_is_renewed_before_two_thirds_of_its_life_by_the_same_authority() -> None:
    files = made()
    renewed = advanced(files, NAMES, LIFETIMES, NOW + 59 * DAY)
    assert renewed["tls.crt"] != files["tls.crt"]
    assert renewed["tls.key"] != files["tls.key"]
    assert (renewed["ca.crt"], renewed["ca.key"]) == (files["ca.crt"], files["ca.key"])
    assert verifies(files, renewed, NOW + 59 * DAY)


def test_a_certificate_for_other_names_is_replaced_at_once() -> None:
    files = made()
    assert advanced(files, NAMES[:1], LIFETIMES, NOW) == files
    renewed = advanced(files, (*NAMES, "more.example.com"), LIFETIMES, NOW)
    assert renewed["tls.crt"] != files["tls.crt"]
    assert renewed["ca.crt"] == files["ca.crt"]


def test_an_authority_is_replaced_in_three_steps_and_no_handshake_fails_whoever_learns_of_a_step_first() -> None:
    lifetimes = Lifetimes(serving=90 * DAY, authority=100 * DAY, overlap=600)
    first = made(NOW, lifetimes)
    now = NOW + 50 * DAY
    first = advanced(first, NAMES, lifetimes, now)
    now = NOW + 61 * DAY
    history = [first]
    while len(history) < 10:
        following = advanced(history[-1], NAMES, lifetimes, now)
        if following == history[-1]:
            break
        # A replica serves, and an API server trusts, what was there a step earlier or what is there now, in any combination.
        for trusted in (history[-1], following):
            for served in (history[-1], following):
                assert verifies(trusted, served, now)
        assert advanced(following, NAMES, lifetimes, now + 599) == following
        history.append(following)
        now += 600
    assert [len(bundle_of(files).authorities) for files in history] == [1, 2, 2, 1]
    assert not set(bundle_of(history[0]).authorities) & set(bundle_of(history[-1]).authorities)


@pytest.mark.parametrize("jump", [3600, -3600, 365 * DAY, -365 * DAY])
def test_a_clock_that_jumps_and_comes_back_leaves_a_certificate_that_verifies(jump: float) -> None:
    files = made()
    jumped = advanced(files, NAMES, LIFETIMES, NOW + jump)
    assert verifies(jumped, jumped, NOW + jump)
    assert verifies(files, jumped, NOW)
    back = advanced(jumped, NAMES, LIFETIMES, NOW)
    assert verifies(files, back, NOW)


def test_an_authority_that_has_expired_is_replaced_with_its_certificate_at_once() -> None:
    files = made()
    late = NOW + 3651 * DAY
    renewed = advanced(files, NAMES, LIFETIMES, late)
    assert verifies(renewed, renewed, late)
    assert len(bundle_of(renewed).authorities) == 1


def test_what_is_left_by_a_crash_between_two_files_is_replaced() -> None:
    files, others = made(), made()
    for name in files:
        torn = {**files, name: others[name]}
        assert parse(torn) is None or name == "tls.crt"
        mended = advanced(torn, NAMES, LIFETIMES, NOW)
        assert verifies(mended, mended, NOW)
        lost = {other: content for other, content in files.items() if other != name}
        if name != "ca.key":
            mended = advanced(lost, NAMES, LIFETIMES, NOW)
            assert verifies(mended, mended, NOW)


@pytest.mark.parametrize("content", [b"", b"nonsense", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_an_authority_that_cannot_be_read_is_replaced(content: bytes) -> None:
    for name in ("ca.crt", "tls.crt", "tls.key"):
        mended = advanced({**made(), name: content}, NAMES, LIFETIMES, NOW)
        assert verifies(mended, mended, NOW)


def given_certificate() -> Files:
    """As an operator or cert-manager gives it: an RSA key, no authority's key."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "given")])
    moment = datetime.datetime.fromtimestamp(NOW, datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(moment)
        .not_valid_after(moment + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    return {"tls.crt": certificate.public_bytes(serialization.Encoding.PEM), "tls.key": private}


def test_a_certificate_that_was_given_to_us_is_never_touched() -> None:
    files = given_certificate()
    assert advanced(files, NAMES, LIFETIMES, NOW + 365 * DAY) == files
    assert bundle_of(files).trust == b""


def test_a_given_certificate_that_does_not_fit_its_key_is_refused_and_not_overwritten() -> None:
    files, others = given_certificate(), given_certificate()
    for broken in ({**files, "tls.key": others["tls.key"]}, {"tls.crt": files["tls.crt"]}):
        with pytest.raises(CertificateError, match="belong together"):
            advanced(broken, NAMES, LIFETIMES, NOW)
