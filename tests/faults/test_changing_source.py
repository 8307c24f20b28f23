"""A raw file that changes at a random instant while it is read: refused by name, or all before or all after it."""

import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from faulty import MANY, PLAIN, Shop, dice
from shop import PIPELINE, order_line

ROWS = 4_000


def grow(file: Path) -> None:
    with open(file, "a", encoding="utf-8") as lines:
        lines.writelines(f"{order_line(i)}\n" for i in range(ROWS, ROWS + 400))


def shrink(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def replace(file: Path) -> None:
    """Put another file in its place, of one size and modification time with it."""
    before = file.stat()
    other = file.with_name(".other")
    other.write_text(file.read_text(encoding="utf-8").replace("Oslo", "Bonn"), encoding="utf-8")
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    os.replace(other, file)


def rewrite(file: Path) -> None:
    """Write it anew in place, as `cp` does."""
    text = file.read_text(encoding="utf-8").replace("Oslo", "Bonn")
    file.write_text(text, encoding="utf-8")


def delete(file: Path) -> None:
    file.unlink()


CHANGES: tuple[Callable[[Path], None], ...] = (grow, shrink, replace, rewrite, delete)


@pytest.mark.parametrize("changes", [4, MANY])
def test_a_source_that_changes_while_it_is_read_is_refused_by_name_or_read_whole(
    spark: Any, tmp_path: Path, changes: int
) -> None:
    random = dice()
    known: dict[Any, dict[str, bytes]] = {}

    def expected(pipeline: str, change: Callable[[Path], None] | None) -> dict[str, bytes]:
        if (pipeline, change) not in known:
            quiet = Shop(tmp_path / f"expected-{len(known)}", ROWS, pipeline=pipeline)
            if change is not None:
                change(quiet.folder / "orders-1.csv")
            assert quiet.here() == 0, quiet.said
            known[pipeline, change] = quiet.dataset()
        return known[pipeline, change]

    refused = 0
    for number in range(changes):
        pipeline = (PLAIN, PIPELINE)[number % 2]
        change = random.choice(CHANGES)
        shop = Shop(tmp_path / "shop", ROWS, pipeline=pipeline)
        file = shop.folder / "orders-1.csv"
        # The first in the middle of the reading: what is to be shown is not left to chance alone.
        instant = 0.0 if number == 0 else random.uniform(0, 2)
        code = changed_while(shop, lambda file=file, change=change: change(file), instant)  # type: ignore[misc]
        print(f"change {number + 1}: {change.__name__} after {instant:.2f} s, exit code {code}")
        if code:
            refused += 1
            assert code == 2, shop.said
            assert f"table 'orders': {file} " in shop.said or "orders-1.csv" in shop.said
            assert "Traceback" not in shop.said
            assert not shop.has("shop/current.json")
            assert not shop.has("shop/datasets/*")
        else:
            assert shop.dataset() in (expected(pipeline, None), expected(pipeline, change))
        shutil.rmtree(shop.folder)
    assert refused


def changed_while(shop: Shop, change: Callable[[], None], instant: float) -> int:
    """Run `lakefit prepare` and change a file so many seconds after it has listed its files; return the exit code."""

    def soon() -> None:
        while not shop.has("shop/datasets/.staging-*"):
            time.sleep(0.002)
        time.sleep(instant)
        change()

    thread = threading.Thread(target=soon)
    thread.start()
    code = shop.here()
    thread.join()
    return code
