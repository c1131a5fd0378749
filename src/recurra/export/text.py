"""Language models in C: their vocabulary, and a program that writes."""

from __future__ import annotations

import torch
from torch import Tensor

from ..core.checks import sentence
from ..estimators.tokens import Bytes, Characters, Words
from .network import Network, quieted, run_both
from .source import WHERE, bytes_of, quoted, table

TOKENS, ROWS = 16_384, 32  # most tokens of a measurement, in so many streams
WARM = 16  # tokens that each stream reads before it is measured
WRITTEN = 200  # tokens that the example writes


class TextNetwork(Network):
    """A `LanguageModel`: a token in, the logits of the next one out."""

    example_includes = ("#include <math.h>", "#include <stdint.h>", "#include <stdio.h>", "#include <stdlib.h>")

    def write(self) -> None:
        """The step and the vocabulary."""
        self.model._check_fitted()
        self.cell = quieted(self.model.cell_)
        tokens = self.model.tokens_
        words = f"Read a token. y: the logits of the next one, {tokens.num_tokens} of them."
        self.source.add("step", self.cell, words=words)
        name = self.name
        if isinstance(tokens, Characters):
            self.source.data_bytes += 4 * tokens.num_tokens
            codes = torch.tensor([0, *(ord(c) for c in tokens.vocabulary)])
            self.weights.append(
                table(f"const uint32_t {name}_code_points[{len(codes)}]", [str(int(c)) for c in codes], 16)
            )
            self.tables.append(
                "/* The Unicode code point of each token, in order from token 1 on; token 0 is any other character. */\n"
                f"extern const uint32_t {name}_code_points[{name.upper()}_NUM_TOKENS];\n\n"
                f"/* The token of a character; 0 for one that the model does not know. */\n"
                f"int32_t {name}_token(uint32_t code_point);"
            )
            self.functions.append(_SEARCH.replace("NAME", name).replace("COUNT", str(len(codes))))
        elif isinstance(tokens, Words):
            texts = ["<unk>", *tokens.vocabulary]
            self.source.data_bytes += bytes_of(texts)
            self.weights.append(table(f"const char *const {name}_words[{len(texts)}]", [quoted(t) for t in texts], 4))
            self.tables.append(
                "/* Each token's word in UTF-8; token 0 is any other word, and a line's end is a word. */\n"
                f"extern const char *const {name}_words[{name.upper()}_NUM_TOKENS];"
            )

    def title(self) -> list[str]:
        """The estimator and its size."""
        tokens = self.model.tokens_
        count = sum(p.numel() for p in self.cell.parameters())
        return [f"Language model of {tokens.num_tokens} {tokens.unit}: {self.model.cell}, {count:,} weights"]

    def notes(self) -> list[str]:
        """What a token is."""
        tokens, name = self.model.tokens_, self.name
        if isinstance(tokens, Characters):
            what = f"A token is a character: `{name}_token` finds it, `{name}_code_points` turns it back. Token 0 is any other."
        elif isinstance(tokens, Bytes):
            what = "A token is a byte of a text in UTF-8."
        else:
            what = (
                f"A token is a word between white space, or the end of a line: `{name}_words`. Token 0 is any other word; "
                "cutting a text into words and looking them up is up to the caller."
            )
        return [
            f"`{name}_step` reads a token and gives the logits of the next one; their softmax is the model's probability.",
            what,
        ]

    def reads(self) -> str:
        """What the example does."""
        return "The example writes a text."

    def usage(self) -> str:
        """Writes a text."""
        return f"./{self.name}"

    def measure(self) -> tuple[dict[str, float], str]:
        """The loss of a text, both ways."""
        text, words = self.data, self.data_words
        if text is None:
            prompt = self.model.tokens_.newline
            text, words = prompt + self.model.generate(prompt, 2000, 1.0, seed=0), "a text that the model wrote itself"
        tokens = self.model.tokens_.encode(text)
        if len(tokens) < 2:
            raise ValueError(sentence(WHERE, "data", "a text of at least two tokens", repr(text[:40])))
        tokens = tokens[: TOKENS + 1]
        rows = max(1, min(ROWS, (len(tokens) - 1) // (4 * WARM)))
        length = (len(tokens) - 1) // rows
        xs = tokens[: rows * length].view(rows, length).t().contiguous()
        targets = tokens[1 : rows * length + 1].view(rows, length).t()
        both = run_both(self.step, self.first_state([xs]), [xs])
        warm = WARM if length > 2 * WARM else 0
        exact, rounded = (self._nats(ys, targets)[warm:] for ys in both)
        found = {
            "nats_per_token_float32": float(exact.mean()),
            "nats_per_token": float(rounded.mean()),
            "lost_nats_per_token": float((rounded - exact).mean()),
            "same_likeliest_token": float(
                torch.stack([(a[0].argmax(-1) == b[0].argmax(-1)).float().mean() for a, b in zip(*both)]).mean()
            ),
        }
        return found, f"{exact.numel():,} tokens: {words}"

    def _nats(self, ys: list[list[Tensor]], targets: Tensor) -> Tensor:
        logits = torch.stack([y[0] for y in ys])
        return -logits.double().log_softmax(-1).gather(2, targets[..., None])[..., 0]

    def example_helpers(self) -> list[str]:
        """How a token is written."""
        tokens, name = self.model.tokens_, self.name
        put = (
            _PUT_CHARACTER if isinstance(tokens, Characters) else _PUT_WORD if isinstance(tokens, Words) else _PUT_BYTE
        )
        count = f"{name.upper()}_NUM_TOKENS"
        return [text.replace("NAME_COUNT", count).replace("NAME", name) for text in (_SAMPLE, put)]

    def example(self) -> list[str]:
        """Writes on from the beginning of a line."""
        tokens, name = self.model.tokens_, self.name
        start = tokens.encode(tokens.newline) if tokens.newline else torch.tensor([tokens.first_written])
        return [
            f"static {name}_state state;",
            f"static float logits[{name.upper()}_NUM_TOKENS];",
            f"int32_t token = {int(start[0])};",
            "",
            f"{name}_reset(&state);",
            f"for (int i = 0; i < {WRITTEN}; ++i) {{",
            f"    {name}_step(&state, token, logits);",
            f"    token = sample(logits, {tokens.first_written}, 0.8f);",
            "    put(token);",
            "}",
            'printf("\\n");',
            "return 0;",
        ]


_SEARCH = """int32_t NAME_token(uint32_t code_point)
{
    int32_t low = 1, high = COUNT - 1;
    while (low <= high) {
        const int32_t middle = (low + high) / 2;
        if (NAME_code_points[middle] == code_point) {
            return middle;
        }
        if (NAME_code_points[middle] < code_point) {
            low = middle + 1;
        } else {
            high = middle - 1;
        }
    }
    return 0;
}"""

_SAMPLE = """/* A token by its probability, those before `first` never; rand() is good enough to show it. */
static int32_t sample(const float *logits, int32_t first, float temperature)
{
    double total = 0.0, chosen = 0.0;
    float top = logits[first];
    for (int32_t i = first; i < NAME_COUNT; ++i) {
        top = logits[i] > top ? logits[i] : top;
    }
    for (int32_t i = first; i < NAME_COUNT; ++i) {
        total += exp((double)((logits[i] - top) / temperature));
    }
    chosen = total * rand() / (RAND_MAX + 1.0);
    for (int32_t i = first; i < NAME_COUNT; ++i) {
        chosen -= exp((double)((logits[i] - top) / temperature));
        if (chosen < 0.0) {
            return i;
        }
    }
    return NAME_COUNT - 1;
}
"""

_PUT_BYTE = """static void put(int32_t token)
{
    putchar((int)token);
}
"""

_PUT_WORD = """static void put(int32_t token)
{
    printf("%s ", NAME_words[token]);
}
"""

_PUT_CHARACTER = """/* In UTF-8. */
static void put(int32_t token)
{
    const uint32_t c = NAME_code_points[token];
    if (c < 0x80) {
        putchar((int)c);
    } else if (c < 0x800) {
        putchar((int)(0xC0 | (c >> 6)));
    } else if (c < 0x10000) {
        putchar((int)(0xE0 | (c >> 12)));
        putchar((int)(0x80 | ((c >> 6) & 0x3F)));
    } else {
        putchar((int)(0xF0 | (c >> 18)));
        putchar((int)(0x80 | ((c >> 12) & 0x3F)));
        putchar((int)(0x80 | ((c >> 6) & 0x3F)));
    }
    if (c >= 0x80) {
        putchar((int)(0x80 | (c & 0x3F)));
    }
}
"""
