"""Training runs: the plan, the updates, what remains, and that a run goes on exactly where it stopped."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from recurra.cells import ElmanCell, LSTMCell
from recurra.core import CrossEntropy, MeanSquaredError, tree
from recurra.core.catalog import members
from recurra.core.rule import Chunk, LearningRule
from recurra.learning import BPTT, TruncatedBPTT
from recurra.training import (
    Batches,
    TokenFile,
    TokenStream,
    Training,
    TrainingData,
    TrainProgress,
    TrainRecord,
    TrainSettings,
    checkpoint,
    fit,
    train,
)
from recurra.training import files as training_files
from recurra.training.checkpoint import checkpoints
from recurra.training.token_file import smallest_dtype
from recurra.wrappers import Dropout, Readout, Stack


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def ragged(num: int = 23, dtype: torch.dtype = torch.float32) -> tuple[list[Tensor], list[Tensor]]:
    """Sequences of 3 to 9 steps whose target is a running mean of the input."""
    xs = [torch.randn(3 + i % 7, 3, generator=seeded(i), dtype=dtype) for i in range(num)]
    return xs, [x[:, :2].cumsum(0) / torch.arange(1, len(x) + 1)[:, None] for x in xs]


def cell(seed: int = 0, dtype: torch.dtype = torch.float32) -> Readout:
    return Readout(LSTMCell(3, 5, generator=seeded(seed)), 2, generator=seeded(seed)).to(dtype)


def weights(module: nn.Module) -> dict[str, Tensor]:
    return {name: t.clone() for name, t in module.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[n], b[n]) for n in a)


def size_of(module: nn.Module) -> dict[str, float]:
    """A validation that costs nothing."""
    return {"size": float(sum(p.square().sum() for p in module.parameters()))}


class Net(nn.Module):
    """An ordinary torch module, whose dropout draws from torch's own generator."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.gru, self.norm, self.out = nn.GRU(3, 6), nn.BatchNorm1d(6), nn.Linear(6, 2)
        self.drop = nn.Dropout(0.3)

    def forward(self, xs: Tensor, lengths: Tensor | None = None) -> Tensor:
        ys = self.drop(self.gru(xs)[0])
        return self.out(self.norm(ys.flatten(0, 1)).view_as(ys))


# --- settings ---


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lr": 0}, "train: lr must be a number above 0, got 0."),
        ({"lr": True}, "train: lr must be a number above 0, got True."),
        ({"clip_value": -1.0}, "train: clip_value must be a number above 0, got -1.0."),
        ({"num_epochs": 0}, "train: num_epochs must be at least 1, got 0."),
        ({"accumulate": 0}, "train: accumulate must be at least 1, got 0."),
        ({"patience": 1.5}, "train: patience must be a whole number, got 1.5."),
        ({"num_epochs": 1, "num_updates": 1}, "train: the end of training must be one of num_epochs, budget_minutes, "),
        (
            {"precision": "int8"},
            "train: precision must be one of 'float32', 'bfloat16', 'float16', 'auto', got 'int8'.",
        ),
        ({"optimizer": "LBFGS"}, "train: optimizer must be one of ASGD, Adadelta, "),
        ({"optimizer": "SGD(momentun=1)"}, "train: optimizer must be given options that SGD has (lr, momentum, "),
        (
            {"optimizer": "SGD(momentum=-1)"},
            "train: optimizer must be one that torch can build, got 'SGD(momentum=-1)'",
        ),
        ({"checkpoint_seconds": -1}, "train: checkpoint_seconds must be a number of at least 0, got -1."),
        ({"seed": 1.0}, "train: seed must be a whole number of at least 0, got 1.0."),
        ({"seed": 2**63}, "train: seed must be below 2**63, got 9223372036854775808."),
        ({"weight_average": 1.0}, "train: weight_average must be a probability in [0, 1), got 1.0."),
        ({"device": "abacus"}, "train: device must be one that torch can use here, got 'abacus'."),
    ],
)
def test_settings_out_of_range_are_a_sentence(changes: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError)) as error:
        train(cell(), Batches(*ragged(), 8), MeanSquaredError(), TrainSettings(**changes))
    assert str(error.value).startswith(message)


def test_the_learning_rate_rises_and_decays() -> None:
    rates = {
        d: [TrainSettings(lr_decay=d, num_updates=100).factor(i) for i in (0, 50, 100)] for d in ("linear", "cosine")
    }
    assert rates["linear"] == [1.0, 0.5, 0.0]
    assert rates["cosine"] == pytest.approx([1.0, 0.5, 0.0])
    warm = [TrainSettings(lr_decay="constant", num_updates=100, warmup_updates=4).factor(i) for i in range(6)]
    assert warm == [0.2, 0.4, 0.6, 0.8, 1.0, 1.0]
    assert TrainSettings(lr_decay="constant", num_updates=10, warmup_updates=99).factor(1) == 1.0  # a tenth at most


def test_other_optimizers_with_options() -> None:
    for text in ("SGD(momentum=0.9, nesterov=True)", "RMSprop", "Adam(betas=(0.8, 0.9))", "Adafactor", "Rprop"):
        assert train(cell(), Batches(*ragged(), 8), MeanSquaredError(), TrainSettings(optimizer=text, num_updates=3))


# --- data ---


@given(st.integers(1, 40), st.integers(1, 9), st.integers(0, 99), st.integers(0, 3))
def test_every_sequence_is_in_every_epoch_once(num: int, size: int, seed: int, epoch: int) -> None:
    batches = Batches(*ragged(num), size, seed=seed)
    order = batches.order(epoch)
    assert sorted(i for places in order for i in places) == list(range(num))
    assert order == Batches(*ragged(num), size, seed=seed).order(epoch)
    assert len(order) == len(batches)


def test_the_order_is_another_one_in_each_epoch_and_batches_hold_similar_lengths() -> None:
    xs = [torch.zeros(1 + (i * 37) % 200, 1) for i in range(400)]
    batches = Batches(xs, xs, 8)
    assert batches.order(0) != batches.order(1)
    assert batches.order(0) != Batches(xs, xs, 8, seed=1).order(0)
    padded = sum(max(len(xs[i]) for i in places) * len(places) for places in batches.order(0))
    assert padded < 1.15 * sum(map(len, xs))
    assert Batches(xs, xs, 8, shuffle=False).order(3)[0] == list(range(8))


def test_what_batches_hold() -> None:
    xs = [torch.arange(1, n + 1).float()[:, None] for n in (2, 3)]
    (chunk,) = Batches(xs, xs, 2, shuffle=False, weights=torch.tensor([1.0, 5.0])).epoch(0)
    assert chunk.xs[..., 0].tolist() == [[1, 1], [2, 2], [0, 3]]
    assert chunk.controls.lengths.tolist() == [2, 3]
    assert chunk.weights.tolist() == [[1, 5], [1, 5], [0, 5]]
    ends = [torch.tensor(7), torch.tensor(8)]
    (chunk,) = Batches(xs, ends, 2, kind="end", shuffle=False).epoch(0)
    assert chunk.weights.tolist() == [[0, 0], [1, 0], [0, 1]]
    assert chunk.targets.shape == (3, 2)
    (chunk,) = Batches(xs, ends, 2, kind="sequence", shuffle=False).epoch(0)
    assert chunk.targets.tolist() == [7, 8]
    for arguments, message in (
        (([], [], 2), "Batches: inputs must be at least one sequence, got none."),
        ((xs, xs[:1], 2), "Batches: targets must be 2 of them, like inputs, got 1."),
        ((xs, ends, 2), "Batches: targets[0] must be (2, ...), got ()."),
        (([torch.zeros(0, 1)], xs[:1], 2), "Batches: inputs[0] must be (T, ...) with at least one step, got (0, 1)."),
    ):
        with pytest.raises(ValueError, match="Batches: ") as error:
            Batches(*arguments)
        assert str(error.value) == message


@pytest.mark.parametrize("num_tokens", [200, 60_000, 70_000])
def test_tokens_on_the_disk_are_the_tokens(tmp_path: Path, num_tokens: int) -> None:
    tokens = torch.randint(num_tokens, (1009,), generator=seeded())
    parts = tokens.numpy()
    file = TokenFile.write(
        tmp_path / "t.npy", (parts[a : a + 100] for a in range(0, 1009, 100)), smallest_dtype(num_tokens)
    )
    assert file.path.stat().st_size == 128 + 1009 * smallest_dtype(num_tokens).itemsize
    assert torch.equal(torch.from_numpy(np.load(file.path).astype(np.int64)), tokens)
    streams = [TokenStream(t, 4, 30) for t in (tokens, file)]
    for a, b in itertools.zip_longest(*(s.epoch(0) for s in streams)):
        assert torch.equal(a.xs, b.xs)
        assert torch.equal(a.targets, b.targets)
    places = torch.tensor([[5, 1008], [0, 3]])
    assert torch.equal(file[places], tokens[places])


def test_other_files_are_no_token_files(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((2, 2), np.uint8))
    np.save(tmp_path / "b.npy", np.zeros(2))
    (tmp_path / "c.npy").write_bytes(b"hello")
    (tmp_path / "d.npy").write_bytes(b"")
    for name in "abcd":
        with pytest.raises(ValueError, match=r"TokenFile: .* must be "):
            TokenFile(tmp_path / f"{name}.npy")


# --- updates ---


def test_a_run_makes_the_updates_of_fit() -> None:
    """The same stream, the same optimizer: the trainer adds nothing of its own."""
    stream = TokenStream(torch.arange(400) % 7, 4, 10)
    found = []
    for trained in (False, True):
        net = Stack(
            members("cells")["EmbeddingCell"](7, 5, generator=seeded()),
            Readout(ElmanCell(5, 6, generator=seeded()), 7, generator=seeded()),
        )
        if trained:
            settings = TrainSettings(num_epochs=2, lr=0.01, lr_decay="constant", clip_norm=0.5, seed=3)
            train(net, stream, CrossEntropy(), settings, rule=TruncatedBPTT())
        else:
            adam = lambda p: torch.optim.AdamW(p, 0.01, weight_decay=0.0)  # noqa: E731
            fit(net, stream, CrossEntropy(), adam, rule=TruncatedBPTT(), num_epochs=2, clip_norm=0.5, seed=3)
        found.append(weights(net))
    assert same(*found)


def test_accumulated_chunks_are_one_larger_batch() -> None:
    xs, ys = ragged(16, torch.float64)
    found = []
    for size, accumulate in ((8, 1), (2, 4), (4, 2)):
        net = cell(dtype=torch.float64)
        data = Batches(xs, ys, size, shuffle=False)
        record = train(net, data, MeanSquaredError(), TrainSettings(num_epochs=3, accumulate=accumulate))
        assert record.updates_made == 6
        found.append(weights(net))
    for other in found[1:]:
        for name, t in found[0].items():
            torch.testing.assert_close(other[name], t, rtol=0, atol=1e-10)


def test_the_last_update_of_an_epoch_takes_what_is_left() -> None:
    told: list[TrainProgress] = []
    settings = TrainSettings(num_epochs=2, accumulate=2)
    train(cell(), Batches(*ragged(10), 2), MeanSquaredError(), settings, on_progress=told.append)
    assert [p.update for p in told] == list(range(7))
    assert told[3].epoch == 1.0


def moved(settings: TrainSettings) -> tuple[float, float]:
    """The norm and the largest element of one step of plain descent with lr 1."""
    net = cell()
    before = weights(net)
    plain = dataclasses.replace(settings, optimizer="SGD", lr=1.0, num_updates=1)
    train(net, Batches(*ragged(), 23), MeanSquaredError(), plain)
    steps = torch.cat([(net.state_dict()[n] - t).flatten() for n, t in before.items()])
    return float(steps.norm()), float(steps.abs().max())


def test_clipping_by_norm_and_by_value() -> None:
    norm, largest = moved(TrainSettings(clip_norm=None))
    assert norm > 0.1
    assert moved(TrainSettings(clip_norm=0.05))[0] == pytest.approx(0.05, rel=1e-4)
    assert moved(TrainSettings(clip_norm=1e3))[0] == pytest.approx(norm, rel=1e-4)
    found = moved(TrainSettings(clip_norm=None, clip_value=largest / 2))
    assert found[1] == pytest.approx(largest / 2, rel=1e-4)
    assert found[0] < norm


def test_bfloat16_and_float16_keep_weights_and_state_wide() -> None:
    stream = TokenStream(torch.arange(400) % 7, 4, 10)
    for precision in ("bfloat16", "float16"):
        for kind in ("ElmanCell", "LSTMCell", "GRUCell"):
            inner = members("cells")[kind](5, 6, generator=seeded())
            net = Stack(
                members("cells")["EmbeddingCell"](7, 5, generator=seeded()), Readout(inner, 7, generator=seeded())
            )
            run = Training(
                net,
                stream,
                CrossEntropy(),
                TrainSettings(num_epochs=4, lr=0.02, precision=precision),
                rule=TruncatedBPTT(),
            )
            run.run()
            leaves = [t for t in tree.leaves(run.carry.state) if t.is_floating_point()]
            assert {t.dtype for t in leaves} == {torch.float32}
            assert {p.dtype for p in net.parameters()} == {torch.float32}
            assert run.history[-1]["train_loss"] < run.history[0]["train_loss"]


def test_float16_gradients_that_overflow_halve_the_scale_and_are_left_out() -> None:
    chunk = next(Batches(*ragged(), 23).epoch(0))
    far = Batches([chunk.xs[:, 0]], [chunk.targets[:, 0] * 0 + 300], 1)
    run = Training(cell(), far, MeanSquaredError(), TrainSettings(num_updates=40, precision="float16"))
    before = weights(run.module)
    run.run()
    assert run.updater.scale < 2.0**16
    assert not same(weights(run.module), before)


def test_a_rule_of_steps_is_applied_as_it_is() -> None:
    class Steps(BPTT):
        kind = "step"

    net = cell()
    assert train(
        net, Batches(*ragged(), 23), MeanSquaredError(), TrainSettings(num_updates=2), rule=Steps()
    ).updates_made
    with pytest.raises(ValueError, match="got Steps, whose steps do not add up"):
        train(net, Batches(*ragged(), 2), MeanSquaredError(), TrainSettings(num_updates=2, accumulate=2), rule=Steps())


# --- validation and what remains ---


def test_the_best_weights_remain_and_patience_ends_the_run() -> None:
    values, kept = iter([3.0, 1.0, math.nan, 2.0, 1.5, 9.0]), []

    def validate(module: nn.Module) -> dict[str, float]:
        assert not module.training
        kept.append(weights(module))
        return {"loss": next(values), "other": 0.0}

    net = cell()
    settings = TrainSettings(num_updates=60, num_validations=6, patience=3, weight_average=0.9)
    record = train(net, Batches(*ragged(), 8), MeanSquaredError(), settings, validate=validate)
    assert record.stopped == "no better validation in 3 in a row"
    assert (record.best, record.weights_of_update, record.updates_made) == (1.0, 20, 50)
    assert same(weights(net), kept[1])
    assert [row["update"] for row in record.history] == [10, 20, 30, 40, 50]
    assert list(record.history[0]) == [
        "update",
        "epoch",
        "seconds",
        "lr",
        "train_loss",
        "validation_loss",
        "validation_other",
    ]
    assert not net.training


def test_validation_changes_nothing_but_what_is_kept() -> None:
    def noisy(module: nn.Module) -> dict[str, float]:
        return {"loss": -float(torch.rand(()))}

    found = []
    for validate in (None, noisy):
        told: list[float] = []
        net = Net()
        train(
            net, Batches(*ragged(), 8), MeanSquaredError(), TrainSettings(num_epochs=3), validate=validate,
            on_progress=lambda p, told=told: told.append(p.loss) or None,
        )  # fmt: skip
        found.append(told[-1])
    assert found[0] == found[1]


def test_a_budget_is_turned_into_a_number_of_updates_once() -> None:
    told: list[TrainProgress] = []
    settings = TrainSettings(budget_minutes=0.02, max_epochs=1000)
    record = train(
        cell(), Batches(*ragged(), 8), MeanSquaredError(), settings, validate=size_of, on_progress=told.append
    )
    assert record.updates_made == record.plan["num_updates"] >= 1
    assert {p.num_updates for p in told} == {record.plan["num_updates"]}
    assert record.plan["seconds_per_update"] > 0
    capped = train(cell(), Batches(*ragged(), 8), MeanSquaredError(), TrainSettings(budget_minutes=9, max_epochs=2))
    assert capped.updates_made == 6
    assert "max_epochs" in capped.plan["notes"][0]


def test_a_budget_gives_the_weights_that_its_number_of_updates_gives() -> None:
    """Timing a few updates leaves no trace, in torch's generator neither."""
    timed, counted = Net(), Net()
    data = Batches(*ragged(), 8)
    plan = train(timed, data, MeanSquaredError(), TrainSettings(budget_minutes=9, max_epochs=2), validate=size_of).plan
    settings = TrainSettings(num_updates=plan["num_updates"], num_validations=plan["num_validations"])
    train(counted, data, MeanSquaredError(), settings, validate=size_of)
    assert same(timed.state_dict(), counted.state_dict())


def test_torchs_own_generator_is_left_as_it_was() -> None:
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    train(Net(), Batches(*ragged(), 8), MeanSquaredError(), TrainSettings(num_updates=2))
    assert torch.equal(torch.rand(3), wanted)


def test_what_cannot_be_trained() -> None:
    data = Batches(*ragged(), 8)
    with pytest.raises(ValueError, match="train: module must be one with parameters that learn, got Dropout"):
        train(nn.Dropout(), data, MeanSquaredError(), TrainSettings())
    with pytest.raises(TypeError, match="TruncatedBPTT: it carries a state and needs a Cell, not Net"):
        train(Net(), data, MeanSquaredError(), TrainSettings(), rule=TruncatedBPTT())

    class Short(Batches):
        def __len__(self) -> int:
            return 99

    with pytest.raises(ValueError, match="train: data must be 99 chunks in every epoch, got 3 in epoch 0"):
        train(cell(), Short(*ragged(), 8), MeanSquaredError(), TrainSettings())


# --- going on ---

Case = tuple[nn.Module, TrainingData, Any, dict[str, Any], TrainSettings]


def stream_case(rule: LearningRule[Any] | None = None) -> Case:
    inner = Readout(Dropout(LSTMCell(5, 6, generator=seeded()), 0.3), 7, generator=seeded())
    net = Stack(members("cells")["EmbeddingCell"](7, 5, generator=seeded()), inner)
    data = TokenStream(torch.randint(7, (403,), generator=seeded()), 4, 9)
    settings = TrainSettings(num_epochs=3, weight_average=0.95, num_validations=7, patience=4, checkpoint_seconds=0.0)
    return net, data, CrossEntropy(), {"rule": rule or TruncatedBPTT(), "validate": size_of}, settings


def overlapping_case() -> Case:
    return stream_case(TruncatedBPTT(k1=3, k2=7))


def module_case() -> Case:
    settings = TrainSettings(num_epochs=6, optimizer="SGD(momentum=0.9)", lr=0.05, accumulate=2, checkpoint_seconds=0.0)
    return Net(), Batches(*ragged(), 4, seed=2), MeanSquaredError(), {"validate": size_of}, settings


def half_case() -> Case:
    *case, settings = stream_case()
    return *case, dataclasses.replace(settings, precision="float16")  # type: ignore[return-value]


CASES = [stream_case, overlapping_case, module_case, half_case]


def go(
    case: Case, folder: Path | None = None, stop: int | None = None, resume: bool = False
) -> tuple[TrainRecord, dict[str, Tensor]]:
    net, data, loss, more, settings = case
    record = train(
        net, data, loss, settings, folder=folder, resume=resume,
        on_progress=None if stop is None else lambda p: p.update >= stop, **more,
    )  # fmt: skip
    return record, weights(net)


def but_time(record: TrainRecord) -> Any:
    rows = [{k: v for k, v in row.items() if k != "seconds"} for row in record.history]
    return record._replace(seconds=0.0, history=rows, plan={})


@pytest.mark.parametrize("make", CASES)
def test_a_run_that_was_stopped_ends_as_if_it_had_not_been(make: Callable[[], Case], tmp_path: Path) -> None:
    wanted, best = go(make())
    for stop in (1, 5, 8, 13):
        record, _ = go(make(), tmp_path, stop, resume=stop > 1)
        assert record.updates_made == stop
    torch.manual_seed(99)  # whatever happens between two sessions
    record, found = go(make(), tmp_path, resume=True)
    assert same(found, best)
    assert but_time(record) == but_time(wanted)
    assert record.seconds >= 0
    again, found = go(make(), tmp_path, resume=True)  # it is over
    assert same(found, best)
    assert but_time(again) == but_time(wanted)


def test_the_folder_of_a_run(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    go(stream_case(), tmp_path, 20)
    record, _ = go(stream_case(), tmp_path, resume=True)
    rows = (tmp_path / "metrics.csv").read_text().splitlines()
    assert rows[0] == "update,epoch,seconds,lr,train_loss,validation_size"
    assert len(rows) == 1 + len(record.history)
    assert len(list((tmp_path / "events").iterdir())) == 2
    events = EventAccumulator(str(tmp_path / "events"))
    events.Reload()
    steps = [e.step for e in events.Scalars("train/loss")]
    assert steps == list(range(1, record.updates_made + 1))
    assert [e.step for e in events.Scalars("validation/size")] == [row["update"] for row in record.history]
    assert len(checkpoints(tmp_path)) == 2
    assert not [p for p in tmp_path.rglob("*") if p.name.endswith(".part")]


def test_ctrl_c_leaves_a_checkpoint_of_its_moment(tmp_path: Path) -> None:
    wanted, best = go(stream_case())

    def press(progress: TrainProgress) -> None:
        if progress.update == 7:
            raise KeyboardInterrupt

    net, data, loss, more, settings = stream_case()
    rare = dataclasses.replace(settings, checkpoint_seconds=60.0)
    with pytest.raises(KeyboardInterrupt):
        train(net, data, loss, rare, folder=tmp_path, on_progress=press, **more)
    assert checkpoints(tmp_path)[0].name == "000000007.safetensors"
    net, data, loss, more, _ = stream_case()
    record = train(net, data, loss, rare, folder=tmp_path, resume=True, **more)
    assert same(weights(net), best)
    assert record.updates_made == wanted.updates_made


def test_a_new_run_never_stands_beside_an_old_one(tmp_path: Path) -> None:
    go(stream_case(), tmp_path, 3)
    with pytest.raises(
        FileExistsError, match=r"train: folder must be new or empty, got .* with checkpoints\. Go on with"
    ):
        go(stream_case(), tmp_path)


def test_a_run_goes_on_with_its_own_settings_and_data_only(tmp_path: Path) -> None:
    net, data, loss, more, settings = stream_case()
    train(net, data, loss, settings, folder=tmp_path, fingerprint="a", on_progress=lambda p: p.update == 3, **more)
    with pytest.raises(
        ValueError, match=r"train: lr must be 0.001 as in .*, got 0.5\. Resume with the settings of the run"
    ):
        train(net, data, loss, dataclasses.replace(settings, lr=0.5), folder=tmp_path, resume=True, **more)
    with pytest.raises(
        ValueError, match=r"train: data must be those of the run in .*, got others\. Resume with the same"
    ):
        train(net, data, loss, settings, folder=tmp_path, resume=True, fingerprint="b", **more)
    with pytest.raises(ValueError, match=r"does not fit this run: Error.* in loading state_dict"):
        train(
            cell(), Batches(*ragged(), 4), MeanSquaredError(), settings, folder=tmp_path, resume=True, fingerprint="a"
        )
    assert len(checkpoints(tmp_path)) == 2


def test_nothing_to_go_on_with_is_a_beginning(tmp_path: Path) -> None:
    _, best = go(stream_case())
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / ".000000001.safetensors.1.part").write_bytes(b"half")
    assert same(go(stream_case(), tmp_path, resume=True)[1], best)


def test_a_damaged_checkpoint_is_passed_over_and_all_damaged_ones_are_a_sentence(tmp_path: Path) -> None:
    _, best = go(stream_case())
    go(stream_case(), tmp_path, 10)
    newest, older = checkpoints(tmp_path)
    newest.write_bytes(newest.read_bytes()[:-100])
    kept = older.read_bytes()
    record, found = go(stream_case(), tmp_path, resume=True)
    assert same(found, best)
    assert f"The checkpoint {newest} is damaged: it is no checkpoint" in record.plan["notes"][0]
    assert record.plan["notes"][0].endswith("the run goes on from update 9.")
    for path in checkpoints(tmp_path):
        path.write_bytes(kept[:50])
    names = [p.name for p in checkpoints(tmp_path)]
    with pytest.raises(ValueError, match=r"train: the checkpoint .* is damaged: .*\. Nothing was changed; train into"):
        go(stream_case(), tmp_path, resume=True)
    assert [p.name for p in checkpoints(tmp_path)] == names


def test_no_damage_goes_unseen(tmp_path: Path) -> None:
    state = {"a": 1, "carry": checkpoint.pack((torch.arange(3.0), None, [torch.ones(2)]), {}, "carry")}
    tensors: dict[str, Tensor] = {}
    checkpoint.pack((torch.arange(3.0), None, [torch.ones(2)]), tensors, "carry")
    path = checkpoint.write_checkpoint(tmp_path, 3, state, tensors)
    whole = path.read_bytes()
    assert checkpoint.read_checkpoint(path)[0] == state
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        try:
            found, found_tensors = checkpoint.read_checkpoint(path)
        except checkpoint.DamagedCheckpoint:
            continue
        assert found == state  # a blank of the header that means nothing
        assert same(found_tensors, tensors)
    for size in range(0, len(whole), 7):
        path.write_bytes(whole[:size])
        with pytest.raises(checkpoint.DamagedCheckpoint):
            checkpoint.read_checkpoint(path)


def test_a_file_names_no_class_that_the_run_does_not_have() -> None:
    packed = {"named": "os:system", "fields": []}
    with pytest.raises(checkpoint.DamagedCheckpoint, match="it has a os:system, which this run does not have"):
        checkpoint.unpack(packed, {})
    with pytest.raises(TypeError, match=r"checkpoint: carry\.0 must be made of tensors, numbers and tuples, got set\."):
        checkpoint.pack(({1},), {}, "carry")


# --- what goes wrong ---


class Poisoned(Batches):
    """The sixth batch has a target that is not finite."""

    def epoch(self, index: int) -> Iterator[Chunk]:
        for i, chunk in enumerate(super().epoch(index)):
            bad = index * len(self) + i == 5
            yield chunk._replace(targets=chunk.targets / 0) if bad else chunk


def test_a_loss_that_is_not_finite_ends_the_run_with_a_sentence(tmp_path: Path) -> None:
    settings = TrainSettings(num_epochs=9, checkpoint_seconds=0.0)
    net = cell()
    with pytest.raises(FloatingPointError) as error:
        train(net, Poisoned(*ragged(), 8), MeanSquaredError(), settings, folder=tmp_path)
    assert str(error.value).startswith("train: the loss at update 6 must be finite, got loss ")
    assert "Try a smaller lr" in str(error.value)
    assert checkpoints(tmp_path)[0].name == "000000005.safetensors"
    state, tensors = checkpoint.read_checkpoint(checkpoints(tmp_path)[0])
    assert state["num_done"] == 5
    assert same(checkpoint.below_prefix("weights", tensors), weights(net))
    healed = train(net, Batches(*ragged(), 8), MeanSquaredError(), settings, folder=tmp_path, resume=True)
    assert healed.updates_made == 27


def test_weights_that_are_not_finite_are_in_no_checkpoint(tmp_path: Path) -> None:
    settings = TrainSettings(
        num_updates=4, lr=1e38, optimizer="SGD", clip_norm=None, lr_decay="constant", checkpoint_seconds=0.0
    )
    xs, ys = ragged()
    with pytest.raises(FloatingPointError, match="must be finite"):
        train(cell(), Batches(xs, [y * 1e9 for y in ys], 8), MeanSquaredError(), settings, folder=tmp_path)
    for path in checkpoints(tmp_path):
        assert all(bool(t.isfinite().all()) for t in checkpoint.read_checkpoint(path)[1].values())
    once = dataclasses.replace(settings, num_updates=1)
    with pytest.raises(FloatingPointError, match="train: the weights must be finite, got others after update 1"):
        train(cell(), Batches(xs, [y * 1e9 for y in ys], 8), MeanSquaredError(), once)


class Disk:
    """`write_atomically` on a disk that is full for a while."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, error: OSError) -> None:
        self.full, self.error = False, error
        real = training_files.os.fsync

        def fsync(file: int) -> None:
            if self.full:
                raise self.error
            real(file)

        monkeypatch.setattr(training_files.os, "fsync", fsync)


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), PermissionError(13, "Permission denied")])
def test_a_full_disk_loses_nothing(error: OSError, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, best = go(stream_case())
    disk = Disk(monkeypatch, error)

    def fill(at: int, until: int) -> Callable[[TrainProgress], None]:
        def tell(progress: TrainProgress) -> None:
            disk.full = at <= progress.update < until

        return tell

    net, data, loss, more, settings = stream_case()
    record = train(net, data, loss, settings, folder=tmp_path / "a", on_progress=fill(5, 9), **more)
    assert same(weights(net), best)
    (note,) = [n for n in record.plan["notes"] if "cannot take a checkpoint" in n]
    assert note == f"train: the folder {tmp_path / 'a'} cannot take a checkpoint: {error.strerror}."

    net, data, loss, more, settings = stream_case()
    with pytest.raises(
        OSError, match=rf"cannot take a checkpoint: {error.strerror}\. The last checkpoint stays; make room"
    ):
        train(net, data, loss, settings, folder=tmp_path / "b", on_progress=fill(11, 999), **more)
    assert same(weights(net), best)  # the model is in memory
    disk.full = False
    assert checkpoints(tmp_path / "b")[0].name == "000000010.safetensors"
    assert same(go(stream_case(), tmp_path / "b", resume=True)[1], best)

    disk.full = True
    with pytest.raises(type(error), match=r"cannot take a checkpoint: .* Make room, or name another folder"):
        go(stream_case(), tmp_path / "c")


def test_a_limit_of_the_system_on_files_loses_nothing(tmp_path: Path) -> None:
    import resource

    _, best = go(stream_case())
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(progress: TrainProgress) -> None:
        if progress.update == 11:
            resource.setrlimit(resource.RLIMIT_FSIZE, (5000, hard))

    net, data, loss, more, settings = stream_case()
    try:
        with pytest.raises(OSError, match=r"cannot take a checkpoint: File too large\. The last checkpoint stays"):
            train(net, data, loss, settings, folder=tmp_path, on_progress=fill, **more)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert same(weights(net), best)
    assert checkpoints(tmp_path)[0].name == "000000010.safetensors"
    assert same(go(stream_case(), tmp_path, resume=True)[1], best)


def test_a_place_that_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for place in (tmp_path / "file", tmp_path / "file" / "deeper"):
        with pytest.raises(
            OSError, match=r"train: the folder .* cannot take a checkpoint: .*\. Make room, or name another"
        ):
            go(stream_case(), place)
    assert (tmp_path / "file").read_text() == "x"


def test_the_state_is_json_and_tensors_only(tmp_path: Path) -> None:
    go(overlapping_case(), tmp_path, 4)
    data = checkpoints(tmp_path)[0].read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    state = json.loads(header["__metadata__"]["state"])
    assert state["position"] == [0, 4]
    assert state["carry"]["named"] == "recurra.learning.bptt:TruncatedBPTTCarry"
