"""The files that experiments read: whole, damaged, not there. Real files are used where RECURRA_DATA names their folder."""

from __future__ import annotations

import gzip
import os
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from recurra.cli.main import app
from recurra.datasets.folder import data_folder
from recurra.datasets.mnist import read_idx, read_mnist
from recurra.datasets.piano_rolls import read_piano_rolls
from recurra.datasets.sentences import read_polarity
from recurra.experiments.digits import pixels, rows
from recurra.experiments.run import catalog, reproduce, without_files
from recurra.tasks.blobs import blob_pictures

WITH_FILES = [name for name, cls in catalog().items() if cls.requires]


def idx(array: np.ndarray) -> bytes:
    head = bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape)
    return gzip.compress(head + array.astype(np.uint8).tobytes())


@pytest.fixture
def mnist(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    for split, count in (("train", 6), ("t10k", 3)):
        pictures = generator.integers(0, 256, (count, 28, 28))
        (tmp_path / f"{split}-images-idx3-ubyte.gz").write_bytes(idx(pictures))
        (tmp_path / f"{split}-labels-idx1-ubyte.gz").write_bytes(idx(np.arange(count)))
    return tmp_path


def test_mnist_is_read(mnist: Path) -> None:
    data = read_mnist(mnist)
    assert data.train_images.shape == (6, 28, 28)
    assert data.test_labels.tolist() == [0, 1, 2]
    assert 0 <= data.train_images.min() <= data.train_images.max() <= 1


def test_a_missing_or_damaged_file_is_a_sentence(mnist: Path) -> None:
    path = mnist / "train-images-idx3-ubyte.gz"
    whole = path.read_bytes()
    for data, complaint in (
        (whole[:-30], "must be a whole gzip file"),
        (b"no gzip at all", "must be a whole gzip file"),
        (gzip.compress(b""), "must be an idx file of bytes with 3 dimensions"),
        (gzip.compress(gzip.decompress(whole)[:-1]), "bytes after its head"),
        (idx(np.zeros((5, 28, 28))), "must be as many labels as pictures, got 6 and 5"),
    ):
        path.write_bytes(data)
        with pytest.raises(ValueError, match=complaint):
            read_mnist(mnist)
    path.unlink()
    with pytest.raises(FileNotFoundError):
        read_mnist(mnist)


@given(data=st.binary(max_size=60), zipped=st.booleans())
def test_any_bytes_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes, zipped: bool) -> None:
    path = tmp_path_factory.mktemp("idx") / "a.gz"
    path.write_bytes(gzip.compress(data) if zipped else data)
    with pytest.raises(ValueError, match=r"read_idx: a\.gz must be"):
        read_idx(path, 3)


def test_piano_rolls(tmp_path: Path) -> None:
    import scipy.io

    def cells(*pieces: np.ndarray) -> np.ndarray:
        box = np.empty((1, len(pieces)), dtype=object)
        for i, piece in enumerate(pieces):
            box[0, i] = piece
        return box

    path = tmp_path / "a.mat"
    good = cells(np.zeros((5, 88), np.uint8), np.ones((3, 88), np.uint8))
    scipy.io.savemat(path, {"traindata": good, "validdata": good, "testdata": good})
    assert [tuple(piece.shape) for piece in read_piano_rolls(path).test] == [(5, 88), (3, 88)]
    for found, complaint in (
        ({"traindata": good}, "a file with validdata"),
        ({"traindata": cells(np.zeros((5, 87)))}, "matrices T x 88"),
        ({"traindata": cells(np.full((5, 88), 2))}, "matrices T x 88"),
    ):
        scipy.io.savemat(path, {**found, **({} if "a file" in complaint else {"validdata": good, "testdata": good})})
        with pytest.raises(ValueError, match=complaint):
            read_piano_rolls(path)
    path.write_bytes(b"MATLAB, or not")
    with pytest.raises(ValueError, match=r"a\.mat must be a MATLAB file"):
        read_piano_rolls(path)
    with pytest.raises(FileNotFoundError, match="the file must be there"):
        read_piano_rolls(tmp_path / "b.mat")


def test_polarity(tmp_path: Path) -> None:
    (tmp_path / "rt-polarity.neg").write_bytes("too caf\xe9 , bad\n\n".encode("latin-1"))
    (tmp_path / "rt-polarity.pos").write_bytes(b"it's Good\x85 !\n")
    found = read_polarity(tmp_path)
    assert found.words == [["too", "caf", ",", "bad"], ["it's", "good", "!"]]
    assert found.labels.tolist() == [0, 1]
    (tmp_path / "rt-polarity.pos").write_bytes(b"\n")
    with pytest.raises(ValueError, match=r"rt-polarity\.pos must be at least one sentence, got none"):
        read_polarity(tmp_path)


def test_pictures_as_sequences() -> None:
    images = blob_pictures(3).images
    assert torch.equal(rows(images)[4, 2], images[2, 4])
    assert pixels(images, 14).shape == (196, 3, 1)
    assert torch.allclose(pixels(images, 28)[28 * 5 + 7, 1, 0], images[1, 5, 7])
    assert torch.allclose(pixels(images, 14)[0, 0, 0], images[0, :2, :2].mean())


@pytest.mark.parametrize("name", WITH_FILES)
def test_an_experiment_without_its_files_says_so(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("RECURRA_DATA", raising=False)
    with pytest.raises(FileNotFoundError, match=f"{name}: the environment variable RECURRA_DATA must be set"):
        reproduce([name])
    monkeypatch.setenv("RECURRA_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="must be below RECURRA_DATA"):
        reproduce([name])
    assert set(without_files()) == set(WITH_FILES)


def test_the_command_says_it_and_leaves_with_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RECURRA_DATA", raising=False)
    found = CliRunner().invoke(app, ["reproduce", WITH_FILES[0]])
    assert found.exit_code == 2
    assert "RECURRA_DATA must be set" in found.output


@pytest.mark.skipif("RECURRA_DATA" not in os.environ, reason="RECURRA_DATA names no folder with files")
def test_the_real_files() -> None:
    digits = read_mnist(data_folder("mnist"))
    assert digits.train_images.shape == (60_000, 28, 28)
    assert digits.test_labels.bincount().tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    rolls = read_piano_rolls(data_folder("polyphonic-music") / "JSB_Chorales.mat")
    assert [sum(len(p) for p in part) for part in rolls] == [13_807, 4_602, 4_725]
    assert read_polarity(data_folder("sentence-classification")).labels.bincount().tolist() == [5331, 5331]
