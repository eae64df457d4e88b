"""Encryption to public keys in the ``age`` format (https://age-encryption.org/v1), by pyrage.

The machine that makes backups needs the public key alone, so it cannot read what it has stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

from pgrecall.errors import BackupDamaged, BackupError, ConfigurationError, MissingExtra


def parse_recipients(keys: Sequence[str]) -> list[Any]:
    """Return public keys, ``age1...`` or those of SSH.

    Raises:
        MissingExtra: pyrage is not installed.
        ConfigurationError: One is no public key.
    """
    if not keys:
        return []
    pyrage = _pyrage()
    found = []
    for key in keys:
        kind = pyrage.ssh if key.startswith("ssh-") else pyrage.x25519
        try:
            found.append(kind.Recipient.from_str(key))
        except pyrage.RecipientError as error:
            shown = f"{key[:12]}..." if not key.upper().startswith("AGE-SECRET") else "a SECRET key"
            raise ConfigurationError(
                f"{shown} is no public key of age: {error}",
                hint="make a pair with `age-keygen -o key.txt`; the public key begins with age1",
            ) from None
    return found


def read_identities(path: Path | None) -> list[Any]:
    """Return the private keys of a file as ``age-keygen`` writes it.

    Raises:
        MissingExtra: pyrage is not installed.
        ConfigurationError: No file was named, it cannot be read, or it holds no key.
    """
    if path is None:
        raise ConfigurationError(
            "the backup is encrypted, and no private key was given",
            hint="name its file with --identity, or in PGRECALL_BACKUP_IDENTITY",
        )
    pyrage = _pyrage()
    try:
        text = path.expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"the private key {path} cannot be read: {error}") from error
    try:
        if "PRIVATE KEY-----" in text:
            return [pyrage.ssh.Identity.from_buffer(text.encode())]
        lines = [line.strip() for line in text.splitlines()]
        found = [
            pyrage.x25519.Identity.from_str(line)
            for line in lines
            if line and not line.startswith("#")
        ]
    except pyrage.IdentityError:
        found = []
    if not found:
        raise ConfigurationError(
            f"{path} holds no private key of age", hint="give the file that `age-keygen -o` wrote"
        )
    return found


def encrypt(source: BinaryIO, target: BinaryIO, recipients: Sequence[Any]) -> None:
    """Copy ``source`` to ``target``, encrypted to all ``recipients``."""
    _pyrage().encrypt_io(source, target, list(recipients))


def decrypt(source: BinaryIO, target: BinaryIO, identities: Sequence[Any], name: str) -> None:
    """Copy ``source`` to ``target``, decrypted.

    Args:
        source: What is stored.
        target: Gets the plain bytes; what it got is worthless after an error.
        identities: Private keys.
        name: Name of the backup, for errors.

    Raises:
        BackupError: None of the keys fits.
        BackupDamaged: The bytes are not those that were encrypted.
    """
    pyrage = _pyrage()
    try:
        pyrage.decrypt_io(source, target, list(identities))
    except pyrage.DecryptError as error:
        text = str(error)
        if "No matching keys" in text:
            raise BackupError(
                f"backup {name} is encrypted to another key than the one given",
                hint="give the private key of one of the recipients that its manifest names",
            ) from None
        raise BackupDamaged(f"backup {name} cannot be decrypted: {text}") from None
    except OSError as error:
        if error.errno is not None:
            raise
        raise BackupDamaged(f"backup {name} cannot be decrypted: {error}") from None


def _pyrage() -> Any:
    try:
        import pyrage
    except ImportError as error:
        raise MissingExtra("the encryption of backups", "age") from error
    return pyrage
