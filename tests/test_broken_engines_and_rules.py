"""Faults of engines and rules are caught by the law that is meant for them, before any other."""

import pytest
import torch

from broken_cells import Sound
from broken_engines import broken_engines
from broken_rules import broken_rules
from recurra.testing import LawBroken, Setting, check_engine, check_rule, laws


def found_by(family: str, *subjects: object) -> list[str]:
    """The laws that are broken, in order."""
    setting = Setting(noisy=False)
    return [o.law for law in laws(family) if (o := law.judge(*subjects, setting=setting)).status == "broken"]


@pytest.mark.parametrize("kind", broken_engines(), ids=lambda kind: kind.__name__)
def test_engine(kind):
    torch.manual_seed(0)
    cell = kind.on()
    found = found_by("engines", kind(), cell)
    assert found[:1] == [kind.breaks]
    if kind.also is not ...:
        assert set(found) == {kind.breaks} | kind.also
    with pytest.raises(LawBroken, match=f"^{kind.breaks}: {kind.__name__}\\(\\) with {kind.on.__name__}\\("):
        check_engine(kind(), cell, Setting(noisy=False))


@pytest.mark.parametrize("kind", broken_rules(), ids=lambda kind: kind.__name__)
def test_rule(kind):
    torch.manual_seed(0)
    found = found_by("rules", kind(), Sound())
    assert found[:1] == [kind.breaks]
    if kind.also is not ...:
        assert set(found) == {kind.breaks} | kind.also
    with pytest.raises(LawBroken, match=f"^{kind.breaks}: {kind.__name__}\\("):
        check_rule(kind(), Sound())


def test_every_law_of_engines_that_can_be_broken_has_an_engine_that_breaks_it():
    """Where an engine starts, and what it does without steps, stands in ``Engine.__call__``, which is final."""
    final = {"from_the_start", "no_steps"}
    assert {kind.breaks for kind in broken_engines()} | final == {law.name for law in laws("engines")}


def test_every_law_of_rules_has_a_rule_that_breaks_it():
    assert {kind.breaks for kind in broken_rules()} == {law.name for law in laws("rules")}
