"""Memory that is freed in one step serves the next: without this, glibc gives it back and each step faults its pages in anew."""

import ctypes
import platform

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h
KEPT_BYTES, MAPPED_BYTES = 1 << 30, 32 << 20  # 32 MiB is the largest mapping threshold that glibc takes


def keep_freed_memory() -> None:
    """Let the C library keep up to 1 GiB of freed memory; does nothing where it is not glibc."""
    if platform.libc_ver()[0] == "glibc":
        library = ctypes.CDLL(None)
        library.mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)
        library.mallopt(M_MMAP_THRESHOLD, MAPPED_BYTES)
