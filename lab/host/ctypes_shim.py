"""As much of ctypes as `lab.host.syscalls` takes, from the part of it that is written in C.

The ctypes package costs a tenth of what `lab-oci` needs to start a container, most of it for types nobody here uses.
Where the part in C is arranged in another way, the package itself is taken.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ctypes import (
        CDLL,
        POINTER,
        Structure,
        addressof,
        byref,
        c_char_p,
        c_int,
        c_int32,
        c_long,
        c_size_t,
        c_uint32,
        c_uint64,
        c_ulong,
        c_ushort,
        c_void_p,
        create_string_buffer,
        get_errno,
        sizeof,
    )

    __all__ = [
        "CDLL",
        "POINTER",
        "Structure",
        "addressof",
        "byref",
        "c_char_p",
        "c_int",
        "c_int32",
        "c_long",
        "c_size_t",
        "c_uint32",
        "c_uint64",
        "c_ulong",
        "c_ushort",
        "c_void_p",
        "create_string_buffer",
        "get_errno",
        "sizeof",
    ]
else:
    try:
        from _ctypes import (
            FUNCFLAG_CDECL,
            FUNCFLAG_USE_ERRNO,
            POINTER,
            CFuncPtr,
            Structure,
            _SimpleCData,
            addressof,
            byref,
            dlopen,
            get_errno,
            sizeof,
        )

        def _simple(name, code):
            """A C type by its letter in the struct module, with the sizes of 64-bit Linux."""
            return type(name, (_SimpleCData,), {"_type_": code})

        c_char, c_char_p, c_ushort = _simple("c_char", "c"), _simple("c_char_p", "z"), _simple("c_ushort", "H")
        c_int = c_int32 = _simple("c_int", "i")
        c_uint32 = _simple("c_uint32", "I")
        c_long = _simple("c_long", "l")
        c_ulong = c_size_t = c_uint64 = _simple("c_ulong", "L")
        c_void_p = _simple("c_void_p", "P")

        class _Function(CFuncPtr):
            _flags_ = FUNCFLAG_CDECL | FUNCFLAG_USE_ERRNO
            _restype_ = c_int

        class CDLL:
            """ctypes.CDLL with ``use_errno``."""

            def __init__(self, name, *, use_errno):
                assert use_errno
                self._handle = dlopen(name, 0)

            def __getattr__(self, name):
                function = _Function((name, self))
                setattr(self, name, function)
                return function

        def create_string_buffer(content, size=None):
            """ctypes.create_string_buffer."""
            made = (c_char * (len(content) + 1 if size is None else size))()
            made.value = content
            return made

    except ImportError:
        from ctypes import *  # noqa: F403
        from ctypes import POINTER, addressof, byref, get_errno, sizeof
