"""Texts with labels, read from files: a label before or behind each line, or a table with a column of texts."""

from __future__ import annotations

import csv
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from ..core.checks import check_choice, sentence
from .decode import read_text

FORMS = ("auto", "tab", "colon", "table")
TEXT_NAMES = (
    "text",
    "sentence",
    "message",
    "review",
    "question",
    "document",
    "content",
    "body",
    "title",
    "tweet",
    "utterance",
)
LABEL_NAMES = ("label", "class", "category", "target", "sentiment", "intent", "topic", "y", "polarity", "type")

_COLON = re.compile(r"([A-Za-z][\w.+-]*(?::[\w.+-]+)*):(\S*)\s+(\S.*)")


@dataclass(frozen=True)
class LabelledTexts:
    """Texts with a label each, as `recurra.estimators.SequenceClassifier` takes them.

    Args:
        texts: N texts.
        labels: N labels.
        name: of the set.
        notes: what was decided or repaired, one sentence each.
    """

    texts: list[str]
    labels: list[str]
    name: str = ""
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        """N."""
        return len(self.texts)


def read_labelled_text(
    path: str | os.PathLike[str], *, form: str = "auto", text: str | None = None, target: str | None = None
) -> LabelledTexts:
    """Read texts with labels from a file; see `parse_labelled_text`.

    Args:
        path: of the file.
        form: "tab", "colon" or "table"; "auto" finds out.
        text: the column of the text in a table.
        target: the column of the label in a table.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file cannot be read as such; the sentence names the line.
    """
    path = Path(path)
    content, notes = read_text(path)
    found = parse_labelled_text(content, path.name, form=form, text=text, target=target)
    return LabelledTexts(found.texts, found.labels, path.stem, (*notes, *found.notes))


def read_texts(
    path: str | os.PathLike[str], *, text: str | None = None, target: str | None = None
) -> tuple[list[str], tuple[str, ...]]:
    """Texts to predict, which may be without labels: a table with the column of the text, lines with labels, or plain lines.

    Args:
        path: of the file.
        text: the column of the text in a table.
        target: the column of the label, if there is one.

    Returns:
        The texts, labels left out, and notes, one sentence each.

    Raises:
        FileNotFoundError: no such file.
        ValueError: nothing but blank lines, or a table with rows of another width.
    """
    path = Path(path)
    content, notes = read_text(path)
    lines = [line for line in content.split("\n") if line.strip()]
    if not lines:
        raise ValueError(sentence(path.name, "the file", "texts", "nothing but blank lines"))
    separator = max(",\t;", key=lines[0].count)
    header = [cell.strip().strip('"') for cell in lines[0].split(separator)]
    low = [name.lower() for name in header]
    column = text if text in header else next((header[low.index(n)] for n in TEXT_NAMES if n in low), None)
    if column is None:
        form = "table" if target in header and len(header) > 1 else ""
        form = form or ("tab" if all(line.count("\t") == 1 for line in lines) else "")
        form = form or ("colon" if all(_COLON.fullmatch(line.strip()) for line in lines) else "")
        if not form:
            return lines, (*notes, "Each line is one text.")
        found = parse_labelled_text(content, path.name, form=form, target=target if form == "table" else None)
        return found.texts, (*notes, *found.notes)
    csv.field_size_limit(max(csv.field_size_limit(), 2**24))
    reader = csv.reader(content.splitlines(keepends=True), delimiter=separator)
    try:
        rows = [row for row in reader if any(cell.strip() for cell in row)]
    except csv.Error as error:
        where = f"{path.name}: line {reader.line_num}"
        raise ValueError(sentence(where, "a row", "one of a table", str(error))) from None
    if len(rows) < 2:
        raise ValueError(sentence(path.name, "a table", "rows below the header", "none"))
    place = header.index(column)
    if len(header) == 1:
        return lines[1:], (*notes, f"Each line below {column!r} is one text.")
    short = next((i for i, row in enumerate(rows, 1) if len(row) != len(header)), None)
    if short is not None:
        where, want = f"{path.name}: row {short}", f"{len(header)} cells, like the header"
        hint = "A text with commas needs quotes around it."
        raise ValueError(sentence(where, "a row", want, len(rows[short - 1]), hint))
    return [row[place] for row in rows[1:]], (*notes, f"The text is the column {column!r}.")


def parse_labelled_text(
    content: str, where: str = "text", *, form: str = "auto", text: str | None = None, target: str | None = None
) -> LabelledTexts:
    """Texts with labels, in one of three forms.

        tab:    label<TAB>text, or text<TAB>label: the label is the side with fewer different values
        colon:  LABEL:fine text, or LABEL: text; what stands behind the first colon of the label is left out
        table:  a header, then cells separated by commas, tabs or semicolons; quotes may hold lines

    Args:
        content: of the file.
        where: its name, for messages.
        form: which; "auto" finds out and says so in the notes.
        text: the column of the text; None for one with a usual name, else the longest.
        target: the column of the label; None for one with a usual name, else the one with the fewest values.

    Raises:
        ValueError: no form fits, a line without a label, no such column; the sentence names the line.

    Example:
        >>> parse_labelled_text("NUM:dist How far is it ?\\nHUM:desc Who was he ?\\n").labels
        ['NUM', 'HUM']
        >>> parse_labelled_text("spam\\tWin now\\nham\\tSee you at six\\n").texts
        ['Win now', 'See you at six']
    """
    check_choice(where, "form", form, FORMS)
    lines = [(i, line) for i, line in enumerate(content.split("\n"), start=1) if line.strip()]
    if not lines:
        raise ValueError(sentence(where, "the file", "lines with a label and a text", "none"))
    chosen = form if form != "auto" else ("table" if text or target else _form(where, lines))
    if chosen == "tab":
        found = _tab(where, lines)
    elif chosen == "colon":
        found = _colon(where, lines)
    else:
        found = _table(where, content, text, target)
    said = {"tab": "a label and a text with a tab between", "colon": "LABEL:text", "table": "a table"}[chosen]
    notes = [f"Read as {said}.", *found.notes] if form == "auto" else list(found.notes)
    kept = [(t, label) for t, label in zip(found.texts, found.labels) if t.strip()]
    if len(kept) < len(found):
        notes.append(f"{len(found) - len(kept)} texts are empty; they were left out.")
    if not kept:
        raise ValueError(sentence(where, "the file", "at least one text that is not empty", "none"))
    counts = Counter(label for _, label in kept)
    if len(counts) == 1:
        notes.append(f"All texts have one label, {kept[0][1]!r}: there is nothing to tell apart.")
    return LabelledTexts([t for t, _ in kept], [label for _, label in kept], notes=tuple(notes))


def _form(where: str, lines: Sequence[tuple[int, str]]) -> str:
    """The form of the first lines."""
    sample = [line for _, line in islice(lines, 200)]
    if all(line.count("\t") == 1 for line in sample) and not _names(sample[0], "\t"):
        return "tab"
    if all(_COLON.fullmatch(line.strip()) for line in sample):
        return "colon"
    if any(separator in sample[0] for separator in ",;\t"):
        return "table"
    want = "lines 'label<TAB>text' or 'LABEL:text', or a table with a header"
    raise ValueError(sentence(where, "the file", want, _short(sample[0])))


def _names(line: str, separator: str) -> bool:
    """Does a line hold the usual names of columns?"""
    cells = [cell.strip().strip('"').lower() for cell in line.split(separator)]
    return any(cell in TEXT_NAMES for cell in cells) and any(cell in LABEL_NAMES for cell in cells)


def _tab(where: str, lines: Sequence[tuple[int, str]]) -> LabelledTexts:
    pairs = []
    for number, line in lines:
        left, tab, right = line.partition("\t")
        if not tab:
            want = "a label, a tab and a text"
            raise ValueError(
                sentence(f"{where}: line {number}", "a line", want, _short(line), "Is the file cut off there?")
            )
        pairs.append((left.strip(), right.strip()))
    first, second = ({pair[i] for pair in pairs} for i in (0, 1))
    lengths = [sum(len(pair[i]) for pair in pairs) for i in (0, 1)]
    label_first = len(first) < len(second) or (len(first) == len(second) and lengths[0] <= lengths[1])
    texts = [pair[1 if label_first else 0] for pair in pairs]
    labels = [pair[0 if label_first else 1] for pair in pairs]
    empty = next((i for i, label in enumerate(labels) if not label), None)
    if empty is not None:
        raise ValueError(
            sentence(f"{where}: line {lines[empty][0]}", "the label", "given in every line", "an empty one")
        )
    return LabelledTexts(texts, labels, notes=() if label_first else ("The label stands behind the text.",))


def _colon(where: str, lines: Sequence[tuple[int, str]]) -> LabelledTexts:
    texts, labels, fine = [], [], 0
    for number, line in lines:
        found = _COLON.fullmatch(line.strip())
        if found is None:
            place, want = f"{where}: line {number}", "LABEL:fine text or LABEL: text"
            raise ValueError(sentence(place, "a line", want, _short(line), "Is the file cut off there?"))
        label, _, rest = found[1].partition(":")
        fine += bool(rest or found[2])
        labels.append(label)
        texts.append(found[3].strip())
    notes = (f"{fine} labels have a finer part behind the colon, which was left out.",) if fine else ()
    return LabelledTexts(texts, labels, notes=notes)


def _table(where: str, content: str, text: str | None, target: str | None) -> LabelledTexts:
    first = next(line for line in content.split("\n") if line.strip())
    separator = max(",\t;", key=first.count)
    if separator not in first:
        raise ValueError(sentence(where, "a table", "a header with at least two columns", _short(first)))
    csv.field_size_limit(max(csv.field_size_limit(), 2**24))
    reader = csv.reader(content.splitlines(keepends=True), delimiter=separator)
    try:
        rows = [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise ValueError(sentence(f"{where}: line {reader.line_num}", "a row", "one of a table", str(error))) from None
    if not rows:
        raise ValueError(sentence(where, "a table", "a header with names of columns", _short(first)))
    header = [cell.strip() for cell in rows[0][1]]
    body, notes = rows[1:], []
    if len(header) == 2 and text is None and target is None and not _names(first, separator) and _is_row(rows):
        header, body = ["first", "second"], rows
        notes.append("The first line is no header.")
    if not body:
        raise ValueError(sentence(where, "a table", "rows below the header", "none"))
    for number, row in body:
        if len(row) != len(header):
            place, want = f"{where}: line {number}", f"{len(header)} cells, like the header"
            raise ValueError(sentence(place, "a row", want, len(row), "A text with commas needs quotes around it."))
    columns = list(zip(*(row for _, row in body)))
    the_text = _choose(where, header, text, "text", TEXT_NAMES, None)
    if the_text is None:
        taken = _named(header, target)
        the_text = max(range(len(header)), key=lambda i: (i != taken, sum(map(len, columns[i]))))
    the_label = _choose(where, header, target, "target", LABEL_NAMES, the_text)
    if the_label is None:
        others = [i for i in range(len(header)) if i != the_text]
        if not others:
            raise ValueError(sentence(where, "a table", "a column of labels beside the text", "one column"))
        the_label = min(others, key=lambda i: len(set(columns[i])))
    for (number, _), label in zip(body, columns[the_label]):
        if not label.strip():
            raise ValueError(
                sentence(f"{where}: line {number}", header[the_label], "given in every row", "an empty cell")
            )
    note = f"The text is the column {header[the_text]!r}, the label the column {header[the_label]!r}."
    return LabelledTexts(list(columns[the_text]), [label.strip() for label in columns[the_label]], notes=(*notes, note))


def _is_row(rows: Sequence[tuple[int, list[str]]]) -> bool:
    """Is the first of two-column rows a label and a text too? Its label then stands in other rows as well."""
    pairs = [row for _, row in rows if len(row) == 2]
    return any(Counter(row[i].strip() for row in pairs)[rows[0][1][i].strip()] > 1 for i in (0, 1))


def _named(header: Sequence[str], column: str | None) -> int:
    return header.index(column) if column in header else -1


def _choose(
    where: str, header: Sequence[str], given: str | None, role: str, usual: tuple[str, ...], taken: int | None
) -> int | None:
    """The column that was asked for, or one with a usual name; None if there is none."""
    import difflib

    if given is not None:
        if given not in header:
            near = difflib.get_close_matches(given, header[:1000], n=1)
            hint = f"Did you mean {near[0]}?" if near else ""
            raise ValueError(
                sentence(where, f"the column of {role}", f"one of {', '.join(header[:12])}", repr(given), hint)
            )
        place = header.index(given)
        if place == taken:
            raise ValueError(sentence(where, "text and target", "two different columns", repr(given)))
        return place
    small = [name.lower() for name in header]
    return next((small.index(name) for name in usual if name in small and small.index(name) != taken), None)


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")
