"""Photos end to end: our answers beside those of timm and transformers, and what mistakes cost.

    python -m benchmarks.photos --photos FOLDER [--count 200]

Cuts `count` pictures of assorted sizes out of the photos in FOLDER (such as `skimage/data` of
scikit-image), a third of them with an EXIF orientation. The demonstration's network is saved by
timm and by transformers, each with its own preprocessing; `levit-deploy compile` and `levit-deploy
classify` get that folder and nothing else, and their answers are held against the library's own
transform and model. Then the table of docs/camera.md: the same network behind ways of resizing that
programs often have instead.

timm's transforms are torchvision's. Where its wheel does not fit the CPU build of torch, `pip
install --no-deps torchvision` is enough: its compiled operators are not used.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from levit_deploy.models.demo import DEMO_MODEL, DemoSplit, demo_images
from levit_deploy.models.spec import get_spec
from levit_deploy.models.weights import DEMO, load_weights
from levit_deploy.runtime.levit import Frame
from levit_deploy.runtime.loader import Library

SIZE, RESIZED = 224, 248  # of timm's levit: crop_pct 0.9
Pixels = NDArray[np.uint8]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--count", type=int, default=200)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="levit-deploy-") as name:
        work = Path(name)
        pictures = cut_pictures(options.photos, options.count, work / "pictures")
        for library, save in (("timm", save_timm), ("transformers", save_transformers)):
            expected = save(work / library, pictures)
            artifact = compile_folder(work / library, work / f"{library}-build")
            report(library, expected, classify(artifact, pictures))
            if library == "timm":
                print_mistakes(Library(artifact), [np.asarray(open_rgb(p)) for p in pictures])


def cut_pictures(photos: Path, count: int, folder: Path) -> list[Path]:
    """PNG files of random parts of the photos, from 60 to 1400 pixels on a side."""
    sources = [open_rgb(path) for path in sorted(photos.iterdir()) if is_photo(path)]
    rng = np.random.default_rng(0)
    folder.mkdir()
    paths = []
    for index in range(count):
        source = sources[index % len(sources)]
        width, height = (int(rng.integers(60, side + 1)) for side in source.size)
        left, top = (
            int(rng.integers(0, side - cut + 1))
            for side, cut in zip(source.size, (width, height), strict=True)
        )
        picture = source.crop((left, top, left + width, top + height))
        exif = Image.Exif()
        if index % 3 == 0:
            exif[0x0112] = int(rng.integers(1, 9))
        paths.append(folder / f"{index:04}.png")
        picture.save(paths[-1], exif=exif)
    return paths


def is_photo(path: Path) -> bool:
    if path.suffix not in (".jpg", ".jpeg", ".png"):
        return False
    with Image.open(path) as image:
        return min(image.size) >= 300


def open_rgb(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB")


def save_timm(folder: Path, pictures: Sequence[Path]) -> list[torch.Tensor]:
    """What timm's `save_for_hf` writes, and its own logits of the pictures."""
    with_torchvision()
    import timm
    from timm.data import create_transform, resolve_model_data_config
    from timm.models._hub import save_for_hf

    labels = demo_images(DemoSplit.TEST).classes
    model = timm.create_model(DEMO_MODEL, num_classes=len(labels)).eval()
    load_demo(model)
    save_for_hf(model, folder, model_config={"label_names": list(labels)})
    transform = create_transform(**resolve_model_data_config(model), is_training=False)
    with torch.inference_mode():
        return [model(transform(open_rgb(path))[None])[0] for path in pictures]


def save_transformers(folder: Path, pictures: Sequence[Path]) -> list[torch.Tensor]:
    """What transformers' `save_pretrained` writes, and its own logits of the pictures."""
    import transformers
    from transformers.image_utils import load_image
    from transformers.models.levit.image_processing_pil_levit import LevitImageProcessorPil

    labels = demo_images(DemoSplit.TEST).classes
    config = transformers.LevitConfig(
        hidden_sizes=[128, 256, 384],
        num_attention_heads=[4, 6, 8],
        depths=[2, 3, 4],
        id2label=dict(enumerate(labels)),
    )
    model = transformers.LevitForImageClassificationWithTeacher(config).eval()
    load_demo(model)
    model.save_pretrained(folder)
    processor = LevitImageProcessorPil()
    processor.save_pretrained(folder)
    with torch.inference_mode():
        return [
            model(**processor(load_image(str(path)), return_tensors="pt")).logits[0]
            for path in pictures
        ]


def load_demo(model: torch.nn.Module) -> None:
    """The demonstration's weights, by their place in the network, as conversion scripts do it."""
    demo = load_weights(get_spec(DEMO_MODEL), DEMO).build().state_dict()
    tensors = [value for name, value in demo.items() if is_weight(name)]
    state = model.state_dict()
    names = [name for name in state if is_weight(name)]
    placed = zip(names, tensors, strict=True)
    model.load_state_dict({**state, **{name: t.reshape(state[name].shape) for name, t in placed}})


def is_weight(name: str) -> bool:
    return not name.endswith(("num_batches_tracked", "attention_bias_idxs"))


def with_torchvision() -> None:
    """Let torchvision be imported without its compiled operators."""
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms", "roi_align", "qroi_align", "roi_pool", "ps_roi_align"):
        library.define(f"{name}(Tensor a) -> Tensor")
    for name in ("ps_roi_pool", "deform_conv2d"):
        library.define(f"{name}(Tensor a) -> Tensor")
    for name in ("roi_align", "roi_pool", "ps_roi_align", "ps_roi_pool", "deform_conv2d"):
        library.define(f"_{name}_backward(Tensor a) -> Tensor")
    torch.library.kept = library  # type: ignore[attr-defined]


def levit_deploy(*arguments: str) -> str:
    command = (sys.executable, "-m", "levit_deploy.cli", *arguments)
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def compile_folder(folder: Path, output: Path) -> Path:
    levit_deploy("compile", "--target", "host", "--weights", str(folder), "-o", str(output))
    return next(output.iterdir())


def classify(artifact: Path, pictures: Sequence[Path]) -> list[dict[str, Any]]:
    paths = map(str, pictures)
    answers = levit_deploy("classify", str(artifact), *paths, "--top", "5", "--json")
    parsed: list[dict[str, Any]] = json.loads(answers)
    return parsed


def report(name: str, logits: Sequence[torch.Tensor], answers: Sequence[dict[str, Any]]) -> None:
    labels, same, worst = demo_images(DemoSplit.TEST).classes, 0, 0.0
    for expected, got in zip(logits, answers, strict=True):
        best = expected.double().softmax(dim=0).topk(5)
        named = [labels[index] for index in best.indices]
        same += [answer["label"] for answer in got["answers"]] == named
        ours = torch.tensor([answer["probability"] for answer in got["answers"]])
        worst = max(worst, float((ours - best.values).abs().max()))
    print(
        f"{name}: the same five labels in the same order on {same} of {len(answers)} pictures, "
        f"probabilities within {worst:.1e}"
    )


def ways() -> dict[str, Callable[[Pixels], Pixels]]:
    def scaled(picture: Pixels) -> tuple[int, int]:
        height, width = picture.shape[:2]
        shorter = min(width, height)
        return RESIZED * width // shorter, RESIZED * height // shorter

    def centre(picture: Pixels, rounded: Callable[[float], int] = round) -> Pixels:
        top, left = (rounded((side - SIZE) / 2) for side in picture.shape[:2])
        return np.ascontiguousarray(picture[top : top + SIZE, left : left + SIZE])

    def pillow(resample: Image.Resampling) -> Callable[[Pixels], Pixels]:
        return lambda p: centre(np.asarray(Image.fromarray(p).resize(scaled(p), resample)))

    def opencv(interpolation: int) -> Callable[[Pixels], Pixels]:
        return lambda p: centre(cv2.resize(p, scaled(p), interpolation=interpolation))

    bicubic = pillow(Image.Resampling.BICUBIC)
    return {
        "Pillow bicubic, crop: the right way": bicubic,
        "Pillow bicubic, crop that rounds half a pixel down": lambda p: centre(
            np.asarray(Image.fromarray(p).resize(scaled(p), Image.Resampling.BICUBIC)), int
        ),
        "Pillow bilinear, crop": pillow(Image.Resampling.BILINEAR),
        "OpenCV area, crop": opencv(cv2.INTER_AREA),
        "OpenCV cubic, crop": opencv(cv2.INTER_CUBIC),
        "OpenCV linear, crop": opencv(cv2.INTER_LINEAR),
        "nearest, crop": opencv(cv2.INTER_NEAREST),
        "Pillow bicubic to 224 x 224, no crop": lambda p: np.asarray(
            Image.fromarray(p).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
        ),
        "OpenCV linear to 224 x 224, no crop": lambda p: cv2.resize(p, (SIZE, SIZE)),
        "Pillow bicubic, crop, BGR": lambda p: np.ascontiguousarray(bicubic(p)[..., ::-1]),
    }


def print_mistakes(library: Library, pictures: Sequence[Pixels]) -> None:
    right = np.stack([library.run_frame(Frame.of(picture)) for picture in pictures])
    print("| way | same top-1 | signal to noise of the logits |\n|---|---|---|")
    for name, way in ways().items():
        logits = np.stack([library.run_rgb8(way(picture)) for picture in pictures])
        same = float(np.mean(logits.argmax(axis=1) == right.argmax(axis=1)))
        noise = float(np.square(logits - right).sum())
        signal = float(np.square(right).sum())
        ratio = "equal" if noise == 0 else f"{10 * np.log10(signal / noise):.1f} dB"
        print(f"| {name} | {same:.1%} | {ratio} |")


if __name__ == "__main__":
    main()
