"""exp, tanh and the logistic function in LLVM's language, in forms that become vectors."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .llvm import Writer


def hexadecimal(value: float, bits: int) -> str:
    """A constant as LLVM wants it: the double's bits; a float's value must be exact in it."""
    if bits == 32:
        value = struct.unpack("<f", struct.pack("<f", value))[0] if abs(value) < 3.4028235677973366e38 else value
    return f"0x{struct.unpack('<Q', struct.pack('<d', value))[0]:016X}"


def exponential(w: Writer) -> str:
    """By 2^n e^r with |r| <= log(2) / 2 and a polynomial; NaN stays NaN."""
    r, double = w.real, w.bits == 64
    big = 6755399441055744.0 if double else 12582912.0  # 1.5 * 2^52, 1.5 * 2^23: adding it rounds to an integer

    def c(value: float) -> str:
        return hexadecimal(value, w.bits)

    low, high = (-708.0, 709.7) if double else (-87.0, 88.7)
    under, over = w.let(f"fcmp olt {r} %x, {c(low)}"), w.let(f"fcmp ogt {r} %x, {c(high)}")
    x = w.let(f"select i1 {under}, {r} {c(low)}, {r} %x")
    x = w.let(f"select i1 {over}, {r} {c(high)}, {r} {x}")
    shifted = w.intrinsic("fma", x, c(1.4426950408889634), c(big))
    n = w.let(f"fsub {r} {shifted}, {c(big)}")
    parts = (-6.93147180369123816490e-01, -1.90821492927058770002e-10) if double else (-0.693359375, 2.12194440e-4)
    rest = w.intrinsic("fma", n, c(parts[0]), x)
    rest = w.intrinsic("fma", n, c(parts[1]), rest)
    factorial, terms = 1.0, [1.0]
    for i in range(1, 14 if double else 8):
        factorial *= i
        terms.append(1 / factorial)
    total = c(terms[-1])
    for term in reversed(terms[:-1]):
        total = w.intrinsic("fma", total, rest, c(term))
    kind, mantissa, bias = ("i64", 52, 1023) if double else ("i32", 23, 127)
    bits = w.let(f"bitcast {r} {shifted} to {kind}")
    raised = w.let(f"shl {kind} {bits}, {mantissa}")
    # the low bits of the shifted number are n, so this is 2^n up to the bias; 2^(n - 1) * 2 keeps n = 128 in range
    exponent = w.let(f"add {kind} {raised}, {(bias - 1) << mantissa}")
    scale = w.let(f"bitcast {kind} {exponent} to {r}")
    value = w.let(f"fmul {r} {w.let(f'fmul {r} {total}, {c(2.0)}')}, {scale}")
    value = w.let(f"select i1 {under}, {r} {c(0.0)}, {r} {value}")
    return w.let(f"select i1 {over}, {r} {c(float('inf'))}, {r} {value}")


def sigmoid(w: Writer) -> str:
    """1 / (1 + e^-x)."""
    r, one = w.real, hexadecimal(1.0, w.bits)
    e = w.call("recurra_exp", w.let(f"fneg {r} %x"))
    return w.let(f"fdiv {r} {one}, {w.let(f'fadd {r} {e}, {one}')}")


_SERIES = (
    -1 / 3, 2 / 15, -17 / 315, 62 / 2835, -1382 / 155925, 21844 / 6081075, -929569 / 638512875, 6404582 / 10854718875,
    -443861162 / 1856156927625,
)  # fmt: skip
"""tanh(x) = x + x^3 * (this in x^2)."""


def hyperbolic_tangent(w: Writer) -> str:
    """A rational function in float32, by exp in float64."""
    r = w.real

    def c(value: float) -> str:
        return hexadecimal(value, w.bits)

    if w.bits == 64:
        size = w.intrinsic("fabs", "%x")
        e = w.call("recurra_exp", w.let(f"fmul {r} {size}, {c(-2.0)}"))
        value = w.let(f"fdiv {r} {w.let(f'fsub {r} {c(1.0)}, {e}')}, {w.let(f'fadd {r} {c(1.0)}, {e}')}")
        # near zero the difference has few digits left: the series of tanh, to 0.2^19
        square, total = w.let(f"fmul {r} %x, %x"), c(_SERIES[-1])
        for a in reversed(_SERIES[:-1]):
            total = w.intrinsic("fma", total, square, c(a))
        odd = w.intrinsic("fma", w.let(f"fmul {r} {total}, {square}"), "%x", "%x")
        near = w.let(f"fcmp olt {r} {size}, {c(0.2)}")
        return w.let(f"select i1 {near}, {r} {odd}, {r} {w.intrinsic('copysign', value, '%x')}")
    # a rational function on [-7.9, 7.9], from memory of Eigen's ptanh
    limit = 7.90531110763549805
    high, low = w.let(f"fcmp ogt {r} %x, {c(limit)}"), w.let(f"fcmp olt {r} %x, {c(-limit)}")
    x = w.let(f"select i1 {high}, {r} {c(limit)}, {r} %x")
    x = w.let(f"select i1 {low}, {r} {c(-limit)}, {r} {x}")
    square = w.let(f"fmul {r} {x}, {x}")
    above = (-2.76076847742355e-16, 2.00018790482477e-13, -8.60467152213735e-11, 5.12229709037114e-08,
             1.48572235717979e-05, 6.37261928875436e-04, 4.89352455891786e-03)  # fmt: skip
    below = (1.19825839466702e-06, 1.18534705686654e-04, 2.26843463243900e-03, 4.89352518554385e-03)
    top, bottom = c(above[0]), c(below[0])
    for a in above[1:]:
        top = w.intrinsic("fma", top, square, c(a))
    for b in below[1:]:
        bottom = w.intrinsic("fma", bottom, square, c(b))
    return w.let(f"fdiv {r} {w.let(f'fmul {r} {top}, {x}')}, {bottom}")


def logarithm(w: Writer) -> str:
    """In float32: x = 2^e m with m about 1, and a polynomial of m - 1 (from memory of Cephes' logf)."""
    r = w.real

    def c(value: float) -> str:
        return hexadecimal(value, w.bits)

    tiny = w.let(f"fcmp olt {r} %x, {c(2.0**-126)}")
    x = w.let(f"select i1 {tiny}, {r} {w.let(f'fmul {r} %x, {c(2.0**23)}')}, {r} %x")
    bits = w.let(f"bitcast {r} {x} to i32")
    e = w.let(f"ashr i32 {w.let(f'sub i32 {bits}, {0x3F3504F3}')}, 23")
    shifted = w.let(f"shl i32 {e}, 23")
    mantissa = w.let(f"sub i32 {bits}, {shifted}")
    m = w.let(f"bitcast i32 {mantissa} to {r}")
    power = w.let(f"sitofp i32 {e} to {r}")
    power = w.let(f"select i1 {tiny}, {r} {w.let(f'fsub {r} {power}, {c(23.0)}')}, {r} {power}")
    f = w.let(f"fsub {r} {m}, {c(1.0)}")
    square = w.let(f"fmul {r} {f}, {f}")
    terms = (7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1,
             -1.6668057665e-1, 2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1)  # fmt: skip
    total = c(terms[0])
    for term in terms[1:]:
        total = w.intrinsic("fma", total, f, c(term))
    y = w.let(f"fmul {r} {w.let(f'fmul {r} {f}, {square}')}, {total}")
    y = w.intrinsic("fma", power, c(-2.12194440e-4), y)
    y = w.intrinsic("fma", square, c(-0.5), y)
    value = w.intrinsic("fma", power, c(0.693359375), w.let(f"fadd {r} {f}, {y}"))
    value = w.let(f"select i1 {w.let(f'fcmp oeq {r} %x, {c(0.0)}')}, {r} {c(float('-inf'))}, {r} {value}")
    value = w.let(f"select i1 {w.let(f'fcmp olt {r} %x, {c(0.0)}')}, {r} {c(float('nan'))}, {r} {value}")
    # infinity stays, and so does NaN
    large = w.let(f"fcmp ult {r} %x, {c(float('inf'))}")
    value = w.let(f"select i1 {large}, {r} {value}, {r} %x")
    return w.let(f"select i1 {w.let(f'fcmp uno {r} %x, %x')}, {r} %x, {r} {value}")


def logarithm_of_more(w: Writer) -> str:
    """log(1 + x) in float32 by x log(u) / (u - 1), u = 1 + x rounded."""
    r = w.real
    one = hexadecimal(1.0, w.bits)
    u = w.let(f"fadd {r} %x, {one}")
    gone = w.let(f"fsub {r} {u}, {one}")
    log = w.call("recurra_log", u)
    value = w.let(f"fmul {r} {log}, {w.let(f'fdiv {r} %x, {gone}')}")
    same = w.let(f"fcmp oeq {r} {gone}, {hexadecimal(0.0, w.bits)}")
    value = w.let(f"select i1 {same}, {r} %x, {r} {value}")
    endless = w.let(f"fcmp oeq {r} %x, {hexadecimal(float('inf'), w.bits)}")
    return w.let(f"select i1 {endless}, {r} %x, {r} {value}")
