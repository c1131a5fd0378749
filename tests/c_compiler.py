"""A C compiler for tests, strict and with sanitizers."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

COMPILER = os.environ.get("CC") or shutil.which("gcc") or shutil.which("cc")
STRICT = ("-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-Wconversion", "-Wshadow")
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g0")


def _why_not() -> str:
    """What is missing here; nothing where a program runs under the sanitizers."""
    if COMPILER is None:
        return "no C compiler (set CC, or install gcc) to compile what is written"
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "empty.c").write_text("int main(void) { return 0; }\n")
        command = [COMPILER, *SANITIZERS, "empty.c", "-o", "empty"]
        built = subprocess.run(command, cwd=folder, capture_output=True, check=False).returncode == 0
        fine = built and subprocess.run([str(Path(folder, "empty"))], capture_output=True, check=False).returncode == 0
    return "" if fine else f"{COMPILER} has no sanitizers here"


needs_compiler = pytest.mark.skipif(bool(_MISSING := _why_not()), reason=_MISSING)


def compiled(folder: Path, sources: list[str], *options: str) -> Path:
    """The program of some files."""
    command = [str(COMPILER), *STRICT, *options, *sources, "-lm", "-o", "program"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[:3000]
    return folder / "program"


def run(program: Path, given: bytes, *arguments: str) -> bytes:
    """Its output; a finding of a sanitizer is a failure."""
    done = subprocess.run([str(program), *arguments], input=given, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()[:3000]
    return done.stdout
