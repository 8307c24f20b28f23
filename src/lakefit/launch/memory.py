"""How much memory this process has taken, and how much its machine has left."""

import resource


def memory_peak() -> int:
    """Return the most bytes that this process has held at once."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def memory_left() -> int | None:
    """Return the bytes that could be taken without swapping, as the kernel reckons; None where it does not say."""
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            found = dict(line.split(":", 1) for line in lines)
        return int(found["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None
