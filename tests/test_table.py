"""Tables as people have them: every dialect, and every way to be broken, ends in values or in one sentence."""

from __future__ import annotations

import gzip
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from recurra.datasets.series import SeriesSet, series_of
from recurra.datasets.table import Table, read_table
from recurra.datasets.timestamps import FORMATS, Step, find_step, places, read_times


def write(folder: Path, text: str | bytes, name: str = "t.csv") -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def days(*names: str) -> np.ndarray:
    return np.array(names, "datetime64[s]")


# --- dialects ---


@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
@pytest.mark.parametrize("decimal", [".", ","])
@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
def test_dialects(tmp_path: Path, mark: str, decimal: str, ending: str) -> None:
    cells = [
        ["date", "x", "y"],
        ["2024-01-01", "1.5", "-2"],
        ["2024-01-02", "NA", "1000.25"],
        ["2024-01-03", "3.25", "4e1"],
    ]
    rows = [[c.replace(".", decimal) for c in row] for row in cells]
    quote = '"' if mark == decimal else ""
    text = ending.join(mark.join(f"{quote}{c}{quote}" for c in row) for row in rows)
    table = read_table(write(tmp_path, text))
    assert list(table.columns) == ["date", "x", "y"]
    np.testing.assert_array_equal(table.columns["x"], [1.5, np.nan, 3.25])
    np.testing.assert_array_equal(table.columns["y"], [-2, 1000.25, 40])
    assert table.columns["date"].tolist() == days("2024-01-01", "2024-01-02", "2024-01-03").tolist()


@pytest.mark.parametrize(
    ("encoding", "said"), [("utf-8", False), ("utf-8-sig", False), ("utf-16", False), ("cp1252", True)]
)
def test_encodings(tmp_path: Path, encoding: str, said: bool) -> None:
    table = read_table(write(tmp_path, "Größe,y\n1,2\n3,4\n".encode(encoding)))
    assert list(table.columns) == ["Größe", "y"]
    assert any("Windows-1252" in note for note in table.notes) == said


def test_gzip_blanks_comments_and_no_header(tmp_path: Path) -> None:
    table = read_table(write(tmp_path, gzip.compress(b"# made by hand\n\n1 2.5\n2   3.5\n", mtime=0), "x.gz"))
    assert [column.tolist() for column in table.columns.values()] == [[1, 2], [2.5, 3.5]]
    assert any("column_1" in note for note in table.notes)


def test_thousands_and_odd_cells_are_said(tmp_path: Path) -> None:
    body = "".join(f'"{1000 + i:,}",{i}\n' for i in range(20))
    table = read_table(write(tmp_path, f"a,b\n{body}oops,5\n"))
    assert table.columns["a"][:2].tolist() == [1000, 1001]
    assert np.isnan(table.columns["a"][-1])
    assert "One cell of column 'a' is no number (row 21: 'oops'): read as missing." in table.notes


def test_short_rows_double_names_and_unnamed_index(tmp_path: Path) -> None:
    table = read_table(write(tmp_path, "a,a,b\n1,2,3\n4,5\n"))
    assert list(table.columns) == ["a", "a_2", "b"]
    assert np.isnan(table.columns["b"][1])
    assert any("1 of 2 rows are shorter" in note for note in table.notes)
    table = read_table(write(tmp_path, "x,y\n1,2,3\n2,3,4\n"))
    assert list(table.columns) == ["index", "x", "y"]


@pytest.mark.parametrize("form", [f for f in FORMATS if f != "ISO8601"])
def test_every_form_of_timestamps(form: str) -> None:
    start = np.datetime64("2023-01-25T00:00:00")
    monthly = "%d" not in form
    real = [start.astype("datetime64[M]") + i if monthly else start + np.timedelta64(26 * i, "h") for i in range(30)]
    real = [t.astype("datetime64[s]") for t in real]
    text = [t.item().strftime(form) for t in real]
    unit = "M" if monthly else "D" if "%H" not in form else "m"
    found = read_times(text)
    assert found is not None
    assert found.astype(f"datetime64[{unit}]").tolist() == [t.astype(f"datetime64[{unit}]").item() for t in real]


def test_day_and_month_by_evenness() -> None:
    found = read_times(["01/02/2024", "02/02/2024", "03/02/2024"])
    assert found is not None
    assert found.tolist() == days("2024-02-01", "2024-02-02", "2024-02-03").tolist()
    assert read_times(["2024 Q1", "2024 Q2"]).tolist() == days("2024-01-01", "2024-04-01").tolist()  # type: ignore[union-attr]
    assert read_times(["abc1", "def2"]) is None


@pytest.mark.parametrize(
    ("step", "first"),
    [
        (Step(3600, "s"), "2024-02-28T22:00"),
        (Step(86400, "s"), "2024-02-28"),
        (Step(7 * 86400, "s"), "2024-02-28"),
        (Step(1, "M"), "2024-01-15"),
        (Step(1, "M", True), "2024-01-31"),
        (Step(3, "M"), "2024-01-01"),
        (Step(12, "M"), "2000-01-01"),
        (Step(1, "B"), "2024-02-28"),
        (Step(900, "s"), "2024-02-28T22:00"),
    ],
)
def test_steps_are_found_and_continued(step: Step, first: str) -> None:
    start = np.datetime64(first, "s")
    times = np.concatenate([[start], step.after(start, 30)])
    assert find_step(times) == step
    gaps = np.delete(times, [5, 11])
    assert find_step(gaps) == step
    found = places(gaps, step)
    assert found is not None
    assert sorted(set(range(31)) - set(found.tolist())) == [5, 11]


# --- refused in a sentence ---


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "must be a table, got an empty file"),
        (b"\n\n \n", "must be a table, got an empty file"),
        (b"# only\n# comments\n", "must be a table, got only comments"),
        (bytes(range(256)) * 4, "must be a text table, got a binary file"),
        (b"PK\x03\x04xxxx", "Save a spreadsheet as CSV first"),
        (b",\n,,\n", "must be a table, got only delimiters"),
        (b"a,b\n", "must be a table with data, got only a row of names"),
        (b'a,b\n"1,2\n3,4\n', "quotation mark"),
        (b"a,b\n1,2,3\n4,5\n", "line 2 must be at most 2 cells, got 3"),
        (gzip.compress(b"a,b\n1,2\n", mtime=0)[:-9], "must be a whole gzip file"),
        (b"\x1f\x8bjunk", "must be a whole gzip file"),
        (b"x" * 200_000, "field larger than field limit"),
    ],
)
def test_rubbish_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=r"^(read_table|series_of): .* must be .*, got ") as caught:
        series_of(read_table(write(tmp_path, content)))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="must be a file, got nothing there"):
        read_table(tmp_path / "none.csv")
    with pytest.raises(ValueError, match="must be a file, got a folder"):
        read_table(tmp_path)


def test_a_million_columns(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"must be at most 100,000 columns, got 1,000,000"):
        read_table(write(tmp_path, "a" + ",b" * 999_999 + "\n" + "1" + ",2" * 999_999 + "\n"))


def test_many_columns_are_fine(tmp_path: Path) -> None:
    head = ",".join(f"c{i}" for i in range(5_000))
    table = read_table(write(tmp_path, head + "\n" + ",".join(["1"] * 5_000) + "\n"))
    assert len(table.columns) == 5_000


@settings(max_examples=80)
@given(st.binary(max_size=300))
@example(b"\xff\xfea")
@example(b"0,0\n0\n0,0,0,0\n")
def test_any_bytes_end_in_values_or_a_sentence(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    check_any(write(tmp_path_factory.mktemp("fuzz"), data))


cell = st.sampled_from(
    [
        "",
        "1",
        "-2.5",
        "1,5",
        "NA",
        "nan",
        "inf",
        "1e400",
        "2024-01-01",
        "2024-13-45",
        "01/02/2024",
        "x",
        '"',
        "Ä",
        "1.234,5",
        " ",
    ]
)


@settings(max_examples=60)
@given(st.lists(st.lists(cell, max_size=5), max_size=8), st.sampled_from([",", ";", "\t", " ", "|"]))
def test_any_cells_end_in_values_or_a_sentence(
    tmp_path_factory: pytest.TempPathFactory, rows: list[list[str]], mark: str
) -> None:
    check_any(write(tmp_path_factory.mktemp("fuzz"), "\n".join(mark.join(row) for row in rows)))


def check_any(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            found = series_of(read_table(path))
        except ValueError as error:
            assert " must be " in str(error)  # noqa: PT017
            assert "\n" not in str(error)  # noqa: PT017
            return
    assert len(found) >= 1
    for values in found.values:
        assert values.ndim == 2
        assert np.isfinite(values).any()
        assert not np.isinf(values).any()


# --- series ---


def table(**columns: object) -> Table:
    return Table({name: np.asarray(c) for name, c in columns.items()})


def test_unsorted_doubled_and_missing_times_are_repaired_and_said() -> None:
    day = days("2024-01-02", "2024-01-01", "2024-01-03", "2024-01-03", "2024-01-06", "2024-01-04")
    found = series_of(table(day=day, y=np.array([2.0, 1.0, 3.0, 3.0, 6.0, 4.0])))
    np.testing.assert_array_equal(found.values[0][:, 0], [1, 2, 3, 4, np.nan, 6])
    assert str(found.step) == "1 day"
    text = " ".join(found.notes)
    assert "they were sorted" in text
    assert "1 rows stood twice" in text
    assert "1 timestamps are missing" in text


def test_contradicting_doubles() -> None:
    day = days(*[f"2024-01-{i:02d}" for i in range(1, 21)], "2024-01-05")
    y = np.arange(21.0)
    found = series_of(table(day=day, y=y))
    assert found.values[0][4, 0] == 12.0
    assert "1 rows had the time of another row but other values: they were averaged." in found.notes
    with pytest.raises(ValueError, match=r"the time must be different in every row of a series, got 10 doubles"):
        series_of(table(day=np.tile(day[:10], 2), y=np.arange(20.0)))


def test_long_form_is_found() -> None:
    day = np.tile(days("2024-01-01", "2024-01-02", "2024-01-03"), 2)
    shop = np.array(["b"] * 3 + ["a"] * 3, dtype=object)
    found = series_of(table(day=day, shop=shop, sales=np.arange(6.0)))
    assert found.names == ("b", "a")
    assert found.targets == ("sales",)
    assert [v[:, 0].tolist() for v in found.values] == [[0, 1, 2], [3, 4, 5]]
    assert "Series are told apart by column 'shop': 2 of them." in found.notes


def test_rows_form_with_ragged_ends(tmp_path: Path) -> None:
    path = write(tmp_path, '"V1","V2","V3","V4","V5"\n"W1",1,2,3,\n"W2",5,6,7,8\n"W3",9,,,\n')
    found = series_of(read_table(path))
    assert found.names == ("W1", "W2", "W3")
    assert found.lengths.tolist() == [3, 4, 1]


def test_time_out_of_parts_and_years() -> None:
    hour = np.arange(30.0) % 24
    day = 1.0 + np.arange(30) // 24
    whole = table(year=np.full(30, 2024.0), month=np.full(30, 2.0), day=day, hour=hour, y=np.arange(30.0))
    assert str(series_of(whole).step) == "1 hour"
    years = series_of(table(year=np.arange(1900.0, 1950.0), y=np.arange(50.0)))
    assert str(years.step) == "12 months"
    assert years.targets == ("y",)


def test_known_future_and_roles() -> None:
    day = days(*[f"2024-01-{i:02d}" for i in range(1, 11)])
    y = np.where(np.arange(10) < 7, np.arange(10.0), np.nan)
    found = series_of(
        table(day=day, y=y, price=np.arange(10.0), rain=np.arange(10.0)), target="y", known=["price"], past=["rain"]
    )
    assert (len(found.values[0]), len(found.known[0]), len(found.past[0])) == (7, 10, 7)
    assert found.times is not None
    assert len(found.times[0]) == 10
    with pytest.raises(ValueError, match=r"a column must be one of day, y, got 'z'"):
        series_of(table(day=day, y=y), target="z")
    with pytest.raises(ValueError, match=r"column 'y' must be given one role, got two"):
        series_of(table(day=day, y=y), target="y", known=["y"])
    with pytest.raises(ValueError, match=r"target 'day' must be a column of numbers, got timestamps"):
        series_of(table(day=day, y=y), target="day")


def test_constant_empty_and_uneven_are_said() -> None:
    day = days("2024-01-01", "2024-01-02", "2024-01-07", "2024-03-01", "2024-03-11", "2024-09-01")
    found = series_of(table(day=day, y=np.ones(6), z=np.full(6, np.nan)))
    text = " ".join(found.notes)
    assert "not evenly spaced" in text
    assert "never change" in text
    assert "'z' has no values" in text
    assert found.step is None
    assert isinstance(found, SeriesSet)


def test_columns_that_are_not_used_are_said() -> None:
    day = days(*[f"2024-01-{i:02d}" for i in range(1, 11)])
    color = np.array(["red", "blue"] * 5, dtype=object)
    found = series_of(table(day=day, y=np.arange(10.0), z=np.arange(10.0), color=color))
    assert "Forecast: y, z." in found.notes
    assert any(note.startswith("Not used: color. ") for note in found.notes)
    found = series_of(table(day=day, y=np.arange(10.0), z=np.arange(10.0), color=color), target="y")
    assert any(note.startswith("Not used: z, color. ") for note in found.notes)
    date = np.array(["2020-02-29", "2020-02-30", "2020-02-31"], dtype=object)
    found = series_of(table(date=date, y=np.arange(3.0)))
    what = "Column 'date' holds no timestamps that can be read (such as '2020-02-29'): it is not used."
    assert what in found.notes


def test_numbers_of_any_name_tell_series_apart() -> None:
    """Where the times start again with each of them; numbers that are measured do not."""
    day, y = days(*[f"2024-01-{i:02d}" for i in range(1, 11)]), np.arange(40.0)
    found = series_of(table(day=np.tile(day, 4), outlet=np.repeat([3.0, 1, 8, 2], 10), y=y))
    assert (found.names, found.targets) == (("3", "1", "8", "2"), ("y",))
    assert "Series are told apart by column 'outlet': 4 of them, since the times start again" in found.notes[0]
    by_day = series_of(table(day=np.repeat(day, 4), outlet=np.tile([3.0, 1, 8, 2], 10), y=y))
    assert by_day.names == ("3", "1", "8", "2")
    counted = series_of(table(t=np.tile(np.arange(10.0), 4), outlet=np.repeat([3.0, 1, 8, 2], 10), y=y))
    assert (counted.names, counted.targets) == (("3", "1", "8", "2"), ("y",))
    with pytest.raises(ValueError, match=r"Name the column that tells the series apart \(series=\.\.\., --series\)"):
        series_of(table(day=np.tile(day, 4), pieces=np.random.default_rng(0).integers(0, 5, 40).astype(float), y=y))


def test_names_in_blocks_tell_series_apart() -> None:
    region = np.repeat(np.array(["north", "south"], object), 20)
    found = series_of(table(region=region, y=np.arange(40.0)))
    assert found.names == ("north", "south")
    assert "Series are told apart by column 'region': 2 of them." in found.notes
    uneven = np.repeat(np.array(["north", "south"], object), [15, 25])
    one = series_of(table(region=uneven, y=np.arange(40.0)))
    assert len(one) == 1
    assert "name the column (series='region', --series region)" in " ".join(one.notes)
    weather = series_of(table(sky=np.tile(np.array(["sun", "rain"], object), 20), y=np.arange(40.0)))
    assert len(weather) == 1
    assert "--series" not in " ".join(weather.notes)


def test_large_numbers_name_different_series() -> None:
    day = np.tile(days("2024-01-01", "2024-01-02", "2024-01-03"), 2)
    for ids in ([1234567.0, 1234568.0], [0.12345678, 0.12345679]):
        found = series_of(table(day=day, id=np.repeat(ids, 3), y=np.arange(6.0)))
        assert [v[:, 0].tolist() for v in found.values] == [[0, 1, 2], [3, 4, 5]]
    assert series_of(table(day=day, id=np.repeat([7.0, 1234568.0], 3), y=np.arange(6.0))).names == ("7", "1234568")


def test_rows_without_the_name_of_a_series_are_said() -> None:
    day = np.tile(days("2024-01-01", "2024-01-02"), 2)
    shop = np.array(["a", "a", "", ""], dtype=object)
    found = series_of(table(day=day, shop=shop, y=np.arange(4.0)), series="shop")
    assert "2 rows have nothing in column 'shop': they are taken as one series without a name." in found.notes
    number = np.array([3.0, 3.0, np.nan, np.nan])
    assert series_of(table(day=day, id=number, y=np.arange(4.0)), series="id").names == ("3", "")


def test_parts_of_a_second_order_the_rows() -> None:
    cells = [f"2024-01-01T00:00:{i // 10:02d}.{i % 10}" for i in (3, 0, 1, 2, 4)]
    stamps = read_times(cells)
    assert stamps is not None
    found = series_of(table(when=stamps, y=np.array([3.0, 0, 1, 2, 4])))
    assert found.values[0][:, 0].tolist() == [0, 1, 2, 3, 4]
    assert found.times is None
    text = " ".join(found.notes)
    assert "they were sorted" in text
    assert "The timestamps have parts of a second: they only order the rows" in text
    whole = read_times(["2024-01-01T00:00:01.000", "2024-01-01T00:00:02.000"])
    assert whole is not None
    assert whole.dtype == np.dtype("datetime64[s]")


def test_plain_numbers_order_the_rows() -> None:
    y = np.array([30.0, 10, 20, 40])
    found = series_of(table(t=np.array([3.0, 1, 2, 4]), y=y))
    assert found.targets == ("y",)
    assert found.values[0][:, 0].tolist() == [10, 20, 30, 40]
    text = " ".join(found.notes)
    assert "The times are plain numbers: they only order the rows" in text
    assert "they were sorted" in text
    assert series_of(table(when=np.array([0.5, 0.1, 0.2, 0.9]), y=y), time="when").values[0][:, 0].tolist() == [
        10,
        20,
        30,
        40,
    ]
    shop = np.array(["a", "a", "b", "b"], dtype=object)
    for options in ({"series": "shop"}, {}):
        both = series_of(table(t=np.array([2.0, 1, 2, 1]), shop=shop, y=y), **options)  # type: ignore[arg-type]
        assert [v[:, 0].tolist() for v in both.values] == [[10, 30], [40, 20]]
    # A month from 1 to 12 again and again, or a temperature, is no order.
    assert series_of(table(t=np.array([3.0, 1, 1, 9]), y=y)).targets == ("t", "y")
    assert series_of(table(time=np.array([3.0, 1, 2, 9]))).targets == ("time",)


def test_huge_numbers_are_no_times() -> None:
    assert series_of(table(y=np.array([1e308, 2e307, 1e308]))).values[0][0, 0] == 1e308


def test_numbers_with_blanks_and_the_long_minus(tmp_path: Path) -> None:
    text = "a;y\n1;12\u202f345,5\n2;\u22121\u00a0000\n3;1 234 567\n"
    assert read_table(write(tmp_path, text)).columns["y"].tolist() == [12345.5, -1000.0, 1234567.0]
    assert read_table(write(tmp_path, "a;y\n1;1 000\n2;2 000\n".encode("utf-32"))).columns["y"].tolist() == [1000, 2000]


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 40), st.one_of(st.none(), st.floats(-1e6, 1e6))), min_size=1, max_size=40))
def test_any_order_of_times(rows: list[tuple[int, float | None]]) -> None:
    day = np.datetime64("2024-01-01", "s") + np.array([d for d, _ in rows]) * np.timedelta64(86400, "s")
    y = np.array([np.nan if v is None else v for _, v in rows])
    try:
        found = series_of(table(day=day, y=y))
    except ValueError as error:
        assert " must be " in str(error)  # noqa: PT017
        return
    values = found.values[0][:, 0]
    assert np.isfinite(values[-1])
    if found.times is not None:
        assert (np.diff(found.times[0]).astype("int64") > 0).all()
        for d, v in zip(day, y):
            if np.isfinite(v) and (day == d).sum() == 1:
                assert values[found.times[0].tolist().index(d.item())] == v
