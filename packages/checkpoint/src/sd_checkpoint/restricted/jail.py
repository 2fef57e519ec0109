"""Giving up, for good, every means to do harm.

Linux: seccomp with a filter that lets through what computing needs and reading from files that are
already open, and answers EPERM to the rest: no file can be opened, no program or thread started, no
socket made, nothing written but to the standard output.
Source: Documentation/userspace-api/seccomp_filter.rst of the Linux kernel.
"""

import ctypes
import platform
import struct
import sys

__all__ = ["confine"]

_MAX_MEMORY = 768 * 2**20  # bytes of address space
_MAX_SECONDS = 60  # of processor time

_PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS, _MODE_FILTER = 22, 38, 2
_LOAD, _EQUAL, _HAS_BIT, _RETURN = 0x20, 0x15, 0x45, 0x06
_ALLOW, _EPERM = 0x7FFF0000, 0x00050001
_NUMBER, _MACHINE, _FIRST, _THIRD = 0, 4, 16, 32  # where `struct seccomp_data` has them
_PROT_EXEC = 4

# The numbers of: close, lseek, munmap, brk, rt_sigaction, rt_sigprocmask, rt_sigreturn, pread64,
# sched_yield, mremap, madvise, getpid, exit, gettimeofday, sigaltstack, futex, restart_syscall,
# clock_gettime, exit_group, getrandom, rseq.
_CALLS = {
    "x86_64": (
        *(3, 8, 11, 12, 13, 14, 15, 17, 24, 25, 28),
        *(39, 60, 96, 131, 202, 219, 228, 231, 318, 334),
    ),
    "aarch64": (
        *(57, 62, 215, 214, 134, 135, 139, 67, 124, 216, 233),
        *(172, 93, 169, 132, 98, 128, 113, 94, 278, 293),
    ),
}
_MAPS = {"x86_64": (9, 10), "aarch64": (222, 226)}  # mmap, mprotect: not executable
_WRITE = {"x86_64": 1, "aarch64": 64}
_AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}


def confine() -> str:
    """Limit this process, and return by what: "filter", "limits" or "nothing"."""
    limited = _set_limits()
    if _set_filter():
        return "filter"
    return "limits" if limited else "nothing"


def _set_limits() -> bool:
    try:
        import resource
    except ImportError:
        return False
    limits = {
        resource.RLIMIT_CPU: _MAX_SECONDS,
        resource.RLIMIT_AS: _MAX_MEMORY,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_NOFILE: 0,
        resource.RLIMIT_CORE: 0,
    }
    if hasattr(resource, "RLIMIT_NPROC"):
        limits[resource.RLIMIT_NPROC] = 0
    done = True
    for limit, value in limits.items():
        try:
            resource.setrlimit(limit, (value, value))
        except (OSError, ValueError):
            done = False  # macOS knows no limit of address space
    return done


def _set_filter() -> bool:
    machine = platform.machine()
    if sys.platform != "linux" or machine not in _CALLS or struct.calcsize("P") != 8:
        return False
    program = _program(machine)
    buffer = ctypes.create_string_buffer(program, len(program))
    # struct sock_fprog: the number of instructions, and where they are.
    header = ctypes.create_string_buffer(
        struct.pack("@HP", len(program) // 8, ctypes.addressof(buffer))
    )
    try:
        prctl = ctypes.CDLL(None, use_errno=True).prctl
    except (OSError, AttributeError):
        return False
    number = ctypes.c_ulong
    if prctl(_PR_SET_NO_NEW_PRIVS, number(1), number(0), number(0), number(0)):
        return False
    return not prctl(_PR_SET_SECCOMP, number(_MODE_FILTER), header, number(0), number(0))


def _program(machine: str) -> bytes:
    """Assemble the filter: see `man 2 seccomp`, "Filters"."""
    allow, deny = (_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _EPERM)
    code = [
        (_LOAD, 0, 0, _MACHINE),
        (_EQUAL, 1, 0, _AUDIT[machine]),
        deny,
        (_LOAD, 0, 0, _NUMBER),
    ]
    for call in _CALLS[machine]:
        code += [(_EQUAL, 0, 1, call), allow]
    for call in _MAPS[machine]:
        code += [(_EQUAL, 0, 4, call), (_LOAD, 0, 0, _THIRD), (_HAS_BIT, 1, 0, _PROT_EXEC)]
        code += [allow, deny]
    code += [(_EQUAL, 0, 2, _WRITE[machine]), (_LOAD, 0, 0, _FIRST), (_EQUAL, 1, 0, 1)]
    code += [deny, allow]
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in code)
