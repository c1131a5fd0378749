"""Machine code from LLVM's intermediate language, kept on disk by content."""

from __future__ import annotations

import ctypes
import glob
import hashlib
import os
import platform
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from .llvm import Machine

_LOCK = threading.Lock()
_LOADED: dict[str, Code] = {}
_KEPT: list[Any] = []


@dataclass(frozen=True)
class Code:
    """Functions in memory: name -> a C function of one pointer."""

    functions: dict[str, Any]

    def address(self, name: str) -> int:
        """Where a function begins."""
        return int(ctypes.cast(self.functions[name], ctypes.c_void_p).value or 0)


@lru_cache(maxsize=1)
def _target() -> tuple[Any, str, str]:
    """LLVM's target machine, the processor's name and features."""
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    features = llvm.get_host_cpu_features()
    text = features.flatten() if features else ""
    name = llvm.get_host_cpu_name()
    return _made_target(name, text), name, text


def _made_target(name: str, features: str) -> Any:
    """Code that may stand anywhere: with 32-bit distances, LLVM's loader ends the process where memory is far apart."""
    import llvmlite.binding as llvm

    wide = platform.machine().lower() in ("x86_64", "amd64")
    kinds = {"reloc": "static", "codemodel": "large"} if wide else {}
    return llvm.Target.from_default_triple().create_target_machine(
        cpu=name, features=features, opt=3, jit=True, **kinds
    )


@lru_cache(maxsize=2)
def machine(bits: int) -> Machine:
    """Registers and tiles for this processor."""
    _, _, features = _target()
    flags = set(features.split(","))
    pause = "+sse2" in flags
    if "+avx512f" in flags:
        return Machine(512 // bits, 6, 4, pause)
    if "+avx2" in flags and "+fma" in flags:
        return Machine(256 // bits, 4, 3, pause)
    return Machine(128 // bits, 4, 2, pause)


@lru_cache(maxsize=1)
def second_level_cache() -> int:
    """Bytes of the cache that one core has for itself; one MiB where the system does not say."""
    try:
        text = Path("/sys/devices/system/cpu/cpu0/cache/index2/size").read_text().strip()
        return int(text.rstrip("KM")) * {"K": 2**10, "M": 2**20}.get(text[-1:], 1)
    except (OSError, ValueError):
        return 2**20


def target_text() -> tuple[str, str]:
    """Features and name of the processor."""
    _, name, features = _target()
    return features, name


def cache_folder() -> Path:
    """Where built code is kept: ``RECURRA_CACHE``, else the user's cache folder."""
    chosen = os.environ.get("RECURRA_CACHE")
    if chosen:
        return Path(chosen) / "native"
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "recurra" / "native"


def build(text: str, names: tuple[str, ...], *, short: bool = False) -> Code:
    """Compile a module, or load it if it was compiled before.

    Args:
        text: LLVM's intermediate language.
        names: functions to be found in it.
        short: loops are left rolled up: for long programs, which then take an eighth of the time to build.
    """
    import llvmlite.binding as llvm

    target, name, features = _target()
    whole = "\n".join([text, name, features, llvm.llvmlite_version if hasattr(llvm, "llvmlite_version") else "", "2"])
    whole += "\nshort" if short else ""
    key = hashlib.sha256(whole.encode()).hexdigest()
    with _LOCK:
        if key in _LOADED:
            return _LOADED[key]
        found = _read(key)
        if found is None:
            found = _compile(text, target, short)
            _write(key, found)
        _prepare_symbols()
        empty = llvm.parse_assembly("")
        engine = llvm.create_mcjit_compiler(empty, _fresh_target())
        engine.add_object_file(llvm.ObjectFileRef.from_data(found))
        engine.finalize_object()
        kind = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
        code = Code({n: kind(engine.get_function_address(n)) for n in names})
        _KEPT.append(engine)
        _LOADED[key] = code
        return code


def _fresh_target() -> Any:
    _, name, features = _target()
    return _made_target(name, features)


def _compile(text: str, target: Any, short: bool) -> bytes:
    import llvmlite.binding as llvm

    module = llvm.parse_assembly(text)
    module.triple = target.triple
    module.data_layout = str(target.target_data)
    module.verify()
    options = llvm.create_pipeline_tuning_options(speed_level=3)
    options.loop_vectorization = True
    options.slp_vectorization = options.loop_unrolling = not short
    builder = llvm.create_pass_builder(target, options)
    builder.getModulePassManager().run(module, builder)
    return bytes(target.emit_object(module))


def _read(key: str) -> bytes | None:
    """Built code, if it is whole."""
    try:
        data = (cache_folder() / f"{key}.o").read_bytes()
    except OSError:
        return None
    digest, code = data[:32], data[32:]
    return code if hashlib.sha256(key.encode() + code).digest() == digest else None


def _write(key: str, code: bytes) -> None:
    """Keep built code; where that fails it is built again the next time."""
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=folder, suffix=".part")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(hashlib.sha256(key.encode() + code).digest() + code)
            Path(name).replace(folder / f"{key}.o")
        except OSError:
            Path(name).unlink(missing_ok=True)
        for left in folder.glob("*.part"):  # of builds that were killed
            if time.time() - left.stat().st_mtime > _DAY_S:
                left.unlink(missing_ok=True)
    except OSError:
        return


_DAY_S = 24 * 3600


# --- threads: those of the OpenMP library that torch has loaded ---


@lru_cache(maxsize=1)
def _openmp() -> Any:
    """torch's own OpenMP library, or None."""
    if not sys.platform.startswith("linux"):
        return None
    folder = Path(torch.__file__).parent / "lib"
    near = glob.glob(str(folder / "libgomp*.so*")) + glob.glob(
        str(folder.parent.parent / "torch.libs" / "libgomp*.so*")
    )
    for name in [*near, "libgomp.so.1"]:
        try:
            library = ctypes.CDLL(name)
            library.GOMP_parallel.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
            return library
        except (OSError, AttributeError):
            continue
    return None


_ONE_THREAD = ctypes.CFUNCTYPE(ctypes.c_int)(lambda: 0)


@lru_cache(maxsize=1)
def _prepare_symbols() -> None:
    import llvmlite.binding as llvm

    library = _openmp()
    function = _ONE_THREAD if library is None else library.omp_get_thread_num
    team = _ONE_THREAD if library is None else library.omp_get_num_threads
    give_way = getattr(ctypes.CDLL(None), "sched_yield", _ONE_THREAD)
    for name, symbol in (("omp_get_thread_num", function), ("omp_get_num_threads", team), ("sched_yield", give_way)):
        llvm.add_symbol(name, ctypes.cast(symbol, ctypes.c_void_p).value)
    for name in ("exp", "log", "log1p", "expm1", "sin", "cos", "erf", "pow", "atan", "fmod", "hypot"):
        for suffix in ("", "f"):
            found = getattr(ctypes.CDLL(None), name + suffix, None)
            if found is not None:
                llvm.add_symbol(name + suffix, ctypes.cast(found, ctypes.c_void_p).value)


_IS_CHILD = False


def _after_fork() -> None:
    """In a forked child the threads of OpenMP are gone, and a lock may have been held by a thread that is gone too."""
    global _LOCK, _IS_CHILD
    _LOCK, _IS_CHILD = threading.Lock(), True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def most_threads() -> int:
    """As many as torch uses; one in a forked process, whose OpenMP would wait for threads that it does not have."""
    return 1 if _IS_CHILD else torch.get_num_threads()


def run(code: Code, name: str, data: Any, threads: int) -> None:
    """Call a function, on several threads."""
    library = _openmp()
    pointer = ctypes.addressof(data)
    if threads > 1 and library is not None:
        library.GOMP_parallel(code.address(name), pointer, threads, 0)
    else:
        code.functions[name](pointer)
