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


def test_digits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    printed, said = run("--json", "--cues", "10", "--seconds", "0.02", "--out", str(tmp_path))
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
    row = next(line for line in said.splitlines() if line.startswith("SynchronousHopfield, OptimalStability"))
    assert row.split()[2] == "100"  # the table fits the terminal
    assert "1600" in next(line for line in said.splitlines() if line.startswith("memory"))


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


def test_images_of_every_kind_show_the_same(tmp_path: Path) -> None:
    """Grey of 8, 16 and 32 bits, floating, colour, a palette, transparent paper, and a photograph that lies on its side."""
    ramp = np.linspace(0.1, 0.9, 12).repeat(10).reshape(12, 10)
    byte = (255 * ramp).round().astype(np.uint8)
    black = np.zeros((12, 10), dtype=np.uint8)
    kinds = {
        "a8.png": Image.fromarray(byte),
        "b16.png": Image.fromarray((65535 * ramp).astype(np.uint16)),
        "c32.tif": Image.fromarray((1e6 * ramp).astype(np.int32)),
        "d.tif": Image.fromarray(ramp.astype(np.float32)),
        "e.png": Image.fromarray(np.stack([byte] * 3, -1)),
        "f.gif": Image.fromarray(byte).convert("P"),
        "g.png": Image.fromarray(np.stack([black, black, black, 255 - byte], -1)),
    }
    for name, image in kinds.items():
        image.save(tmp_path / name)
    turned = Image.fromarray(byte).transpose(Image.Transpose.ROTATE_90)
    orientation = Image.Exif()
    orientation[0x0112] = 6  # to be turned by 90 degrees, clockwise
    turned.save(tmp_path / "h.png", exif=orientation)
    found = read_images(tmp_path)
    assert found.pixels.shape == (8, 12, 10)
    for pixels, name in zip(found.pixels, found.names):
        low, high = pixels.min(), pixels.max()
        expected = low + (high - low) * (ramp - 0.1) / 0.8
        np.testing.assert_allclose(pixels, expected, atol=0.02, err_msg=name)
        assert high - low > 0.7


def test_a_memory_with_a_rule(tmp_path: Path) -> None:
    printed, said = run("--memory", "hopfield,pseudoinverse", "--no-compare", "--json", "--out", str(tmp_path))
    assert "stored in Hopfield, PseudoInverse" in said
    assert json.loads(printed)["memory"] == "Hopfield, PseudoInverse"
    assert json.loads(printed)["fullness"]["kept"] == 1.0
    assert "PseudoInverse" in repr(AssociativeStore.load(tmp_path / "store.safetensors").memory)


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
        (("--seed", "-1"), "--seed must be a whole number from 0, got -1"),
        (("--memory", "Hopfield, Habb"), "--memory must be a name of `recurra list memories`, or one of"),
        (("--memory", "SequenceHopfield"), "--memory must be one that brings back what its cue is a part of"),
    ],
)
def test_mistakes_are_one_sentence(arguments: tuple[str, ...], text: str) -> None:
    _, said = run(*arguments, code=2)
    assert text in " ".join(said.split())
