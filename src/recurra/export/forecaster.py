"""Forecasters in C: from a window as it was measured to forecasts in the same units."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, NamedTuple, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.cell import Cell, StochasticCell, quiet
from ..core.checks import sentence
from ..core.spec import Leaf
from ..core.tree import Tree
from ..estimators.forecasting.network import Member, Row
from ..estimators.forecasting.windows import Prepared
from .network import Network, quieted
from .source import WHERE, Step, bytes_of, in_comment, quoted, table

MOST = 200  # windows of a measurement
SHOWN = 500  # most numbers of a window that the README shows


class ReadState(NamedTuple):
    """Of the cell; its last output, where the forecast is read from that."""

    cell: Tree
    last: tuple[Tensor, ...]


class _Part(Cell[Any, Any, ReadState]):
    """One function of a member; all have the state of `Reading`."""

    def __init__(self, member: Member) -> None:
        super().__init__()
        self.member = member

    @property
    def cell(self) -> Cell:
        """The member's."""
        return self.member.recurrent.cell

    @classmethod
    def examples(cls) -> Iterator[Self]:
        """None: it is made from an estimator."""
        yield from ()

    def initial_state(self, batch_size: int) -> ReadState:
        """Nothing was read."""
        size = self.cell.output_spec.shape[0]
        last = () if self.member.decoder == "segments" else (torch.zeros(batch_size, size),)
        return ReadState(self.cell.initial_state(batch_size), last)

    def run_cell(self, x: Tensor, state: Tree) -> tuple[Tensor, Tree]:
        """A step of the cell, quiet."""
        return self.cell.step(quiet(x) if isinstance(self.cell, StochasticCell) else x, state)


class Reading(_Part):
    """``s' = cell(relu(W x), s)`` for one segment of the window."""

    @property
    def input_spec(self) -> Leaf:
        """Features of a segment."""
        return Leaf((self.member.shape.features,))

    @property
    def output_spec(self) -> Tree:
        """Nothing."""
        return ()

    def step(self, x: Tensor, state: ReadState) -> tuple[Tree, ReadState]:
        """See `Member`."""
        y, new = self.run_cell(torch.relu(self.member.embed(x)), state.cell)
        return (), ReadState(new, (y,) if state.last else ())


class Asked(NamedTuple):
    """What one part of the future is asked with; None where the model has no such thing."""

    place: Tensor | None
    kind: Tensor | None
    ahead: Tensor | None


class Decoding(_Part):
    """A segment of the future, or all of it, from the state that the window left."""

    @property
    def input_spec(self) -> Asked:
        """Numbers of the segment and of the variable; covariates that are known."""
        member, shape = self.member, self.member.shape
        segments = member.decoder == "segments"
        ahead = shape.segment * shape.ahead * (1 if segments else shape.num_future)
        return Asked(
            Leaf((), torch.int64, 0, shape.num_future) if segments else None,  # type: ignore[arg-type]
            Leaf((), torch.int64, 0, shape.kinds) if member.kind is not None else None,  # type: ignore[arg-type]
            Leaf((ahead,)) if ahead else None,  # type: ignore[arg-type]
        )

    @property
    def output_spec(self) -> Leaf:
        """Steps, variables, outputs."""
        return Leaf((self.member.readout.out_features,))

    def step(self, x: Asked, state: ReadState) -> tuple[Tensor, ReadState]:
        """See `Member`."""
        member = self.member
        kind = member.kind(x.kind) if member.kind is not None else None
        if member.place is not None:
            inputs = F.embedding(x.place, member.place)  # type: ignore[arg-type]
            if kind is not None:
                inputs = inputs + kind
            if member.known is not None:
                inputs = inputs + member.known(x.ahead)
            y, _ = self.run_cell(inputs, state.cell)
        else:
            y = state.last[0]
            if kind is not None:
                y = y + kind
            if member.known is not None:
                y = y + torch.tanh(member.known(x.ahead))
        return member.readout(y), state


class Linear(_Part):
    """The linear path from the window to the future."""

    @property
    def input_spec(self) -> Leaf:
        """The normalised window."""
        return Leaf((self.member.shape.window, self.member.shape.channels))

    @property
    def output_spec(self) -> Leaf:
        """Steps and variables."""
        return Leaf((self.member.shape.horizon, self.member.shape.channels))

    def step(self, x: Tensor, state: ReadState) -> tuple[Tensor, ReadState]:
        """See `Member`."""
        assert self.member.linear is not None
        return torch.stack([self.member.linear(x[:, :, c]) for c in range(x.shape[2])], -1), state


class ForecasterNetwork(Network):
    """A `Forecaster`."""

    def write(self) -> None:
        """Three functions for each net, and the one that calls them."""
        model = self.model
        model._check_fitted()
        self.setup, self.shape = model.setup_, model.setup_.shape
        if isinstance(model.network_, Cell):
            hint = "Fit with rule='BPTT'."
            raise ValueError(sentence(WHERE, "the model", "a forecaster trained by BPTT", model.rule, hint))
        self.outputs = 1 + len(model.quantiles)
        self.parts: list[dict[str, Step]] = []
        self.nets = "one net" if len(model.network_.members) == 1 else f"{len(model.network_.members)} nets"
        nets = copy.deepcopy(model.network_).cpu().float().eval().requires_grad_(False)
        self.num_weights = sum(p.numel() for p in nets.parameters())
        for n, member in enumerate(nets.members):
            assert isinstance(member, Member)
            cells: dict[str, Cell] = {"read": Reading(member), "decode": Decoding(member)}
            if member.linear is not None:
                cells["linear"] = Linear(member)
            self.decoder, self.cell = member.decoder, member.recurrent.cell
            steps = {}
            for what, cell in cells.items():
                steps[what] = self.source.add(f"{what}{n}", quieted(cell).eval(), public=False)
            self.parts.append(steps)
        self._write_forecast()

    # --- in C ---

    def _write_forecast(self) -> None:
        setup, shape, name, source = self.setup, self.shape, self.name, self.source
        upper, channels, num = name.upper(), shape.channels, len(self.parts)
        wide = channels * shape.outputs
        rest = shape.num_future * shape.segment
        source.public_reset = False
        source.macros += [
            ("WINDOW", shape.window, "steps that are read"),
            ("HORIZON", shape.horizon, "steps that are forecast"),
            ("CHANNELS", channels, "variables of a call"),
            ("OUTPUTS", self.outputs, "numbers for each step and variable"),
        ]
        self.words = {
            "window": f"{shape.window} x {channels}, the oldest step first, in the units of the training; NAN where a value "
            "is missing",
            "y": f"{shape.horizon} x {channels} x {self.outputs}: of each step the forecast"
            + (f", then the quantiles {', '.join(f'{q:g}' for q in self.model.quantiles)}" if self.outputs > 1 else ""),
        }
        arguments = [f"{name}_state *s"]
        if shape.kinds > 1:
            arguments.append("int32_t variable")
            self.words["variable"] = f"which one, from 0 to {shape.kinds - 1}: {', '.join(setup.targets[:20])}"
        self.several = setup.scaling == "series" and len(setup.series_scales) > 1
        if self.several:
            arguments.append("int32_t series")
            self.words["series"] = f"its number in {name}_series; any other: a new series, scaled as the average one"
            names = [quoted(n) for n in setup.series_scales]
            source.data_bytes += bytes_of(setup.series_scales)
            self.weights.append(table(f"const char *const {name}_series[{len(names)}]", names, 4))
            source.macros.append(("NUM_SERIES", len(names), ""))
            self.tables.append(
                f"/* The series of the training. */\nextern const char *const {name}_series[{upper}_NUM_SERIES];"
            )
        arguments.append("const float *window")
        if setup.past:
            arguments.append("const float *past")
            self.words["past"] = f"{shape.window} x {len(setup.past)}: {', '.join(setup.past)}"
        if setup.num_ahead:
            arguments.append("const float *ahead")
            columns = [
                *setup.known,
                *(f"{f} of the place in the cycle {c!r}" for c in setup.calendar for f in ("sine", "cosine")),
            ]
            self.words["ahead"] = (
                f"{shape.window + rest} x {setup.num_ahead}, of the window and then of the future: {', '.join(columns)}; "
                "NAN where it is not known"
            )
        arguments.append("float *y")
        head = f"void {name}_forecast({', '.join(arguments)})"
        comment = [
            "/* Forecast what follows a window. Nothing is kept from call to call.",
            *(f"   {k}: {in_comment(v)}" for k, v in self.words.items()),
        ]
        self.tables.append("\n".join(comment) + f" */\n{head};")
        source.more_fields += [
            f"double w_values[{shape.window * channels}]; /* of the window, scaled */",
            f"double w_level[{channels}], w_scale[{channels}]; /* of the window */",
            f"float w_x[{shape.window * channels}]; /* normalised */",
            f"float w_features[{max(1, shape.features)}]; /* of a segment */",
            f"float w_answers[{num}][{max(rest, shape.horizon) * wide}]; /* of each net */",
            f"float w_line[{shape.horizon * channels}];",
            f"float w_base[{max(1, setup.base) * channels}]; /* the last season */",
            f"float w_ahead[{max(1, rest * setup.num_ahead)}];",
        ]
        source.more_bytes = 8 * (shape.window + 2) * channels + 4 * (
            shape.window * channels + shape.features + num * max(rest, shape.horizon) * wide + shape.horizon * channels
            + setup.base * channels + rest * setup.num_ahead
        )  # fmt: skip
        self._scales()
        self.functions += [self._scale_text(), self._level_text(), self._segment_text(), self._forecast_text(head)]

    def _scales(self) -> None:
        """Means and standard deviations, of the variables of each series."""
        setup, name = self.setup, self.name
        zeros, ones = [0.0] * len(setup.targets), [1.0] * len(setup.targets)
        rows = [[zeros, ones]] if setup.scaling == "none" else [[list(setup.means), list(setup.sds)]]
        if setup.scaling == "series":
            rows = [*setup.series_scales.values(), *(rows if self.several else [])] or rows
        self.num_rows = len(rows)
        flat = [value for row in rows for part in row for value in part]
        numbers = len(flat) + 2 * len(setup.covariate_means) + len(getattr(self.model, "offsets_", []))
        self.source.data_bytes += 8 * numbers + len(setup.transform)
        self.weights.append(
            "/* Of each series: the means of its variables, then their standard deviations. */\n"
            + table(f"static const double {name}_scales[{len(flat)}]", [f"{v:.17g}" for v in flat], 4)
        )
        kinds = {"none": 0, "log": 1, "log1p": 2}
        codes = [str(kinds[k]) for k in setup.transform]
        self.weights.append(
            "/* Of each variable: 0 as it is, 1 its logarithm, 2 the logarithm of 1 more. */\n"
            + table(f"static const uint8_t {name}_logarithm[{len(codes)}]", codes, 24)
        )
        covariates = [f"{v:.17g}" for v in (*setup.covariate_means, *setup.covariate_sds)]
        if covariates:
            self.weights.append(
                "/* Of the known and then the past covariates: means, then standard deviations. */\n"
                + table(f"static const double {name}_covariates[{len(covariates)}]", covariates, 4)
            )
        offsets = [f"{v:.17g}" for v in getattr(self.model, "offsets_", [])]
        if offsets:
            self.weights.append(
                "/* What is added to each quantile, normalised. */\n"
                + table(f"static const double {name}_offsets[{len(offsets)}]", offsets, 4)
            )

    def _scale_text(self) -> str:
        name, num = self.name, len(self.setup.targets)
        standard = f"""
/* A covariate, standardised; 0 where it is missing. */
static float standard(float value, size_t which)
{{
    const double z = ((double)value - {name}_covariates[which]) / {name}_covariates[which + {len(self.setup.covariate_means)}];
    return isfinite(z) ? (float)z : 0.0f;
}}
"""
        return f"""/* A value on the scale of the nets. */
static double scaled(double value, size_t variable, const double *scales)
{{
    if ({name}_logarithm[variable] == 1) {{
        value = value > 0.0 ? log(value) : NAN;
    }} else if ({name}_logarithm[variable] == 2) {{
        value = value >= 0.0 ? log1p(value) : NAN;
    }}
    return (value - scales[variable]) / scales[variable + {num}];
}}

/* The way back. */
static double unscaled(double value, size_t variable, const double *scales)
{{
    value = value * scales[variable + {num}] + scales[variable];
    if ({name}_logarithm[variable] == 1) {{
        return exp(value < -700.0 ? -700.0 : value > 700.0 ? 700.0 : value);
    }}
    if ({name}_logarithm[variable] == 2) {{
        return expm1(value < 0.0 ? 0.0 : value > 700.0 ? 700.0 : value);
    }}
    return value;
}}
{standard if self.setup.covariate_means else ""}"""

    def _level_text(self) -> str:
        setup, length, channels = self.setup, self.shape.window, self.shape.channels
        recent = max(1, min(setup.period, length))
        level = {
            "none": "level = 0.0;",
            "mean": "level = mean;",
            "last": "level = last;",
            "season": "level = number > 0 ? sum / number : mean;",
        }[setup.level]
        if setup.window_scale == "std":
            scale = f"scale = sqrt(spread / (count > 1 ? count : 1)) + {setup.floor:.17g};"
        elif setup.window_scale == "change":
            scale = f"scale = 4.0 * change / (pairs > 1 ? pairs : 1) + {setup.floor:.17g};"
        else:
            scale = "scale = 1.0;"
        return f"""/* What is taken from a window and what it is divided by; then the window itself. */
static void normalise({self.name}_state *s)
{{
    for (size_t c = 0; c < {channels}; ++c) {{
        double total = 0.0, sum = 0.0, last = 0.0, spread = 0.0, change = 0.0, mean, level, scale;
        int count = 0, number = 0, pairs = 0;
        for (size_t t = 0; t < {length}; ++t) {{
            const double v = s->w_values[t * {channels} + c];
            if (isnan(v)) {{
                continue;
            }}
            total += v;
            ++count;
            last = v;
            if (t + {recent} >= {length}) {{
                sum += v;
                ++number;
            }}
            if (t > 0 && !isnan(s->w_values[(t - 1) * {channels} + c])) {{
                change += fabs(v - s->w_values[(t - 1) * {channels} + c]);
                ++pairs;
            }}
        }}
        mean = total / (count > 1 ? count : 1);
        for (size_t t = 0; t < {length}; ++t) {{
            const double v = s->w_values[t * {channels} + c];
            spread += isnan(v) ? 0.0 : (v - mean) * (v - mean);
        }}
        {level}
        {scale}
        (void)sum, (void)last, (void)spread, (void)change, (void)number, (void)pairs;
        s->w_level[c] = level;
        s->w_scale[c] = scale;
        for (size_t t = 0; t < {length}; ++t) {{
            const double v = s->w_values[t * {channels} + c];
            s->w_x[t * {channels} + c] = isnan(v) ? 0.0f : (float)((v - level) / scale);
        }}
    }}
}}"""

    def _segment_text(self) -> str:
        """The features of a segment, in the order of `Prepared.gather`."""
        setup, shape = self.setup, self.shape
        width = shape.segment * shape.channels
        lines = [
            f"for (size_t i = 0; i < {width}; ++i) {{",
            f"    s->w_features[i] = s->w_x[j * {width} + i];",
            f"    s->w_features[{width} + i] = isnan(s->w_values[j * {width} + i]) ? 0.0f : 1.0f;",
            "}",
        ]
        place = 2 * width
        if setup.window_scale != "none":
            lines += [
                f"for (size_t c = 0; c < {shape.channels}; ++c) {{",
                f"    s->w_features[{place} + c] = (float)(0.3 * log(s->w_scale[c] / {setup.floor:.17g}));",
                "}",
            ]
            place += shape.channels
        known, arguments = len(setup.known), ""
        if setup.past:
            size = shape.segment * len(setup.past)
            arguments += ", const float *past"
            lines += [
                f"for (size_t i = 0; i < {size}; ++i) {{",
                f"    s->w_features[{place} + i] = standard(past[j * {size} + i], {known} + i % {len(setup.past)});",
                "}",
            ]
            place += size
        ahead = ""
        if setup.num_ahead:
            size = shape.segment * setup.num_ahead
            arguments += ", const float *ahead"
            lines += [
                f"for (size_t i = 0; i < {size}; ++i) {{",
                f"    s->w_features[{place} + i] = known_value(ahead[j * {size} + i], i % {setup.num_ahead});",
                "}",
            ]
            place += size
            if known:
                value = f"column < {known} ? standard(value, column) : isnan(value) ? 0.0f : value"
            else:
                value = "isnan(value) ? 0.0f : value"
            ahead = (
                "/* Of what is known ahead: covariates are standardised, the calendar is as it is. */\n"
                f"static float known_value(float value, size_t column)\n{{\n"
                f"{'' if known else '    (void)column;' + chr(10)}    return {value};\n}}\n\n"
            )
        assert place == shape.features
        self.segment_arguments = arguments
        body = "\n".join(f"    {line}" for line in lines)
        head = f"static void features({self.name}_state *s, size_t j{arguments})"
        return f"{ahead}/* What the nets read of one segment. */\n{head}\n{{\n{body}\n}}"

    def _forecast_text(self, head: str) -> str:
        setup, shape, name = self.setup, self.shape, self.name
        channels, wide = shape.channels, shape.channels * shape.outputs
        count = shape.window // shape.segment
        lines = []
        if self.several:
            last = self.num_rows - 1
            lines.append(f"const size_t row = series >= 0 && series < {last} ? (size_t)series : {last};")
        else:
            lines.append("const size_t row = 0;")
        lines.append(f"const double *const scales = {name}_scales + row * {2 * len(setup.targets)};")
        if shape.kinds > 1:
            lines.append(f"const size_t first = variable >= 0 && variable < {shape.kinds} ? (size_t)variable : 0;")
        else:
            lines.append("const size_t first = 0;")
        lines += [
            "",
            f"for (size_t i = 0; i < {shape.window * channels}; ++i) {{",
            f"    s->w_values[i] = scaled((double)window[i], first + i % {channels}, scales);",
            "}",
            "normalise(s);",
        ]
        if setup.base:
            lines += self._base_lines()
        if setup.num_ahead:
            lines += [
                f"for (size_t i = 0; i < {shape.num_future * shape.segment * setup.num_ahead}; ++i) {{",
                f"    s->w_ahead[i] = known_value(ahead[{shape.window * setup.num_ahead} + i], i % {setup.num_ahead});",
                "}",
            ]
        inner = {"past": ", past", "ahead": ", ahead"}
        given = "".join(inner[n] for n in inner if f"*{n}" in self.segment_arguments)
        for n, steps in enumerate(self.parts):
            lines += [
                "begin(s);",
                f"for (size_t j = 0; j < {count}; ++j) {{",
                f"    features(s, j{given});",
                f"    read{n}(s, s->w_features);",
                "}",
            ]
            kind = ", (int32_t)first" if shape.kinds > 1 else ""
            if self.decoder == "segments":
                size = shape.segment * setup.num_ahead
                more = f", s->w_ahead + j * {size}" if size else ""
                lines += [
                    f"for (size_t j = 0; j < {shape.num_future}; ++j) {{",
                    f"    decode{n}(s, (int32_t)j{kind}{more}, s->w_answers[{n}] + j * {shape.segment * wide});",
                    "}",
                ]
            else:
                more = ", s->w_ahead" if setup.num_ahead else ""
                lines.append(f"decode{n}(s{kind}{more}, s->w_answers[{n}]);")
            if "linear" in steps:
                lines += [
                    f"linear{n}(s, s->w_x, s->w_line);",
                    f"for (size_t i = 0; i < {shape.horizon * wide}; ++i) {{",
                    f"    s->w_answers[{n}][i] += s->w_line[i / {shape.outputs}];",
                    "}",
                ]
        lines += self._end_lines(wide)
        body = "\n".join(f"    {line}".rstrip() for line in lines)
        return f"{head}\n{{\n{body}\n}}"

    def _base_lines(self) -> list[str]:
        """The last season of the window; a missing value is that of the season before."""
        channels, length, base = self.shape.channels, self.shape.window, self.setup.base
        return [
            f"for (size_t i = 0; i < {base * channels}; ++i) {{",
            "    s->w_base[i] = 0.0f;",
            f"    for (size_t k = 1; k <= {length // base}; ++k) {{",
            f"        const size_t at = {length * channels} - k * {base * channels} + i;",
            "        if (!isnan(s->w_values[at])) {",
            "            s->w_base[i] = s->w_x[at];",
            "            break;",
            "        }",
            "    }",
            "}",
        ]

    def _end_lines(self, wide: int) -> list[str]:
        """The median of the nets, then back to the units of the data."""
        setup, shape, num = self.setup, self.shape, len(self.parts)
        base = f" + (double)s->w_base[(h % {setup.base}) * {shape.channels} + c]" if setup.base else ""
        lines = [
            f"for (size_t h = 0; h < {shape.horizon}; ++h) {{",
            f"    for (size_t c = 0; c < {shape.channels}; ++c) {{",
            f"        double found[{shape.outputs}];",
            f"        for (size_t q = 0; q < {shape.outputs}; ++q) {{",
            f"            const size_t at = h * {wide} + c * {shape.outputs} + q;",
        ]
        if num > 1:
            below, above = (f"(double)all[{(num - 1) // 2}]", f"(double)all[{num // 2}]")
            middle = above if num % 2 else f"0.5 * ({below} + {above})"
            lines += [
                f"            float all[{num}];",
                f"            for (size_t n = 0; n < {num}; ++n) {{",
                "                size_t i = n;",
                "                for (; i > 0 && all[i - 1] > s->w_answers[n][at]; --i) {",
                "                    all[i] = all[i - 1];",
                "                }",
                "                all[i] = s->w_answers[n][at];",
                "            }",
                f"            found[q] = {middle};",
            ]
        else:
            lines.append("            found[q] = (double)s->w_answers[0][at];")
        if setup.levels:
            lines.append(f"            found[q] += q > 0 ? {self.name}_offsets[q - 1] : 0.0;")
        lines.append("        }")
        if len(setup.levels) > 1:
            lines += _sorted_lines("found", shape.outputs)
        places = [0, *(1 + setup.levels.index(q) if q in setup.levels else 0 for q in self.model.quantiles)]
        lines.append(f"        double asked[{len(places)}];")
        lines += [f"        asked[{k}] = found[{i}];" for k, i in enumerate(places)]
        if len(places) > 2:
            lines += _sorted_lines("asked", len(places))
        lines += [
            f"        for (size_t q = 0; q < {len(places)}; ++q) {{",
            f"            const double value = (asked[q]{base}) * s->w_scale[c] + s->w_level[c];",
            f"            y[(h * {shape.channels} + c) * {len(places)} + q] = (float)unscaled(value, first + c, scales);",
            "        }",
            "    }",
            "}",
        ]
        return lines

    # --- in words ---

    def title(self) -> list[str]:
        """What it forecasts."""
        setup, shape = self.setup, self.shape
        every = f", one every {setup.time_step}" if setup.time_step is not None else ""
        what = ", ".join(setup.targets[:8]) + (" ..." if len(setup.targets) > 8 else "")
        return [
            f"Forecaster of {what}: {shape.horizon} steps from the last {shape.window}{every}; {self.nets} of "
            f"{self.model.cell}, {self.num_weights:,} weights"
        ]

    def notes(self) -> list[str]:
        """What is inside."""
        setup, name = self.setup, self.name
        notes = [
            f"`{name}_forecast` takes the last {self.shape.window} steps as they were measured and writes the next "
            f"{self.shape.horizon} in the same units. Inside: the scaling of the data and of each window, missing values, the "
            f"seasonal base, {self.nets} and their median"
            + (", the quantiles and their calibration." if setup.levels else "."),
            "Not inside: reading timestamps, filling gaps between them, and forecasts further ahead than that. Values are "
            "handed over in float32, which holds about seven digits.",
            *(f"`{k}`: {v}." for k, v in self.words.items()),
        ]
        if setup.calendar:
            cycles = {"hour": "a day", "weekday": "a week from Monday on", "season": "the calendar year"}
            words = ", ".join(f"{c!r} is {cycles[c]}" for c in setup.calendar)
            notes.append(
                f"The calendar is handed over in `ahead`: sin and cos of 2 pi times the part of a cycle; {words}."
            )
        return notes

    def calling(self) -> str:
        """One function."""
        name = self.name
        return (
            f"The `{name}_state` is working memory: one for each thread that calls `{name}_forecast`. Nothing is allocated and "
            "nothing global is written."
        )

    def usage(self) -> str:
        """A window from the standard input: the end of the training series, where the model keeps it."""
        setup, shape, text = self.setup, self.shape, f"./{self.name} < window.txt"
        if setup.past or setup.num_ahead or not any(self.model._context["values"]):
            return text
        series, _ = self.model._read_again(None, None, None)
        values = series.values[0] if setup.joint else series.values[0][:, :1]
        if len(values) < shape.window or values[-shape.window :].size > SHOWN:
            return text
        numbers = " ".join(f"{v:.9g}" for v in values[-shape.window :].reshape(-1))
        return f"echo {numbers} | ./{self.name}"

    def example(self) -> list[str]:
        """Reads a window and writes the forecast."""
        setup, shape, name = self.setup, self.shape, self.name
        rest = shape.num_future * shape.segment
        arrays = {"window": shape.window * shape.channels}
        if setup.past:
            arrays["past"] = shape.window * len(setup.past)
        if setup.num_ahead:
            arrays["ahead"] = (shape.window + rest) * setup.num_ahead
        lines = [f"static {name}_state state;", *(f"static float {k}[{n}];" for k, n in arrays.items())]
        lines += [f"static float y[{shape.horizon * shape.channels * self.outputs}];", ""]
        for k, n in arrays.items():
            lines += [
                f"for (size_t i = 0; i < {n}; ++i) {{",
                f'    if (scanf("%f", &{k}[i]) != 1) {{',
                f'        fprintf(stderr, "{k}: {n} numbers are needed\\n");',
                "        return 1;",
                "    }",
                "}",
            ]
        given = ["&state", *(["0"] if shape.kinds > 1 else []), *(["0"] if self.several else []), *arrays, "y"]
        wide = shape.channels * self.outputs
        return [
            *lines,
            f"{name}_forecast({', '.join(given)});",
            f"for (size_t i = 0; i < {shape.horizon * wide}; ++i) {{",
            f"    printf(\"%.9g%c\", (double)y[i], i % {wide} == {wide - 1} ? '\\n' : ' ');",
            "}",
            "return 0;",
        ]

    # --- what eight bits cost ---

    def measure(self) -> tuple[dict[str, float], str]:
        """Forecasts of real windows, both ways."""
        model, setup = self.model, self.setup
        series, _ = model.read(self.data) if self.data is not None else model._read_again(None, None, None)
        lengths = series.lengths
        ahead = setup.horizon if self.data is not None else 0
        first, last = np.minimum(setup.window, lengths - ahead), lengths - ahead
        pairs = [(i, e) for i in range(len(series)) if last[i] > 0 for e in range(max(1, first[i]), last[i] + 1)]
        pairs = pairs[:: -max(1, len(pairs) // MOST)][:MOST]
        if not pairs:
            want = f"series of more than {setup.horizon} steps"
            raise ValueError(sentence(WHERE, "data", want, f"{int(lengths.max())}"))
        which, ends = (np.array(column) for column in zip(*pairs))
        prepared = Prepared(setup, series)
        exact, rounded = (self._forecasts(prepared, which, ends, r)[..., 0] for r in (False, True))
        off = rounded - exact
        found = {
            "rms_difference": float(np.sqrt((off**2).mean())),
            "relative_to_the_spread_of_the_forecasts": float(np.sqrt((off**2).mean()) / max(exact.std(), 1e-300)),
        }
        if ahead:
            come = np.stack([series.values[i][e : e + ahead] for i, e in pairs])
            there = ~np.isnan(come)
            found["mae_float32"] = float(np.abs(exact - come)[there].mean())
            found["mae"] = float(np.abs(rounded - come)[there].mean())
        words = self.data_words if self.data is not None else "the end of the training series, as the model keeps it"
        return found, f"{len(pairs):,} windows: {words}"

    def _forecasts(self, prepared: Prepared, which: Any, ends: Any, rounded: bool) -> Any:
        """(B, H, C, outputs) by the steps in torch."""
        other = copy.copy(self.model)
        other.device, other.network_ = "cpu", _Stepped(self, rounded)
        return other._outputs(prepared, which, ends)


def _sorted_lines(name: str, num: int) -> list[str]:
    """All but the first of an array in order."""
    return [
        f"        for (size_t n = 2; n < {num}; ++n) {{",
        f"            const double value = {name}[n];",
        "            size_t i = n;",
        f"            for (; i > 1 && {name}[i - 1] > value; --i) {{",
        f"                {name}[i] = {name}[i - 1];",
        "            }",
        f"            {name}[i] = value;",
        "        }",
    ]


class _Stepped(nn.Module):
    """The nets as their functions in C compute, for `Forecaster._outputs`."""

    def __init__(self, network: ForecasterNetwork, rounded: bool) -> None:
        super().__init__()
        self.network, self.rounded = network, rounded

    def forward(self, row: Row) -> Tensor:
        """See `Nets`."""
        network, shape, found = self.network, self.network.shape, []
        rows = row.segments.shape[1]
        for steps in network.parts:
            state = [f.start.expand(rows, *f.shape) for f in network.source.fields]
            for x in row.segments:
                _, state = steps["read"].run([x], state, rounded=self.rounded)
            kind = [row.kind[0]] if shape.kinds > 1 else []
            if network.decoder == "segments":
                parts = []
                for j in range(shape.num_future):
                    given = [torch.full((rows,), j), *kind, *([row.ahead[j]] if shape.ahead else [])]
                    parts.append(steps["decode"].run(given, state, rounded=self.rounded)[0][0])
                out = torch.cat(parts, 1).view(rows, -1, shape.channels, shape.outputs)[:, : shape.horizon]
            else:
                given = [*kind, *([row.ahead.transpose(0, 1).flatten(1)] if shape.ahead else [])]
                out = steps["decode"].run(given, state, rounded=self.rounded)[0][0]
                out = out.view(rows, shape.horizon, shape.channels, shape.outputs)
            if "linear" in steps:
                line = steps["linear"].run([row.past.transpose(0, 1)], state, rounded=self.rounded)[0][0]
                out = out + line.view(rows, shape.horizon, shape.channels, 1)
            found.append(out)
        return torch.stack(found, 1).flatten(1)[None]
