"""TVM's runtime without the rest of TVM, and compiled libraries on it.

`import tvm` loads the compiler with LLVM in it, which takes seconds and hundreds of megabytes. To run a model, the
foreign-function library `tvm_ffi` and `libtvm_runtime.so` are enough.
"""

from __future__ import annotations

import ctypes
import importlib.util
import json
import math
import mmap
import os
import platform
import struct
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ondevice_mlc.versions import TVM_VERSION
from ondevice_sdk.errors import BackendUnavailable, LoadFailed, ModelCorrupt, ModelUnsupported

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ALIGNMENT: Final = 64  # bytes: compiled code reads and writes whole vectors
_RUNTIME: Final = {"linux": "libtvm_runtime.so", "darwin": "libtvm_runtime.dylib", "win32": "tvm_runtime.dll"}
_CPU: Final = 1  # DLPack's number of the device
_POOLED: Final = 2  # the virtual machine keeps what it frees for the next call
_ANY_CORE: Final = -3  # threads are not bound to cores
_DAMAGED: Final = ("Invalid VM file format", "file too short", "invalid ELF", "cannot read file")
_SPINS: Final = "2000"
_AGAIN: Final = "compile the model again: ondevice mlc compile MODEL --again"
# Machines as ELF, Mach-O and PE number them, by what `platform.machine` calls them.
_ELF: Final = {"x86_64": 62, "aarch64": 183, "riscv64": 243, "ppc64le": 21, "s390x": 22}
_MACH_O: Final = {"x86_64": 0x01000007, "arm64": 0x0100000C}
_PE: Final = {"AMD64": 0x8664, "ARM64": 0xAA64}

_loaded: ctypes.CDLL | None = None


def start() -> None:
    """Load TVM's runtime into this process; again does nothing.

    Raises:
        BackendUnavailable: it cannot be loaded.
    """
    global _loaded
    if _loaded is not None:
        return
    # Read by TVM when the first kernel runs: the operating system places the threads, within what it allows us.
    os.environ.setdefault("TVM_BIND_THREADS", "0")
    # How often TVM's threads look for work before they sleep. Its default burns a core for 0.1 s after each pass.
    os.environ.setdefault("TVM_THREAD_POOL_SPIN_COUNT", _SPINS)
    # Else, where torch is installed, it would start a compiler when it is imported.
    os.environ.setdefault("TVM_FFI_DISABLE_TORCH_C_DLPACK", "1")
    try:
        import tvm_ffi  # noqa: F401 - loads the library that the runtime needs

        found = importlib.util.find_spec("tvm")
        folder = Path(next(iter((found and found.submodule_search_locations) or ())))
        path = folder / "lib" / _RUNTIME.get(sys.platform, _RUNTIME["linux"])
        _loaded = ctypes.CDLL(str(path), ctypes.RTLD_GLOBAL)
    except (ImportError, OSError, StopIteration) as error:
        reason = f"TVM's runtime library cannot be loaded ({type(error).__name__})"
        raise BackendUnavailable("TVM cannot be used", reason=reason, hint="pip install ondevice-mlc") from error


def function(name: str) -> Callable[..., Any]:
    """A function of TVM's runtime."""
    import tvm_ffi

    found: Callable[..., Any] = tvm_ffi.get_global_func(name)
    return found


def shape(values: Sequence[int]) -> Any:
    """Integers as TVM takes them."""
    import tvm_ffi

    return tvm_ffi.Shape(tuple(values))


def tensor(array: NDArray[Any]) -> Any:
    """A tensor on the memory of an array, which is aligned."""
    import tvm_ffi

    return tvm_ffi.from_dlpack(array, require_alignment=ALIGNMENT, require_contiguous=True)


def packed(tensors: Sequence[Any]) -> Any:
    """Tensors as one argument."""
    import tvm_ffi

    return tvm_ffi.Array(list(tensors))


def array(found: Any) -> NDArray[np.float32]:
    """An array on the memory of a tensor, which it keeps alive."""
    import numpy as np

    values: NDArray[Any] = np.from_dlpack(found)
    return values


def aligned(dimensions: Sequence[int], kind: Any) -> NDArray[Any]:
    """An array that compiled code can work on; its content is not set."""
    import numpy as np

    size = math.prod(dimensions) * np.dtype(kind).itemsize
    room = np.empty(size + ALIGNMENT, np.uint8)
    start = -room.ctypes.data % ALIGNMENT
    values: NDArray[Any] = room[start : start + size].view(kind).reshape(tuple(dimensions))
    return values


def use_threads(count: int) -> None:
    """Let the thread that calls this run models with so many threads."""
    function("runtime.config_threadpool")(_ANY_CORE, count, [str(index) for index in range(count)])


class Library:
    """A compiled library in TVM's virtual machine."""

    def __init__(self, path: Path, made: Mapping[str, Any]) -> None:
        """Look at the file, then load it.

        Args:
            path: the library.
            made: what the compiler of this package wrote down about it; may be empty.

        Raises:
            ModelUnsupported: it is for another kind of processor or system. LoadFailed: for another version of TVM, or
                it cannot be loaded. ModelCorrupt: it is no such library.
        """
        _check_version(made)
        _check_kind(path)
        import tvm_ffi

        try:
            self._module = tvm_ffi.load_module(str(path))
            self._machine = self._module["vm_load_executable"]()
            self._machine["vm_initialization"](_CPU, 0, _POOLED)
            self.metadata: Mapping[str, Any] = json.loads(str(self._machine["_metadata"]()))
        except Exception as error:  # TVM raises errors of many types; their messages tell of its source files
            raise _load_error(error) from error
        if not isinstance(self.metadata, dict):
            raise ModelCorrupt("the compiled library does not describe its model")
        _check_version(self.metadata)

    def get(self, name: str) -> Callable[..., Any] | None:
        """A function of the library; None if it has none of this name."""
        try:
            found: Callable[..., Any] = self._machine[name]
        except AttributeError:
            return None
        return found

    def require(self, name: str) -> Callable[..., Any]:
        """A function that every such library has.

        Raises:
            ModelUnsupported: this one has not.
        """
        found = self.get(name)
        if found is None:
            raise ModelUnsupported(f"the compiled library has no function {name!r}")
        return found


def _check_version(made: Mapping[str, Any]) -> None:
    version = made.get("tvm")
    if version is not None and version != TVM_VERSION:
        shown = str(version)[:20]
        raise LoadFailed(f"the library was compiled with TVM {shown}, this is {TVM_VERSION}", hint=_AGAIN)


def _check_kind(path: Path) -> None:
    """Refuse, before it is loaded, what cannot run here."""
    try:
        with path.open("rb") as file:
            head = file.read(4096)
            machine = _machine_of(head)
            if machine is None:
                raise ModelCorrupt(f"{path.name} is no shared library", actual=head[:4].hex() or "empty")
            here = (sys.platform, platform.machine())
            if not _is_whole(head, path.stat().st_size):
                raise ModelCorrupt(f"{path.name} is not whole")
            if machine != here:
                raise ModelUnsupported(
                    f"the library was compiled for {' '.join(machine)}, this is {' '.join(here)}", hint=_AGAIN
                )
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                if content.find(b"__tvm_ffi__library_bin") >= 0:
                    return
                older = content.find(b"__tvm_dev_mblob") >= 0 or content.find(b"__tvm_module_ctx") >= 0
    except (OSError, ValueError) as error:
        raise LoadFailed(f"{path.name} cannot be read") from error
    if older:
        raise LoadFailed(f"the library was compiled with an older TVM, this is {TVM_VERSION}", hint=_AGAIN)
    raise ModelCorrupt(f"{path.name} is no library of TVM's virtual machine")


def _machine_of(head: bytes) -> tuple[str, str] | None:
    """System and machine that a shared library is for, in Python's words; numbers where they have no name here."""
    if head.startswith(b"\x7fELF") and len(head) >= 20:
        (number,) = struct.unpack_from("<H" if head[5] == 1 else ">H", head, 18)
        return "linux", _named(_ELF, number)
    if head.startswith(b"\xcf\xfa\xed\xfe") and len(head) >= 8:
        (number,) = struct.unpack_from("<I", head, 4)
        return "darwin", _named(_MACH_O, number)
    if head.startswith(b"MZ") and len(head) >= 0x40:
        (start,) = struct.unpack_from("<I", head, 0x3C)
        if head[start : start + 4] == b"PE\0\0" and len(head) >= start + 6:
            return "win32", _named(_PE, struct.unpack_from("<H", head, start + 4)[0])
    return None


def _is_whole(head: bytes, size: int) -> bool:
    """Whether the table at the end of an ELF file is there; loading half a file could end the process."""
    if not head.startswith(b"\x7fELF\x02\x01") or len(head) < 64:
        return True
    (start,) = struct.unpack_from("<Q", head, 0x28)
    entry, count = struct.unpack_from("<HH", head, 0x3A)
    return bool(start + entry * count <= size)


def _named(names: Mapping[str, int], number: int) -> str:
    return next((name for name, known in names.items() if known == number), f"machine {number}")


def _load_error(error: Exception) -> LoadFailed | ModelCorrupt:
    message = str(error)
    if "Invalid VM file format in the version" in message:
        return LoadFailed(f"the library was compiled with another TVM, this is {TVM_VERSION}", hint=_AGAIN)
    if "undefined symbol" in message or "Cannot find" in message or "not registered" in message:
        return LoadFailed(f"the library needs what TVM {TVM_VERSION} does not have", hint=_AGAIN)
    if any(sign in message for sign in _DAMAGED):
        return ModelCorrupt("the compiled library is damaged")
    return LoadFailed(f"TVM could not load the compiled library ({type(error).__name__})")
