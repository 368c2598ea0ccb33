import pytest
from hypothesis import given
from hypothesis import strategies as st

from levit_deploy.compiler.memory_plan import Lifetime, plan_memory

lifetimes = st.builds(
    lambda size, first, length: Lifetime(size, first, first + length),
    st.integers(0, 5000),
    st.integers(0, 30),
    st.integers(0, 30),
)


@given(st.lists(lifetimes, max_size=24))
def test_live_buffers_never_share_a_byte(buffers: list[Lifetime]) -> None:
    plan = plan_memory(buffers)
    for step in range(62):
        taken: set[int] = set()
        for buffer, offset in zip(buffers, plan.offsets_bytes, strict=True):
            if buffer.first <= step <= buffer.last:
                place = set(range(offset, offset + buffer.size_bytes))
                assert not place & taken
                taken |= place
        assert max(taken, default=-1) < plan.arena_bytes


@given(st.lists(lifetimes, max_size=24))
def test_every_offset_is_aligned(buffers: list[Lifetime]) -> None:
    plan = plan_memory(buffers)
    assert all(offset % 64 == 0 for offset in plan.offsets_bytes)
    assert plan.arena_bytes % 64 == 0


@pytest.mark.parametrize("sizes", [(100, 100, 100), (64, 128, 64)])
def test_buffers_that_never_meet_share_one_place(sizes: tuple[int, ...]) -> None:
    plan = plan_memory([Lifetime(size, step, step) for step, size in enumerate(sizes)])
    assert plan.offsets_bytes == (0, 0, 0)
    assert plan.arena_bytes == 128


def test_a_gap_between_live_buffers_is_used() -> None:
    big, middle, late = Lifetime(256, 0, 9), Lifetime(128, 0, 4), Lifetime(100, 5, 9)
    plan = plan_memory([big, middle, late, Lifetime(64, 0, 9)])
    assert plan.offsets_bytes == (0, 256, 256, 384)
    assert plan.arena_bytes == 448


def test_nothing_needs_no_memory() -> None:
    assert plan_memory([]).arena_bytes == 0
