"""Modules that nobody may import, though they lie in the current folder."""

from pathlib import Path

NAMES = ("numpy", "platform", "json", "torch", "onnxruntime", "levit_deploy", "sitecustomize")


def plant_modules(folder: Path) -> Path:
    """Write them; the file that is answered appears if one of them is imported."""
    told = folder / "imported"
    for name in NAMES:
        (folder / f"{name}.py").write_text(f"open({str(told)!r}, 'a').write({name!r})\n")
    return told
