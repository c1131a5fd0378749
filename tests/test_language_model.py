"""The language model: it learns, streams exactly, saves and loads, and says what is wrong in a sentence."""

from __future__ import annotations

import hashlib
import inspect
import itertools
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from recurra.cells import ElmanCell, EmbeddingCell
from recurra.core.catalog import members
from recurra.core.cell import Cell
from recurra.core.loss import CrossEntropy
from recurra.core.rule import LearningRule
from recurra.core.spec import Leaf
from recurra.engines import Auto, Loop
from recurra.estimators import LanguageModel, NGramModel, TrainingProgress, training_run
from recurra.estimators.named import named
from recurra.estimators.training_run import stream_loss
from recurra.training import TokenStream
from recurra.training.files import write_atomically
from recurra.wrappers import Readout, Stack

TEXT = "to be or not to be, that is the question:\n" * 12
SMALL: dict[str, Any] = {"hidden_size": 12, "embedding_size": 6, "num_steps": 16, "sample_length": 20}


def small(**changes: Any) -> LanguageModel:
    return LanguageModel(**{**SMALL, "num_updates": 4, **changes})


@pytest.fixture(scope="module")
def fitted() -> LanguageModel:
    return small(num_updates=20).fit(TEXT, TEXT[:100])


def _letters(n: int, seed: int = 0) -> str:
    """A text without a pattern."""
    drawn = torch.randint(0, 6, (n,), generator=torch.Generator().manual_seed(seed))
    return "".join("abcd e"[i] for i in drawn)


# --- learning ---


def test_it_learns_a_repeated_text_nearly_by_heart() -> None:
    model = LanguageModel(
        hidden_size=48, embedding_size=16, num_steps=42, num_updates=350, lr=1e-2, dropout=0.0, input_dropout=0.0,
        sample_length=0, num_validations=1,
    )  # fmt: skip
    assert model.fit(TEXT).evaluate(TEXT)["nats_per_char"] < 0.05
    assert model.generate("to be or ", 33, temperature=0) == "not to be, that is the question:\n"


def _builds_from_sizes(kind: type) -> bool:
    names = list(inspect.signature(kind).parameters)
    if names[:2] != ["input_size", "hidden_size"]:
        return False
    example = next(kind.examples())  # type: ignore[attr-defined]
    return isinstance(example.input_spec, Leaf) and isinstance(example.output_spec, Leaf)


@pytest.mark.parametrize("name", [name for name, kind in members("cells").items() if _builds_from_sizes(kind)])
def test_any_cell_that_is_built_from_two_sizes_becomes_a_language_model(name: str) -> None:
    model = small(cell=name, num_layers=2).fit(TEXT, TEXT[:60])
    assert math.isfinite(model.evaluate(TEXT[:60])["nats_per_char"])
    assert len(model.generate("to be", 5)) == 5


@pytest.mark.parametrize("name", [name for name, kind in members("rules").items() if issubclass(kind, LearningRule)])
def test_learning_rules_by_name(name: str) -> None:
    """Those that need a cell of another kind say so."""
    net = Stack(EmbeddingCell(7, 4), Readout(ElmanCell(4, 3), 7))
    if members("rules")[name]().supports(net, CrossEntropy()) is not None:
        with pytest.raises(TypeError, match=rf"^{name}: .*\.$"):
            small(rule=name, cell="Elman", dropout=0.0).fit(TEXT)
        return
    assert small(rule=name, cell="Elman", dropout=0.0).fit(TEXT).record_["updates_made"] == 4


@pytest.mark.parametrize("name", list(members("engines")))
def test_every_engine_trains_the_same_model_or_says_why_not(name: str) -> None:
    wanted = small(engine="Loop").fit(TEXT).evaluate(TEXT)["nats_per_char"]
    if name == "Vendor":  # the stream starts again at every epoch
        with pytest.raises(ValueError, match=r"Vendor\(\): torch's layers cannot restart inside a sequence"):
            small(engine=name).fit(TEXT)
        return
    assert small(engine=name).fit(TEXT).evaluate(TEXT)["nats_per_char"] == pytest.approx(wanted, abs=1e-3)


def test_options_in_names() -> None:
    model = small(cell="lstm(peephole=True)", engine="Checkpointed(every=4)", rule="TruncatedBPTT(k1=4, k2=8)").fit(
        TEXT
    )
    assert any("weight_ci" in name for name, _ in model.cell_.named_parameters())


def test_bfloat16_weight_drop_variational_and_adam() -> None:
    model = small(precision="bfloat16", weight_drop=0.2, variational=True, optimizer="Adam", lr_decay="cosine").fit(
        TEXT
    )
    assert all(p.dtype == torch.float32 for p in model.cell_.parameters())
    assert model.plan_["precision"] == "bfloat16"


def test_precision_auto_takes_one_of_them() -> None:
    assert small(precision="auto").fit(TEXT).plan_["precision"] in ("float32", "bfloat16")


def test_a_budget_becomes_a_number_of_updates_once() -> None:
    text = TEXT * 4
    model = small(num_updates=None, budget_minutes=0.02, batch_size=2).fit(text, text[:100])
    assert model.record_["updates_made"] == model.plan_["num_updates"] >= 1
    assert model.plan_["seconds_per_update"] > 0
    capped = small(num_updates=None, budget_minutes=60.0, max_epochs=1).fit(TEXT)
    assert capped.plan_["num_updates"] == capped.plan_["updates_per_epoch"]
    assert any("max_epochs" in note for note in capped.plan_["notes"])
    tiny = small(num_updates=None, budget_minutes=1e-6).fit(TEXT)
    assert tiny.plan_["num_updates"] == 1
    assert any("too small" in note for note in tiny.plan_["notes"])


def test_epochs_and_the_small_batch_of_a_small_text() -> None:
    model = small(num_updates=None, num_epochs=2).fit(TEXT)
    assert model.plan_["batch_size"] == 1
    assert model.plan_["updates_per_epoch"] == math.ceil((len(TEXT) - 1) / 16)
    assert model.plan_["num_updates"] == 2 * model.plan_["updates_per_epoch"]
    assert any("small" in note for note in model.plan_["notes"])


def test_the_best_validation_is_kept_and_patience_ends_the_run() -> None:
    learned, other = "ab" * 300, _letters(200)  # what is learned makes the other text worse and worse
    model = small(num_updates=400, lr=2e-2, dropout=0.0, num_validations=20, patience=3).fit(learned, other)
    losses = [row["validation_nats_per_char"] for row in model.history_]
    assert "no better validation" in model.record_["stopped"]
    assert model.record_["updates_made"] < 400
    best = losses.index(min(losses))
    assert model.record_["weights_of_update"] == model.history_[best]["update"]
    assert model.record_["validation"]["nats_per_char"] == pytest.approx(min(losses), abs=1e-3)


def test_progress_tells_every_update_and_can_stop() -> None:
    told: list[TrainingProgress] = []

    def listen(progress: TrainingProgress) -> bool:
        told.append(progress)
        return progress.update == 3

    model = small(num_updates=9, num_validations=3).fit(TEXT, TEXT[:80], listen)
    assert [p.update for p in told] == [0, 1, 2, 3]
    assert told[0].sample is not None
    assert told[3].validation is not None
    assert told[1].validation is None
    assert told[3].seconds_left >= 0
    assert model.record_["stopped"] == "asked to stop"


def test_ctrl_c_leaves_a_model_that_works(tmp_path: Path) -> None:
    def press(progress: TrainingProgress) -> None:
        if progress.update == 2:
            raise KeyboardInterrupt

    model = small()
    with pytest.raises(KeyboardInterrupt):
        model.fit(TEXT, on_progress=press)
    assert model.record_["stopped"] == "interrupted"
    model.save(tmp_path)
    assert LanguageModel.load(tmp_path).record_["updates_made"] == 2


def test_restarts_teach_to_start_anywhere() -> None:
    text = "".join(f"{i % 7}" * 5 for i in range(300))
    stream = TokenStream(torch.arange(1000) % 10, 4, 5)
    chunks = list(training_run.Restarts(stream, 0.3, 0))
    begun = torch.stack([c.controls.reset[0] if c.controls.reset is not None else torch.zeros(4) > 0 for c in chunks])
    assert begun[0].all()
    assert 0.2 < begun[1:].float().mean() < 0.4
    assert not any(c.controls.reset[1:].any() for c in chunks if c.controls.reset is not None)
    assert all(torch.equal(a.xs, b.xs) for a, b in zip(chunks, stream))
    assert small(restart=0.5, num_updates=20).fit(text).evaluate(text) != small(restart=0.0, num_updates=20).fit(
        text
    ).evaluate(text)


def test_the_average_of_the_weights_is_what_remains() -> None:
    plain, averaged = (small(weight_average=decay, num_updates=6).fit(TEXT) for decay in (0.0, 0.99))
    assert not torch.equal(plain.cell_.layers[0].weight, averaged.cell_.layers[0].weight)


def test_the_same_seed_gives_the_same_model() -> None:
    first, again, other = (small(seed=seed).fit(TEXT).evaluate(TEXT) for seed in (1, 1, 2))
    assert first == again
    assert first != other


# --- measuring ---


def test_evaluating_in_chunks_is_evaluating_the_whole(fitted: LanguageModel) -> None:
    text = _letters(301)
    whole = fitted.evaluate(TEXT, chunk_length=10**6)
    for length in (1, 7, 100):
        assert fitted.evaluate(TEXT, chunk_length=length)["nats_per_char"] == pytest.approx(
            whole["nats_per_char"], rel=1e-5
        )
    assert math.isfinite(fitted.evaluate(text)["nats_per_char"])


def test_the_loss_is_that_of_a_plain_loop(fitted: LanguageModel) -> None:
    text = TEXT[:57]
    codes = [1 + fitted.vocabulary_.index(c) for c in text]
    state, total = fitted.cell_.initial_state(1), 0.0
    with torch.no_grad():
        for now, following in itertools.pairwise(codes):
            y, state = fitted.cell_(torch.tensor([now]), state)
            total -= float(y.log_softmax(-1)[0, following])
    found = fitted.evaluate(text)
    assert found["nats_per_char"] == pytest.approx(total / 56, rel=1e-5)
    assert found["bits_per_char"] == pytest.approx(found["nats_per_char"] / math.log(2))
    assert found["perplexity"] == pytest.approx(math.exp(found["nats_per_char"]))
    assert found["num_chars"] == 56


def test_rows_side_by_side_are_exact_where_the_memory_is_short() -> None:
    """A cell that forgets everything: any number of rows gives the loss of the one stream."""

    class Forgetful(Cell[torch.Tensor, torch.Tensor, torch.Tensor]):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.randn(7, 7, generator=torch.Generator().manual_seed(0)))
            self.output_size = 7

        @property
        def input_spec(self) -> Leaf:
            return Leaf((), torch.int64, 0, 7)

        @classmethod
        def examples(cls) -> Any:
            yield cls()

        def initial_state(self, batch_size: int) -> torch.Tensor:
            return torch.zeros(batch_size, 7)

        def step(self, x: torch.Tensor, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return self.weight[x] + state, 0.5 * self.weight[x]  # sees the last two tokens

    cell, tokens = Forgetful(), torch.randint(0, 7, (101,), generator=torch.Generator().manual_seed(1))
    exact = stream_loss(cell, tokens, Loop())
    for rows, warm_up, chunk in ((1, 0, 9), (2, 1, 100), (7, 3, 4), (16, 5, 8), (100, 2, 2)):
        found = stream_loss(cell, tokens, Auto(), num_rows=rows, warm_up=warm_up, chunk_length=chunk)
        assert found == pytest.approx(exact, rel=1e-5), (rows, warm_up)


def test_unknown_characters_count_as_one_token(fitted: LanguageModel) -> None:
    found = fitted.evaluate("to be ξ or ∞ not")
    assert found["num_unknown"] == 2
    assert math.isfinite(found["nats_per_char"])
    assert fitted.evaluate("to be ξ")["nats_per_char"] == fitted.evaluate("to be ∞")["nats_per_char"]
    assert "\U0001f600" not in fitted.vocabulary_


def test_ngrams_are_probabilities_and_beat_nothing_they_have_not_seen() -> None:
    model = NGramModel(3).fit(_letters(500))
    for before in ("", "a", "ab", "zz"):
        total = sum(model._probability(before + c, len(before)) for c in "abcd e?")
        assert total == pytest.approx(1.0)
    assert NGramModel(1).fit("aab").evaluate("a")["nats_per_char"] == pytest.approx(-math.log((2 + 2 / 3) / 5))


# --- writing ---


def test_generating_is_reproducible_and_stays_in_the_vocabulary(fitted: LanguageModel) -> None:
    first = fitted.generate("to be", 50, temperature=1.5, seed=3)
    assert first == fitted.generate("to be", 50, temperature=1.5, seed=3)
    assert first != fitted.generate("to be", 50, temperature=1.5, seed=4)
    assert set(first) <= set(fitted.vocabulary_)
    assert len(fitted.generate("", 7)) == 7
    assert fitted.generate("to be", 0) == ""
    assert fitted.generate("to", 20, temperature=0) == fitted.generate("to", 20, top_k=1, seed=9)
    assert fitted.generate("to", 20, temperature=1e-9, seed=9) == fitted.generate("to", 20, temperature=0)


# --- the manners of scikit-learn ---


def test_arguments_round_trip() -> None:
    model = LanguageModel(cell="GRUCell", hidden_size=7, budget_minutes=0.5)
    copy = LanguageModel(**model.get_params())
    assert copy.get_params() == model.get_params()
    assert all(copy.get_params()[name] is value for name, value in model.get_params(deep=False).items())
    assert copy.set_params(lr=0.5, seed=2) is copy
    assert (copy.lr, copy.seed) == (0.5, 2)
    assert repr(model) == "LanguageModel(cell='GRUCell', hidden_size=7, budget_minutes=0.5)"
    assert not [name for name in vars(model) if name.endswith("_")]
    with pytest.raises(ValueError, match=r"set_params must be one of .* got 'hiden_size'\. Did you mean hidden_size\?"):
        model.set_params(hiden_size=3)


def test_the_constructor_takes_anything_and_fit_checks_it() -> None:
    LanguageModel(hidden_size=-1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": 0}, "LanguageModel: hidden_size must be at least 1, got 0."),
        ({"num_layers": 1.5}, "LanguageModel: num_layers must be a whole number, got 1.5."),
        ({"dropout": 1.0}, "LanguageModel: dropout must be a probability in [0, 1), got 1.0."),
        ({"lr": 0}, "LanguageModel: lr must be a number above 0, got 0."),
        ({"lr": None}, "LanguageModel: lr must be a number above 0, got None."),
        ({"clip_norm": math.nan}, "LanguageModel: clip_norm must be a number above 0, got nan."),
        ({"weight_decay": -1}, "LanguageModel: weight_decay must be a number of at least 0, got -1."),
        ({"seed": -1}, "LanguageModel: seed must be a whole number of at least 0, got -1."),
        ({"warmup_updates": -1}, "LanguageModel: warmup_updates must be a whole number of at least 0, got -1."),
        ({"lr_decay": "exp"}, "LanguageModel: lr_decay must be one of 'linear', 'cosine', 'constant', got 'exp'."),
        (
            {"num_epochs": 3, "budget_minutes": 1.0, "num_updates": None},
            "LanguageModel: the end of training must be one of num_epochs, budget_minutes, num_updates, "
            "got num_epochs and budget_minutes.",
        ),
        ({"cell": "lsmt"}, "LanguageModel: cell must be one of the cells, got 'lsmt'. Did you mean "),
        ({"cell": 3}, "LanguageModel: cell must be a name such as 'LSTMCell', got 3."),
        ({"cell": "LSTMCell("}, "LanguageModel: cell must be a name, or a name with options such as "),
        ({"cell": "LSTMCell(bios=True)"}, "LanguageModel: cell must be given options that LSTMCell has ("),
        ({"cell": "LSTMCell(hidden_size=3)"}, "LanguageModel: cell must be given without hidden_size, got "),
        (
            {"cell": "Stack"},
            "LanguageModel: cell must be a cell that is built from (input_size, hidden_size), got Stack.",
        ),
        ({"rule": "EvolutionStrategy"}, "LanguageModel: rule must be a learning rule, got EvolutionStrategy"),
        ({"device": "abacus"}, "LanguageModel: device must be one that torch can use here, got 'abacus'."),
    ],
)
def test_wrong_arguments_are_named_in_a_sentence(changes: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError)) as error:
        small(**changes).fit(TEXT)
    assert str(error.value).startswith(message)


def test_wrong_texts_prompts_and_options(fitted: LanguageModel) -> None:
    for call, message in (
        (lambda: small().fit("a"), "LanguageModel: text must be at least two characters, got 1."),
        (lambda: small().fit(TEXT, ""), "LanguageModel: validation_text must be at least two characters, got 0."),
        (lambda: small().fit(b"bytes"), "LanguageModel: text must be a text, got bytes. Read the file first."),
        (lambda: fitted.evaluate(""), "LanguageModel: text must be at least two characters, got 0."),
        (lambda: fitted.evaluate("ab", chunk_length=0), "LanguageModel: chunk_length must be at least 1, got 0."),
        (lambda: small().evaluate("ab"), "LanguageModel: the model must be fitted first, got a new one."),
        (lambda: small().generate(), "LanguageModel: the model must be fitted first, got a new one."),
        (lambda: small().save("x"), "LanguageModel: the model must be fitted first, got a new one."),
        (
            lambda: fitted.generate("Zed"),
            "LanguageModel: prompt must be written with the 16 characters of the training",
        ),
        (lambda: fitted.generate("to", -1), "LanguageModel: length must be a whole number of at least 0, got -1."),
        (lambda: fitted.generate("to", 1, -1.0), "LanguageModel: temperature must be at least 0, got -1.0."),
        (lambda: fitted.generate("to", 1, math.nan), "LanguageModel: temperature must be at least 0, got nan."),
        (lambda: fitted.generate("to", 1, 1.0, 0), "LanguageModel: top_k must be at least 1, got 0."),
        (lambda: NGramModel().fit(""), "NGramModel: text must be at least one character, got none."),
        (lambda: NGramModel(0).fit("a"), "NGramModel: order must be at least 1, got 0."),
        (lambda: NGramModel().evaluate("a"), "NGramModel: the model must be fitted first, got a new one."),
    ):
        with pytest.raises((ValueError, TypeError)) as error:
            call()
        assert str(error.value).startswith(message)


def test_nothing_is_evaluated_in_a_name() -> None:
    for text in ("LSTMCell(bias=__import__('os'))", "a.b", "LSTMCell(3)", "LSTMCell(**{})", "", "1 + 1", "Loop()()"):
        with pytest.raises(ValueError, match="must be a name"):
            named("Doc", "cell", "cells", text)


# --- the folder ---


def test_a_saved_model_is_the_same_model(fitted: LanguageModel, tmp_path: Path) -> None:
    fitted.save(tmp_path / "a" / "run")
    loaded = LanguageModel.load(tmp_path / "a" / "run")
    assert loaded.evaluate(TEXT) == fitted.evaluate(TEXT)
    assert loaded.generate("to be", 30) == fitted.generate("to be", 30)
    assert loaded.get_params() == fitted.get_params()
    assert (loaded.history_, loaded.samples_, loaded.record_) == (fitted.history_, fitted.samples_, fitted.record_)
    names = {path.name for path in (tmp_path / "a" / "run").iterdir()}
    assert names == {"config.json", "model.safetensors", "metrics.csv", "samples.txt"}
    rows = (tmp_path / "a" / "run" / "metrics.csv").read_text().splitlines()
    assert rows[0].startswith("update,epoch,")
    assert len(rows) == 1 + len(fitted.history_)
    assert "=== after 20 updates ===" in (tmp_path / "a" / "run" / "samples.txt").read_text()
    loaded.save(tmp_path / "b")
    for name in names:
        assert (tmp_path / "b" / name).read_bytes() == (tmp_path / "a" / "run" / name).read_bytes()


def _edit(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    for key, value in changes.items():
        if value is None:
            del config[key]
        else:
            config[key] = value
    (folder / "config.json").write_text(json.dumps(config))


def _weights(folder: Path, data: bytes) -> None:
    (folder / "model.safetensors").write_bytes(data)
    _edit(folder, weights_sha256=hashlib.sha256(data).hexdigest())


def _other_weights(folder: Path, value: float, size: int) -> None:
    from safetensors.torch import load, save

    tensors = load((folder / "model.safetensors").read_bytes())
    name = sorted(tensors)[0]
    tensors[name] = torch.full((size, *tensors[name].shape[1:]), value)
    _weights(folder, save(tensors))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "config.json").unlink(), "one without config.json"),
        (lambda f: (f / "model.safetensors").unlink(), "one without model.safetensors"),
        (lambda f: (f / "config.json").write_text("{"), "it is no JSON"),
        (lambda f: (f / "config.json").write_bytes(b"\xff\xfe"), "it is no JSON"),
        (lambda f: (f / "config.json").write_text("[" * 100_000), "it is no JSON"),
        (lambda f: (f / "config.json").write_text("[]"), "it has no format_version and kind"),
        (lambda f: _edit(f, kind="forecaster"), "its kind is 'forecaster', not 'language_model'"),
        (
            lambda f: _edit(f, format_version=99),
            "its format_version is 99, and this recurra reads up to 2; update recurra",
        ),
        (lambda f: _edit(f, fitted=None), "its fitted is missing or no dict"),
        (lambda f: _edit(f, fitted={}), "'vocabulary' is missing"),
        (lambda f: _edit(f, fitted={"vocabulary": "ba"}), "its vocabulary is no sorted list of different characters"),
        (lambda f: _edit(f, fitted={"vocabulary": "ab"}), "has shape"),
        (lambda f: _edit(f, weights_sha256=None), "its weights_sha256 is missing"),
        (lambda f: _edit(f, arguments={"colour": 1}), "it has an argument 'colour' that LanguageModel does not have"),
        (lambda f: _edit(f, arguments={**SMALL, "hidden_size": "x"}), "its arguments build no model"),
        (
            lambda f: _edit(f, arguments={**SMALL, "hidden_size": 10**9}),
            "they speak of a larger model than the weights",
        ),
        (lambda f: _edit(f, arguments={**SMALL, "cell": "GRUCell"}), "has shape"),
        (lambda f: (f / "model.safetensors").write_bytes(b"abc"), "its checksum is not the one in config.json"),
        (lambda f: _weights(f, b"abc"), "it is no safetensors file"),
        (lambda f: _other_weights(f, math.nan, 17), "it has weights that are not finite"),
        (lambda f: _other_weights(f, 0.0, 3), "has shape"),
    ],
)
def test_damaged_and_foreign_folders_are_a_sentence(
    fitted: LanguageModel, tmp_path: Path, spoil: Any, message: str
) -> None:
    fitted.save(tmp_path)
    spoil(tmp_path)
    with pytest.raises((ValueError, FileNotFoundError)) as error:
        LanguageModel.load(tmp_path)
    assert str(error.value).startswith("LanguageModel: ")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_no_folder_at_all(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"must be the folder of a saved model, got nothing there\."):
        LanguageModel.load(tmp_path / "nowhere")
    (tmp_path / "file").write_text("x")
    with pytest.raises(FileNotFoundError, match=r"got a file there\."):
        LanguageModel.load(tmp_path / "file")


def test_writing_is_all_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "new" / "file.txt"
    write_atomically(path, "öld\n")
    assert path.read_bytes() == "öld\n".encode()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, b"new")
    assert path.read_bytes() == "öld\n".encode()
    assert [p.name for p in path.parent.iterdir()] == ["file.txt"]
