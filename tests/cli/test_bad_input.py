"""What bad input gets: one error, a hint, the right exit code, and nothing left behind."""

import errno
import importlib.util
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from levit_deploy.export.exported import ExportedModel
from levit_deploy.runtime.artifact import Artifact
from tests.cli.conftest import TINY_WEIGHTS, Cli, Done


def assert_refused(done: Done, code: int, message: str) -> str:
    """One error and one hint, and nothing on stdout; returns the hint."""
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    hints = [line for line in done.stderr.splitlines() if line.startswith("hint: ")]
    assert len(errors) == 1
    assert message in errors[0]
    assert len(hints) == 1, done.stderr
    assert hints[0] == done.stderr.splitlines()[-1]
    return hints[0].removeprefix("hint: ")


@pytest.mark.parametrize(
    ("args", "message", "hint"),
    [
        (["--target", "arm46", "levit_128s"], "unknown target `arm46`", "`arm64`"),
        (["--target", "host", "levit_128z"], "unknown model `levit_128z`", "levit_128"),
        (["levit_128s"], "Missing option '--target'", "levit-deploy compile --help"),
        (["--target", "host", "levit_128s", "--libc", "uclibc"], "`uclibc`", "--libc"),
        (["--target", "host", "levit_128s", "--name", "128 s"], "`128 s`", "--name my_levit"),
        (["--target", "host", "levit_128s", "--name", "String"], "`String`", "levit_string"),
        (["--target", "host", "levit_128s", "--name", "int"], "`int`", "--name levit_int"),
        (["--target", "host", "levit_128s", "--name", "cpu"], "`cpu`", "--name levit_cpu"),
        (["--target", "host", "levit_128s", "--precision", "fp8"], "'fp8'", "--help"),
    ],
)
def test_wrong_usage(cli: Cli, args: list[str], message: str, hint: str):
    assert hint in assert_refused(cli.run("compile", *args), 2, message)
    assert list(cli.folder.iterdir()) == []


def test_a_look_into_a_library_for_all_cpus(cli: Cli):
    args = ("levit_128s", "--weights", "demo", "--precision", "int8", "--data", "demo")
    done = cli.run("compile", "--target", "arm64-any", *args, "--debug-taps")
    assert "--target arm64-i8mm" in assert_refused(done, 1, "shows the tensors of one CPU's code")
    assert list(cli.folder.iterdir()) == []


class _Payload:
    """Pickled, it runs a command when it is loaded by a careless reader."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.canary,))


def damaged(kind: str, folder: Path) -> Path:
    path = folder / f"{kind}.safetensors"
    state = load_file(TINY_WEIGHTS)
    match kind:
        case "empty":
            path.write_bytes(b"")
        case "truncated":
            path.write_bytes(TINY_WEIGHTS.read_bytes()[:100_000])
        case "hostile":
            path = path.with_suffix(".pth")
            payload = {"model": _Payload(folder / "canary")}
            path.write_bytes(pickle.dumps(payload, protocol=2))
        case "foreign":
            save_file({"layer1.0.conv1.weight": torch.zeros(64, 64, 3, 3)}, path)
        case "missing key":
            state.pop("head.l.weight")
            save_file(state, path)
        case "other class count":
            state["head.l.weight"] = state["head.l.weight"][:7].clone()
            save_file(state, path)
        case "impossible image size":
            name = next(key for key in state if key.endswith("attention_biases"))
            state[name] = state[name][:, :5].clone()
            save_file(state, path)
        case "nan" | "inf":
            name = next(key for key in state if key.endswith("c.weight"))
            state[name].view(-1)[3] = float(kind)
            save_file(state, path)
    return path


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("empty", "empty.safetensors"),
        ("truncated", "truncated.safetensors"),
        ("hostile", "hostile.pth"),
        ("foreign", "layer1.0.conv1.weight"),
        ("missing key", "head.l.weight"),
        ("other class count", "head"),
        ("impossible image size", "attention_biases"),
        ("nan", "c.weight"),
        ("inf", "c.weight"),
        ("not there", "not there.safetensors"),
    ],
)
def test_a_bad_checkpoint(cli: Cli, kind: str, message: str):
    weights = damaged(kind, cli.folder)
    before = set(cli.folder.iterdir())
    done = cli.compile("--weights", weights)
    assert_refused(done, 1, message)
    assert set(cli.folder.iterdir()) == before, "nothing was written, nothing was executed"


def test_weights_of_another_variant(cli: Cli):
    done = cli.run("compile", "--target", "host", "levit_256", "--weights", "demo")
    assert "levit_128s" in assert_refused(done, 1, "`demo` weights are for levit_128s")


def test_offline_without_the_weights(cli: Cli, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(cli.folder / "cache"))
    done = cli.run("compile", "--target", "host", "levit_128s", "--offline")
    assert "--weights demo" in assert_refused(done, 1, "--offline")


@pytest.mark.parametrize(
    ("error", "message", "hint"),
    [
        (OSError(errno.ENAMETOOLONG, "File name too long", "x" * 300), "x`: File", "the path"),
        (OSError(errno.EFBIG, "File too large"), "File too large", "TMPDIR"),
        (OSError("640 requested and 0 written"), "640 requested", "TMPDIR"),  # numpy's
        (MemoryError(), "not enough memory", "fewer images"),
    ],
)
def test_what_the_system_refuses(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, error: Exception, message: str, hint: str
):
    def refuse(folder: Path) -> None:
        raise error

    monkeypatch.setattr(Artifact, "load", refuse)
    assert hint in assert_refused(cli.run("inspect", "x"), 1, message)


def test_no_linker(cli: Cli, monkeypatch: pytest.MonkeyPatch):
    find_spec = importlib.util.find_spec

    def without_zig(name: str, package: str | None = None) -> object:
        return None if name == "ziglang" else find_spec(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", without_zig)
    monkeypatch.setenv("PATH", str(cli.folder))
    done = cli.compile(target="arm64")
    assert assert_refused(done, 1, "no cross linker for `arm64`") == "pip install ziglang"


def test_an_output_path_that_cannot_be_a_folder(cli: Cli):
    (cli.folder / "file").write_text("mine")
    done = cli.compile("-o", "file/build")
    assert "-o" in assert_refused(done, 1, "file/build")
    assert (cli.folder / "file").read_text() == "mine"


@pytest.mark.parametrize("name", ["a%b", "a:b", "a\tb", "a\nb", "a\\b"])
def test_an_output_path_that_the_linker_cannot_work_in(cli: Cli, name: str):
    done = cli.compile("-o", name)
    assert assert_refused(done, 1, "the linker cannot work in") == "-o DIR"
    assert "weights" not in done.stderr
    assert list(cli.folder.iterdir()) == []


def test_an_output_path_like_an_option(cli: Cli):
    done = cli.run("export", "levit_tiny", "--weights", TINY_WEIGHTS, "--output=-dash.onnx")
    assert done.returncode == 0, done.stderr
    ExportedModel.load(cli.folder / "-dash.onnx")


def test_a_link_in_the_place_of_the_artifact(cli: Cli, fp32: Path):
    (cli.folder / fp32.name).symlink_to(fp32)
    done = cli.compile()
    assert f"-o {fp32.parent}" in assert_refused(done, 1, "is a link")
    assert "weights" not in done.stderr


def test_a_file_that_cannot_be_written_is_told_of_first(cli: Cli):
    done = cli.run("export", "levit_tiny", "--weights", TINY_WEIGHTS, "-o", "nowhere/tiny.onnx")
    assert "-o FILE" in assert_refused(done, 1, "`nowhere` is not a folder")
    assert "weights" not in done.stderr


def test_a_folder_that_is_no_artifact_is_left_alone(cli: Cli):
    mine = cli.folder / "levit_tiny-host-fp32" / "thesis.txt"
    mine.parent.mkdir()
    mine.write_text("years of work")
    assert_refused(cli.compile(), 1, "is not an artifact")
    assert mine.read_text() == "years of work"


@pytest.mark.parametrize("command", ["inspect", "verify"])
def test_a_folder_without_a_manifest(cli: Cli, command: str):
    assert_refused(cli.run(command, cli.folder), 1, "is not an artifact")


def test_an_artifact_that_was_changed(cli: Cli, compiled: tuple[Path, str], tmp_path: Path):
    folder = tmp_path / "changed"
    shutil.copytree(compiled[0], folder)
    with (folder / "liblevit_tiny.so").open("r+b") as file:
        file.seek(-100, 2)
        file.write(b"\x90")
    assert_refused(cli.run("verify", folder, "--weights", TINY_WEIGHTS), 1, "SHA-256 differs")
