"""A folder that is not what it says: told before more of it is run than must be."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from levit_deploy.errors import DeployError
from levit_deploy.runtime.artifact import Artifact, open_artifact
from levit_deploy.runtime.manifest import Facts, Manifest
from levit_deploy.verify import library_worker, verification
from tests.cli.conftest import TINY_WEIGHTS, Cli
from tests.cli.test_bad_input import assert_refused


def forge(folder: Path, name: str, /, **fields: Any) -> None:
    """Change a JSON file as somebody would who means harm."""
    document = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps(document | fields))


def verify(cli: Cli, folder: Path) -> Any:
    return cli.run("verify", folder, "--weights", TINY_WEIGHTS, "--images", "1")


def forge_facts(folder: Path, **fields: Any) -> None:
    """Such that the manifest does not contradict itself."""
    forge(folder, "manifest.json", **fields)
    forge(folder, "manifest.json", build_id=Manifest.load(folder).facts_digest)


FACTS = {field.name for field in fields(Facts)} - {"card"}


def other(value: Any) -> Any:
    if isinstance(value, list):
        return value[1:] or ["another"]
    return value + 1 if isinstance(value, int) else f"another_{value}"


def test_a_manifest_that_contradicts_itself(fp32: Path):
    document = json.loads((fp32 / "manifest.json").read_text())
    card = document["card"]
    changes = [
        *({name: other(document[name])} for name in (*FACTS, "build_id")),
        *({"card": {**card, **said}} for said in ({"heads": 3}, {"labels": ["a"]})),
    ]
    for change in changes:
        forge(fp32, "manifest.json", **change)
        with pytest.raises(DeployError, match="was changed: its `build_id` is of others"):
            Artifact.load(fp32)
        forge(fp32, "manifest.json", **document)
    Artifact.load(fp32)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("target", "arm64"),
        ("classes", 11),
        ("system", "musl"),
        ("kernels", []),
        ("abi_version", 99),
    ],
)
def test_a_forged_manifest(cli: Cli, fp32: Path, field: str, value: object):
    before = (fp32 / "verify.json").read_text()
    document = json.loads((fp32 / "manifest.json").read_text())
    forge_facts(fp32, **{field: value})
    told = field if field in library_worker.FIELDS else "build_id"
    message = f"not the one of its manifest: it says `{told} {document[told]}`"
    assert_refused(verify(cli, fp32), 1, message)
    assert (fp32 / "verify.json").read_text() == before
    if field == "target":
        done = cli.run("bench", fp32, "--against", "none", "--rounds", "1")
        assert_refused(done, 1, "not the one of its manifest")
        data = ("--data", "demo", "--images", "1")
        done = cli.run("audit", fp32, "--weights", TINY_WEIGHTS, *data)
        assert_refused(done, 1, "not the one of its manifest")


@pytest.mark.parametrize("command", ["inspect", "verify"])
def test_a_manifest_that_names_no_files(cli: Cli, fp32: Path, command: str):
    forge(fp32, "manifest.json", files={})
    assert_refused(cli.run(command, fp32), 1, "does not name `liblevit_tiny.so`")


def test_a_verification_of_another_build(cli: Cli, fp32: Path):
    assert "\nverified: passed\n" in cli.run("inspect", fp32).stdout
    forge(fp32, "verify.json", build_id="0" * 40)
    assert cli.run("inspect", fp32).stdout.endswith("\nverified: another build\n")
    shown = json.loads(cli.run("inspect", fp32, "--json").stdout)
    assert (shown["verified"], shown["verification"]) == ("another build", None)


def test_what_is_opened_stays(fp32: Path):
    names = [path.name for path in fp32.iterdir() if path.suffix not in ("", ".json")]
    before = {name: (fp32 / name).read_bytes() for name in names}
    with open_artifact(fp32) as artifact:
        shutil.rmtree(fp32)
        assert {name: (artifact.files / name).read_bytes() for name in names} == before
    assert not artifact.files.exists()


def test_compiled_anew_while_it_is_verified(cli: Cli, fp32: Path, monkeypatch: pytest.MonkeyPatch):
    before, actual = (fp32 / "verify.json").read_text(), verification.verify_artifact

    def verify_slowly(artifact: Artifact, *args: Any, **options: Any) -> object:
        forge_facts(fp32, sources_digest="0" * 64)
        (fp32 / "liblevit_tiny.so").write_bytes(b"another")
        return actual(artifact, *args, **options)

    monkeypatch.setattr(verification, "verify_artifact", verify_slowly)
    done = verify(cli, fp32)
    assert done.returncode == 1
    assert "passed: run of liblevit_tiny.so" in done.stdout
    assert "compiled anew while it was verified" in done.stderr
    assert (fp32 / "verify.json").read_text() == before


@pytest.fixture
def read_only(fp32: Path) -> Iterator[Path]:
    for options in ("--bind", "-oremount,bind,ro"):
        command = ["mount", options, str(fp32), str(fp32)]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("needs the right to mount")
    yield fp32
    subprocess.run(["umount", "-l", str(fp32)], check=True)


def test_a_folder_that_cannot_be_written(cli: Cli, read_only: Path):
    done = verify(cli, read_only)
    assert done.returncode == 0, done.stderr
    assert "passed: run of liblevit_tiny.so" in done.stdout
    assert done.stderr.splitlines()[-1].startswith("warning: this is not kept in the folder: ")


def test_it_is_said_what_runs(cli: Cli, fp32: Path):
    assert f"this runs the library in {fp32}" in verify(cli, fp32).stderr
    assert "this runs" not in cli.run("inspect", fp32).stderr


def test_a_file_larger_than_it_is_said_to_be(fp32: Path):
    """Not read to its end: this one has none that can be waited for."""
    with (fp32 / "liblevit_tiny.a").open("r+b") as file:
        file.truncate(1 << 40)
    with pytest.raises(DeployError, match="is not the file that was built"):
        Artifact.load(fp32)
