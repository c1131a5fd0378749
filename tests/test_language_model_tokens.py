"""Characters, bytes and words; streams; texts on the disk; run folders of language models."""

from __future__ import annotations

import codecs
import itertools
import json
import math
import re
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recurra.estimators import Estimator, LanguageModel, load_estimator, text_file
from recurra.estimators.estimator import estimator_kinds, read_kind, remove_run
from recurra.estimators.text_file import TextFile, TextPart, text_blocks
from recurra.estimators.text_stream import choose
from recurra.estimators.tokens import KINDS, Bytes, Characters, Words

TEXT = "to be or not to be, that is the question:\n" * 12
SMALL: dict[str, Any] = {"hidden_size": 12, "embedding_size": 6, "num_steps": 16, "sample_length": 20, "num_updates": 6}


def small(**changes: Any) -> LanguageModel:
    return LanguageModel(**{**SMALL, **changes})


@pytest.fixture(scope="module", params=list(KINDS))
def fitted(request: pytest.FixtureRequest) -> LanguageModel:
    return small(tokens=request.param, vocabulary_size=7).fit(TEXT, TEXT[:100])


# --- tokens ---


@given(st.text(max_size=60))
def test_characters_and_bytes_give_the_text_back(text: str) -> None:
    for kind in (Characters, Bytes):
        found = kind.find([text], 10)
        codes = found.encode(text)
        assert len(codes) == len(found.split(text))
        assert found.decode(codes.tolist()) == text or any(0xD800 <= ord(c) < 0xE000 for c in text)


def test_words_are_split_at_white_space_and_the_rare_ones_are_unknown() -> None:
    words = Words.find(["a b a\n\n <unk> a", " b\ta c\n"], 3)
    assert words.vocabulary == ["a", "\n", "b"]
    assert words.split("x  a\n b") == ["x", "a", "\n", "b"]
    assert words.encode("x a\nb <unk>").tolist() == [0, 1, 2, 3, 0]
    assert words.decode([1, 3, 2, 3, 1, 2, 2]) == "a b\nb a\n\n"
    assert Words.restore(words.fitted()).vocabulary == words.vocabulary


@pytest.mark.parametrize("block", [1, 3, 7, 1000])
def test_a_file_in_blocks_is_the_file(block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_file, "BLOCK", block)
    text = "\ufefföld wörds\r\nand \U0001f600 lines\r\r\n" + "x" * 50 + "\r"
    (tmp_path / "a.txt").write_bytes(text.encode())
    plain = text[1:].replace("\r\n", "\n").replace("\r", "\n")
    blocks = list(text_blocks("Doc", TextPart(tmp_path / "a.txt")))
    assert "".join(blocks) == plain
    if block < 1000:
        return
    whole = Words.find([plain], 99)
    assert [w for b in blocks for w in whole.split(b)] == whole.split(plain)
    (tmp_path / "b.txt").write_bytes(b"abc \xff")
    with pytest.raises(ValueError, match=r"Doc: .*b.txt must be a text in UTF-8, got byte 0xff at place 4\."):
        list(text_blocks("Doc", TextPart(tmp_path / "b.txt")))


@given(st.text(st.sampled_from("a \r\n\u00f6\U0001f600"), max_size=30), st.integers(0, 32), st.booleans())
@pytest.mark.parametrize("block", [1, 4, 100])
def test_a_file_is_cut_where_its_text_is(block: int, text: str, place: int, mark: bool) -> None:
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setattr(text_file, "BLOCK", block)
        path = Path(folder, "a.txt")
        path.write_bytes(codecs.BOM_UTF8 * mark + text.encode())
        plain = text.replace("\r\n", "\n").replace("\r", "\n")
        file = TextFile("Doc", path)
        assert (file.num_chars, file.characters) == (len(plain), set(plain))
        parts = ["".join(text_blocks("Doc", part)) for part in file.cut(place)]
        assert parts == [plain[:place], plain[place:]]


def test_a_part_of_a_file_is_a_text(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text(TEXT)
    before, after = TextFile("Doc", path).cut(400)
    for options in ({}, {"num_models": 2}, {"tokens": "words"}):
        whole = small(**options).fit(TEXT[:400], TEXT[400:])
        parts = small(**options).fit(before, after)
        assert parts.record_["validation"] == whole.record_["validation"]
        assert parts.generate("to be", 30) == whole.generate("to be", 30)
        assert parts.evaluate(after) == whole.evaluate(TEXT[400:]) == whole.evaluate(whole_file(tmp_path, TEXT[400:]))
    with pytest.raises(FileNotFoundError, match=r"text must be the path of a text, got .*none, which is no file"):
        small().fit(TextPart(tmp_path / "none"))


def whole_file(folder: Path, text: str) -> Path:
    """A text as a file."""
    path = folder / "whole.txt"
    path.write_text(text)
    return path


# --- measuring ---


def test_all_units_agree(fitted: LanguageModel) -> None:
    text = "to be, that is\nthe question of ducks"
    found = fitted.evaluate(text)
    logs = fitted.log_probabilities(text)
    pieces = fitted.tokenize(text)
    assert len(logs) == len(pieces) - 1 == found["num_tokens"]
    assert found["nats_per_token"] == pytest.approx(-float(logs.double().mean()), rel=1e-5)
    assert found["perplexity"] == pytest.approx(math.exp(found["nats_per_token"]))
    assert fitted.score(text) == -found["nats_per_token"]
    assert found["num_chars"] == len(text) - 1
    assert found["bits_per_char"] * math.log(2) * found["num_chars"] == pytest.approx(
        found["nats_per_token"] * found["num_tokens"]
    )
    known = set(fitted.vocabulary_) if fitted.tokens != "bytes" else set(pieces)
    assert found["num_unknown"] == sum(piece not in known for piece in pieces[1:])
    assert (found["num_unknown"] > 0) == (fitted.tokens != "bytes")
    name = "nats_per_char" if fitted.tokens == "chars" else "nats_per_token"
    assert f"validation_{name}" in fitted.history_[0]


def test_the_losses_are_those_of_a_plain_loop(fitted: LanguageModel) -> None:
    text = TEXT[:57]
    codes = fitted.tokens_.encode(text).tolist()
    state, wanted = fitted.cell_.initial_state(1), []
    with torch.no_grad():
        for now, following in itertools.pairwise(codes):
            y, state = fitted.cell_(torch.tensor([now]), state)
            wanted.append(float(y.log_softmax(-1)[0, following]))
    torch.testing.assert_close(fitted.log_probabilities(text), torch.tensor(wanted), rtol=1e-5, atol=1e-5)


# --- streams ---


@given(cuts=st.lists(st.integers(0, 11), max_size=6))
def test_any_way_of_reading_gives_the_same_numbers(fitted: LanguageModel, cuts: list[int]) -> None:
    words = [w + " " for w in TEXT.split(" ")[:12]]
    whole = fitted.stream()
    wanted = whole.read("".join(words))
    stream, found = fitted.stream(), []
    for a, b in itertools.pairwise([0, *sorted(cuts), 12]):
        found.append(stream.read("".join(words[a:b])))
    torch.testing.assert_close(torch.cat(found), wanted, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(stream.next_log_probabilities(), whole.next_log_probabilities(), rtol=1e-4, atol=1e-5)
    assert stream.num_read == len(wanted) + 1


def test_writing_goes_on_where_reading_ended(fitted: LanguageModel) -> None:
    stream = fitted.stream()
    with pytest.raises(ValueError, match="the stream must be one that has read something, got a new one"):
        stream.next_log_probabilities()
    stream.read("to be")
    other = stream.fork()
    text = stream.write(9, seed=3)
    assert text == fitted.generate("to be", 9, seed=3) == other.write(9, seed=3)
    expected = stream.next_log_probabilities()
    assert float(expected.exp().sum()) == pytest.approx(1.0, rel=1e-4)
    if fitted.tokens != "bytes":
        again = fitted.stream()
        again.read("to be" + (" " if fitted.tokens == "words" else "") + text)
        torch.testing.assert_close(again.next_log_probabilities(), expected, rtol=1e-4, atol=1e-4)
    assert fitted.stream().write(0) == ""
    assert fitted.generate("", 5, seed=1) == fitted.generate("", 5, seed=1)


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=9), st.floats(0.01, 1.0), st.integers(0, 99))
def test_top_p_takes_the_fewest_that_are_enough(logits: list[float], top_p: float, seed: int) -> None:
    p = torch.tensor(logits).double().softmax(0)
    order = p.sort(descending=True, stable=True).indices.tolist()
    allowed, total = set(), 0.0
    for i in order:
        if total < top_p:
            allowed.add(i)
        total += float(p[i])
    drawn = choose(torch.tensor(logits), 1.0, None, top_p, torch.Generator().manual_seed(seed))
    assert drawn in allowed | {i for i in order if p[i] == min(p[j] for j in allowed)}


def test_what_generating_refuses(fitted: LanguageModel) -> None:
    for top_p in (0.0, 1.5):
        with pytest.raises(ValueError, match="LanguageModel: top_p must be a probability above 0, at most 1, got "):
            fitted.generate("to be", 3, top_p=top_p)
    assert fitted.generate("to be", 9, top_p=1e-9) == fitted.generate("to be", 9, temperature=0)


def test_arguments_of_other_types_end_in_sentences(fitted: LanguageModel) -> None:
    for call, kind, message in (
        (lambda: fitted.generate("to be", 3, temperature="hot"), TypeError, "temperature must be a number, got 'hot'"),
        (lambda: fitted.generate("to be", 3, temperature=None), TypeError, "temperature must be a number, got None"),
        (lambda: fitted.generate("to be", 3, top_p="x"), TypeError, "top_p must be a number, got 'x'"),
        (lambda: fitted.generate("to be", 3, seed=1.5), ValueError, "seed must be a whole number"),
        (lambda: fitted.generate("to be", 3, seed=2**70), ValueError, "seed must be a whole number"),
        (lambda: fitted.generate(None), TypeError, "prompt must be a text, got NoneType"),
        (lambda: fitted.generate(b"to be"), TypeError, "prompt must be a text, got bytes"),
        (lambda: fitted.log_probabilities(None), TypeError, "text must be a text, got NoneType"),
        (lambda: fitted.tokenize(3), TypeError, "text must be a text, got int"),
    ):
        with pytest.raises(kind, match=f"^LanguageModel: {re.escape(message)}"):
            call()


@pytest.mark.parametrize("block", [3, 1000])
def test_files_that_are_no_utf_8(block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recurra.estimators.text_file.BLOCK", block)
    for content, message in (
        (b"abcdefg\xe9hi", "got byte 0xe9 at place 7"),
        ("h\u00e9".encode()[:-1], "got byte 0xc3 at place 1. The file ends inside a character: was it cut off?"),
        ("h\u00e9llo".encode("utf-16"), "got byte 0xff at place 0"),
        ("hello".encode("utf-16-le"), "got a byte 0. It looks like a binary file"),
        (bytes(range(256)), "got "),
    ):
        path = tmp_path / "text.txt"
        path.write_bytes(content)
        with pytest.raises(ValueError, match=re.escape("text.txt must be a text in UTF-8, ") + re.escape(message)):
            LanguageModel().fit(path)


# --- the folder ---


def test_every_kind_of_tokens_is_saved_and_loaded(fitted: LanguageModel, tmp_path: Path) -> None:
    fitted.save(tmp_path)
    loaded = load_estimator(tmp_path)
    assert isinstance(loaded, LanguageModel)
    assert loaded.evaluate(TEXT) == fitted.evaluate(TEXT)
    assert loaded.vocabulary_ == fitted.vocabulary_
    assert read_kind(tmp_path) == "language_model"
    assert estimator_kinds()["language_model"] is LanguageModel


def test_a_folder_of_the_first_format_is_read(tmp_path: Path) -> None:
    model = small().fit(TEXT)
    model.save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    for name in ("tokens", "vocabulary_size", "accumulate", "clip_value", "checkpoint_seconds"):
        del config["arguments"][name]
    config["format_version"], config["vocabulary"] = 1, config.pop("fitted")["vocabulary"]
    del config["fingerprint"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert LanguageModel.load(tmp_path).evaluate(TEXT) == model.evaluate(TEXT)


def test_load_estimator_says_what_it_does_not_know(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"load_estimator: .* must be the folder of a saved model"):
        load_estimator(tmp_path / "no")
    small().fit(TEXT).save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "kind": "oracle"}))
    with pytest.raises(
        ValueError, match=r"config.json is damaged or foreign: its kind is 'oracle', none of .*language_model"
    ):
        load_estimator(tmp_path)


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_text_on_the_disk_gives_the_same_model(kind: str, tmp_path: Path) -> None:
    for name, text in (("train", TEXT), ("valid", TEXT[:90])):
        (tmp_path / f"{name}.txt").write_bytes(text.replace("\n", "\r\n").encode())
    in_memory = small(tokens=kind).fit(TEXT, TEXT[:90])
    on_disk = small(tokens=kind).fit(tmp_path / "train.txt", tmp_path / "valid.txt", folder=tmp_path / "run")
    for name, t in in_memory.cell_.state_dict().items():
        assert torch.equal(t, on_disk.cell_.state_dict()[name])
    assert in_memory.record_["validation"] == on_disk.record_["validation"] == on_disk.evaluate(tmp_path / "valid.txt")
    assert not list((tmp_path / "run").glob("*.npy"))
    assert small(tokens=kind).fit(tmp_path / "train.txt").plan_["num_chars"] == len(TEXT)
    with pytest.raises(
        FileNotFoundError, match=r"LanguageModel: text must be the path of a text, got .*, which is no file"
    ):
        small().fit(tmp_path / "no.txt")


def test_resuming_a_finished_run_and_other_runs(tmp_path: Path) -> None:
    model = small().fit(TEXT, folder=tmp_path)
    again = small().fit(TEXT, folder=tmp_path, resume=True)
    assert again.record_ == model.record_
    assert again.evaluate(TEXT) == model.evaluate(TEXT)
    for other, text, message in (
        (small(), TEXT, "folder must be new or empty"),
        (small(hidden_size=5), TEXT, f"hidden_size must be 12 as in {tmp_path}, got 5. Resume with the arguments"),
        (small(), TEXT + "!", f"data must be those of the run in {tmp_path}, got others. Resume with the same"),
    ):
        with pytest.raises((ValueError, FileExistsError)) as error:
            other.fit(text, folder=tmp_path, resume="new" not in message)
        assert message in str(error.value)
    (tmp_path / "mine.txt").write_text("x")
    remove_run(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} - {"samples.txt"} == {"mine.txt", "events"}
    small().fit(TEXT, folder=tmp_path)


def test_a_run_that_was_asked_to_stop_can_be_used_and_goes_on(tmp_path: Path) -> None:
    wanted = small().fit(TEXT)
    stopped = small().fit(TEXT, on_progress=lambda p: p.update == 2, folder=tmp_path)
    assert stopped.record_["stopped"] == "asked to stop"
    assert LanguageModel.load(tmp_path).evaluate(TEXT) == stopped.evaluate(TEXT)

    def press(progress: object) -> None:
        if progress.update == 4:  # type: ignore[attr-defined]
            raise KeyboardInterrupt

    model = small()
    with pytest.raises(KeyboardInterrupt):
        model.fit(TEXT, on_progress=press, folder=tmp_path, resume=True)
    model.save(tmp_path)  # as the command does
    model = small().fit(TEXT, folder=tmp_path, resume=True)
    assert model.record_["updates_made"] == 6
    for name, t in wanted.cell_.state_dict().items():
        assert torch.equal(t, model.cell_.state_dict()[name])
    assert not (tmp_path / "checkpoints").exists()


def test_measures_that_are_not_finite_are_saved_as_null(tmp_path: Path) -> None:
    model = small().fit(TEXT)
    model.record_["best"] = math.nan
    model.save(tmp_path)
    assert LanguageModel.load(tmp_path).record_["best"] is None


def test_a_folder_that_cannot_be_written_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = small().fit(TEXT)
    (tmp_path / "file").write_text("x")
    with pytest.raises(
        OSError, match=r"LanguageModel: the folder .*file cannot be written: .*\. Nothing in it was half"
    ):
        model.save(tmp_path / "file")
    with pytest.raises(OSError, match=r"LanguageModel: the folder .* cannot take a checkpoint: "):
        small().fit(TEXT, folder=tmp_path / "file")


# --- manners ---


def test_scikit_learn_can_clone_it() -> None:
    from sklearn.base import clone

    model = small(tokens="words", clip_norm=None)
    copy = clone(model)
    assert isinstance(copy, Estimator)
    assert copy is not model
    assert copy.get_params() == model.get_params()
    assert not hasattr(clone(model.fit(TEXT)), "network_")


def test_wrong_arguments_of_tokens() -> None:
    for changes, text, message in (
        (
            {"tokens": "syllables"},
            TEXT,
            "LanguageModel: tokens must be one of 'chars', 'bytes', 'words', got 'syllables'.",
        ),
        ({"vocabulary_size": 0}, TEXT, "LanguageModel: vocabulary_size must be at least 1, got 0."),
        ({"tokens": "words"}, "word ", "LanguageModel: text must be at least two words, got 1."),
    ):
        with pytest.raises(ValueError, match="LanguageModel: ") as error:
            small(**changes).fit(text)
        assert str(error.value) == message
