"""The summary of a run as tables for people."""

from typing import Any

Table = tuple[str, list[tuple[str, ...]]]


def tables(summary: dict[str, Any]) -> list[Table]:
    """Return the ledger, the test metrics beside the baselines, and the paths, of whatever there is."""
    found: list[Table] = []
    if "ledger" in summary:
        found.append(("Ledger", _ledger(summary["ledger"])))
    if "metrics" in summary:
        found.append(("Test split", _metrics(summary)))
    if "gate" in summary:
        found.append(("Quality gate", [_check(check) for check in summary["gate"]]))
    if summary["paths"]:
        found.append(("Paths", [(name, path) for name, path in summary["paths"].items()]))
    return found


def _check(check: dict[str, Any]) -> tuple[str, ...]:
    value = "" if check["found"] is None else f"{check['found']:.4f}"
    return check["metric"], check["required"], value, check["note"]


def _ledger(ledger: dict[str, Any]) -> list[tuple[str, ...]]:
    rows = [("rows in", f"{ledger['rows_in']:,}")]
    rows += [(f"kept: {split}", f"{count:,}") for split, count in ledger["kept"].items()]
    rows += [(f"rejected: {reason}", f"{count:,}") for reason, count in ledger["rejected"].items()]
    return [*rows, ("duplicates", f"{ledger['duplicates']:,}")]


def _metrics(summary: dict[str, Any]) -> list[tuple[str, ...]]:
    contenders = {"model": summary["metrics"]["test"]}
    contenders |= {name.replace("_", " "): splits["test"] for name, splits in summary["baselines"].items()}
    names = list(summary["metrics"]["test"])
    head = ("", *(name.replace("_", " ") for name in names))
    return [head, *((name, *(f"{values[metric]:.4f}" for metric in names)) for name, values in contenders.items())]
