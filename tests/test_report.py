"""The page that a run leaves."""

import base64
import json
import math
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from recurra.cli.jobs import Roles
from recurra.cli.jobs.forecaster import ForecasterJob
from recurra.estimators import Forecaster
from recurra.report import Page, write_report
from recurra.report.forecaster import _draw_forecast
from recurra.report.language_model import evaluation
from recurra.report.sequence_classifier import _mistaken
from recurra.report.write import write_evaluation

EVIL = "<script>alert('x')</script> $x_1$ &amp; \"quoted\""
WAVE = [math.sin(i / 5) for i in range(80)]
TEXT = "the cat sat on the $mat$, <i>. " * 40
SERIES = {
    "name": EVIL,
    "values": WAVE[:50],
    "point": WAVE[50:60],
    "low": [v - 1 for v in WAVE[50:60]],
    "high": [v + 1 for v in WAVE[50:60]],
    "actual": WAVE[51:61],
    "others": {EVIL: WAVE[40:50]},
    "interval": "80 %",
}
SHARED = {"file": EVIL, "folder": "the-model", "num_parameters": 1234, "facts": [["file", EVIL]]}
FOUND: dict[str, dict[str, Any]] = {
    "language_model": {
        **SHARED,
        **evaluation([0.1 * (i % 7) for i in range(len(TEXT) - 1)], list(TEXT[1:]), TEXT),
        "unit": "character",
        "metrics": {"nats": 1.25},
        "baselines": [{"name": "5-grams", "nats": 1.5}],
    },
    "forecaster": {
        **SHARED,
        "horizon": 10,
        "data": [{"name": EVIL, "values": [None, *WAVE]}],
        "forecasts": [SERIES],
        "held_out": [SERIES],
        "by_step": [0.1, 0.2, math.nan],
        "metrics": {"smape": 10.0, "mase": 0.5, "rmse": 1.0, "coverage": 0.8},
        "interval": "80 %",
        "baselines": [{"name": "seasonal naive", "smape": 12.0}],
    },
    "sequence_classifier": {
        **SHARED,
        "what": "Classes",
        "counts": [[EVIL, 3], ["b", 4]],
        "examples": [{"label": EVIL, "series": [WAVE[:20]]}, {"label": "b", "text": EVIL}],
        "metrics": {"accuracy": 0.75, "log_loss": 0.4},
        "baselines": [{"name": "the most frequent class", "accuracy": 0.5}],
        "classes": [EVIL, "b"],
        "confusion": [[3, 1], [1, 3]],
        "per_class": [{"class": EVIL, "precision": 0.75, "recall": 0.75, "f1": 0.75, "count": 4}],
        "reliability": [{"confidence": 0.9, "accuracy": 0.8, "count": 8}],
        "worst": [{"name": "7", "true": "b", "predicted": EVIL, "sure": 0.9, "series": [WAVE[:20]]}],
    },
    "sequence_regressor": {
        **SHARED,
        "what": "Targets",
        "metrics": {"r2": 0.9, "rmse": 0.1},
        "scatter": [[0.0, 0.1], [1.0, 0.9]],
    },
}


def config(kind: str) -> dict[str, Any]:
    history = [{"update": i, "train_nats": 2 - i / 10, "validation_nats": 1.9 - i / 10} for i in range(1, 6)]
    samples = [{"update": 0, "text": EVIL}, {"update": 5, "text": EVIL}]
    return {
        "format_version": 2,
        "kind": kind,
        "arguments": {"cell": "LSTMCell"},
        "versions": {"recurra": "0", "torch": "2"},
        "record": {"updates_made": 5, "seconds": 1.0, "history": history, "samples": samples},
    }


def written(kind: str, folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config(kind)))
    write_evaluation(folder, FOUND[kind])
    return write_report(folder)


class Reader(HTMLParser):
    """Notes the tags, the text and what would be loaded."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loaded: list[str] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loaded += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


@pytest.mark.parametrize("kind", FOUND)
def test_pages_are_escaped_and_need_nothing_else(kind: str, tmp_path: Path) -> None:
    html = written(kind, tmp_path).read_text(encoding="utf-8")
    reader = Reader()
    reader.feed(html)
    assert "script" not in reader.tags
    assert "i" not in reader.tags
    assert all(source.startswith("data:image/png;base64,") for source in reader.loaded)
    assert EVIL in "".join(reader.texts)
    assert "url(" not in html
    assert "@import" not in html
    for picture in reader.loaded:
        assert base64.b64decode(picture.partition(",")[2]).startswith(b"\x89PNG")
    assert re.search(r"1,234", html)


def text_of(kind: str, place: Path, **changes: Any) -> str:
    """What a page says, on one line."""
    written(kind, place)
    write_evaluation(place, {**FOUND[kind], **changes})
    reader = Reader()
    reader.feed(write_report(place).read_text(encoding="utf-8"))
    return " ".join(" ".join(reader.texts).split())


def test_a_page_says_where_a_simple_method_is_better(tmp_path: Path) -> None:
    said = "On these data 'words counted' is better than this model"
    better, worse = ([{"name": "words counted", "accuracy": a}] for a in (0.8, 0.7))
    assert said in text_of("sequence_classifier", tmp_path, baselines=better)
    assert said not in text_of("sequence_classifier", tmp_path, baselines=worse)
    assert "On these data 'ETS' is better" in text_of("forecaster", tmp_path, baselines=[{"name": "ETS", "mase": 0.4}])
    assert "'5-grams' is better" in text_of("language_model", tmp_path, baselines=[{"name": "5-grams", "nats": 1.2}])


def test_a_page_without_mistakes_shows_what_was_least_sure(tmp_path: Path) -> None:
    unsure = [{"name": "3", "true": "b", "predicted": "b", "sure": 0.51, "series": [WAVE[:20]]}]
    said = text_of("sequence_classifier", tmp_path, worst=[], unsure=unsure)
    assert "It made no mistake on the held-out sequences. Of these it was the least sure:" in said
    assert "51.0%" in said


def test_steps_without_a_time_are_counted_from_the_beginning_of_the_series(tmp_path: Path) -> None:
    """The picture shows the end of a series only; its axis says which steps these are."""
    from matplotlib.figure import Figure

    rows = "".join(f"{5 + i % 3 + 0.01 * i}\n" for i in range(90))
    (tmp_path / "a.csv").write_text("sold\n" + rows)
    job = ForecasterJob(tmp_path / "a.csv", Roles(horizon=4))
    model = Forecaster(horizon=4, num_updates=2, hidden_size=4).fit(job.series)
    found = job.evaluation(model, tmp_path)
    for part, end in ((found["forecasts"][0], 90), (found["held_out"][0], found["held_out"][0]["first"] + 16)):
        figure = Figure()
        _draw_forecast(figure, part)
        known, *_ = figure.axes[0].lines
        assert list(known.get_xdata()) == list(range(end - 16, end))
        forecast = next(line for line in figure.axes[0].lines if line.get_label() == "forecast")
        assert list(forecast.get_xdata()) == list(range(end, end + 4))


def test_words_above_pictures() -> None:
    assert _mistaken({"true": "a", "predicted": "b"}, numbers=False) == "a taken for b"
    assert _mistaken({"true": "1", "predicted": "2"}, numbers=True) == "1, predicted 2"
    assert _mistaken({"true": "a", "predicted": "a"}, numbers=False) == "a"


def test_numbers_read_well(tmp_path: Path) -> None:
    metrics = {"smape": 36.72, "mase": 4.37, "rmse": 2085.04, "coverage": 0.49}
    said = text_of("forecaster", tmp_path, metrics=metrics, folder="my models/a", baselines=[])
    assert "2.08e+03" not in said
    assert "2085" in said
    assert "recurra forecast 'my models/a' newer.csv" in said  # as a shell takes it
    assert text_of("forecaster", tmp_path, metrics=None, baselines=None, backtest="There is no backtest: too short.")


def test_evaluation_finds_the_worst_passage() -> None:
    pieces = list("a" * 400 + "z" * 200 + "a" * 400)
    found = evaluation([0.1] * 400 + [5.0] * 200 + [0.1] * 400, pieces, "az")
    assert found["worst"][0] == {"nats": 5.0, "text": "z" * 200}
    assert found["costly"][0]["token"] == "z"
    assert found["costly"][0]["share"] == pytest.approx(1000 / 1080)
    with pytest.raises(ValueError, match=r"of one length, got 1 and 2\."):
        evaluation([0.1], ["a", "b"], "")


def test_numbers_that_are_not_finite_become_null(tmp_path: Path) -> None:
    write_evaluation(tmp_path, {"a": [math.nan, math.inf, 1.0, True, None]})
    assert json.loads((tmp_path / "evaluation.json").read_text()) == {"a": [None, None, 1.0, True, None]}


def test_messages(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"with config\.json, got nothing there\."):
        write_report(tmp_path / "none")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match=r"with evaluation\.json, got one without it\."):
        write_report(tmp_path)
    (tmp_path / "evaluation.json").write_text("{")
    with pytest.raises(ValueError, match=r"evaluation\.json must be a JSON file, got a damaged one\."):
        write_report(tmp_path)
    (tmp_path / "evaluation.json").write_text("{}")
    with pytest.raises(ValueError, match=r"the kind in .* must be one of .*language_model.*, got None\."):
        write_report(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config("forecaster")))
    with pytest.raises(ValueError, match=r"written by this version of recurra, got one that does not fit"):
        write_report(tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_an_empty_table() -> None:
    assert "<th>a</th>" in Page("x").section("s").table(["a"], []).html()


@pytest.mark.slow
@pytest.mark.parametrize("kind", FOUND)
def test_a_browser_shows_it(kind: str, tmp_path: Path) -> None:
    """Headless Chromium draws the page: something dark on something light, down to its end."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("no Chromium is installed")
    from matplotlib.image import imread

    page, picture = written(kind, tmp_path), tmp_path / "page.png"
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--disable-background-networking"]
    command = [browser, *flags, f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1000,1600"]
    subprocess.run([*command, f"--screenshot={picture}", page.as_uri()], check=True, timeout=120, capture_output=True)
    pixels = imread(picture)[..., :3].mean(-1)
    assert pixels.shape == (1600, 1000)
    assert pixels.max() > 0.95
    for part in (pixels[:400], pixels[400:800], pixels[800:1200]):
        assert (part < 0.5).mean() > 0.002
