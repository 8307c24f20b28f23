"""How much memory a machine has left."""


def memory_left() -> int | None:
    """Return the bytes that could be taken without swapping, as the kernel reckons; None where it does not say."""
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            found = dict(line.split(":", 1) for line in lines)
        return int(found["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None
