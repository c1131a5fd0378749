"""Every law of engines, for every engine with every example of every cell in the catalog."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recurra.engines import Checkpointed, Loop
from recurra.testing import Law, Setting, check_engine, laws
from recurra.testing.settings import drawn_setting, full_settings, instances

CELLS = dict(instances("cells"))
ENGINES = dict(instances("engines"))
LAWS = laws("engines")

any_setting = st.builds(
    Setting,
    num_steps=st.integers(0, 12),
    batch_size=st.integers(1, 5),
    dtype=st.sampled_from([torch.float64, torch.float32]),
    seed=st.integers(0, 2**31),
    noisy=st.booleans(),
)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("cell", CELLS)
def test_laws(cell: str, engine: str):
    check_engine(ENGINES[engine], CELLS[cell], drawn_setting(cell, engine))


@given(st.sampled_from(sorted(CELLS)), st.sampled_from(sorted(ENGINES)), st.sampled_from(LAWS), any_setting)
def test_any_law_at_any_size(cell: str, engine: str, law: Law, setting: Setting):
    law.enforce(ENGINES[engine], CELLS[cell], setting=setting)


@given(st.sampled_from(sorted(CELLS)), st.integers(1, 9), st.booleans(), any_setting)
def test_checkpointed_at_any_distance(cell: str, every: int, plain: bool, setting: Setting):
    engine = Checkpointed(every, Loop()) if plain else Checkpointed(every)
    check_engine(engine, CELLS[cell], setting)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("cell", CELLS)
def test_full_matrix(cell: str, engine: str):
    for setting in full_settings():
        check_engine(ENGINES[engine], CELLS[cell], setting)
