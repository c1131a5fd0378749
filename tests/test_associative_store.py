"""The store for people: kinds of patterns, recall, certainty, forgetting, files, and what it refuses."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from recurra.estimators import AssociativeStore
from recurra.estimators.associative_store import stores
from recurra.estimators.store_file import packed
from recurra.memories.couplings import Bounded, Hebb

RANDOM = np.random.default_rng(3)
BITS = RANDOM.random((3, 6, 8)) < 0.5
NOISY = BITS ^ (RANDOM.random(BITS.shape) < 0.08)
AS: dict[str, Any] = {
    "booleans": lambda b: b,
    "zeros and ones": lambda b: b.astype(np.int64),
    "signs": lambda b: 2 * b.astype(np.float32) - 1,
    "tensors": lambda b: torch.from_numpy(2 * b.astype(np.int8) - 1),
}


@pytest.mark.parametrize("form", AS)
@pytest.mark.parametrize("memory", ["ModernHopfield", "Hopfield", "DenseAssociativeMemory"])
def test_what_comes_back_looks_like_what_was_written(form: str, memory: str) -> None:
    store = AssociativeStore(memory).write(AS[form](BITS), names=["a", "b", "c"])
    found = store.recall(AS[form](NOISY))
    np.testing.assert_array_equal(found.patterns, np.asarray(AS[form](BITS)))
    assert found.patterns.dtype == np.asarray(AS[form](BITS)).dtype
    assert found.names == ["a", "b", "c"]
    assert found.converged.all()
    np.testing.assert_allclose(found.overlap, 1, atol=1e-6)
    assert (found.certainty > 0.95).all()
    np.testing.assert_array_equal(store.patterns, np.asarray(AS[form](BITS)))


@pytest.mark.parametrize("name", sorted({kind.__name__ for _, kind, _ in stores()}))
def test_every_memory_that_completes_its_cue_stores_one_pattern(name: str) -> None:
    bits = np.zeros((1, 32), dtype=bool)
    bits[0, ::4] = True
    store = AssociativeStore(name).write(bits)
    np.testing.assert_array_equal(store.recall(bits).patterns, bits)
    assert store.fullness().kept == 1
    assert repr(store).endswith("1 patterns")


def test_real_vectors_and_unknown_parts() -> None:
    vectors = RANDOM.normal(size=(5, 40))
    cues = vectors.copy()
    cues[:, 20:] = np.nan
    found = AssociativeStore(options={"beta": 4.0}).write(vectors).recall(cues)
    np.testing.assert_allclose(found.patterns, vectors, atol=1e-4)
    assert found.patterns.dtype == vectors.dtype
    assert found.nearest.tolist() == [0, 1, 2, 3, 4]
    assert (found.certainty > 0.99).all()
    half = np.where(np.arange(8) < 4, BITS[:, :3].astype(float), np.nan)
    again = AssociativeStore("Hopfield").write(BITS[:, :3]).recall(half)
    assert (again.patterns == BITS[:, :3]).mean() > 0.8


def test_certainty_says_when_two_patterns_could_be_meant() -> None:
    pair = np.zeros((2, 20), dtype=bool)
    pair[0, :10], pair[1, 10:] = True, True
    cue = np.concatenate([pair[0, :5], pair[1, 5:15], pair[0, 15:]])
    sure, torn = AssociativeStore().write(pair).recall(np.stack([pair[0], cue])).certainty
    assert sure > 0.99
    assert torn < 0.6


def test_threshold() -> None:
    grey = np.where(BITS, 0.8, 0.1)
    found = AssociativeStore("Hopfield", threshold=0.5).write(grey).recall(grey[0] * 0.9)
    np.testing.assert_array_equal(found.patterns[0], BITS[0])


@pytest.mark.parametrize("memory", ["ModernHopfield", "Hopfield", "Associatron"])
def test_forgetting_is_never_having_written(memory: str) -> None:
    store = AssociativeStore(memory).write(BITS, names=["a", "b", "c"]).forget("b").forget(-1)
    other = AssociativeStore(memory).write(BITS[:1], names=["a"])
    assert store.names == ["a"]
    for mine, theirs in zip(store.recall(NOISY), other.recall(NOISY)):
        np.testing.assert_array_equal(np.asarray(mine), np.asarray(theirs))
    store.forget(0)
    assert len(store) == 0
    with pytest.raises(ValueError, match="AssociativeStore: nothing is stored"):
        store.recall(BITS)
    with pytest.raises(ValueError, match="which must be stored, got 'a'"):
        store.forget("a")


def test_fullness_falls_when_too_much_is_stored() -> None:
    many = RANDOM.random((40, 64)) < 0.5
    store = AssociativeStore("Hopfield").write(many[:4])
    light = store.fullness()
    heavy = store.write(many[4:]).fullness()
    assert (light.patterns, heavy.patterns) == (4, 40)
    assert light.kept == 1
    assert heavy.kept < 0.2
    assert light.load == pytest.approx(4 / light.capacity)


@pytest.mark.parametrize("memory", sorted({kind.__name__ for _, kind, _ in stores()}))
def test_saved_and_loaded(tmp_path: Path, memory: str) -> None:
    store = AssociativeStore(memory, seed=4).write(BITS, names=["a", "b", "c"])
    store.save(tmp_path / "s.safetensors")
    again = AssociativeStore.load(tmp_path / "s.safetensors")
    assert again.names == store.names
    for mine, theirs in zip(again.recall(NOISY), store.recall(NOISY)):
        np.testing.assert_array_equal(np.asarray(mine), np.asarray(theirs))
    more = RANDOM.random((1, 6, 8)) < 0.5
    np.testing.assert_array_equal(again.write(more).recall(more).patterns, store.write(more).recall(more).patterns)


def test_a_damaged_file_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "s.safetensors"
    with pytest.raises(FileNotFoundError, match="path must be a file that save wrote"):
        AssociativeStore.load(path)
    AssociativeStore("Hopfield").write(BITS).save(path)
    whole = path.read_bytes()
    for piece in (
        b"",
        whole[:50],
        whole[:-7],
        whole.replace(b'"Hopfield', b'"Hopfielt'.replace(b'"', b'"')),
        b"junk" * 40,
    ):
        path.write_bytes(piece)
        with pytest.raises(ValueError, match="AssociativeStore: path must be a file that save wrote, got"):
            AssociativeStore.load(path)


@pytest.mark.parametrize(
    ("memory", "patterns", "message"),
    [
        (
            "Hopfield",
            [[0.2, 0.9]],
            r"two values for Hopfield \(0 and 1, -1 and 1, or booleans\), got numbers from 0.2 to 0.9",
        ),
        ("Hopfield", [["a"]], "patterns must be booleans or numbers, got <U1"),
        ("Hopfield", [[1], [1, 0]], "an array of equal rows"),
        ("Hopfield", [1, 0], r"\(M, ...\), with at least one pattern, got \(2,\)"),
        ("Hopfield", [[np.nan, 1.0]], "patterns must be finite numbers"),
        ("Hopfeld", [[1, 0]], "memory must be one of the memories, got 'Hopfeld'. Did you mean"),
    ],
)
def test_what_cannot_be_stored(memory: str, patterns: Any, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        AssociativeStore(memory).write(patterns)


def test_what_does_not_fit_what_is_stored() -> None:
    store = AssociativeStore("Hopfield").write(BITS, names=["a", "b", "c"])
    with pytest.raises(ValueError, match=r"cues must be \(B, 6, 8\), got \(3, 6, 7\)"):
        store.recall(BITS[:, :, :7])
    with pytest.raises(ValueError, match=r"cues must be booleans, as what is stored, got bipolar numbers from -1 to 1"):
        store.recall(2 * BITS.astype(int) - 1)
    with pytest.raises(ValueError, match="names must be all different, got a twice"):
        store.write(BITS[:1], names=["a"])
    with pytest.raises(ValueError, match="names must be 1, one for each pattern, got 2"):
        store.write(BITS[:1], names=["d", "e"])
    with pytest.raises(ValueError, match="options must be fields of Hopfield, got betta"):
        AssociativeStore("Hopfield", options={"betta": 1})
    assert store.names == ["a", "b", "c"]


@pytest.mark.parametrize(("scale", "shift"), [(1.0, 0.0), (1e-3, 0.0), (1.0, 1000.0), (1e4, -3e5)])
def test_real_vectors_of_any_scale_are_their_own_recall(scale: float, shift: float) -> None:
    """Of different lengths too: by overlaps alone the longest one would be recalled for all."""
    generator = np.random.default_rng(0)
    vectors = scale * generator.random((40, 16)) * generator.uniform(0.1, 2, (40, 1)) + shift
    store = AssociativeStore().write(vectors)
    np.testing.assert_array_equal(store.patterns, vectors)  # in float64, to the last bit
    assert store.fullness().kept == 1
    found = store.recall(vectors + 0.003 * scale * generator.normal(size=vectors.shape))
    np.testing.assert_array_equal(found.nearest, np.arange(40))
    np.testing.assert_allclose(found.patterns, vectors, atol=0.01 * scale)
    assert found.converged.all()
    half = vectors.copy()
    half[:, 8:] = np.nan
    found = store.recall(half)
    np.testing.assert_array_equal(found.nearest, np.arange(40))
    np.testing.assert_allclose(found.patterns, vectors, atol=0.01 * scale)
    assert found.certainty.min() > 0.99


def test_a_real_vector_is_kept_only_where_no_other_is_nearer() -> None:
    near = np.array([[1000.0, 0.0], [1000.0, 1.0]])
    assert AssociativeStore("ModernHopfield").write(near).fullness().kept == 1
    assert AssociativeStore("ModernHopfield", options={"beta": 1e-9}).write(near).fullness().kept == 0


def test_names_go_on_after_forgetting() -> None:
    store = AssociativeStore("Hopfield").write(BITS).forget(0)
    assert store.names == ["1", "2"]
    assert store.write(RANDOM.random((2, 6, 8)) < 0.5).names == ["1", "2", "3", "4"]


def test_ones_alone_may_become_signs() -> None:
    store = AssociativeStore("Hopfield").write(np.ones((1, 4)))
    assert store.write(-np.ones((1, 4)), names=["down"]).patterns.tolist() == [[1, 1, 1, 1], [-1, -1, -1, -1]]
    with pytest.raises(ValueError, match="patterns must be of -1 and 1, as what is stored"):
        store.write(np.zeros((1, 4)))


@pytest.mark.parametrize("rule", ["Storkey", "pseudoinverse", Bounded(5)])
def test_a_rule_is_saved_with_the_store(tmp_path: Path, rule: Any) -> None:
    store = AssociativeStore("Hopfield", options={"rule": rule, "max_sweeps": np.int64(7)}).write(BITS)
    store.save(tmp_path / "s.safetensors")
    again = AssociativeStore.load(tmp_path / "s.safetensors")
    assert again.memory == store.memory
    np.testing.assert_array_equal(again.recall(NOISY).patterns, store.recall(NOISY).patterns)


def test_every_bit_of_a_file_counts(tmp_path: Path) -> None:
    path = tmp_path / "s.safetensors"
    AssociativeStore("ModernHopfield").write(RANDOM.random((3, 5))).save(path)
    whole = bytearray(path.read_bytes())
    for place in range(8, len(whole), 7):
        damaged = whole.copy()
        damaged[place] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="AssociativeStore: path must be a file that save wrote, got"):
            AssociativeStore.load(path)
    path.write_bytes(packed({}, {}).replace(b'{\\"format\\": 2', b'{\\"format\\": 1'))
    with pytest.raises(ValueError, match="its format is 1, this is 2"):
        AssociativeStore.load(path)
    with pytest.raises(FileNotFoundError, match="a folder"):
        AssociativeStore.load(tmp_path)


class Homemade(Hebb):
    """A rule that no name finds."""


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AssociativeStore().patterns, "nothing was written yet. Call write first"),
        (
            lambda: AssociativeStore("SequenceHopfield").write(BITS),
            "memory must be one that brings back what its cue is",
        ),
        (lambda: AssociativeStore(threshold="a"), "threshold must be a finite number or None, got 'a'"),
        (lambda: AssociativeStore(threshold=float("nan")), "threshold must be a finite number or None, got nan"),
        (lambda: AssociativeStore(seed=-1), "seed must be a whole number from 0, got -1"),
        (lambda: AssociativeStore("Hopfield", options={"rule": "Habb"}), "rule must be one of Bounded, Clipped, "),
        (lambda: AssociativeStore("Hopfield").write(BITS).forget(None), "which must be one name or number, got None"),
        (lambda: AssociativeStore("Hopfield").write(BITS).forget([0, 1]), r"which must be one name or number, got \["),
        (
            lambda: AssociativeStore("Hopfield", options={"rule": Homemade()}).write(BITS).save("nowhere"),
            r"options\['rule'\] must be plain values or rules of the house",
        ),
    ],
)
def test_mistakes_are_sentences(make: Any, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        make()


def test_tensors_of_other_kinds() -> None:
    bits = torch.tensor(BITS.reshape(3, -1)).float()
    for given in (bits.bfloat16(), bits.to_sparse(), bits.half().requires_grad_()):
        assert AssociativeStore("Hopfield").write(given).recall(bits).patterns.tolist() == bits.tolist()
