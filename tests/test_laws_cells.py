"""Every law of cells, for every example of every cell in the catalog."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recurra.core import members
from recurra.testing import Law, Setting, laws
from recurra.testing.settings import drawn_setting, full_settings, instances

CELLS = dict(instances("cells"))
LAWS = laws("cells")

any_setting = st.builds(
    Setting,
    num_steps=st.integers(0, 9),
    batch_size=st.integers(1, 5),
    dtype=st.sampled_from([torch.float64, torch.float32]),
    seed=st.integers(0, 2**31),
    noisy=st.booleans(),
)


def test_every_cell_has_examples():
    assert {name.rpartition("-")[0] for name in CELLS} == set(members("cells"))


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.name)
@pytest.mark.parametrize("name", CELLS)
def test_law(name: str, law: Law):
    law.enforce(CELLS[name], setting=drawn_setting(name, law.name))


@given(st.sampled_from(sorted(CELLS)), st.sampled_from(LAWS), any_setting)
def test_any_law_at_any_size(name: str, law: Law, setting: Setting):
    law.enforce(CELLS[name], setting=setting)


@pytest.mark.slow
@pytest.mark.parametrize("name", CELLS)
def test_full_matrix(name: str):
    for setting in full_settings():
        for law in LAWS:
            law.enforce(CELLS[name], setting=setting)
