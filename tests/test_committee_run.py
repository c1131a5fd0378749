"""Several language models that are trained side by side."""

import itertools
from pathlib import Path

import pytest
import torch

from recurra import LanguageModel
from recurra.estimators.training_run import TrainingProgress
from recurra.wrappers import Committee

TEXT = "to be or not to be, that is the question. " * 30
SMALL = {
    "hidden_size": 12,
    "embedding_size": 6,
    "num_updates": 12,
    "num_validations": 2,
    "sample_length": 20,
    "num_steps": 16,
}


def test_members_are_the_models_of_their_seeds(tmp_path: Path) -> None:
    before = torch.get_rng_state()
    both = LanguageModel(**SMALL, num_models=2, seed=3).fit(TEXT, TEXT[:200], folder=tmp_path / "run")
    assert torch.equal(torch.get_rng_state(), before)
    assert isinstance(both.cell_, Committee)
    singles = [LanguageModel(**SMALL, seed=seed).fit(TEXT, TEXT[:200]) for seed in (3, 4)]
    for member, single in zip(both.cell_.members, singles):
        for (name, ours), theirs in zip(member.named_parameters(), single.cell_.parameters()):
            assert torch.equal(ours, theirs), name
    means = sum(single.evaluate(TEXT)["nats_per_char"] for single in singles) / 2
    assert both.evaluate(TEXT)["nats_per_char"] <= means
    assert both.record_["updates_made"] == 24
    assert both.record_["validation"]["nats_per_char"] == pytest.approx(both.evaluate(TEXT[:200])["nats_per_char"])
    assert len(both.history_) == 2
    loaded = LanguageModel.load(tmp_path / "run")
    assert loaded.generate("to be", 20) == both.generate("to be", 20)
    assert not (tmp_path / "run" / "members").exists()


def test_members_take_turns_and_tell_one_story() -> None:
    told: list[TrainingProgress] = []
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        model = LanguageModel(**SMALL, num_models=3).fit(TEXT, None, told.append)
    finally:
        torch.set_num_threads(threads)
    assert told[0].update == 0
    assert told[-1].update == told[-1].num_updates == 36
    assert told[-1].part == pytest.approx(1.0)
    assert all(a.part <= b.part for a, b in itertools.pairwise(told))
    assert "3 models are trained, 2 at a time" in model.plan_["notes"][0]


def test_stopping_and_resuming(tmp_path: Path) -> None:
    whole = LanguageModel(**SMALL, num_models=2).fit(TEXT)
    model = LanguageModel(**SMALL, num_models=2)

    class Enough(Exception):
        pass

    def stop(progress: TrainingProgress) -> None:
        if progress.update > 8:
            raise Enough

    with pytest.raises(Enough):
        model.fit(TEXT, on_progress=stop, folder=tmp_path)
    resumed = LanguageModel(**SMALL, num_models=2).fit(TEXT, folder=tmp_path, resume=True)
    for a, b in zip(whole.cell_.parameters(), resumed.cell_.parameters()):
        assert torch.equal(a, b)


def test_number_of_models() -> None:
    with pytest.raises(ValueError, match=r"LanguageModel: num_models must be at least 1, got 0\."):
        LanguageModel(num_models=0).fit(TEXT)
