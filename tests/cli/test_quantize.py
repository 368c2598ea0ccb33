"""quantize and compile --precision int8: from pictures to 8 bits, or to one clear error."""

import json
import signal
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file, save_file

from levit_deploy.calibration.image_set import MIN_IMAGES
from levit_deploy.calibration.table import CalibrationTable
from levit_deploy.models.checkpoint import load_checkpoint
from levit_deploy.models.preprocessing import ORIGINAL_PREPROCESSING
from levit_deploy.models.spec import TINY
from levit_deploy.runtime.artifact import Artifact
from levit_deploy.runtime.loader import Library
from levit_deploy.verify.images import real_images
from tests.calibration.running import signal_to_noise_db
from tests.cli.conftest import TINY_WEIGHTS, Cli, Spawner, compile_args
from tests.cli.test_bad_input import assert_refused, damaged
from tests.cli.test_interruption import wait_for_staging

MODEL, TABLE = "levit_tiny_int8.onnx", "levit_tiny_int8.calibration.json"


def quantize_args(data: str | Path, *args: str | Path) -> tuple[str | Path, ...]:
    """What quantizes the tiny LeViT."""
    weights = () if "--weights" in args else ("--weights", TINY_WEIGHTS)
    return ("quantize", "levit_tiny", *weights, "--data", data, *args)


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of as many pictures as must be, larger than the model wants them."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for index in range(MIN_IMAGES):
        pixels = rng.integers(0, 256, (70, 90, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{index:02}.png")
    return folder


@pytest.fixture
def spoiled(photos: Path, cli: Cli) -> Path:
    """The photos, and two files that are none."""
    folder = cli.folder / "spoiled"
    folder.mkdir()
    for photo in photos.iterdir():
        (folder / photo.name).write_bytes(photo.read_bytes())
    (folder / "05a.jpg").write_bytes(b"not a picture")
    (folder / "99.png").write_bytes((photos / "00.png").read_bytes()[:200])
    return folder


def in_onnxruntime(file: Path) -> NDArray[np.float32]:
    """The logits of eight photographs, as the model is written."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(file, options)
    images = real_images(TINY, 8, ORIGINAL_PREPROCESSING).floats
    return np.concatenate([session.run(None, {"image": image[None]})[0] for image in images])


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_quantize_writes_a_model_and_its_table(cli: Cli, photos: Path):
    done = cli.run(*quantize_args(photos, "--json"))
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result == {
        "path": MODEL,
        "bytes": (cli.folder / MODEL).stat().st_size,
        "table": TABLE,
        "weights_digest": load_checkpoint(TINY_WEIGHTS, TINY).digest,
    }
    assert files(cli.folder) == {MODEL, TABLE}
    table = CalibrationTable.load(cli.folder / TABLE)
    assert (table.recipe.name, table.images.images) == ("w8a8", MIN_IMAGES)
    assert "pictures: 16 of " in done.stderr
    logits = in_onnxruntime(cli.folder / MODEL)
    cli.run("export", "levit_tiny", "--weights", TINY_WEIGHTS, "-o", "float.onnx")
    expected = in_onnxruntime(cli.folder / "float.onnx")
    assert np.abs(logits - expected).max() < 0.1 * np.ptp(expected)


def test_the_same_command_replaces_what_it_wrote(cli: Cli, photos: Path):
    (cli.folder / "q.onnx").write_text("an older model")
    contents = []
    for _ in range(2):
        done = cli.run(*quantize_args(photos, "-o", "q.onnx"))
        assert done.returncode == 0, done.stderr
        assert done.stdout.split()[0] == "q.onnx"
        contents.append([(cli.folder / name).read_bytes() for name in sorted(files(cli.folder))])
    assert files(cli.folder) == {"q.onnx", "q.calibration.json"}
    assert contents[0] == contents[1]


def test_the_class_count_follows_the_weights(cli: Cli, photos: Path):
    state = load_file(TINY_WEIGHTS)
    for name in state:
        if name.startswith(("head.l.", "head_dist.l.")):
            state[name] = state[name][:7].clone()
    save_file(state, cli.folder / "seven.safetensors")
    done = cli.run(*quantize_args(photos, "--weights", "seven.safetensors"))
    assert done.returncode == 0, done.stderr
    assert "levit_tiny, 64 px, 7 classes" in done.stderr
    session = onnxruntime.InferenceSession(cli.folder / MODEL)
    assert session.get_outputs()[0].shape == [1, 7]


def test_broken_pictures_are_named_or_counted(cli: Cli, spoiled: Path):
    done = cli.run(*quantize_args(spoiled))
    assert "--skip-broken" in assert_refused(done, 1, "spoiled/05a.jpg")
    assert files(cli.folder) == {"spoiled"}
    done = cli.run(*quantize_args(spoiled, "--skip-broken"))
    assert done.returncode == 0, done.stderr
    assert "2 broken ones left out" in done.stderr
    assert CalibrationTable.load(cli.folder / TABLE).images.skipped == 2


def test_too_few_pictures(cli: Cli, spoiled: Path):
    (spoiled / "00.png").unlink()
    done = cli.run(*quantize_args(spoiled, "--skip-broken"))
    message = f"only {MIN_IMAGES - 1} images in `{spoiled}` beside 2 broken ones"
    assert "--data demo" in assert_refused(done, 1, message)


@pytest.mark.parametrize(
    ("data", "message", "hint"),
    [
        ("nowhere", "no images at `nowhere`", "a folder of images"),
        ("empty", "no image files in `empty`", "put .avif"),
        ("wrong.npz", "has no array `images`", "np.savez"),
    ],
)
@pytest.mark.parametrize("command", ["quantize", "compile"])
def test_data_that_is_none(cli: Cli, command: str, data: str, message: str, hint: str):
    (cli.folder / "empty").mkdir()
    (cli.folder / "empty" / "readme.txt").write_text("no picture")
    np.savez(cli.folder / "wrong.npz", pictures=np.zeros(3))
    before = files(cli.folder)
    if command == "quantize":
        done = cli.run(*quantize_args(data))
    else:
        done = cli.compile("--precision", "int8", "--data", data)
    assert hint in assert_refused(done, 1, message)
    assert files(cli.folder) == before


@pytest.mark.parametrize(
    ("args", "message", "hint"),
    [
        (
            ["quantize", "levit_tiny", "--data", "demo", "--recipe", "w8a8-precentile"],
            "unknown recipe `w8a8-precentile`",
            "did you mean `w8a8-percentile`?",
        ),
        (
            ["quantize", "levit_tiny", "--data", "demo", "--recipe", "mine.json"],
            "cannot read `mine.json`",
            "w8a8-streams",
        ),
        (
            ["compile", "--target", "host", "levit_tiny", "--data", "demo"],
            "--data is for --precision int8, this is fp32",
            "levit-deploy compile --help",
        ),
        (
            ["compile", "--target", "host", "levit_tiny", "--skip-broken"],
            "--skip-broken is for --precision int8",
            "levit-deploy compile --help",
        ),
    ],
)
def test_wrong_usage(cli: Cli, args: list[str], message: str, hint: str):
    assert hint in assert_refused(cli.run(*args), 2, message)
    assert files(cli.folder) == set()


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ("{", "is not JSON"),
        ('{"schema_version": 2, "name": "x"}', "missing field `bias_correction`"),
    ],
)
def test_a_damaged_recipe(cli: Cli, recipe: str, message: str):
    (cli.folder / "mine.json").write_text(recipe)
    assert_refused(cli.run(*quantize_args("demo", "--recipe", "mine.json")), 2, message)


@pytest.mark.parametrize("kind", ["nan", "inf"])
def test_weights_that_are_not_finite(cli: Cli, photos: Path, kind: str):
    weights = damaged(kind, cli.folder)
    for done in (
        cli.run(*quantize_args(photos, "--weights", weights)),
        cli.compile("--precision", "int8", "--data", photos, "--weights", weights),
    ):
        assert_refused(done, 1, "c.weight")
    assert files(cli.folder) == {weights.name}


def test_a_place_that_cannot_be_written_is_told_of_first(cli: Cli, photos: Path):
    done = cli.run(*quantize_args(photos, "-o", "nowhere/q.onnx"))
    assert "-o FILE" in assert_refused(done, 1, "`nowhere` is not a folder")
    assert "weights" not in done.stderr


def test_a_full_disk(cli: Cli, photos: Path, small_disk: Path):
    """Not even one of the two files, if there is room for it."""
    (small_disk / "q.calibration.json").write_text("{}")
    (small_disk / "others").write_bytes(bytes(150_000))
    done = cli.run(*quantize_args(photos, "-o", small_disk / "q.onnx"))
    assert "free some space" in assert_refused(done, 1, "q.onnx`: No space left on device")
    assert files(small_disk) == {"q.calibration.json", "others"}
    assert (small_disk / "q.calibration.json").read_text() == "{}"


def test_a_full_disk_for_a_library(cli: Cli, photos: Path, small_disk: Path):
    done = cli.compile("--precision", "int8", "--data", photos, "-o", small_disk)
    assert "free some space" in assert_refused(done, 1, "No space left on device")
    assert files(small_disk) == set()


@pytest.mark.parametrize(
    ("sent", "code", "word"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")],
)
def test_an_interrupted_quantize_leaves_nothing(
    spawner: Spawner, photos: Path, sent: signal.Signals, code: int, word: str
):
    with spawner.start(*quantize_args(photos)) as process:
        assert process.stderr is not None
        while process.stderr.readline().split()[:1] != ["pictures"]:  # now it calibrates
            assert process.poll() is None
        process.send_signal(sent)
        stderr = process.communicate(timeout=120)[1]
    assert process.returncode == code, stderr
    assert stderr.splitlines()[-1] == f"error: {word}"
    assert "Traceback" not in stderr
    assert files(spawner.folder) == set()


def test_two_at_once_write_whole_files(spawner: Spawner, photos: Path):
    args = quantize_args(photos, "-o", "q.onnx")
    with spawner.start(*args) as first, spawner.start(*args) as second:
        results = [process.communicate(timeout=300) for process in (first, second)]
    assert [first.returncode, second.returncode] == [0, 0], results
    assert files(spawner.folder) == {"q.onnx", "q.calibration.json"}
    onnxruntime.InferenceSession(spawner.folder / "q.onnx")
    CalibrationTable.load(spawner.folder / "q.calibration.json")


@pytest.fixture(scope="module")
def library(
    photos: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, object]]:
    """(folder of an 8-bit artifact for this machine, what compile --json printed)."""
    spawner = Spawner(tmp_path_factory.mktemp("compiled"))
    args = compile_args("--precision", "int8", "--data", photos, "-o", "build", "--json")
    done = spawner.run(*args)
    assert done.returncode == 0, done.stderr
    return spawner.folder / "build" / "levit_tiny-host-int8", json.loads(done.stdout)


def test_compile_makes_a_verified_8_bit_library(library: tuple[Path, dict[str, object]]):
    folder, result = library
    assert files(folder.parent) == {"levit_tiny-host-int8"}
    artifact = Artifact.load(folder)
    assert (artifact.manifest.name, artifact.manifest.precision) == ("levit_tiny_int8", "int8")
    assert result["precision"] == "int8"
    assert result["verification"]["passed"] is True  # type: ignore[index]
    assert CalibrationTable.load(folder / "calibration.json").recipe.name == "w8a8"
    assert Library(folder).describe().precision == "int8"
    kinds = {kernel["kind"] for kernel in result["kernels"]}  # type: ignore[attr-defined]
    assert "gemm int8" in kinds
    assert "gemm" not in kinds


def test_the_library_is_that_of_the_model_that_quantize_writes(
    cli: Cli, photos: Path, library: tuple[Path, dict[str, object]]
):
    """The same table, so the same 8-bit model; the library computes it."""
    assert cli.run(*quantize_args(photos)).returncode == 0
    assert (cli.folder / TABLE).read_bytes() == (library[0] / "calibration.json").read_bytes()
    expected, loaded = in_onnxruntime(cli.folder / MODEL), Library(library[0])
    logits = np.stack(
        [loaded.run(image) for image in real_images(TINY, 8, ORIGINAL_PREPROCESSING).floats]
    )
    assert np.abs(logits - expected).max() < 1e-2 * np.ptp(expected)


@pytest.mark.parametrize("late", [False, True])
def test_an_interrupted_compile_leaves_nothing(spawner: Spawner, photos: Path, late: bool):
    parent = spawner.folder / "build"
    args = compile_args("--precision", "int8", "--data", photos, "-o", parent)
    with spawner.start(*args) as process:
        assert process.stderr is not None
        if late:
            wait_for_staging(process, parent)
        else:
            while process.stderr.readline().split()[:1] != ["pictures"]:
                assert process.poll() is None
        process.send_signal(signal.SIGINT)
        stderr = process.communicate(timeout=120)[1]
    assert process.returncode == 130, stderr
    assert stderr.splitlines()[-1] == "error: interrupted"
    assert not parent.exists() or files(parent) == set()


@pytest.mark.slow
def test_two_compiles_into_one_folder(spawner: Spawner, photos: Path):
    args = compile_args("--precision", "int8", "--data", photos, "-o", "build")
    with spawner.start(*args) as first, spawner.start(*args) as second:
        assert [process.wait(timeout=300) for process in (first, second)] == [0, 0]
    Artifact.load(spawner.folder / "build" / "levit_tiny-host-int8")


def test_without_pictures_ranges_come_from_the_checkpoint(cli: Cli):
    """`--data` is optional, what was done instead is said, and the library is a good one."""
    done = cli.compile("--precision", "int8", "--json")
    assert done.returncode == 0, done.stderr
    assert "no pictures: ranges from what the checkpoint's BatchNorms saw" in done.stderr
    assert json.loads(done.stdout)["verification"]["passed"]
    folder = cli.folder / "levit_tiny-host-int8"
    assert CalibrationTable.load(folder / "calibration.json").images is None
    images = real_images(TINY, 100, ORIGINAL_PREPROCESSING)
    reference = load_checkpoint(TINY_WEIGHTS, TINY).build()
    with torch.inference_mode():
        expected = reference(torch.from_numpy(images.floats)).numpy()
    library = Library(folder)
    got = np.stack([library.run(image) for image in images.floats])
    assert signal_to_noise_db(expected, got) > 30
    assert np.mean(expected.argmax(axis=1) == got.argmax(axis=1)) >= 0.97
    asked = cli.run("audit", folder)
    assert "--data FOLDER" in assert_refused(asked, 1, "names no pictures")


def test_folded_weights_need_pictures(cli: Cli):
    """Nothing in them says what layers see."""
    state = load_file(TINY_WEIGHTS)
    for name in state:
        if name.endswith("running_mean"):
            state[name] = torch.zeros_like(state[name])
    save_file(state, cli.folder / "folded.safetensors")
    done = cli.run(*quantize_args("none", "--weights", "folded.safetensors"))
    assert "--data FOLDER" in assert_refused(done, 1, "weights do not say what layers see")
    assert files(cli.folder) == {"folded.safetensors"}
