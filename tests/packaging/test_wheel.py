"""Wheels, installed by pip and used as an app does; and levit.py in the artifact's own folder."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import venv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from packaging.tags import Tag
from packaging.utils import parse_wheel_filename
from PIL import Image

from levit_deploy.packaging.contents import Contents
from levit_deploy.packaging.wheel import file_name
from levit_deploy.runtime.artifact import Artifact
from levit_deploy.runtime.levit import Frame
from levit_deploy.runtime.loader import Library
from levit_deploy.targets.host import read_cpu
from levit_deploy.targets.system import System
from levit_deploy.targets.table import TARGETS
from tests.cli.conftest import Cli
from tests.packaging.conftest import LABELS, Variant, build_small

# Prints, in JSON: CPU seconds of the import, the library's folder, answers, logits, modules.
APP = """
import json, sys, time
start = time.process_time()
import small as m
seconds = time.process_time() - start
answers = [[a.class_index, a.label, a.probability] for a in m.classify(sys.argv[1])]
print(json.dumps({
    "seconds": seconds,
    "place": m.model().path.parent.name,
    "answers": answers,
    "logits": bytes(m.run_frame(sys.argv[1])).hex(),
    "softmax": list(m.softmax(m.run_frame(sys.argv[1]))),
    "labels": m.labels(),
    "model": m.describe().model,
    "modules": [name for name in ("torch", "numpy", "levit_deploy", "tvm") if name in sys.modules],
}))
"""


def test_a_wheel_answers_what_the_command_line_answers(
    cli: Cli, artifact: Artifact, jpeg: Path, only_pillow: Path
) -> None:
    said = json.loads(cli.run("classify", artifact.folder, jpeg, "--json").stdout)[0]["answers"]
    made = json.loads(cli.run("package", artifact.folder, "--as", "wheel", "--json").stdout)
    python = install(cli.folder, Path(made["path"]))
    app = run_app(python, jpeg, only_pillow)
    assert app["answers"] == [[a["class_index"], a["label"], a["probability"]] for a in said]
    with Image.open(jpeg) as picture:
        frame = Frame.of(np.asarray(picture))  # as it lies, whatever its EXIF tag says
    assert app["logits"] == Library(artifact.folder).run_frame(frame).tobytes().hex()
    order = np.argsort(app["softmax"])[::-1]
    assert [app["softmax"][i] for i in order] == [answer[2] for answer in app["answers"]]
    assert app["labels"] == list(LABELS)
    assert app["modules"] == []
    assert app["seconds"] < 0.1
    typed = "import small\nanswer = small.classify('cat.jpg')[0]\nreveal_type(answer.label)\n"
    (cli.folder / "app.py").write_text(typed)
    mypy = [sys.executable, "-m", "mypy", "--strict", f"--python-executable={python}", "app.py"]
    checked = subprocess.run(mypy, cwd=cli.folder, capture_output=True, text=True, check=False)
    assert 'Revealed type is "str"' in checked.stdout, checked.stdout


def test_the_best_library_that_this_cpu_runs_is_taken(
    cli: Cli, artifact: Artifact, variant: Variant, jpeg: Path, only_pillow: Path
) -> None:
    cpu = read_cpu()
    family = [target for target in TARGETS.values() if target.arch is cpu.arch and not target.base]
    foreign = [target.name for target in family if not cpu.runs(target)]
    if not foreign:
        pytest.skip("this CPU runs every target of its architecture")
    for_all = variant(base_target=family[0].name)
    not_here = build_small(foreign[-1], cli.folder)
    args = ("package", for_all.folder, not_here.folder, "--as", "wheel", "--json")
    made = json.loads(cli.run(*args).stdout)
    assert made["targets"] == [foreign[-1], family[0].name]
    app = run_app(install(cli.folder, Path(made["path"])), jpeg, only_pillow)
    assert app["place"] == f"1-{family[0].name}"
    picture = Image.open(jpeg)
    expected = Library(artifact.folder).run_frame(Frame.of_picture(picture, exif=False))
    assert app["logits"] == expected.tobytes().hex()


def test_the_folders_own_module_needs_the_standard_library_alone(artifact: Artifact) -> None:
    """-I -S: no site-packages, no environment, not even the folder itself is on the path."""
    rgb = np.random.default_rng(1).integers(0, 256, (30, 41, 3), dtype=np.uint8)
    code = (
        f"import sys; sys.path.insert(0, {str(artifact.folder)!r}); import levit\n"
        "data = sys.stdin.buffer.read()\n"
        "for kind in (bytes, bytearray, memoryview):\n"
        "    frame = levit.Frame.of_bytes(kind(data), 41, 30, levit.Format.RGB)\n"
        "    print(bytes(levit.run_frame(frame)).hex())\n"
        "try: levit.classify('cat.jpg')\n"
        "except levit.LevitError as error: print(error)\n"
    )
    command = [sys.executable, "-I", "-S", "-c", code]
    done = subprocess.run(command, input=rgb.tobytes(), capture_output=True, check=True)
    logits = Library(artifact.folder).run_frame(Frame.of(rgb)).tobytes().hex()
    *printed, error = done.stdout.decode().splitlines()
    assert printed == [logits] * 3
    assert error == "cannot decode `cat.jpg` without Pillow: pip install pillow"


@pytest.mark.parametrize(
    ("target", "libc", "tag"),
    [
        ("arm64", "glibc-2.17", "manylinux_2_17_aarch64"),
        ("rpi5", "glibc-2.36", "manylinux_2_36_aarch64"),
        ("armv7", "glibc-2.28", "manylinux_2_28_armv7l"),
        ("x86-64-v3", "musl", "musllinux_1_2_x86_64"),
        ("arm64-dotprod", "macos-11.0", "macosx_11_0_arm64"),
        ("x86-64-v3", "windows", "win_amd64"),
        ("arm64", "windows", "win_arm64"),
    ],
)
def test_the_tag_is_that_of_the_oldest_system(
    artifact: Artifact, target: str, libc: str, tag: str
) -> None:
    base = TARGETS[target].base or target
    manifest = replace(artifact.manifest, name="Le_ViT__8", base_target=base, system=libc)
    name = file_name(Contents((replace(artifact, manifest=manifest),), "1.2"))
    parsed, version, _, tags = parse_wheel_filename(name)
    assert (parsed, str(version), tags) == ("le-vit-8", "1.2", {Tag("py3", "none", tag)})


@pytest.mark.slow
def test_auditwheel_agrees(cli: Cli) -> None:
    pytest.importorskip("auditwheel", reason="pip install auditwheel")
    for target, libc in itertools.product(("x86-64", "arm64", "armv7"), ("glibc-2.17", "musl")):
        system = System.parse(libc)
        folder = build_small(target, cli.folder / target / libc, system=system).folder
        done = cli.run("package", folder, "--as", "wheel", "--json")
        path = Path(json.loads(done.stdout)["path"])
        show = [sys.executable, "-m", "auditwheel", "show", str(path)]
        words = subprocess.run(show, capture_output=True, text=True, check=True).stdout
        platform = path.stem.split("-")[-1]
        assert f'platform tag: "{platform}"' in " ".join(words.split())


def install(folder: Path, wheel: Path) -> str:
    """Into a fresh environment, by pip, from the file alone; its Python."""
    venv.create(folder / "app", symlinks=True)
    python = str(folder / "app" / "bin" / "python")
    options = ("--no-deps", "--no-index", "--quiet", "--disable-pip-version-check")
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", python, "install", *options, str(wheel)],
        check=True,
    )
    return python


def run_app(python: str, picture: Path, packages: Path) -> dict:
    """What APP prints, with nothing but the wheel and `packages`."""
    environment = {**os.environ, "PYTHONPATH": str(packages)}
    command = [python, "-c", APP, str(picture)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
