"""``recurra recall``: digits, a folder of images, and mistakes."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from recurra.cli.main import app
from recurra.datasets.images import Images, ink, read_images
from recurra.estimators import AssociativeStore


def run(*arguments: str, code: int = 0) -> tuple[str, str]:
    """What the command prints and says."""
    done = CliRunner().invoke(app, ["recall", *arguments])
    assert done.exit_code == code, done.output
    return done.stdout, done.stderr


def test_digits(tmp_path: Path) -> None:
    printed, _ = run("--json", "--cues", "10", "--seconds", "0.02", "--out", str(tmp_path))
    record = json.loads(printed)
    assert all(row["right"] for row in record["recalls"])
    assert {row["cue"] for row in record["recalls"]} == {"noisy", "partial"}
    assert {"Hopfield", "ModernHopfield"} <= {row["memory"] for row in record["loads"]}
    for name in ("recall.png", "load.png"):
        with Image.open(tmp_path / name) as picture:
            assert picture.size[0] > 500
    rows = list(csv.DictReader((tmp_path / "recall.csv").read_text().splitlines()))
    assert len(rows) == len(record["loads"])
    assert len(AssociativeStore.load(tmp_path / "store.safetensors")) == 10


def test_a_folder_of_images(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    random = np.random.default_rng(0)
    for i in range(3):
        Image.fromarray((random.random((12, 10)) < 0.4).astype(np.uint8) * 200 + 20).resize((40, 48), 0).save(
            folder / f"{i}.png"
        )
    (folder / "notes.txt").write_text("no image")
    _, _ = run(str(folder), "--size", "12x10", "--memory", "Hopfield", "--no-compare", "--out", str(tmp_path / "out"))
    store = AssociativeStore.load(tmp_path / "out" / "store.safetensors")
    assert sorted(store.names) == ["0.png", "1.png", "2.png"]
    assert store.patterns.shape == (3, 12, 10)


def test_ink_is_the_rarer_tone() -> None:
    image = np.full((1, 5, 5), 0.9, dtype=np.float32)
    image[0, 2, 1:4] = 0.2
    assert ink(Images(image, ["a"])).sum() == 3
    assert ink(Images(1 - image, ["a"])).sum() == 3
    assert ink(Images(image * 0, ["a"])).sum() == 0


def test_images_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"a\.png must be an image that can be read"):
        read_images(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("nowhere",), "nowhere must be a folder of images, or digits, got nothing there"),
        (("--memory", "Hopfeld"), "Did you mean"),
        (("--noise", "1.5"), "--noise must be a probability in [0, 1), got 1.5"),
        (("--size", "3x3"), "--size must be left out for digits"),
        ((".", "--size", "big"), "--size must be height x width such as 16x16"),
        (("--seconds", "0"), "--seconds must be more than 0"),
    ],
)
def test_mistakes_are_one_sentence(arguments: tuple[str, ...], text: str) -> None:
    _, said = run(*arguments, code=2)
    assert text in " ".join(said.split())
