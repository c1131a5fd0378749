"""The page of a language model."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from .page import Page
from .parts import cost, curves, facts, next_steps, quoted, verdict

PASSAGE = 200  # tokens of a passage in "where it fails"


def evaluation(losses: Sequence[float], pieces: Sequence[str], learned: str) -> dict[str, Any]:
    """What the page says about the held-out text, as values for JSON.

    Args:
        losses: nats of every token but the first.
        pieces: these tokens as text.
        learned: the training text.
    """
    if len(losses) != len(pieces):
        raise ValueError(f"evaluation: losses and pieces must be of one length, got {len(losses)} and {len(pieces)}.")
    passages: list[dict[str, Any]] = []
    for at in range(0, max(1, len(losses) - PASSAGE // 2), PASSAGE):
        part = losses[at : at + PASSAGE]
        passages.append({"nats": math.fsum(part) / len(part), "text": "".join(pieces[at : at + PASSAGE])})
    passages.sort(key=lambda p: -p["nats"])
    sums: defaultdict[str, float] = defaultdict(float)
    counts: Counter[str] = Counter()
    for loss, piece in zip(losses, pieces):
        sums[piece] += loss
        counts[piece] += 1
    costly = sorted(sums, key=lambda piece: -sums[piece])[:12]
    share = max(math.fsum(losses), 1e-12)
    return {
        "worst": passages[:3],
        "best": passages[-1:] if len(passages) > 3 else [],
        "costly": [
            {"token": p, "count": counts[p], "nats": sums[p] / counts[p], "share": sums[p] / share} for p in costly
        ],
        "frequent": Counter(learned).most_common(25),
        "start": learned[:400],
    }


def build(config: Mapping[str, Any], found: Mapping[str, Any]) -> Page:
    """The page.

    Args:
        config: what stands in ``config.json``.
        found: what stands in ``evaluation.json``.
    """
    arguments, record = config["arguments"], config["record"]
    page = Page(f"Language model of {found['file']}", f"{arguments['cell']}, made with Recurra")
    metrics = found.get("metrics")
    if metrics:
        page.cards(
            [
                (f"{metrics['nats']:.3f}", f"nats per {found['unit']}, held out"),
                (f"{metrics['nats'] / math.log(2):.3f}", f"bits per {found['unit']}"),
                (f"{math.exp(min(metrics['nats'], 50)):.2f}", "perplexity"),
                (f"{found['num_parameters']:,}", "parameters"),
            ]
        )
    page.section("The text")
    facts(page, found["facts"])
    if "frequent" in found:
        where = f", {found['counted']}" if "counted" in found else ""
        page.figure(lambda figure: _draw_frequencies(figure, found["frequent"]), f"The most frequent characters{where}")
        page.text("It begins like this:").code(found["start"])
    curves(page, record.get("history", []), "nats")
    if metrics and found.get("baselines"):
        page.section("Beside models that only count")
        both = [(b["nats"], b["name"]) for b in found["baselines"]]
        both.append((metrics["nats"], f"{arguments['cell']} (ours)"))
        rows = [[name, f"{nats:.3f}", f"{nats / math.log(2):.3f}"] for nats, name in sorted(both, reverse=True)]
        ours = next(i for i, row in enumerate(rows) if str(row[0]).endswith("(ours)"))
        page.table(["model", f"nats per {found['unit']}", f"bits per {found['unit']}"], rows, ours=ours)
        page.text(
            "All on the same held-out text, the end of the file, which no model was trained on. "
            f"Lower is better: it is how much each {found['unit']} surprises the model."
        )
        verdict(page, metrics["nats"], found["baselines"], "nats", lower=True)
    samples = record.get("samples", [])
    if samples:
        page.section("What it writes")
        for sample in (samples[0], samples[-1]) if len(samples) > 1 else samples:
            page.text(f"After {sample['update']:,} updates:").code(sample["text"].strip("\n"))
    if "worst" in found:
        page.section("Where it fails")
        page.text("The passages of the held-out text that surprised it most:")
        for passage in found["worst"]:
            page.text(f"{passage['nats']:.2f} nats per {found['unit']}:").code(passage["text"].strip("\n"))
        for passage in found["best"]:
            page.text(f"and the one that it knew best, {passage['nats']:.2f}:").code(passage["text"].strip("\n"))
        columns = ["token", "times", "mean nats", "share of the whole loss"]
        rows = [[repr(c["token"]), c["count"], f"{c['nats']:.2f}", f"{c['share']:.1%}"] for c in found["costly"]]
        page.text("Which tokens cost the most:").table(columns, rows)
    cost(page, config, found)
    next_steps(
        page,
        [
            f'recurra generate {quoted(found["folder"])} --prompt "The " --temperature 0.7',
            f"recurra evaluate {quoted(found['folder'])} other.txt",
        ],
        f"from recurra import LanguageModel\n\nmodel = LanguageModel.load({found['folder']!r})\n"
        'print(model.generate("The ", length=200, temperature=0.7))',
    )
    return page


def _draw_frequencies(figure: Any, frequent: Sequence[tuple[str, int]]) -> None:
    axis = figure.subplots()
    names = [
        {" ": "space", "\n": "new\nline", "\t": "tab", "$": r"\$"}.get(c, c if c.isprintable() else "?")
        for c, _ in frequent
    ]
    axis.bar(range(len(names)), [n for _, n in frequent], color="#0b63a5")
    axis.set_xticks(range(len(names)), names)
    axis.set(ylabel="times")
    axis.yaxis.set_major_formatter("{x:,.0f}")
