"""What `SequenceClassifier` and `SequenceRegressor` decide where the user leaves it open, and the sentences that say so."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, NamedTuple

import numpy as np

from ..core.checks import sentence
from .sequence_network import POOLINGS, read_convolutions
from .sequence_series import Variation

FEW, SMALL, MIDDLE = 100, 300, 3000  # training sequences
ENOUGH_TO_CHOOSE = 100  # held-out sequences, to choose weights by them
MOST_RECURRENT_STEPS = 250


@dataclass(frozen=True)
class Facts:
    """What is known of the data.

    Args:
        num: sequences, those held out included.
        lengths: of each that is trained on.
        num_channels: D of series; 0 for texts.
    """

    num: int
    lengths: Sequence[int]
    num_channels: int

    @property
    def is_text(self) -> bool:
        """Texts rather than series?"""
        return not self.num_channels

    @property
    def usual_length(self) -> int:
        """The median."""
        return int(np.median(self.lengths))


@dataclass(frozen=True)
class Choices:
    """Every setting that an estimator may leave open, decided. The names are those of its arguments."""

    hidden_size: int
    bidirectional: bool
    pooling: str
    convolutions: str
    frames: int
    differences: bool
    jitter: float
    scaling: float
    warping: float
    cropping: float
    word_dropout: float
    embedding_size: int
    num_buckets: int
    dropout: float
    input_dropout: float
    num_models: int
    batch_size: int
    hold_out: str
    lr: float
    num_updates: int | None

    @classmethod
    def of(cls, values: dict[str, Any]) -> Choices:
        """From `to_json`.

        Raises:
            ValueError: a name is missing or of another type.
        """
        for one in fields(cls):
            value = values.get(one.name)
            kinds = {"int": int, "bool": bool, "str": str, "float": (int, float), "int | None": (int, type(None))}
            if one.name not in values or not isinstance(value, kinds[str(one.type)]):  # type: ignore[arg-type]
                raise ValueError(f"its choice of {one.name} is {value!r}")
        found = cls(**{one.name: values[one.name] for one in fields(cls)})
        if found.pooling not in POOLINGS or found.hold_out not in ("part", "folds", "none"):
            raise ValueError(f"its choice of pooling or hold_out is {found.pooling!r}, {found.hold_out!r}")
        return found

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @property
    def causal(self) -> bool:
        """May the nets answer after every step?"""
        return self.pooling == "last" and not self.bidirectional and self.convolutions.strip() in ("", "none")

    @property
    def variation(self) -> Variation | None:
        """How training series are varied; None for not at all."""
        found = Variation(self.jitter, self.scaling, self.warping, self.cropping)
        return found if any(found) else None


class Parts(NamedTuple):
    """How the sequences are divided: for how many nets, and what is held out ("part", "folds", "none")."""

    num_models: int
    hold_out: str


def choose_parts(where: str, estimator: Any, num: int, whole_rule: bool) -> Parts:
    """Decide, from the number of sequences alone, how they are divided; what is found in them is found afterwards.

    Args:
        where: who asks, for messages.
        estimator: with the arguments; None, or "auto", is what was left open.
        num: sequences.
        whole_rule: may the rule train several nets (`BPTT`)?

    Raises:
        ValueError: settings that exclude each other.
    """
    num_models = estimator.num_models
    if num_models is None:
        num_models = 1 if not whole_rule or num >= 4 * MIDDLE else 2 if num >= MIDDLE else 3
    hold_out = estimator.hold_out
    if hold_out == "auto":
        hold_out = "none" if num < FEW else "part"
    if hold_out == "folds" and num_models < 2:
        hint = "Each fold is held out from one of the nets."
        raise ValueError(sentence(where, "hold_out", "'part' or 'none' with one net", "'folds'", hint))
    if hold_out == "folds" and num < 2:
        raise ValueError(sentence(where, "hold_out", "'none' with one sequence", "'folds'"))
    return Parts(num_models, hold_out)


def choose(where: str, estimator: Any, facts: Facts, parts: Parts, whole_rule: bool) -> tuple[Choices, list[str]]:
    """Decide what the user left open; every decision of weight is said in a sentence.

    Args:
        where: who asks, for messages.
        estimator: with the arguments; None, or "auto", is what was left open.
        facts: about the data.
        parts: from `choose_parts`.
        whole_rule: may the rule train any module (`BPTT`)? Else the net must answer after every step.

    Raises:
        ValueError: settings that exclude each other.
    """
    small, text = facts.num < SMALL, facts.is_text
    notes = []

    def given(name: str, default: Any) -> Any:
        value = getattr(estimator, name)
        return default if value is None or value == "auto" else value

    pooling = given("pooling", ("max" if text else "mean") if whole_rule else "last")
    stepwise = pooling == "last"
    bidirectional = given("bidirectional", whole_rule and not stepwise)
    convolutions = given("convolutions", "none" if text or stepwise else _convolutions(facts))
    if not whole_rule:
        for name, value, want in (
            ("pooling", pooling, "last"),
            ("bidirectional", bidirectional, False),
            ("convolutions", convolutions.strip() or "none", "none"),
            ("num_models", given("num_models", 1), 1),
        ):
            if value != want:
                hint = "The rule needs a cell that answers after every step; BPTT trains any net."
                raise ValueError(sentence(where, name, f"{want!r} with rule={estimator.rule!r}", repr(value), hint))
    causal = stepwise and not bidirectional and convolutions.strip() in ("", "none")
    stride = math.prod(one.stride for one in read_convolutions(where, convolutions))
    frames = 1 if text or causal else math.ceil(facts.usual_length / stride / MOST_RECURRENT_STEPS)
    frames = given("frames", frames)
    strength = 0.0 if text else (1.0 if small else 0.5 if facts.num < MIDDLE else 0.0)
    batch_size = given("batch_size", 50 if text else max(4, min(16, facts.num // 4)) if facts.num < MIDDLE else 64)
    found = Choices(
        hidden_size=given("hidden_size", 150 if text else 32 if facts.num < 1000 else 64),
        bidirectional=bidirectional,
        pooling=pooling,
        convolutions=convolutions,
        frames=frames,
        differences=given("differences", not text),
        jitter=given("jitter", 0.03 * strength),
        scaling=given("scaling", 0.1 * strength),
        warping=given("warping", 0.1 * strength),
        cropping=given("cropping", 0.1 * strength),
        word_dropout=given("word_dropout", 0.1 if text else 0.0),
        embedding_size=given("embedding_size", 200 if text else 1),
        num_buckets=given("num_buckets", 8192 if text else 0),
        dropout=given("dropout", 0.5 if text else 0.3),
        input_dropout=given("input_dropout", 0.5 if text else 0.0),
        num_models=parts.num_models,
        batch_size=min(batch_size, facts.num),
        hold_out=parts.hold_out,
        lr=given("lr", 1e-3 if text else 3e-3),
        num_updates=None,
    )
    ends = [name for name in ("num_epochs", "num_updates", "budget_minutes") if getattr(estimator, name) is not None]
    if not ends:
        per_epoch = -(-facts.num // found.batch_size)
        updates = max(8 * per_epoch, 400) if text else max(400, min(40 * per_epoch, 3000), 10 * per_epoch)
        found = Choices(**{**found.to_json(), "num_updates": updates})
        passes = updates / -(-len(facts.lengths) // found.batch_size)
        notes.append(f"Training makes {updates} updates ({passes:.0f} passes over the data).")
    notes.insert(0, _network_note(found, facts))
    if found.variation is not None:
        notes.append(
            f"Few series are varied while training: noise {found.jitter:g}, scale {found.scaling:g}, "
            f"warped time {found.warping:g}, windows {found.cropping:g}."
        )
    if frames > 1:
        notes.append(
            f"{frames} steps are read as one frame, so that the recurrence has at most {MOST_RECURRENT_STEPS} steps."
        )
    notes.append(_hold_out_note(found, bool(getattr(estimator, "calibrate", False))))
    return found, notes


def _convolutions(facts: Facts) -> str:
    """A front end that leaves a recurrence of some tens of steps."""
    length = facts.usual_length
    if length < 4:
        return "none"
    if length < 12:
        return "32x3 64x3"
    return "32x8/2 64x5/2 64x3" if length < 300 else "32x8/2 64x5/2 64x3/2"


def _network_note(found: Choices, facts: Facts) -> str:
    ways = "in both directions" if found.bidirectional else "from left to right"
    nets = f"{found.num_models} nets" if found.num_models > 1 else "One net"
    front = "" if found.convolutions == "none" else f"convolutions ({found.convolutions}), then "
    what = "texts" if facts.is_text else "series"
    return (
        f"{nets} for {facts.num} {what} of about {facts.usual_length} {'words' if facts.is_text else 'steps'}: {front}"
        f"{found.hidden_size} units {ways}, pooling {found.pooling!r}."
    )


def _hold_out_note(found: Choices, calibrates: bool) -> str:
    return {
        "part": "A part of the data is held out, to measure"
        + (" and to calibrate the answers." if calibrates else "."),
        "folds": f"Each of the {found.num_models} nets leaves out another part of the data, on which it is measured.",
        "none": "Nothing is held out of these: only other data tell how good the model is"
        + ("; its answers are not calibrated." if calibrates else "."),
    }[found.hold_out]
