"""Every experiment of the catalog runs small, returns what it claims, and is kept and shown."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import pytest

from recurra.core import Claim
from recurra.experiments.run import catalog, page, reproduce

EXPERIMENTS = [pytest.param(cls, id=name) for name, cls in catalog().items()]


@pytest.mark.parametrize("cls", EXPERIMENTS)
def test_smoke_returns_every_claimed_metric(cls, tmp_path: Path) -> None:
    told: list[float] = []
    (outcome,) = reproduce([cls.id], smoke=True, out=tmp_path, on_progress=lambda name, what, part: told.append(part))
    for claim in cls.claims:
        assert not math.isnan(outcome.metrics[claim.metric]), claim.metric  # infinite where a net never learned
    assert told
    assert all(0 <= part <= 1 for part in told)
    kept = json.loads((tmp_path / f"{cls.id}.json").read_text())
    assert kept["smoke"] is True
    assert kept["settings"] == json.loads(json.dumps(dataclasses.asdict(cls.smoke())))
    assert cls.id not in page(tmp_path)  # a small run is no result


@pytest.mark.parametrize("cls", EXPERIMENTS)
def test_claims_say_where_they_come_from_and_have_a_control(cls) -> None:
    assert cls.source
    assert any(claim.control for claim in cls.claims)
    assert any(not claim.control for claim in cls.claims)


def test_a_claim_is_met_or_not() -> None:
    assert Claim("m", 0.5, "lower").met(0.5)
    assert not Claim("m", 0.5, "lower").met(0.6)
    assert Claim("m", 0.5, "higher").met(0.6)
    assert not Claim("m", 0.5, "higher").met(math.nan)


def test_an_unknown_experiment_is_refused_before_the_first_one_runs() -> None:
    with pytest.raises(
        ValueError, match=r"^catalog: name must be one of the experiments, got 'elman-2090'\. Did you mean "
    ):
        reproduce(["jordan-1986-plans", "elman-2090"])
