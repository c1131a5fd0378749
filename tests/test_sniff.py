"""What is this file?"""

import gzip
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recurra.datasets.sniff import kind_of_file

FILES = {
    "prose.txt": ("text", "It was the best of times, it was the worst of times,\nit was the age of wisdom.\n" * 30),
    "play.txt": ("text", "ROMEO:\nBut soft, what light\n\nJULIET:\nAy me!\n" * 30),
    "sales.csv": ("table", "day,sales\n2024-01-01,3\n2024-01-02,4\n2024-01-03,7\n"),
    "semicolon.csv": ("table", "Tag;Menge\n01.02.2024;1,5\n02.02.2024;2,5\n"),
    "one.txt": ("table", "\n".join(str(i * 0.5) for i in range(50))),
    "m4.csv": ("table", "V1,V2,V3,V4,V5,V6\n" + "".join(f"H{i},1.5,2,3,4,\n" for i in range(9))),
    "set.ts": ("labelled_series", "@problemName a\n@data\n1,2,3:a\n"),
    "ucr.csv": (
        "labelled_series",
        "".join(f"{i % 2 + 1},{','.join(str(k * 0.1) for k in range(9))}\n" for i in range(12)),
    ),
    "ucr.txt": (
        "labelled_series",
        "".join(f" {i % 2} {'  '.join(str(k * 0.1) for k in range(9))}\n" for i in range(12)),
    ),
    "wide.csv": ("labelled_series", "a1,a2,a3,class\n1,2,3,up\n2,3,4,down\n3,4,5,up\n"),
    "numbers.csv": (
        "labelled_series",
        "label,a,b,c,d,e,f,g\n" + "".join(f"{i % 2},1,2.5,3,4,{i},6,7\n" for i in range(12)),
    ),
    "sold.csv": ("table", "label,a,b,c,d,e,f,g\n" + "".join(f"{i},1,2.5,3,4,{i},6,7\n" for i in range(12))),
    "tab.txt": ("labelled_text", "ham\tSee you at six\nspam\tWin a prize now\n" * 6),
    "trec.txt": ("labelled_text", "NUM:dist How far is it ?\nHUM:ind Who was it ?\n" * 8),
    "texts.csv": ("labelled_text", 'text,label\n"Good, really good",pos\nNot my cup of tea,neg\nVery bad film,neg\n'),
}


@pytest.mark.parametrize("name", FILES)
def test_kinds(name: str, tmp_path: Path) -> None:
    kind, text = FILES[name]
    path = tmp_path / name
    path.write_text(text)
    assert kind_of_file(path).kind == kind


def test_a_target_decides(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("time,x,state\n1,2.5,on\n2,3.5,off\n3,4.5,on\n")
    assert kind_of_file(path, target="state").kind == "labelled_series"
    assert kind_of_file(path, target="x").kind == "table"


WIDE = 100_000
NUMBERS = ",".join(["1.5"] * WIDE)
LONG = {
    "numbers": ("labelled_series", f"1,{NUMBERS}\n2,{NUMBERS}\n" * 2),
    "header": ("table", ",".join(f"c{i}" for i in range(WIDE)) + f"\n{NUMBERS}\n{NUMBERS}\n"),
    "label": ("labelled_series", ",".join(f"c{i}" for i in range(WIDE)) + f",label\n{NUMBERS},a\n{NUMBERS},b\n"),
    "prose": ("text", "to be, or not to be; that is the question " * 20_000),
    "prose in two lines": ("text", ("so it goes " * 50_000 + "\n") * 2),
}


@pytest.mark.parametrize("name", LONG)
def test_lines_longer_than_the_sample(name: str, tmp_path: Path) -> None:
    kind, text = LONG[name]
    for path, data in ((tmp_path / "a.csv", text.encode()), (tmp_path / "a.gz", gzip.compress(text.encode(), 1)))[
        : 1 + (name == "numbers")
    ]:
        path.write_bytes(data)
        assert kind_of_file(path).kind == kind


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_marks_at_the_beginning(encoding: str, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(FILES["sales.csv"][1].encode(encoding))
    assert kind_of_file(path).kind == "table"


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("no.csv", b"", r"must be a file with something in it, got an empty file\."),
        ("blank.csv", b"\n \n", r"must be a file with something in it, got nothing but blank lines\."),
        ("a.bin", b"\x00\x01\x02", r"must be a text or a table, got a binary file"),
        ("a.xlsx", b"PK\x03\x04\x00\x00", r"got a binary file \(it has zero bytes\)\. Unpack an archive"),
        ("a.gz", b"\x1f\x8b\x08\x00", r"must be a whole gzip file, got a damaged one\."),
        ("a.arff", b"@relation x\n@attribute y real\n@data\n1\n", r"got an ARFF file\. Save it as CSV first\."),
    ],
)
def test_messages(name: str, data: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(ValueError, match=message):
        kind_of_file(path)


def test_targets_that_are_not_there(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("day,sales\n2024-01-01,3\n2024-01-02,4\n")
    with pytest.raises(ValueError, match=r"--target must be a column of .*a\.csv \(day, sales\), got 'price'\."):
        kind_of_file(path, target="price")
    path.write_text("just a line of words\nand another\n")
    with pytest.raises(ValueError, match=r"--target must be a column of .*a\.csv, got 'price'\. It looks like a text"):
        kind_of_file(path, target="price")
    with pytest.raises(FileNotFoundError, match=r"must be a file, got nothing there\."):
        kind_of_file(tmp_path / "none")
    with pytest.raises(ValueError, match=r"must be a file, got a folder\."):
        kind_of_file(tmp_path)


@settings(max_examples=60, deadline=None)
@given(data=st.one_of(st.binary(max_size=400), st.text(max_size=300).map(str.encode)))
def test_any_bytes_end_in_a_kind_or_a_sentence(data: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("sniff") / "file"
    path.write_bytes(data)
    try:
        kind = kind_of_file(path).kind
    except ValueError as error:
        kind = str(error)
        kind = "sentence" if " must be " in kind and "\n" not in kind else kind
    assert kind in ("text", "table", "labelled_series", "labelled_text", "sentence")
