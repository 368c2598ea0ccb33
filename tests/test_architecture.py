"""Who may import whom, read from the source: rooms stay rooms only while a test holds the doors."""

import ast
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "levit_deploy"


@dataclass(frozen=True)
class Room:
    """`rooms`: prefixes of levit_deploy modules that may be imported; `packages`: third parties."""

    rooms: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()


LEAVES = ("errors", "files", "half_format", "records", "urls")
ALL_ROOMS = (
    *(*LEAVES, "models", "targets", "network", "export", "calibration"),
    *("compiler", "runtime", "machines", "verify"),
)
ROOMS = {
    "errors": Room(),
    "files": Room(("errors",)),
    "half_format": Room((), ("numpy", "ml_dtypes")),
    "records": Room(("errors", "files")),
    "urls": Room(),
    "models": Room(
        LEAVES,
        (
            *("torch", "numpy", "safetensors", "platformdirs", "PIL"),
            *("onnx", "onnxsim", "onnxruntime"),  # for checkpoints in that form
        ),
    ),
    "targets": Room(LEAVES, ("packaging", "platformdirs")),
    "network": Room((*LEAVES, "models"), ("torch", "numpy")),
    "export": Room(
        (*LEAVES, "models", "network"), ("torch", "numpy", "onnx", "onnxsim", "onnxruntime")
    ),
    "calibration": Room(
        (*LEAVES, "models", "network", "export"), ("numpy", "torch", "onnx", "onnxruntime", "PIL")
    ),
    "compiler": Room(
        (*LEAVES, "models.spec", "models.card", "network", "export.exported", "targets"),
        ("tvm", "numpy"),
    ),
    "runtime": Room(
        (*LEAVES, "models.card", "compiler.program", "targets"),
        ("numpy", "jinja2", "PIL", "cyclonedx", "packageurl", "minisign"),
    ),
    "machines": Room((*LEAVES, "targets"), ("labgrid", "grpc")),
    "verify": Room(
        (
            *(*LEAVES, "models", "network", "export", "calibration", "targets"),
            *("compiler.program", "runtime", "machines"),
        ),
        ("numpy", "torch", "onnx", "onnxruntime", "openvino", "PIL"),
    ),
    "audit": Room(
        ALL_ROOMS,
        (
            *("numpy", "torch", "onnx", "onnxruntime", "PIL", "jinja2", "markupsafe"),
            *("platformdirs", "dask", "distributed"),
        ),
    ),
    "packaging": Room((*LEAVES, "models.card", "targets", "runtime"), ("jinja2",)),
    "deploy": Room((*ALL_ROOMS,)),
    "profile": Room((*ALL_ROOMS,)),
    "tune": Room((*ALL_ROOMS,), ("torch",)),
    "start": Room(("cli",)),
    "cli": Room((*LEAVES, "commands"), ("click",)),
    "commands": Room(
        (*ALL_ROOMS, "audit", "packaging", "deploy", "profile", "tune"), ("click", "rich")
    ),
}
# compiler.program is plain data on the far side of the compiler: it must load without tvm, and
# what it holds of a model without torch.
PLAIN_DATA = {
    "compiler/program.py": ("levit_deploy.models.card",),
    "models/card.py": (
        "levit_deploy.errors",
        *(f"levit_deploy.models.{name}" for name in ("key_names", "preprocessing", "spec")),
    ),
    "models/key_names.py": (),
    "models/preprocessing.py": (),
    "models/spec.py": ("levit_deploy.errors",),
}


def imports_of(path: Path) -> set[str]:
    """Dotted names of every import in the file, also those inside functions."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module is not None
            names.add(node.module)
    return names


def top_level_imports_of(path: Path) -> set[str]:
    """First parts of the names that importing the file imports at once (not under functions)."""
    names = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    return names


def is_within(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix + ".")


SOURCES = sorted(
    path.relative_to(PACKAGE).as_posix()
    for path in PACKAGE.rglob("*.py")
    if path != PACKAGE / "__init__.py"
)


@pytest.mark.parametrize("source", SOURCES)
def test_a_room_imports_only_what_it_may(source):
    room_name = source.split("/")[0].removesuffix(".py")
    assert room_name in ROOMS, f"{source} is in no room"
    room = ROOMS[room_name]
    allowed = [f"levit_deploy.{prefix}" for prefix in (room_name, *room.rooms)]
    for name in imports_of(PACKAGE / source):
        if is_within(name, "levit_deploy"):
            assert any(name == "levit_deploy" or is_within(name, prefix) for prefix in allowed), (
                f"{source} imports {name}"
            )
        elif name.split(".")[0] not in sys.stdlib_module_names:
            assert name.split(".")[0] in room.packages, f"{source} imports {name}"


@pytest.mark.parametrize("source", PLAIN_DATA)
def test_plain_data_imports_only_the_standard_library(source):
    for name in imports_of(PACKAGE / source):
        assert name in PLAIN_DATA[source] or name.split(".")[0] in sys.stdlib_module_names


def test_the_command_line_starts_light():
    """The command line imports at start only what is quick: `--help` needs no torch and no tvm."""
    light = {"click", "levit_deploy", *(f"levit_deploy.{leaf}" for leaf in LEAVES)}
    for source in (source for source in SOURCES if source.startswith(("cli.py", "commands/"))):
        for name in top_level_imports_of(PACKAGE / source):
            own = name in light or is_within(name, "levit_deploy.commands")
            assert own or name.split(".")[0] in sys.stdlib_module_names, f"{source} imports {name}"


def test_no_drawer_for_odds_and_ends():
    odd = {"utils", "util", "helpers", "helper", "common", "misc"}
    assert [source for source in SOURCES if Path(source).stem in odd] == []
