"""Signatures of artifacts, held against the library of minisign's author and minisign itself."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import minisign
import pytest

from levit_deploy.runtime.artifact import Artifact
from levit_deploy.runtime.signature import FILE_NAME
from tests.cli.conftest import TINY_WEIGHTS, Cli
from tests.cli.test_bad_input import assert_refused

PASSWORD = "correct horse"


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    """A secret key without a password, and the public one."""
    pair = minisign.KeyPair.generate()
    secret, public = tmp_path / "levit.key", tmp_path / "levit.pub"
    secret.write_bytes(bytes(pair.secret_key))
    public.write_bytes(bytes(pair.public_key))
    return secret, public


def verify(cli: Cli, folder: Path, public: Path):
    return cli.run(
        "verify", folder, "--weights", TINY_WEIGHTS, "--images", "1", "--public-key", public
    )


def test_sign_and_verify(cli: Cli, fp32: Path, keys: tuple[Path, Path]) -> None:
    secret, public = keys
    done = cli.run("sign", fp32, "--key", secret)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith(FILE_NAME)
    signature = minisign.Signature.from_file(fp32 / FILE_NAME)
    minisign.PublicKey.from_file(public).verify((fp32 / "manifest.json").read_bytes(), signature)
    assert verify(cli, fp32, public).returncode == 0


def test_minisign_itself_agrees(cli: Cli, fp32: Path, keys: tuple[Path, Path]) -> None:
    if not shutil.which("minisign"):
        pytest.skip("apt-get install minisign")
    cli.run("sign", fp32, "--key", keys[0])
    command = ("minisign", "-V", "-p", keys[1], "-m", fp32 / "manifest.json")
    subprocess.run(command, check=True, capture_output=True)


def test_what_was_not_signed_is_not_run(
    cli: Cli, fp32: Path, keys: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("levit_deploy.verify.verification.verify_artifact", lambda *_, **__: 1 / 0)
    secret, public = keys
    assert "levit-deploy sign" in assert_refused(verify(cli, fp32, public), 1, "is not signed")
    cli.run("sign", fp32, "--key", secret)
    manifest = json.loads((fp32 / "manifest.json").read_text())
    manifest["command_line"] = ["another"]
    (fp32 / "manifest.json").write_text(json.dumps(manifest))
    Artifact.load(fp32)  # which is in order but for the signature
    assert "again from whom" in assert_refused(
        verify(cli, fp32, public), 1, "is not what the owner of"
    )


def test_another_key(cli: Cli, fp32: Path, keys: tuple[Path, Path], tmp_path: Path) -> None:
    cli.run("sign", fp32, "--key", keys[0])
    other = tmp_path / "other.pub"
    other.write_bytes(bytes(minisign.KeyPair.generate().public_key))
    assert "right key" in assert_refused(verify(cli, fp32, other), 1, "is not what the owner of")


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe", b"untrusted comment: x\nRWQ=\n", b"a" * 70000]
)
def test_files_that_are_no_keys(cli: Cli, fp32: Path, tmp_path: Path, content: bytes) -> None:
    key = tmp_path / "key"
    key.write_bytes(content)
    assert "minisign -G" in assert_refused(cli.run("sign", fp32, "--key", key), 1, "key")
    assert not (fp32 / FILE_NAME).exists()
    (fp32 / FILE_NAME).write_bytes(content)
    assert "minisign -G" in assert_refused(verify(cli, fp32, key), 1, "key")


def test_a_key_with_a_password_needs_somebody_to_type_it(
    cli: Cli, fp32: Path, tmp_path: Path
) -> None:
    pair = minisign.KeyPair.generate()
    pair.secret_key.encrypt(PASSWORD)
    key = tmp_path / "levit.key"
    key.write_bytes(bytes(pair.secret_key))
    assert "minisign -G -W" in assert_refused(
        cli.run("sign", fp32, "--key", key), 1, "has a password"
    )


def test_compile_signs(cli: Cli, keys: tuple[Path, Path], tmp_path: Path) -> None:
    secret, public = keys
    missing = cli.compile("--sign", tmp_path / "nowhere.key", "-o", tmp_path)
    assert "minisign -G" in assert_refused(missing, 1, "cannot read")
    assert cli.compile("--sign", secret, "-o", tmp_path).returncode == 0
    folder = next(tmp_path.glob("levit_tiny-*"))
    assert verify(cli, folder, public).returncode == 0
