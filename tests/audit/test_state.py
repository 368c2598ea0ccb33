"""The state of an audit on disk: what is not of this audit is refused, leftovers are swept."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from levit_deploy.audit.chunk import UNLABELLED, Chunk
from levit_deploy.audit.latency import fastest
from levit_deploy.audit.result import Latency, RunnerName
from levit_deploy.audit.settings import CHUNK_IMAGES, Settings
from levit_deploy.audit.state import JSON_FILE, State, Timing, check_report, whole_audit
from levit_deploy.audit.tensor_sums import FIELDS
from levit_deploy.errors import DeployError
from levit_deploy.models.card import default_card
from levit_deploy.models.key_names import Origin
from levit_deploy.models.spec import TINY

RUNNERS = (RunnerName.REFERENCE, RunnerName.ARTIFACT)
SETTINGS = Settings(
    name="tiny",
    model="levit_tiny",
    precision="fp32",
    target="host",
    weights_digest="0",
    build_id="1",
    emulated=False,
    library_bytes=1,
    workspace_bytes=1,
    card=default_card(Origin.OURS, TINY),
    classes=3,
    class_names=("a\x1b", "\ud800", "c"),
    labelled=False,
    source="photos\n",
    images=2 * CHUNK_IMAGES,
    listing_digest="2",
    skip_broken=True,
    runners=RUNNERS,
    layer_step=0,
    tensors=(),
)


def chunk(number: int) -> Chunk:
    n = CHUNK_IMAGES - 1
    return Chunk(
        number=number,
        machine="a CPU",
        skipped=1,
        indices=np.arange(n),
        names=tuple(map(str, range(n))),
        labels=np.full(n, UNLABELLED),
        digests=np.zeros((n, 32), np.uint8),
        logits={name: np.zeros((n, 3), np.float32) for name in RUNNERS},
        pictures={1: np.zeros((4, 4, 3), np.uint8)},
        tensor_sums=np.zeros((0, 0, FIELDS)),
        taps_equal=np.zeros(0, np.bool_),
        lost=("a board was lost",),
    )


@pytest.fixture
def state(tmp_path: Path) -> State:
    state = State(tmp_path / "report")
    with state.locked():
        state.begin(SETTINGS, anew=False)
        for number in range(2):
            state.store(number, chunk(number))
    return state


def file_of(state: State, number: int) -> Path:
    return state.report / ".audit" / f"chunk-{number:06}.npz"


def test_what_was_stored_is_loaded(state: State) -> None:
    assert state.settings() == SETTINGS
    loaded = state.load(1, SETTINGS)
    assert (loaded.number, loaded.names) == (1, chunk(1).names)


def test_a_chunk_copied_over_another_is_refused(state: State) -> None:
    shutil.copy(file_of(state, 0), file_of(state, 1))
    with pytest.raises(DeployError, match="is not a chunk of this audit"):
        state.load(1, SETTINGS)


@pytest.mark.parametrize(
    "change",
    [
        {"skipped": 0},
        {"labels": np.zeros(CHUNK_IMAGES - 1, np.int64)},
        {"labels": np.zeros((CHUNK_IMAGES - 1, 1), np.int64)},
        {"digests": np.zeros((2, 32), np.uint8)},
        {"tensor_sums": np.zeros((0, 1, FIELDS))},
        {"logits": {RunnerName.ARTIFACT: np.zeros((CHUNK_IMAGES - 1, 3), np.float32)}},
        {"logits": {n: np.full((CHUNK_IMAGES - 1, 3), np.nan, np.float32) for n in RUNNERS}},
        {"logits": {n: np.zeros((CHUNK_IMAGES - 1, 4), np.float32) for n in RUNNERS}},
        {"pictures": {1: np.zeros((4, 4), np.uint8)}},
        {"pictures": {1: np.zeros((4, 4, 3), np.float64)}},
    ],
)
def test_a_chunk_of_another_audit_is_refused(state: State, change: dict[str, object]) -> None:
    replace(chunk(1), **change).save(file_of(state, 1))
    with pytest.raises(DeployError, match="is not a chunk of this audit") as caught:
        state.load(1, SETTINGS)
    assert caught.value.hint


def test_a_damaged_chunk_is_told(state: State) -> None:
    """Cut off anywhere, or with any byte turned over, it is one error or what it was."""
    path = file_of(state, 1)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    damaged = [whole[:size] for size in rng.integers(0, len(whole), 20)]
    for place in rng.integers(0, len(whole), 200):
        flipped = bytearray(whole)
        flipped[place] ^= 0xFF
        damaged.append(bytes(flipped))
    refused = 0
    for content in damaged:
        path.write_bytes(content)
        try:
            state.load(1, SETTINGS)
        except DeployError:
            refused += 1
    assert refused > 100


def test_what_a_killed_audit_left_behind_is_no_hindrance(state: State) -> None:
    leftovers = [
        state.report / ".audit.json.partial-01234567",
        state.report / ".audit" / ".chunk-000001.npz.partial-89abcdef",
    ]
    for path in leftovers:
        path.touch()
    check_report(state.report, SETTINGS, resume=True, force=False)
    with state.locked():
        assert not any(path.exists() for path in leftovers)


def test_a_time_is_kept_until_all_begins_anew(state: State) -> None:
    assert state.timing() is None
    state.store_timing(Timing(Latency("a CPU\x1b", 7, 1.5, 2.0, 1.5)))
    kept = state.timing()
    assert kept is not None
    assert kept.latency == Latency("a CPU\x1b", 7, 1.5, 2.0, 1.5)
    (state.report / ".audit" / "timing.json").write_text("{}")
    with pytest.raises(DeployError, match="schema version") as caught:
        state.timing()
    assert "--resume" in (caught.value.hint or "")
    state.begin(SETTINGS, anew=True)
    assert state.timing() is None


def test_of_each_machine_the_least_time_counts() -> None:
    times = [Latency(name, 1, us, us, us) for name, us in (("b", 3.0), ("a", 2.0), ("b", 1.0))]
    assert [(t.machine, t.min_us) for t in fastest([None, *times])] == [("a", 2.0), ("b", 1.0)]


def test_an_old_report_stays_until_there_is_a_new_one(state: State) -> None:
    (state.report / JSON_FILE).write_text("old")
    with state.locked():
        state.begin(replace(SETTINGS, build_id="2"), anew=True)
    assert (state.report / JSON_FILE).read_text() == "old"
    assert state.settings().build_id == "2"
    assert not state.has(0)


@pytest.mark.parametrize(
    "change", [{"classes": -1}, {"classes": 1 << 62}, {"images": 0}, {"class_names": ("a",)}]
)
def test_settings_that_no_audit_has(state: State, change: dict[str, object]) -> None:
    path = state.report / ".audit" / "settings.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(DeployError) as caught:
        whole_audit([state])
    assert caught.value.hint
