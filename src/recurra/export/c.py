"""A network as C99 files: a header, a source, its weights."""

from __future__ import annotations

import json
import math
import os
import re
import textwrap
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..core.cell import Cell
from ..core.checks import check_choice, sentence
from ..core.tree import Tree
from ..training.files import write_atomically
from .network import Network
from .source import KEYWORDS, WHERE, Source, in_comment

BITS = (32, 8)


@dataclass(frozen=True)
class Exported:
    """What was written.

    Args:
        folder: of the files.
        name: prefix of everything.
        files: their names.
        weight_bytes: of the constants.
        state_bytes: of the memory of one stream.
        loss: of accuracy by 8-bit weights: measures and "measured_on"; empty for float32.
    """

    folder: Path
    name: str
    files: tuple[str, ...]
    weight_bytes: int
    state_bytes: int
    loss: dict[str, Any] = field(default_factory=dict)


def to_c(
    model: Any,
    folder: str | os.PathLike[str],
    name: str = "net",
    *,
    bits: int = 32,
    data: Any = None,
    data_words: str = "",
    state: Tree = None,
) -> Exported:
    """Write a network as C99 that needs nothing but the C library's ``math.h``.

    ``NAME.h`` and ``NAME.c`` have a function that makes one step and one that begins a stream. All memory stands in a
    struct of the caller's: nothing is allocated, nothing global is written, and any number of streams may run side by
    side. ``NAME_weights.h`` holds the constants, ``NAME_example.c`` a program, ``README.md`` and ``NAME.json`` the facts.

    Args:
        model: a cell (a stack with its embedding and readout is one), or a fitted `LanguageModel`, `Forecaster`,
            `SequenceClassifier` or `SequenceRegressor`.
        folder: made if missing; files of these names are replaced.
        name: prefix of the files and of every name in them.
        bits: 32 for float32 weights; 8 for matrices in 8 bits with a scale for each output of a product and each row of a
            table. Everything is computed in float32, and vectors stay as they are.
        data: real inputs on which the loss of accuracy by 8 bits is measured: leaves (T, B, ...) for a cell, a text for a
            language model, sequences for a classifier or regressor, series for a forecaster. Without it, made-up input.
        data_words: what these inputs are, for the README.
        state: of a cell, from which a stream begins, leaves (1, ...): for one, ``decoder.attend(memory)``. None for the
            cell's own initial state.

    Returns:
        What was written, with the measured loss.

    Raises:
        ValueError: no such name or number of bits, or a network that has no form in C; the sentence says why.
        TypeError: something that is no network.
    Example:
        >>> import tempfile
        >>> from recurra.cells import GRUCell
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     found = to_c(GRUCell(3, 5), folder, "gru", bits=8)
        >>> found.files[:3], found.loss["relative_error"] < 0.05
        (('gru.h', 'gru.c', 'gru_weights.h'), True)
    """
    check_choice(WHERE, "bits", bits, BITS)
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,40}", name) or name in KEYWORDS:
        want = "a name in C: a letter, then letters, digits and _, at most 41, no word of the language"
        raise ValueError(sentence(WHERE, "name", want, repr(name)))
    network = network_of(model, name, bits, data, state)
    network.data_words = data_words or network.data_words
    return write(network, folder)


def write(network: Network, folder: str | os.PathLike[str]) -> Exported:
    """The files of a network."""
    name, bits, source = network.name, network.bits, network.source
    loss: dict[str, Any] = {}
    if bits == 8:
        measures, words = network.measure()
        loss = {"measured_on": words, **measures}
    add_sizes(source)
    texts = {
        f"{name}.c": _source_text(source, network),
        f"{name}.h": _header_text(source, network),
        f"{name}_weights.h": _weights_text(source, network),
        f"{name}_example.c": _example_text(network),
    }
    files = (f"{name}.h", f"{name}.c", f"{name}_weights.h", f"{name}_example.c", "README.md", f"{name}.json")
    found = Exported(Path(folder), name, files, source.data_bytes, source.state_bytes, loss)
    texts["README.md"] = _readme(network, found)
    facts = {
        "name": name,
        "model": network.title()[0],
        "bits": bits,
        "weight_bytes": found.weight_bytes,
        "state_bytes": found.state_bytes,
        "loss": {k: v if isinstance(v, str) or math.isfinite(v) else None for k, v in loss.items()},
    }
    texts[f"{name}.json"] = json.dumps(facts, indent=2) + "\n"
    for file in files:
        write_atomically(Path(folder) / file, texts[file])
    return found


def network_of(model: Any, name: str, bits: int, data: Any = None, state: Tree = None) -> Network:
    """The kind of program that a model becomes."""
    from ..estimators import Forecaster, LanguageModel
    from ..estimators.sequence_estimator import SequenceEstimator
    from .forecaster import ForecasterNetwork
    from .sequences import SequenceNetwork
    from .text import TextNetwork

    if isinstance(model, Cell):
        return Network(model, name, bits, data, state)
    if state is not None:
        raise ValueError(sentence(WHERE, "state", "left out for a model that is no cell", type(state).__name__))
    if isinstance(model, LanguageModel):
        return TextNetwork(model, name, bits, data)
    if isinstance(model, Forecaster):
        return ForecasterNetwork(model, name, bits, data)
    if isinstance(model, SequenceEstimator):
        return SequenceNetwork(model, name, bits, data)
    want = "a cell or a fitted LanguageModel, Forecaster, SequenceClassifier or SequenceRegressor"
    hint = "Give its cell." if isinstance(getattr(model, "cell", None), Cell) else ""
    raise TypeError(sentence(WHERE, "model", want, type(model).__name__, hint))


def add_sizes(source: Source) -> None:
    """Macros for the sizes of what goes in and out."""
    for step in source.steps:
        if not step.public:
            continue
        first = "" if step.name == "step" else step.name.upper() + "_"
        for parameters, word in ((step.inputs, "INPUT"), (step.outputs, "OUTPUT")):
            for p in parameters:
                last = "" if p.name in ("x", "y", "token") else "_" + p.name.upper()
                if p.single and p.limit is not None:
                    source.macros.append((f"{first}NUM_TOKENS{last}", p.limit, ""))
                elif not p.single:
                    source.macros.append((f"{first}{word}_SIZE{last}", p.size, ""))


# --- the files ---


def _header_text(source: Source, network: Network) -> str:
    guard = source.name.upper() + "_H"
    lines = ["/*", *(f" * {line}".rstrip() for text in network.title() for line in _wrapped(in_comment(text))), " */"]
    lines += [f"#ifndef {guard}", f"#define {guard}", "", "#include <stdint.h>", ""]
    lines += ["#ifdef __cplusplus", 'extern "C" {', "#endif", ""]
    for name, value, words in source.macros:
        lines.append(f"#define {source.name.upper()}_{name} {value}{f' /* {words} */' if words else ''}")
    lines += ["", "/* One stream: all the memory that it needs. A copy of it is a copy of the stream. */"]
    lines += source.state_text()
    if source.public_reset:
        lines += ["", "/* Begin a stream. */", f"void {source.name}_reset({source.name}_state *s);"]
    for text in (*source.prototypes, *network.tables):
        lines += ["", text]
    return "\n".join([*lines, "", "#ifdef __cplusplus", "}", "#endif", "", "#endif", ""])


def _source_text(source: Source, network: Network) -> str:
    reset = source.reset_text()
    includes = ["<math.h>", "<stddef.h>", "<stdint.h>"]
    head = [
        f'#include "{source.name}.h"',
        "",
        *(f"#include {i}" for i in includes),
        "",
        f'#include "{source.name}_weights.h"',
    ]
    parts = ["\n".join(head), *source.writer.helpers.values(), reset, *source.functions, *network.functions]
    return "\n\n".join(parts) + "\n"


def _weights_text(source: Source, network: Network) -> str:
    head = f"/* Constants, for {source.name}.c alone. */"
    return "\n\n".join([head, *source.data, *network.weights]) + "\n"


def _example_text(network: Network) -> str:
    name = network.name
    head = [f"/* An example: {network.usage()} */", f'#include "{name}.h"', "", *network.example_includes, ""]
    main = ["int main(void)", "{", *(f"    {line}".rstrip() for line in network.example()), "}", ""]
    return "\n".join([*head, *network.example_helpers(), *main])


def _readme(network: Network, found: Exported) -> str:
    name = network.name
    lines = [f"# {name}", "", *network.title(), ""]
    for text in network.notes():
        lines += [text, ""]
    lines += [
        "## Use",
        "",
        "```",
        f"gcc -std=c99 -O3 {name}.c {name}_example.c -lm -o {name}",
        network.usage(),
        "```",
        "",
    ]
    lines += [
        network.calling(),
        "",
        f"Constants: {found.weight_bytes:,} bytes. One stream: about {found.state_bytes:,} bytes.",
        "",
    ]
    if found.loss:
        lines += ["## Accuracy", "", "Matrices are stored in 8 bits with float32 scales; all is computed in float32. "]
        lines += [f"Measured against float32 weights on {found.loss['measured_on']}:", ""]
        lines += [f"- {words}" for words in loss_words(found.loss)]
        lines.append("")
    else:
        lines += ["Weights are float32.", ""]
    return "\n".join(lines)


def loss_words(loss: dict[str, Any]) -> list[str]:
    """Each measure in words."""
    return [f"{key.replace('_', ' ')}: {value:.6g}" for key, value in loss.items() if not isinstance(value, str)]


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, 110) or [""]
