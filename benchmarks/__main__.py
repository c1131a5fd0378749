"""``python -m benchmarks [NAME ...] [--list] [--quick] [--output FILE]``."""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import sys
from pathlib import Path
from types import ModuleType

import benchmarks

from .section import machine, update


def found() -> dict[str, ModuleType]:
    """Name -> module of every benchmark: the modules of this folder that have a ``run``."""
    names = sorted(info.name for info in pkgutil.iter_modules(benchmarks.__path__) if not info.name.startswith("_"))
    modules = {name: importlib.import_module(f"benchmarks.{name}") for name in names}
    return {name: module for name, module in modules.items() if hasattr(module, "run")}


def main(arguments: list[str] | None = None) -> int:
    """Run benchmarks and write their sections; 1 if one of them failed, 2 for an unknown name."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure, and write BENCHMARKS.md.")
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="what to run, or its beginning; all of them if none is named"
    )
    parser.add_argument("--list", action="store_true", help="only say what there is")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, printed and not written: does it run at all?")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent.parent / "BENCHMARKS.md", metavar="FILE")
    options = parser.parse_args(arguments)
    known = found()
    chosen = []
    for given in options.names:
        matches = [given] if given in known else [name for name in known if name.startswith(given)]
        if len(matches) != 1:
            print(f"benchmarks: name must be one of {', '.join(known)}, got {given}.", file=sys.stderr)
            return 2
        chosen += matches
    if options.list:
        for name, module in known.items():
            print(f"{name}: {(module.__doc__ or '').strip().splitlines()[0]}")
        return 0
    failed = 0
    for name in chosen or known:
        print(f"{name} ...", flush=True)
        try:
            section = known[name].run(quick=options.quick)
        except Exception as error:
            print(f"{name}: {type(error).__name__}: {error}", file=sys.stderr)
            failed = failed if options.quick and isinstance(error, FileNotFoundError) else 1  # data that is not here
            continue
        text = section.text(machine())
        print(text, flush=True)
        if not options.quick:
            update(options.output, {name: text}, list(known))
    return failed


if __name__ == "__main__":
    sys.exit(main())
