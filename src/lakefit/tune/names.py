"""Keys of a pipeline file where there is little room."""

from collections.abc import Iterable


def short_names(keys: Iterable[str]) -> dict[str, str]:
    """Return for each key as many of its last parts as tell it from the others."""
    found = {}
    keys = list(keys)
    for key in keys:
        parts = key.split(".")
        ends = (".".join(parts[-count:]) for count in range(1, len(parts) + 1))
        found[key] = next(end for end in ends if sum(f".{other}".endswith(f".{end}") for other in keys) == 1)
    return found
