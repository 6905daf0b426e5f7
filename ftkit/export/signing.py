"""Signatures of bundles by a key of one's own, through the OpenSSF's ``model-signing``; nothing goes over a network.

The signature stands beside the archive, ``NAME.sig``: ECDSA draws random numbers, and inside it would make every
archive another one.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from ftkit.errors import MissingPartError, UsageError, VerificationError

SUFFIX = ".sig"
_MAKE_KEYS = (
    "Make a pair: openssl ecparam -name prime256v1 -genkey -noout -out key.pem; "
    "openssl ec -in key.pem -pubout -out key.pub"
)


def signature_of(file: Path) -> Path:
    """Where the signature of a file stands."""
    return file.with_name(file.name + SUFFIX)


def require_signing(key: Path) -> None:
    """Refuse early what signing or checking would fail on.

    Raises:
        MissingPartError: The package is not installed.
        UsageError: There is no such key.
    """
    # model-signing imports OpenSSL without asking for it.
    missing = [name for name in ("model_signing", "OpenSSL") if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingPartError(
            f"signatures need {', '.join(missing)}, which is not installed", fix="Run: pip install 'ftkit[signing]'"
        )
    if not key.is_file():
        raise UsageError(f"{key}: no such key", fix=_MAKE_KEYS)


def sign(file: Path, key: Path) -> Path:
    """Sign a file.

    Args:
        file: Of any size.
        key: A private elliptic-curve key (P-256, P-384 or P-521) in PEM, without a password.

    Returns:
        The signature's file.

    Raises:
        MissingPartError, UsageError: See `require_signing`; or the key is none of these.
    """
    require_signing(key)
    from model_signing import signing

    try:
        config = signing.Config().use_elliptic_key_signer(private_key=key)
    except (ValueError, TypeError, AttributeError) as error:
        raise UsageError(f"{key}: is not a private key that can sign: {error}", fix=_MAKE_KEYS) from None
    config.sign(file, signature_of(file))
    return signature_of(file)


def require_signed(file: Path, key: Path) -> None:
    """Check a file against the signature beside it.

    Args:
        file: As it was signed; it may have been renamed together with its signature.
        key: The signer's public key in PEM.

    Raises:
        MissingPartError, UsageError: See `require_signing`; or it is no such key.
        VerificationError: There is no signature, or it is not of these bytes by this key.
    """
    require_signing(key)
    from model_signing import verifying

    signature = signature_of(file)
    if not signature.is_file():
        raise VerificationError(f"{file}: is not signed ({signature.name} is not beside it)", fix=_refuse())
    try:
        config = verifying.Config().use_elliptic_key_verifier(public_key=key)
    except (ValueError, TypeError, AttributeError) as error:
        raise UsageError(f"{key}: is not a public key: {error}", fix=_MAKE_KEYS) from None
    try:
        config.verify(file, signature)
    except Exception as error:  # noqa: BLE001 - hostile files meet errors of several libraries; none is a valid signature
        because = str(error) or type(error).__name__
        raise VerificationError(
            f"{file}: {signature.name} is not its signature by {key}: {because}", fix=_refuse()
        ) from None


def _refuse() -> str:
    return "Do not use it; fetch the bundle and its signature again from where they were made."
