"""Every law of rules, for every rule with every example of every cell in the catalog."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recurra.core import members
from recurra.learning import TruncatedBPTT
from recurra.testing import Law, Setting, check_rule, laws
from recurra.testing.settings import drawn_setting, full_settings, instances

CELLS = dict(instances("cells"))
RULES = dict(instances("rules"))
LAWS = laws("rules")


def test_every_rule_has_an_instance():
    assert set(RULES) == set(members("rules"))


LONG = {"Hebb", "SnAp", "UORO"}  # the first example of every cell by default; `recurra check` asks every one


def _is_long(cell: str, rule: str) -> bool:
    return cell not in SOME if rule in FEW else rule in LONG and not cell.endswith("-0")


# of these, SOME cells by default
FEW = {"BCM", "CRBP", "EKF", "EProp", "HessianFree", "HybridRTRL", "KFRTRL", "NoBackTrack", "Oja"}
FEW |= {"RFLO", "Regularised"}
SOME = {"ElmanCell-0", "FullyRecurrentCell-0", "IndRNNCell-0", "LSTMCell-0", "Readout-0", "Stack-0"}
PAIRS = [
    pytest.param(cell, rule, marks=[pytest.mark.slow] if _is_long(cell, rule) else [])
    for cell in CELLS
    for rule in RULES
]


@pytest.mark.parametrize(("cell", "rule"), PAIRS)
def test_laws(cell: str, rule: str):
    check_rule(RULES[rule], CELLS[cell], drawn_setting(cell, rule))


@pytest.mark.parametrize("rule", [TruncatedBPTT(2), TruncatedBPTT(2, 5), TruncatedBPTT(1, 3)], ids=str)
@pytest.mark.parametrize("cell", [name for name in CELLS if name.endswith("-0")])
def test_truncation(cell: str, rule: TruncatedBPTT):
    """What is cut off is no gradient of the whole; all other laws hold. Lengths go with k2 = k1 only."""
    cut = {"exact"} if rule.k2 is None else {"exact", "padding"}
    for law in LAWS:
        if law.name not in cut:
            law.enforce(rule, CELLS[cell], setting=drawn_setting(cell, str(rule)))


@given(
    st.sampled_from(sorted(CELLS)),
    st.sampled_from(sorted(RULES)),
    st.sampled_from([law for law in LAWS if law.name != "search_improves"]),
    st.builds(
        Setting,
        num_steps=st.integers(1, 9),
        batch_size=st.integers(1, 5),
        dtype=st.sampled_from([torch.float64, torch.float32]),
        seed=st.integers(0, 2**31),
    ),
)
def test_any_law_at_any_size(cell: str, rule: str, law: Law, setting: Setting):
    law.enforce(RULES[rule], CELLS[cell], setting=setting)


@pytest.mark.slow
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("cell", CELLS)
def test_full_matrix(cell: str, rule: str):
    for setting in full_settings():
        if setting.num_steps:
            check_rule(RULES[rule], CELLS[cell], setting)
