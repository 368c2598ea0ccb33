"""Who made an artifact: a minisign signature of its manifest, which has the digest of every file.

The files are those of minisign (Frank Denis), which signs and verifies them too:

    minisign -S -s KEY -m manifest.json      minisign -V -p PUB -m manifest.json

https://jedisct1.github.io/minisign describes the format: Ed25519 over the BLAKE2b-512 of the file.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import minisign

from levit_deploy.errors import DeployError
from levit_deploy.files import open_regular, write_files
from levit_deploy.records import to_json
from levit_deploy.runtime.artifact import Artifact
from levit_deploy.runtime.manifest import FILE_NAME as MANIFEST

FILE_NAME = f"{MANIFEST}.minisig"
MAX_BYTES = 1 << 16  # of keys and signatures, which have some hundred
_T = TypeVar("_T")
_MAKE_KEYS = "minisign -G -s levit.key -p levit.pub"


@dataclass(frozen=True)
class Signer:
    """A secret key that is ready to sign."""

    key: minisign.SecretKey

    @staticmethod
    def open(path: Path, ask_password: Callable[[], str]) -> Signer:
        """Read a secret key of minisign; `ask_password` is called if it is encrypted.

        Raises DeployError if there is no key, or if the password is wrong.
        """
        key = _read(path, "secret key", minisign.SecretKey.from_bytes)
        if key.is_encrypted():
            password = ask_password()
            try:
                key.decrypt(password)
            except minisign.Error as error:
                raise DeployError(
                    f"cannot open `{path}`: {error}", hint="type the password of the key"
                ) from error
        return Signer(key)

    def sign(self, folder: Path) -> None:
        """Write the signature of the manifest in `folder` beside it; an older one is replaced.

        Raises DeployError if it cannot be written.
        """
        data = _bytes_of(folder / MANIFEST, maximum=None)
        signature = self.key.sign(data, trusted_comment=f"levit-deploy, {folder.name}")
        write_files({folder / FILE_NAME: bytes(signature)}, hint=f"chmod u+w {folder}")


def is_signed(folder: Path) -> bool:
    """Whether the artifact in `folder` has a signature, by whomever."""
    return (folder / FILE_NAME).exists()


def check_signature(artifact: Artifact, public_key: Path) -> None:
    """Raise DeployError unless the manifest that was read was signed by the key of `public_key`."""
    folder = artifact.folder
    key = _read(public_key, "public key", minisign.PublicKey.from_bytes)
    path = folder / FILE_NAME
    if not is_signed(folder):
        raise DeployError(
            f"`{folder}` is not signed: it has no {FILE_NAME}",
            hint=f"levit-deploy sign {folder} --key levit.key",
        )
    signature = _read(path, "signature", minisign.Signature.from_bytes)
    try:
        key.verify(to_json(artifact.manifest).encode(), signature)
    except minisign.VerifyError as error:
        raise DeployError(
            f"`{folder / MANIFEST}` is not what the owner of `{public_key}` signed: {error}",
            hint="get the artifact again from whom you trust, or the right key",
        ) from error


def _read(path: Path, what: str, parse: Callable[[bytes], _T]) -> _T:
    data = _bytes_of(path, maximum=MAX_BYTES)
    try:
        return parse(data)
    except (ValueError, UnicodeDecodeError) as error:
        raise DeployError(
            f"`{path}` is no {what} of minisign: {error}", hint=f"make keys with `{_MAKE_KEYS}`"
        ) from error


def _bytes_of(path: Path, maximum: int | None) -> bytes:
    try:
        with open_regular(path) as file:
            data = file.read() if maximum is None else file.read(maximum + 1)
    except OSError as error:
        raise DeployError(
            f"cannot read `{path}`: {error.strerror}", hint=f"make keys with `{_MAKE_KEYS}`"
        ) from error
    if maximum is not None and len(data) > maximum:
        raise DeployError(f"`{path}` is too large", hint=f"make keys with `{_MAKE_KEYS}`")
    return data
