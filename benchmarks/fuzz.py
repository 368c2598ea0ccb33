"""Damaged files of every kind that is read: each case ends in an answer or in one DeployError.

    python -m benchmarks.fuzz [KIND ...] [--seconds 60] [--seed 0] [--keep DIR]

A case is a sound file, or a folder of them, with a few mutations; the seed and its number make it
again. It fails if another exception comes out, the process dies, it takes more than 10 s or 2 GB
beside what the process had, or a file outside of the case's folder is opened to be written. Cases
that fail are kept in DIR. Prints counts for each kind; exits with 1 if a case failed.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HANG_S = 10
MEMORY_BYTES = 2 << 30
ROOT = Path(__file__).parent.parent
WEIGHTS = ROOT / "tests" / "data" / "levit_tiny_cifar10.safetensors"
_NUMBERS = (b"\0", b"\xff", b"\x7f\xff\xff\xff", b"\xff" * 8, b"\x80" + bytes(7))
_VALUES: tuple[Any, ...] = (
    *(None, True, 0, -1, 1.5, 10**400, 1 << 62, "", "red", "inf", [], {}, [{}], [[[]]] * 3),
    *("\ud800", "a\0b", "\x1b[31m", "../../x", "/dev/zero", "x" * 100_000),
)


@dataclass(frozen=True)
class Kind:
    """`make` puts sound files into a folder; `read` reads that folder as the tool would, or what
    there is of it. `apart`: whether what lies in the folder is read one by one."""

    make: Callable[[Path], None]
    read: Callable[[Path], object]
    apart: bool = True


def make_checkpoints(folder: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    state = {name: tensor.float() for name, tensor in load_file(WEIGHTS).items()}
    torch.save({"model": state, "epoch": 3, "args": argparse.Namespace(lr=0.1)}, folder / "a.pth")
    torch.save(state, folder / "old.pth", _use_new_zipfile_serialization=False)
    shards = folder / "shards"
    shards.mkdir()
    save_file(load_file(WEIGHTS), shards / "one.safetensors")
    index = {"weight_map": dict.fromkeys(state, "one.safetensors")}
    (shards / "model.safetensors.index.json").write_text(json.dumps(index))
    config = {"architecture": "levit_tiny", "num_classes": 10, "label_names": list("abcdefghij")}
    config["pretrained_cfg"] = {"mean": [0.5] * 3, "std": [0.5] * 3, "crop_pct": 0.9}
    (shards / "config.json").write_text(json.dumps(config))
    processor = {
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
        "size": {"shortest_edge": 64},
        "crop_size": {"height": 64, "width": 64},
    }
    (shards / "preprocessor_config.json").write_text(json.dumps(processor))


def read_checkpoints(folder: Path) -> None:
    from levit_deploy.models.checkpoint import load_checkpoint

    for name in ("a.pth", "old.pth", "shards"):
        if (folder / name).exists():
            load_checkpoint(folder / name)


def make_artifact(folder: Path) -> None:
    from levit_deploy.calibration.image_set import open_images
    from levit_deploy.calibration.recipe import DEFAULT_RECIPE
    from levit_deploy.deploy import Calibration, deploy
    from levit_deploy.models.checkpoint import load_checkpoint
    from levit_deploy.models.preprocessing import ORIGINAL_PREPROCESSING
    from levit_deploy.targets.table import get_target
    from levit_deploy.targets.toolchain import find_toolchain

    pictures = open_images("demo", ORIGINAL_PREPROCESSING, 64, maximum=16)
    calibration = Calibration(pictures, DEFAULT_RECIPE)
    toolchain = find_toolchain(get_target("host"))
    made = deploy(load_checkpoint(WEIGHTS), toolchain, folder / "made", calibration=calibration)
    made.artifact.folder.rename(folder / "artifact")
    (folder / "made").rmdir()


def read_artifact(folder: Path) -> None:
    from levit_deploy.cli import commands
    from levit_deploy.runtime.artifact import Taps, open_artifact
    from levit_deploy.runtime.elf import Elf
    from levit_deploy.verify.description import expected_description
    from levit_deploy.verify.model_of import table_of

    with contextlib.redirect_stdout(io.StringIO()):
        commands.main(["inspect", str(folder / "artifact")], standalone_mode=False)
    with open_artifact(folder / "artifact") as artifact:
        Elf.read(artifact.shared_library)
        Taps.load(artifact.files)
        table_of(artifact)
        expected_description(artifact.manifest)


def make_json(folder: Path) -> None:
    make_artifact(folder)
    for name in ("manifest.json", "verify.json", "calibration.json", "taps.json"):
        shutil.copy(folder / "artifact" / name, folder)
    shutil.rmtree(folder / "artifact")
    from levit_deploy.calibration.recipe import DEFAULT_RECIPE
    from levit_deploy.compiler.tiles.table import TileTable
    from levit_deploy.records import to_json
    from tests.compiler.tiles.test_table import ROWS

    (folder / "recipe.json").write_text(to_json(DEFAULT_RECIPE))
    TileTable(ROWS).save(folder / "tiles.json")
    (folder / "labels.json").write_text(json.dumps({"0": "cat", "1": "dog"}))


def read_json(folder: Path) -> None:
    from levit_deploy.calibration.recipe import Recipe
    from levit_deploy.calibration.table import CalibrationTable
    from levit_deploy.compiler.tiles.table import load_tiles
    from levit_deploy.models.labels import read_labels
    from levit_deploy.runtime.artifact import Taps
    from levit_deploy.runtime.manifest import Manifest
    from levit_deploy.verify.report import Verification

    readers: dict[str, Callable[[], object]] = {
        "manifest": lambda: Manifest.load(folder),
        "verify": lambda: Verification.load(folder),
        "taps": lambda: Taps.load(folder),
        "calibration": lambda: CalibrationTable.load(folder / "calibration.json"),
        "recipe": lambda: Recipe.load(folder / "recipe.json"),
        "tiles": lambda: load_tiles(folder / "tiles.json"),
        "labels": lambda: read_labels(str(folder / "labels.json")),
    }
    for path in folder.iterdir():
        readers[path.stem]()


def make_onnx(folder: Path) -> None:
    from levit_deploy.calibration.image_set import open_images
    from levit_deploy.calibration.quantize_model import quantize_model
    from levit_deploy.calibration.recipe import DEFAULT_RECIPE
    from levit_deploy.export.export_model import export_checkpoint
    from levit_deploy.models.checkpoint import load_checkpoint
    from levit_deploy.models.preprocessing import ORIGINAL_PREPROCESSING

    model = export_checkpoint(load_checkpoint(WEIGHTS))
    pictures = open_images("demo", ORIGINAL_PREPROCESSING, 64, maximum=16)
    model.save(folder / "fp32.onnx")
    quantize_model(model, pictures, DEFAULT_RECIPE)[0].save(folder / "int8.onnx")


def read_onnx(folder: Path) -> None:
    from levit_deploy.export.exported import ExportedModel

    for name in ("fp32.onnx", "int8.onnx"):
        if (folder / name).exists():
            model = ExportedModel.load(folder / name)
            _ = model.precision, model.image_size, model.classes


def make_pictures(folder: Path) -> None:
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (24, 20, 3), np.uint8)
    for suffix in ("png", "jpg", "gif", "bmp", "tiff", "webp", "ppm", "avif"):
        Image.fromarray(pixels).save(folder / f"a.{suffix}")
    Image.fromarray(pixels).convert("P").save(folder / "palette.png")
    images, labels = rng.integers(0, 9, (4, 8, 8, 3), np.uint8), np.arange(4)
    np.savez(folder / "plain.npz", images=images, labels=labels)
    np.savez_compressed(folder / "compressed.npz", images=images, labels=labels)


def read_pictures(folder: Path) -> None:
    from levit_deploy.calibration.image_set import find_pictures
    from levit_deploy.calibration.pictures import BrokenPictureError, content_digest
    from levit_deploy.models.demo import DemoSplit
    from levit_deploy.models.pictures import RGB, model_sized
    from levit_deploy.models.preprocessing import ORIGINAL_PREPROCESSING

    way, sources = ORIGINAL_PREPROCESSING, [folder, *folder.glob("*.npz")]
    for source in sources:
        with contextlib.suppress(BrokenPictureError):
            pictures = find_pictures(str(source), DemoSplit.TEST, way, RGB)
            for index in range(len(pictures)):
                with contextlib.suppress(BrokenPictureError):
                    model_sized(pictures.picture(index), way, 64)
                    content_digest(pictures, index)


def make_chunks(folder: Path) -> None:
    from tests.audit.test_state import SETTINGS, State, chunk

    state = State(folder / "report")
    with state.locked():
        state.begin(SETTINGS, anew=False)
        for number in range(2):
            state.store(number, chunk(number))


def read_chunks(folder: Path) -> None:
    from levit_deploy.audit.gate import Bounds, Gate
    from levit_deploy.audit.result import RunnerName
    from levit_deploy.audit.state import State, check_report, whole_audit
    from levit_deploy.audit.totals import Totals

    state = State(folder / "report")
    check_report(state.report, None, resume=True, force=False)
    settings, where = whole_audit([state])
    totals = Totals(settings, Gate.of(settings, RunnerName.REFERENCE, Bounds()))
    for number, owner in where.items():
        totals.add(owner.load(number, settings))
    totals.result()


KINDS = {
    "checkpoints": Kind(make_checkpoints, read_checkpoints),
    "json": Kind(make_json, read_json),
    "onnx": Kind(make_onnx, read_onnx),
    "pictures": Kind(make_pictures, read_pictures),
    "artifacts": Kind(make_artifact, read_artifact, apart=False),
    "audits": Kind(make_chunks, read_chunks, apart=False),
}


def make_case(kind: Kind, sound: Path, case: Path, number: int) -> None:
    """Put into `case` what the number says."""
    shutil.rmtree(case, ignore_errors=True)
    rng = random.Random(number)
    chosen = rng.choice(sorted(sound.iterdir())) if kind.apart else sound
    if chosen.is_dir():
        shutil.copytree(chosen, case / chosen.name if kind.apart else case)
    else:
        case.mkdir()
        shutil.copy(chosen, case)
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        with contextlib.suppress(ValueError, OSError, IndexError):  # spoiled already
            mutate(rng, case)


def mutate(rng: random.Random, folder: Path) -> None:
    """Spoil one file of the folder, or leave it alone among few that are."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and not p.is_symlink())
    path = rng.choice(files)
    match rng.randrange(20):
        case 0:
            path.unlink()
        case 1:
            path.unlink()
            os.mkfifo(path)
        case 2:
            path.unlink()
            path.symlink_to(rng.choice(["/dev/zero", "/etc/passwd", "nowhere", ".", path.name]))
        case 3:
            path.unlink()
            path.mkdir()
        case 4:
            path.write_bytes(rng.choice(files).read_bytes())
        case _ if path.suffix == ".json" and rng.random() < 0.8:
            path.write_text(json.dumps(spoiled(rng, json.loads(path.read_text()))))
        case _:
            path.write_bytes(damaged(rng, path.read_bytes()))


def spoiled(rng: random.Random, document: Any) -> Any:
    """A JSON document with another value somewhere."""
    if not isinstance(document, dict | list) or not document or rng.random() < 0.1:
        return rng.choice(_VALUES)
    copy = document.copy()
    key = rng.choice(list(copy)) if isinstance(copy, dict) else rng.randrange(len(copy))
    if rng.random() < 0.05:
        del copy[key]
    elif isinstance(copy, dict) and rng.random() < 0.05:
        copy[rng.choice(["\x1b[31m", "../x", "", "x" * 1000])] = copy[key]
    else:
        copy[key] = spoiled(rng, copy[key])
    return copy


def damaged(rng: random.Random, content: bytes) -> bytes:
    """Bytes flipped, cut out, put in or cut off; more often near the start, where headers are."""
    changed = bytearray(content)
    for _ in range(rng.choice([1, 1, 2, 5])):
        size = len(changed)
        place = min(rng.randrange(size + 1), rng.randrange(size + 1)) if size else 0
        if rng.random() < 0.3:
            place = min(place, rng.randrange(512))
        match rng.randrange(6):
            case 0:
                del changed[place:]
            case 1:
                del changed[place : place + rng.randrange(16)]
            case 2:
                changed[place:place] = rng.randbytes(rng.randrange(16))
            case 3:
                number = rng.choice(_NUMBERS)
                changed[place : place + len(number)] = number
            case _ if place < size:
                changed[place] ^= 1 << rng.randrange(8)
    return bytes(changed)


class HangError(BaseException):
    """Nothing that is read may catch it."""


class EscapedError(Exception):
    """A file outside of the case's folder was opened to be written."""


def run_case(kind: Kind, folder: Path) -> str | None:
    """None for an answer or one clear error, else what went wrong."""
    import click

    from levit_deploy.errors import DeployError

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    signal.alarm(HANG_S)
    try:
        kind.read(folder)
    except (DeployError, click.ClickException, MemoryError):
        pass  # the command line says each in a line and a hint
    except BaseException:
        return traceback.format_exc()
    finally:
        signal.alarm(0)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return f"took {grown} KiB" if grown << 10 > MEMORY_BYTES else None


def work(name: str, folder: Path, seed: int, cases: int, until: float, results: Any) -> None:
    """In a process of its own: cases from `seed` on; each one's number is told before it is run."""
    warnings.simplefilter("ignore")
    kind, sound, case = KINDS[name], folder / "sound", folder / "case"
    importlib.import_module("levit_deploy.cli")
    kind.read(sound)  # what is sound is read; and all modules are there
    signal.signal(signal.SIGALRM, lambda *_: (_ for _ in ()).throw(HangError("hangs")))
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + MEMORY_BYTES,) * 2)
    allowed = (str(folder), tempfile.gettempdir(), os.devnull)

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(arguments[0], str | bytes):
            writes = isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
            path = os.path.realpath(os.fsdecode(arguments[0]))
            if writes and not path.startswith(allowed):
                raise EscapedError(path)

    sys.addaudithook(watch)
    for number in range(seed, seed + cases):
        if time.time() > until:
            break
        make_case(kind, sound, case, number)
        results.put((number, "begun"))
        results.put((number, run_case(kind, case)))
    results.put(None)


def fuzz(name: str, seconds: float, seed: int, keep: Path | None, cases: int) -> Counter[str]:
    """Counts of cases and of failures by their last line."""
    counts: Counter[str] = Counter()
    context, until = multiprocessing.get_context("spawn"), time.time() + seconds
    with tempfile.TemporaryDirectory(prefix=f"fuzz-{name}-") as parent:
        folder = Path(parent)
        (folder / "sound").mkdir()
        KINDS[name].make(folder / "sound")
        until += time.time() - (until - seconds)  # making takes none of its time
        while cases > 0 and time.time() < until:
            results = context.SimpleQueue()
            arguments = (name, folder, seed, cases, until, results)
            process = context.Process(target=work, args=arguments)
            process.start()
            for number, failure in _answers(process, results):
                if failure == "begun":
                    seed, cases = number + 1, cases - 1
                    counts["cases"] += 1
                elif failure:
                    _note(counts, name, number, failure, folder / "case", keep)
            process.join()
            if process.exitcode:
                died = f"the process died: {process.exitcode}"
                _note(counts, name, seed - 1, died, folder / "case", keep)
                if not counts["cases"]:
                    break
    return counts


def _answers(process: Any, results: Any) -> Iterator[tuple[int, str | None]]:
    while True:
        while results.empty():
            if not process.is_alive() and results.empty():
                return
            time.sleep(0.001)
        answer = results.get()
        if answer is None:
            return
        yield answer


def _note(
    counts: Counter[str], name: str, number: int, failure: str, case: Path, keep: Path | None
) -> None:
    counts["failed"] += 1
    last = failure.strip().splitlines()[-1]
    counts[last[:120]] += 1
    print(f"{name} {number}: {last[:300]}", file=sys.stderr)
    if keep and counts[last[:120]] == 1:
        (keep / f"{name}-{number}.txt").write_text(failure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kinds", nargs="*", choices=[[], *KINDS])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--cases", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path)
    asked = parser.parse_args()
    if asked.keep:
        asked.keep.mkdir(parents=True, exist_ok=True)
    failed = 0
    for name in asked.kinds or KINDS:
        counts = fuzz(name, asked.seconds, asked.seed, asked.keep, asked.cases)
        failed += counts["failed"]
        print(f"{name:<12} {counts['cases']:>7} cases  {counts['failed']:>4} failed", flush=True)
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
