"""The whole way: an artifact, its weights and images -> a report, and a verdict in the artifact."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Self

import platformdirs
import torch

from levit_deploy.audit.chunk import Chunk
from levit_deploy.audit.gate import Gate
from levit_deploy.audit.images import AuditImages
from levit_deploy.audit.latency import fastest, time_artifact
from levit_deploy.audit.mixed_precision import MixedPrecision, Nearness
from levit_deploy.audit.page import render_page
from levit_deploy.audit.probe import LayerProbe
from levit_deploy.audit.result import AuditResult, FloatPlan, RunnerName, Sensitivity
from levit_deploy.audit.run import Work, run_chunks
from levit_deploy.audit.sensitivity import IMAGES as SENSITIVITY_IMAGES
from levit_deploy.audit.sensitivity import measure_sensitivities, plan_float_layers, plan_recipe
from levit_deploy.audit.settings import WHOLE, Settings, Shard
from levit_deploy.audit.state import (
    JSON_FILE,
    PAGE_FILE,
    PLAN_FILE,
    State,
    Timing,
    check_report,
    whole_audit,
)
from levit_deploy.audit.totals import Totals
from levit_deploy.audit.workers import Workers
from levit_deploy.calibration.image_set import evenly_spaced
from levit_deploy.calibration.recipe import Recipe
from levit_deploy.calibration.table import CalibrationTable
from levit_deploy.errors import DeployError
from levit_deploy.export.export_model import export_checkpoint
from levit_deploy.files import write_files
from levit_deploy.machines.machine import Machine
from levit_deploy.models.checkpoint import Checkpoint
from levit_deploy.records import to_json
from levit_deploy.runtime.artifact import Artifact, DebugBuild
from levit_deploy.runtime.instrument import build_taps
from levit_deploy.runtime.manifest import AuditRecord, Build
from levit_deploy.targets.host import read_cpu
from levit_deploy.targets.toolchain import find_toolchain
from levit_deploy.verify.artifact_runner import ArtifactRunner
from levit_deploy.verify.model_of import check_weights, quantized_model_of, table_of
from levit_deploy.verify.onnx_runner import OnnxRunner
from levit_deploy.verify.reference_runner import reference_runner
from levit_deploy.verify.report import Verification
from levit_deploy.verify.runner import Runner

# By default; an emulator takes seconds for what the CPU does in milliseconds.
EMULATED_IMAGES = 64
LAYER_IMAGES, EMULATED_LAYER_IMAGES = 64, 8


class Auditor:
    """One artifact, its weights and its images; `probe` looks into it at `layer_images` of them.

    A context manager: `chunk` is there inside of the block. `boards`: what runs it, if not this
    machine. Raises DeployError if they do not belong together, or if nothing can run the artifact.
    """

    def __init__(
        self,
        artifact: Artifact,
        checkpoint: Checkpoint,
        images: AuditImages,
        probe: LayerProbe | None = None,
        layer_images: int = 0,
        boards: Sequence[Machine] = (),
    ) -> None:
        check_weights(artifact, checkpoint)
        manifest = artifact.manifest
        self._artifact, self._checkpoint = artifact, checkpoint
        self._images, self._probe = images, probe
        self._runner = ArtifactRunner(artifact, boards)
        self._boards = boards
        self._quantized = quantized_model_of(artifact, checkpoint)
        runners = [RunnerName.REFERENCE, RunnerName.ARTIFACT]
        if self._quantized is not None:
            runners.append(RunnerName.QDQ)
        self.settings = Settings(
            **Build.of(manifest),
            emulated=self._runner.machine.emulated,
            library_bytes=manifest.files[artifact.shared_library.name].bytes,
            workspace_bytes=manifest.workspace_bytes,
            card=checkpoint.card,
            classes=manifest.classes,
            class_names=images.class_names,
            labelled=images.labelled,
            source=images.source,
            images=len(images),
            listing_digest=images.listing_digest(),
            skip_broken=images.skip_broken,
            runners=tuple(runners),
            layer_step=-(-len(images) // layer_images) if probe else 0,
            tensors=probe.tensors if probe else (),
        )

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(_one_torch_thread())
            runners: dict[RunnerName, Runner] = {
                RunnerName.REFERENCE: reference_runner(
                    self._checkpoint.build(), self._checkpoint.foreign
                ),
                RunnerName.ARTIFACT: stack.enter_context(self._runner),
            }
            if self._quantized is not None:
                qdq = OnnxRunner(self._quantized, as_written=True)
                runners[RunnerName.QDQ] = stack.enter_context(qdq)
            machine = read_cpu().model
            if self._boards:
                machine = ", ".join(f"{board.cpu().model}, {board.name}" for board in self._boards)
            self._work = Work(self.settings, self._images, runners, machine, self._probe)
            self._opened = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._opened.close()

    def chunk(self, number: int) -> Chunk:
        """Safe to call from several threads; raises DeployError as `Work.chunk` does."""
        return self._work.chunk(number)

    def nearness(self, float_layers: frozenset[str]) -> Nearness:
        """What the 8-bit model computes with these layers in float32; safe as `chunk` is."""
        return self.mixed_precision.nearness(float_layers)

    @cached_property
    def mixed_precision(self) -> MixedPrecision:
        """On some of the images; what was measured once is kept in the user's cache.

        Raises DeployError if the artifact was not compiled from an 8-bit model that is known.
        """
        table = int8_table(self._artifact)
        loaded = self._images.read(evenly_spaced(len(self._images), SENSITIVITY_IMAGES))
        cache = platformdirs.user_cache_path("levit-deploy") / "sensitivities"
        exported = export_checkpoint(self._checkpoint)
        return MixedPrecision(exported, table, loaded.images.pixels, loaded.labels, cache)

    def run(
        self,
        report: Path,
        workers: Workers,
        shard: Shard = WHOLE,
        *,
        resume: bool = False,
        force: bool = False,
        on_images: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:
        """Have the images of `shard` classified, time one, and keep it all in the folder `report`.

        `resume`: go on where an earlier run stopped; `force`: replace an earlier one. `on_images`
        is told how many images of the shard are done, and how many there are. Raises DeployError if
        the folder holds anything else, for a broken image, or if the artifact crashes; what is
        stored then stays.
        """
        check_report(report, self.settings, resume=resume, force=force)
        state, numbers = State(report), shard.chunks(self.settings)
        with state.locked():
            state.begin(self.settings, anew=force)
            run_chunks(self.settings, state, numbers, workers.executor, workers.chunk, on_images)
            if state.timing() is None:
                here = None if self._boards else time_artifact(self._artifact, read_cpu().model)
                state.store_timing(Timing(here))


@contextmanager
def open_probe(
    artifact: Artifact, checkpoint: Checkpoint, boards: Sequence[Machine] = ()
) -> Iterator[LayerProbe | None]:
    """A look into an 8-bit artifact, by its own debug build or one that is made now; None for fp32,
    and for several CPUs: what one of them computes is what a library for it alone does. `boards`:
    the first of them runs it, if not this machine; the next one where that is lost.

    Raises DeployError if there is none and it cannot be made.
    """
    table = table_of(artifact)
    if table is None or artifact.manifest.levels:
        yield None
        return
    check_weights(artifact, checkpoint)
    with tempfile.TemporaryDirectory(prefix="levit-deploy-") as work:
        toolchain = find_toolchain(artifact.manifest.device)
        if artifact.debug_folder is None:
            build = build_taps(artifact, toolchain, Path(work) / "debug")
        else:
            build = DebugBuild.load(artifact.debug_folder)
        machines = boards or (ArtifactRunner(artifact).machine,)
        model = export_checkpoint(checkpoint)
        with LayerProbe(build, model, table, toolchain, *machines) as probe:
            yield probe


@dataclass(frozen=True)
class LayerChoices:
    """What each layer's 8 bits cost. `plan` and its `recipe`: None if no plan was asked for."""

    sensitivities: tuple[Sensitivity, ...]
    plan: FloatPlan | None = None
    recipe: Recipe | None = None


NO_CHOICES = LayerChoices(())


def int8_table(artifact: Artifact) -> CalibrationTable:
    """What the artifact's 8-bit model is made by; raises DeployError if it has none."""
    table = table_of(artifact)
    if table is None:
        raise DeployError(
            f"`{artifact.folder}` has no layers in 8 bits that are known",
            hint="compile it again with --precision int8 --data demo",
        )
    return table


def choose_layers(
    auditor: Auditor,
    workers: Workers,
    max_drop_points: float | None,
    on_layer: Callable[[int, int, str], None],
) -> LayerChoices:
    """Measure what returning each layer to float would gain, on some of the images.

    `max_drop_points`: find a plan whose top-1 drops by no more. `on_layer` is told how many layers
    are done, how many there are, and which one. Raises DeployError as `Auditor.mixed_precision`.
    """
    model = auditor.mixed_precision
    sensitivities = measure_sensitivities(model, workers.executor, workers.nearness, on_layer)
    if max_drop_points is None:
        return LayerChoices(sensitivities)
    plan = plan_float_layers(model, sensitivities, max_drop_points, on_layer)
    return LayerChoices(sensitivities, plan, plan_recipe(model.table.recipe, plan))


def report_on(
    states: Iterable[Path],
    report: Path,
    gate: Gate,
    artifact: Artifact | None = None,
    choices: LayerChoices = NO_CHOICES,
) -> AuditResult:
    """Put the report of an audit into `report`, and its verdict into `artifact`.

    `states`: the folders of its shards, or that of the whole run. The same work gives the same
    bytes. Raises DeployError if they are not one whole audit, or not of `artifact`.
    """
    settings, where = whole_audit(map(State, states))
    if artifact is not None and artifact.manifest.build_id != settings.build_id:
        raise DeployError(
            f"`{artifact.folder}` is another build than the one that was audited",
            hint="audit this one: levit-deploy audit",
        )
    totals = Totals(settings, gate)
    for number, state in where.items():
        totals.add(state.load(number, settings))
    timings = (state.timing() for state in set(where.values()))
    latencies = fastest(timing.latency for timing in timings if timing)
    result = totals.result(choices.sensitivities, choices.plan, latencies)
    texts = {PAGE_FILE: render_page(result, totals.pictures), JSON_FILE: to_json(result)}
    if choices.recipe:
        texts[PLAN_FILE] = to_json(choices.recipe)
    report.mkdir(parents=True, exist_ok=True)
    write_files(
        {report / name: text.encode() for name, text in texts.items()},
        hint="choose another folder: -o DIR",
    )
    if not choices.recipe:
        (report / PLAN_FILE).unlink(missing_ok=True)  # of an older report
    if artifact is not None:
        digest = hashlib.sha256(texts[JSON_FILE].encode()).hexdigest()
        _record(artifact, AuditRecord(digest, result.verdict))
    return result


def _record(artifact: Artifact, audit: AuditRecord) -> None:
    """Into manifest.json, and into verify.json if there is one.

    Raises DeployError if another build has taken the folder meanwhile.
    """
    if not artifact.is_in_place():
        raise DeployError(
            f"`{artifact.folder}` was compiled anew while it was audited",
            hint="audit it again: levit-deploy audit ... --force",
        )
    replace(artifact.manifest, audit=audit).save(artifact.folder)
    verification = Verification.load(artifact.folder)
    if verification is not None and verification.is_of(artifact.manifest):
        replace(verification, audit=audit).save(artifact.folder)


@contextmanager
def _one_torch_thread() -> Iterator[None]:
    """Sums in one order, whatever the machine: the same bits, and no threads beside the jobs."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
