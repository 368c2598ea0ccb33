"""Python files that lie where the user stands are data, not code."""

from tests.cli.conftest import TINY_WEIGHTS, Cli
from tests.planted_modules import plant_modules


def test_modules_in_the_current_folder_are_not_imported(cli: Cli):
    told = plant_modules(cli.folder)
    done = cli.compile("-o", ".")
    assert done.returncode == 0, done.stderr
    folder, weights = "levit_tiny-host-fp32", ("--weights", TINY_WEIGHTS)
    for command in (
        ("verify", folder, *weights, "--images", "1"),
        ("bench", folder, "--against", "onnxruntime,torch", "--rounds", "1"),
        ("audit", folder, *weights, "--data", "demo", "--images", "4", "-o", "report"),
    ):
        done = cli.run(*command)
        assert done.returncode == 0, done.stderr
        assert not told.exists(), (command, told.read_text())
