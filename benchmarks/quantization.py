"""Our int8 beside that of ONNX Runtime and NNCF: the same network, calibration and test images.

    python -m benchmarks.quantization                          # everything, over an hour
    python -m benchmarks.quantization --methods levit-deploy --sigmas 0 2 --images 500
    python -m benchmarks.quantization --table                  # the record as a table, no run

The demonstration net and its hostile twins (sigma: levit_deploy/export/hostile_twin.py), calibrated
on the 512 images in the package, tested on labelled CIFAR-10 images that it never saw. Ours runs in
ONNX Runtime with optimisations off, the others as they are meant to: ONNX Runtime's in its own
kernels, NNCF's in OpenVINO (`pip install nncf openvino`; skipped where it is not installed). Each
result is written to the record at once, so a run that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnxruntime import quantization as ort

from levit_deploy.calibration.image_set import ImageSet, open_images
from levit_deploy.calibration.quantize_model import quantize_model
from levit_deploy.calibration.recipe import RECIPES
from levit_deploy.export.export_model import export_model
from levit_deploy.export.exported import INPUT_NAME, OUTPUT_NAME, ExportedModel
from levit_deploy.export.hostile_twin import hostile_twin
from levit_deploy.models.images import model_input, normalize
from levit_deploy.models.spec import get_spec
from levit_deploy.models.weights import DEMO, load_weights

RECORD = Path(__file__).with_name("quantization.json")
TEST_IMAGES = Path(__file__).parent.parent / "tests" / "data" / "val_2000.npz"
SIGMAS = (0.0, 1.0, 1.5, 2.0)  # 0 is the net itself
CHUNK = 32  # calibration images whose activations ONNX Runtime holds at once

Floats = NDArray[np.float32]
Predict = Callable[[Floats], Floats]  # image (1, 3, size, size) -> logits (1, classes)


@dataclass(frozen=True)
class Result:
    """`top1`, `fp32_top1`, `agreement`: percent; `sqnr_db`: of all logits together."""

    method: str
    sigma: float
    images: int
    top1: float
    fp32_top1: float
    agreement: float
    sqnr_db: float


@dataclass(frozen=True)
class Case:
    """A float network, and what a method may calibrate on."""

    exported: ExportedModel
    pictures: ImageSet

    def calibration(self) -> Iterator[Floats]:
        for picture in self.pictures:
            yield normalize(picture[None], self.exported.normalization)


def session(model: bytes, optimize: bool) -> Predict:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    if not optimize:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    runtime = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return lambda image: runtime.run([OUTPUT_NAME], {INPUT_NAME: image})[0]


def ours(recipe: str) -> Callable[[Case], Predict]:
    def prepare(case: Case) -> Predict:
        quantized, _ = quantize_model(case.exported, case.pictures, RECIPES[recipe])
        return session(quantized.graph.SerializeToString(), optimize=False)

    return prepare


class Reader(ort.CalibrationDataReader):  # type: ignore[misc]
    """ONNX Runtime's way to ask for the images, which it does in ranges."""

    def __init__(self, case: Case) -> None:
        self._all = list(case.calibration())
        self._next = iter(self._all)

    def __len__(self) -> int:
        return len(self._all)

    def get_next(self) -> dict[str, Floats] | None:
        image = next(self._next, None)
        return None if image is None else {INPUT_NAME: image}

    def set_range(self, start_index: int, end_index: int) -> None:
        self._next = iter(self._all[start_index:end_index])


def onnxruntime_static(types: str, calibration: str) -> Callable[[Case], Predict]:
    """`types`: activations and weights, such as u8s8."""
    kinds = {"u8": ort.QuantType.QUInt8, "s8": ort.QuantType.QInt8}
    methods = {
        "min-max": ort.CalibrationMethod.MinMax,
        "percentile": ort.CalibrationMethod.Percentile,
        "entropy": ort.CalibrationMethod.Entropy,
    }

    def prepare(case: Case) -> Predict:
        with tempfile.TemporaryDirectory() as folder:
            source, target = Path(folder) / "fp32.onnx", Path(folder) / "int8.onnx"
            onnx.save(case.exported.graph, source)
            ort.quantize_static(
                source,
                target,
                Reader(case),
                quant_format=ort.QuantFormat.QDQ,
                per_channel=True,
                activation_type=kinds[types[:2]],
                weight_type=kinds[types[2:]],
                calibrate_method=methods[calibration],
                extra_options={"CalibStridedMinMax": CHUNK},
            )
            return session(target.read_bytes(), optimize=True)

    return prepare


def nncf_ptq(transformer: bool) -> Callable[[Case], Predict]:
    def prepare(case: Case) -> Predict:
        import nncf
        import openvino

        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / "fp32.onnx"
            onnx.save(case.exported.graph, source)
            model = openvino.Core().read_model(source)
        images = list(case.calibration())
        quantized = nncf.quantize(
            model,
            nncf.Dataset(images),
            subset_size=len(images),
            model_type=nncf.ModelType.TRANSFORMER if transformer else None,
        )
        config = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
        compiled = openvino.Core().compile_model(quantized, "CPU", config)
        return lambda image: next(iter(compiled([image]).values()))

    return prepare


METHODS: dict[str, Callable[[Case], Predict]] = {
    **{f"levit-deploy {name}": ours(name) for name in RECIPES},
    "nncf default": nncf_ptq(transformer=False),
    "nncf transformer": nncf_ptq(transformer=True),
    **{
        f"onnxruntime {types} {calibration}": onnxruntime_static(types, calibration)
        for calibration in ("min-max", "percentile", "entropy")
        for types in ("u8s8", "u8u8", "s8s8")
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--methods", nargs="+", default=list(METHODS), help="beginnings of names")
    parser.add_argument("--sigmas", nargs="+", type=float, default=SIGMAS)
    parser.add_argument("--images", type=int, default=2000, help="test images")
    parser.add_argument("--record", type=Path, default=RECORD)
    parser.add_argument("--table", action="store_true", help="only print the record")
    options = parser.parse_args()
    results = load(options.record)
    if not options.table:
        for sigma in options.sigmas:
            for method in METHODS:
                done = any((r.method, r.sigma) == (method, sigma) for r in results)
                if method.startswith(tuple(options.methods)) and not done:
                    try:
                        results.append(measure(method, sigma, options.images))
                    except ModuleNotFoundError as error:
                        print(f"{method}: skipped, {error}")
                        continue
                    print(results[-1], flush=True)
                    save(results, options.record)
    print(table(results))


def measure(method: str, sigma: float, count: int) -> Result:
    case, reference = network(sigma), float_logits(sigma, count)
    actual = logits(METHODS[method](case), count)
    labels = test_set()[1][:count]
    noise = np.square(reference - actual).sum()
    return Result(
        method=method,
        sigma=sigma,
        images=len(reference),
        top1=percent(actual.argmax(axis=1) == labels),
        fp32_top1=percent(reference.argmax(axis=1) == labels),
        agreement=percent(actual.argmax(axis=1) == reference.argmax(axis=1)),
        sqnr_db=round(float(10 * np.log10(np.square(reference).sum() / noise)), 2),
    )


@cache
def network(sigma: float) -> Case:
    checkpoint = load_weights(get_spec("levit_128s"), DEMO)
    net = checkpoint.build()
    if sigma > 0:
        net = hostile_twin(net, sigma, seed=0)
    exported = export_model(net, name="levit_128s", weights_digest=checkpoint.digest)
    pictures = open_images(DEMO, checkpoint.preprocessing, exported.image_size)
    return Case(exported, pictures)


@cache
def float_logits(sigma: float, count: int) -> NDArray[np.float64]:
    return logits(session(network(sigma).exported.graph.SerializeToString(), optimize=True), count)


@cache
def test_set() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    with np.load(TEST_IMAGES) as data:
        return data["images"], data["labels"]


def logits(predict: Predict, count: int) -> NDArray[np.float64]:
    """(count, classes), one image at a time."""
    spec = get_spec("levit_128s")
    images = (model_input(image[None], spec) for image in test_set()[0][:count])
    return np.concatenate([predict(image) for image in images]).astype(np.float64)


def percent(hits: NDArray[np.bool_]) -> float:
    return round(100 * float(hits.mean()), 2)


def load(record: Path) -> list[Result]:
    return [Result(**row) for row in json.loads(record.read_text())] if record.exists() else []


def save(results: list[Result], record: Path) -> None:
    rows = [json.dumps(asdict(r)) for r in sorted(results, key=lambda r: (r.sigma, r.method))]
    record.write_text("[\n " + ",\n ".join(rows) + "\n]\n")


def table(results: list[Result]) -> str:
    """Markdown: agreement and SQNR by method and network."""
    sigmas = sorted({result.sigma for result in results})
    names = ["the net itself" if sigma == 0 else f"twin, sigma {sigma:g}" for sigma in sigmas]
    lines = [f"| method | {' | '.join(names)} |", "|---" * (len(sigmas) + 1) + "|"]
    for method in METHODS:
        cells = []
        for sigma in sigmas:
            found = [r for r in results if (r.method, r.sigma) == (method, sigma)]
            cells += [f"{r.agreement:.1f} %, {r.sqnr_db:.1f} dB" for r in found] or ["-"]
        lines.append(f"| {method} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
