"""Readers of labelled series and texts: right on good files, one sentence on bad ones, never a crash."""

from __future__ import annotations

import gzip
import math
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recurra.datasets.decode import decode, read_text
from recurra.datasets.labelled_text import parse_labelled_text, read_labelled_text, read_texts
from recurra.datasets.ts_files import (
    LabelledSeries,
    parse_long,
    parse_ts,
    parse_ucr,
    parse_wide,
    read_long,
    read_series,
    read_ts,
    read_ucr,
    read_wide,
)

TS = "# a comment\n@problemName Two\n@timeStamps false\n@univariate false\n@classLabel true up down\n@data\n"


def put(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


# --- good files ------------------------------------------------------------------------------------------------------


def test_ts_with_channels_lengths_and_missing_values(tmp_path: Path) -> None:
    found = read_ts(put(tmp_path, "a.ts", TS + "1,2,3:4,?,6:up\n1,2:3,4:down\n"))
    assert found.name == "Two"
    assert found.labels == ["up", "down"]
    assert [x.shape for x in found.series] == [(3, 2), (2, 2)]
    assert math.isnan(found.series[0][1, 1])
    assert found.notes == ("The series have 2 to 3 steps.", "1 values are missing.")


def test_ts_with_times_and_with_targets() -> None:
    head = "@timeStamps true\n@targetLabel true\n@data\n"
    found = parse_ts(head + "(2020-01-01 00:00:00,1.5),(2020-01-01 00:10:00,2):3.25\n(0,1):-1\n")
    assert found.labels == [3.25, -1.0]
    assert found.series[0][:, 0].tolist() == [1.5, 2.0]
    assert "times are left out" in " ".join(found.notes)


def test_label_first_with_every_separator() -> None:
    for separator in (",", "\t", ";", " ", "  "):
        text = separator.join(["1.0000e+00", "0.5", "NaN", "0.25"]) + "\n" + separator.join(["2", "1", "2", "3"])
        found = parse_ucr(text)
        assert found.labels == ["1", "2"]
        assert found.series[1][:, 0].tolist() == [1.0, 2.0, 3.0]
        assert math.isnan(found.series[0][1, 0])


def test_padding_at_the_end_is_cut_and_said() -> None:
    found = parse_ucr("a,1,2,NaN,NaN\nb,1,2,3,4\n")
    assert [len(x) for x in found.series] == [2, 4]
    assert "1 series ended with missing values" in found.notes[0]


def test_wide_and_long_tables(tmp_path: Path) -> None:
    wide = read_wide(put(tmp_path, "w.csv", 'a,"b",kind\n1,2,x\n3,4,y\n'), target="kind")
    assert (wide.labels, wide.series[1][:, 0].tolist()) == (["x", "y"], [3.0, 4.0])
    text = "id;when;p;q;class\n2;2020-02-01;5;6;y\n1;2020-01-02;3;4;x\n1;2020-01-01;1;2;x\n"
    long = read_long(put(tmp_path, "l.csv", text), series="id", time="when", target="class")
    assert long.labels == ["y", "x"]
    assert long.channels == ("p", "q")
    assert long.series[1].tolist() == [[1.0, 2.0], [3.0, 4.0]]
    assert "1 series were not in the order" in " ".join(long.notes)
    twice = parse_long("id,t,x\n1,0,5\n1,0,6\n", series="id", time="t")
    assert "same 't'" in " ".join(twice.notes)
    assert twice.labels is None


@pytest.mark.parametrize(
    "moments",
    [
        ["2", "10", "1"],
        ["02.01.2020", "01.02.2020", "01.01.2020"],
        ["1/2/2020", "1/13/2020", "1/1/2020"],
        ["2020-01-02T00:00:00.5", "2020-01-02T00:00:00.75", "2020-01-01"],
        ["09:30", "10:00", "09:00"],
        ["Q2", "Q3", "Q1"],
    ],
)
def test_times_of_every_form_order_the_steps(moments: list[str]) -> None:
    rows = "".join(f"a,{m},{i},u\n" for i, m in zip((2, 3, 1), moments))
    found = parse_long("id,t,x,label\n" + rows, series="id", time="t", target="label")
    assert found.series[0][:, 0].tolist() == [1, 2, 3]
    assert any("they were sorted" in note for note in found.notes)


def test_times_without_an_order_are_refused() -> None:
    for moments in (["Jan", "Feb", "Mar"], ["2020-01-01", "soon"], ["1", "2", "x"]):
        rows = "".join(f"a,{m},1,u\n" for m in moments)
        with pytest.raises(
            ValueError, match=r"the time 't' must be numbers or timestamps of one form, got '.*'\. Without"
        ):
            parse_long("id,t,x,label\n" + rows, series="id", time="t", target="label")


def test_lengths_that_the_header_contradicts_are_said() -> None:
    found = parse_ts("@seriesLength 3\n@classLabel true a b\n@data\n1,2,3:a\n1,2:b\n")
    assert "1 series have another length than the 3 steps that the header tells." in found.notes


def test_read_series_finds_the_form(tmp_path: Path) -> None:
    assert read_series(put(tmp_path, "a.ts", TS + "1,2:3,4:up\n")).name == "Two"
    assert read_series(put(tmp_path, "b.txt", "1 2 3\n2 3 4\n")).labels == ["1", "2"]
    assert read_series(put(tmp_path, "c.csv", "x,y,label\n1,2,a\n")).labels == ["a"]
    assert read_series(put(tmp_path, "d.csv", "id,x,label\n1,2,a\n1,3,a\n"), series="id", target="label").labels == [
        "a"
    ]
    assert read_series(put(tmp_path, "e.txt.gz", gzip.compress(b"1 2 3\n2 3 4\n"))).labels == ["1", "2"]


def test_what_is_odd_is_said() -> None:
    found = parse_ucr("a,1,1,1\na,2,2,2\n")
    assert "2 series are constant." in found.notes
    assert "there is nothing to tell apart" in found.notes[-1]


def test_texts_in_every_form(tmp_path: Path) -> None:
    for name, content in {
        "tab": "spam\tWin now\nham\tSee you, at six\nham\tHello\n",
        "behind": "Win now\tspam\nSee you, at six\tham\nHello\tham\n",
        "colon": "spam:fine Win now\nham: See you, at six\nham:x Hello\n",
        "comma": 'text,label\nWin now,spam\n"See you, at six",ham\nHello,ham\n',
        "semicolon": "id;message;class\n1;Win now;spam\n2;See you, at six;ham\n3;Hello;ham\n",
        "bare": 'spam,Win now\nham,"See you, at six"\nham,Hello\nspam,Now win\n',
    }.items():
        found = read_labelled_text(put(tmp_path, name, content))
        assert found.labels[:3] == ["spam", "ham", "ham"], name
        assert found.texts[:3] == ["Win now", "See you, at six", "Hello"], name


def test_columns_can_be_named() -> None:
    content = "a,b,c\nx,long text here,1\ny,more of that,2\n"
    found = parse_labelled_text(content, text="b", target="c")
    assert found.labels == ["1", "2"]
    with pytest.raises(ValueError, match=r"^f: the column of text must be one of a, b, c, got 'bb'\. Did you mean b\?"):
        parse_labelled_text(content, "f", text="bb")
    with pytest.raises(ValueError, match="two different columns"):
        parse_labelled_text(content, text="b", target="b")


# --- bad files: one sentence that names the place --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parse", "text", "message"),
    [
        (parse_ts, "1,2,3\n", "the header of a .ts file must be lines"),
        (parse_ts, "@classLabel true a\n", "a .ts file must be a header with a line @data"),
        (parse_ts, TS, "must be series after the line @data"),
        (
            parse_ts,
            TS + "1,2:3,4:up\n1,2:3,4\n",
            "line 8: the label must be one that the header names (up, down), got '3,4'",
        ),
        (parse_ts, TS + "1,2:3,4:up\n1,2:up\n", "line 8: a series must be 2 channels, as the first one, got 1"),
        (parse_ts, TS + "1,b:3,4:up\n", "line 7: value 2 must be a number, or ? where it is missing, got 'b'"),
        (parse_ts, TS + "1,inf:3,4:up\n", "line 7: value 2 must be finite"),
        (parse_ts, TS + "?,?:?,?:up\n", "series 1 must be one with values, got missing values only"),
        (parse_ts, TS + "1,2\n", "line 7: a series must be values, then a colon and the label"),
        (parse_ucr, "1\n", "line 1: a series must be a label, then at least one value"),
        (parse_ucr, "nan,1,2\n", "line 1: the label must be a number or a word"),
        (parse_ucr, "# only a comment\n", "at least one series"),
        (parse_wide, "word\n", "a table must be a header of columns"),
        (parse_wide, "a,b\n1,2\n", "the column of the label must be named"),
        (parse_wide, "a,label\n1,x\n2\n", "line 3: a row must be 2 cells, like the header, got 1"),
        (parse_wide, "a,label\n1,\n", "label must be given in every row"),
        (parse_wide, "a,a,label\n1,2,x\n", "of different names, got 'a' twice"),
        (parse_wide, "label,class\n", "at least one series"),
        (parse_labelled_text, "just a sentence\n", "must be lines 'label<TAB>text'"),
        (parse_labelled_text, "a\tb c\nd e\nf\tg\n" * 100, "line 2: a line must be a label, a tab"),
        (parse_labelled_text, "text,label\nhello, world,x\n", "A text with commas needs quotes"),
        (parse_labelled_text, "text,label\nhello,\n", "label must be given in every row"),
        (parse_labelled_text, "\n \n", "lines with a label and a text"),
    ],
)
def test_messages(parse, text: str, message: str) -> None:  # type: ignore[no-untyped-def]
    if parse is parse_labelled_text and "\tb c" in text:
        with pytest.raises(ValueError, match="a label, a tab and a text"):
            parse_labelled_text(text, form="tab")
        return
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        parse(text)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_one_series_with_two_labels() -> None:
    with pytest.raises(ValueError, match=r"line 3: the label must be one for all steps of series '1' \('a'\), got 'b'"):
        parse_long("id,x,y\n1,2,a\n1,3,b\n", series="id", target="y")
    with pytest.raises(ValueError, match="three different columns"):
        parse_long("id,x,y\n1,2,a\n", series="id", target="id")
    with pytest.raises(ValueError, match="Did you mean id"):
        parse_long("id,x,y\n1,2,a\n", series="ide")


def test_files_that_are_no_text(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="the file must be there"):
        read_text(tmp_path / "none")
    with pytest.raises(ValueError, match="got a folder"):
        read_text(tmp_path)
    with pytest.raises(ValueError, match="got an empty one"):
        read_text(put(tmp_path, "e", b" \n"))
    with pytest.raises(ValueError, match="a byte 0 at position 2"):
        read_text(put(tmp_path, "b", b"ab\0c"))
    with pytest.raises(ValueError, match="control characters"):
        read_text(put(tmp_path, "c", bytes(range(1, 256)) * 4))
    with pytest.raises(ValueError, match="a damaged gzip file"):
        read_text(put(tmp_path, "d", gzip.compress(b"text" * 100)[:-12]))
    latin = read_text(put(tmp_path, "l", "1 2 é\n".encode("latin-1")))
    assert latin.text == "1 2 é\n"
    assert "Latin-1" in latin.notes[0]
    assert read_text(put(tmp_path, "u", "a\r\nb\r".encode("utf-16"))).text == "a\nb\n"
    with pytest.raises(ValueError, match="UTF-16 that breaks off"):
        read_text(put(tmp_path, "v", "ab".encode("utf-16")[:-1]))


def test_a_million_columns() -> None:
    found = parse_ucr("1 " + "0.5 " * 1_000_000)
    assert found.series[0].shape == (1_000_000, 1)


def test_a_million_columns_of_a_table(tmp_path: Path) -> None:
    """Every reader ends, and soon."""
    names = ",".join(f"c{i}" for i in range(300_000))
    ones = ",".join(["1"] * 300_000)
    path = put(tmp_path, "wide.csv", f"{names},label\n{ones},a\n{ones},b\n".encode())
    found = read_series(path)
    assert (found.series[0].shape, found.labels) == ((300_000, 1), ["a", "b"])
    assert read_series(path, series="label").series[0].shape == (1, 300_000)
    assert len(read_labelled_text(path)) == 2
    path = put(tmp_path, "wide.ts", f"@classLabel true a b\n@data\n{ones.replace(',', ':')}:a\n".encode())
    assert read_ts(path).series[0].shape == (1, 300_000)


# --- fuzz: a sentence or a result, never anything else ---------------------------------------------------------------

LETTERS = st.text(alphabet="01.9,:;\t ?ab-e@#\"'\n()NanTrue", max_size=120)
READERS = (read_ts, read_ucr, read_wide, read_series, read_labelled_text)


def told(call, *args: object, **named: object) -> object:  # type: ignore[no-untyped-def]
    try:
        found = call(*args, **named)
    except ValueError as error:
        text = str(error)
        assert "must be" in text, text
        assert len(text) < 2000
        return None
    if isinstance(found, LabelledSeries):
        assert len(found.series) == len(found.labels or found.series) > 0
        for x in found.series:
            assert x.ndim == 2
            assert len(x)
            assert not np.isinf(x).any()
            assert not np.isnan(x[-1]).all()
    return found


@given(LETTERS)
def test_any_text(text: str) -> None:
    told(parse_ts, text)
    told(parse_ts, "@classLabel true a b\n@data\n" + text)
    told(parse_ts, "@timeStamps true\n@data\n" + text)
    told(parse_ucr, text)
    told(parse_wide, text)
    told(parse_wide, "a,b,label\n" + text)
    told(parse_long, "a,b,label\n" + text, series="a", time="b")
    told(parse_labelled_text, text)


@given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    told(decode, data, "bytes")


GOOD = {
    "a.ts": TS + "1,2,3:4,5,6:up\n1,2:3,4:down\n",
    "b.txt": "1 2 3.5 4\n2 3 4 5\n",
    "c.csv": "x,y,label\n1,2,a\n3,4,b\n",
    "d.tsv": "spam\tWin now\nham\tSee you\n",
    "e.trec": "NUM:a How far ?\nLOC:b Where ?\n",
}


@given(name=st.sampled_from(sorted(GOOD)), place=st.integers(0, 80), what=st.sampled_from(["cut", "byte", "double"]))
def test_damaged_files(name: str, place: int, what: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    data = GOOD[name].encode()
    place = min(place, len(data))
    data = {"cut": data[:place], "byte": data[:place] + b"\xff" + data[place:], "double": data[:place] * 2}[what]
    path = put(tmp_path_factory.getbasetemp(), name, data)
    for reader in READERS:
        told(reader, path)
    texts = told(read_texts, path)
    assert texts is None or texts[0]  # type: ignore[index]


@given(
    content=st.one_of(LETTERS, LETTERS.map(lambda text: "text,label\n" + text), st.just("\ufeff\n"), st.just("text\n"))
)
def test_any_texts(content: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = put(tmp_path_factory.getbasetemp(), "texts", content.encode())
    found = told(read_texts, path)
    assert found is None or all(isinstance(text, str) for text in found[0])  # type: ignore[index]
    told(read_labelled_text, path)


@pytest.mark.skipif("RECURRA_DATA" not in os.environ, reason="needs the files below RECURRA_DATA")
def test_the_archives() -> None:
    root = Path(os.environ["RECURRA_DATA"])
    files = [path for part in ("ucr", "uea") for path in sorted((root / part).glob("*/*_T*.*"))]
    if not files:
        pytest.skip("no folders ucr and uea below RECURRA_DATA")
    for path in files:
        found = read_series(path)
        assert len(set(found.labels or [])) >= 2, path
    sentences = root / "sentence-classification" / "TREC.train"
    if sentences.exists():
        found = read_labelled_text(sentences)
        assert (len(found), len(set(found.labels))) == (5452, 6)
