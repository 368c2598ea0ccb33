"""Python files that lie where the user stands are data, not code."""

from tests.cli.conftest import TINY_WEIGHTS, Cli
from tests.planted_modules import plant_modules


def test_modules_in_the_current_folder_are_not_imported(cli: Cli):
    told = plant_modules(cli.folder)
    int8 = ("--precision", "int8", "--data", "demo", "--max-images", "8")
    done = cli.compile("-o", ".", *int8)
    assert done.returncode == 0, done.stderr
    folder = "levit_tiny-host-int8"
    weights = ("--weights", TINY_WEIGHTS)
    for command in (
        ("verify", folder, *weights, "--images", "1"),
        ("bench", folder, "--against", "onnxruntime,torch", "--rounds", "1"),
        ("audit", folder, *weights, "--data", "demo", "--images", "4", "-o", "report"),
    ):
        done = cli.run(*command)
        assert "No module" not in done.stderr
        assert "error" not in done.stderr or command[0] == "audit", done.stderr
        assert not told.exists(), (command, told.read_text())
