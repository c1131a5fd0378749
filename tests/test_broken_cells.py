"""Each fault is caught by the law that is meant for it, before any other."""

import pytest
import torch

from broken_cells import Sound, SoundFeedback, SoundNoise, SoundTimed, broken_cells
from recurra.testing import LawBroken, Setting, check_cell, laws


@pytest.mark.parametrize("kind", [Sound, SoundNoise, SoundFeedback, SoundTimed])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_sound_cell_breaks_nothing(kind, dtype):
    torch.manual_seed(0)
    check_cell(kind(), Setting(dtype=dtype))


@pytest.mark.parametrize("kind", broken_cells(), ids=lambda kind: kind.__name__)
def test_a_fault_is_caught_by_its_law(kind):
    torch.manual_seed(0)
    cell = kind()
    found = [o.law for law in laws("cells") if (o := law.judge(cell, setting=Setting())).status == "broken"]
    assert found[:1] == [kind.breaks]
    if kind.also is not ...:
        assert set(found) == {kind.breaks} | kind.also


@pytest.mark.parametrize("kind", broken_cells(), ids=lambda kind: kind.__name__)
def test_check_cell_raises_one_sentence_with_law_and_cell(kind):
    torch.manual_seed(0)
    with pytest.raises(LawBroken, match=f"^{kind.breaks}: {kind.__name__}\\(") as found:
        check_cell(kind())
    assert found.value.law == kind.breaks


def test_every_law_of_cells_has_a_cell_that_breaks_it():
    assert {kind.breaks for kind in broken_cells()} == {law.name for law in laws("cells")}
