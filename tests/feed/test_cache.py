"""The cache of an object store's files: bounded, there after a restart, and never serving what it should not."""

import os
from pathlib import Path

import pytest

from lakefit.errors import InputError
from lakefit.feed.cache import Cache

PIECE = bytes(range(256)) * 40


def refuse() -> bytes:
    raise AssertionError("it is in the cache")


def files(cache: Cache) -> list[Path]:
    return [path for path in cache.folder.iterdir() if not path.name.startswith(".")]


def test_a_piece_is_fetched_once_and_stays_after_a_restart(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", 1 << 20)
    assert cache.get("a 1", lambda: PIECE) == PIECE
    assert cache.get("a 1", refuse) == PIECE
    assert Cache(tmp_path / "cache", 1 << 20).get("a 1", refuse) == PIECE
    assert cache.get("a 2", lambda: b"other") == b"other"


@pytest.mark.parametrize("damage", ["cut", "empty", "flipped", "longer", "another file"])
def test_a_damaged_piece_is_fetched_again(tmp_path: Path, damage: str) -> None:
    Cache(tmp_path, 1 << 20).get("a", lambda: PIECE)
    (path,) = files(Cache(tmp_path, 1 << 20))
    content = path.read_bytes()
    path.write_bytes(
        {
            "cut": content[:-1],
            "empty": b"",
            "flipped": content[:100] + bytes([content[100] ^ 1]) + content[101:],
            "longer": content + b"x",
            "another file": b"PAR1" * 100,
        }[damage]
    )

    cache = Cache(tmp_path, 1 << 20)
    assert cache.get("a", lambda: PIECE) == PIECE
    assert Cache(tmp_path, 1 << 20).get("a", refuse) == PIECE


def test_it_stays_within_its_bytes_and_lets_the_least_used_go(tmp_path: Path) -> None:
    most = 10 * len(PIECE)
    cache = Cache(tmp_path, most)
    for number in range(40):
        cache.get(f"piece {number}", lambda: PIECE)
        assert cache.get("piece 0", lambda: PIECE) == PIECE
        for place, path in enumerate(sorted(files(cache), key=lambda path: path.stat().st_mtime_ns)):
            # What came at nearly the same time has an order, on every file system.
            os.utime(path, (1000 + number * 100 + place, 1000 + number * 100 + place))
        assert sum(path.stat().st_size for path in files(cache)) <= most
    assert cache.get("piece 0", refuse) == PIECE
    assert cache.get("piece 39", refuse) == PIECE
    with pytest.raises(AssertionError):
        cache.get("piece 1", refuse)

    # A smaller bound holds from the next piece on, a piece that is larger is not kept.
    small = Cache(tmp_path, 3 * len(PIECE))
    small.get("new", lambda: PIECE)
    assert sum(path.stat().st_size for path in files(small)) <= 3 * len(PIECE)
    before = files(small)
    small.get("large", lambda: PIECE * 4)
    assert sorted(files(small)) == sorted(before)


def test_what_a_dead_process_has_left_is_removed_and_no_room_is_no_error(tmp_path: Path) -> None:
    left = tmp_path / ".dead"
    left.write_bytes(b"half")
    Cache(tmp_path, 1 << 20)
    assert left.exists(), "another process may be writing it"
    os.utime(left, (1000, 1000))
    cache = Cache(tmp_path, 1 << 20)
    assert not left.exists()

    cache.folder.rename(tmp_path.with_name("gone"))
    assert cache.get("a", lambda: PIECE) == PIECE

    tmp_path.with_name("file").write_bytes(b"")
    with pytest.raises(ValueError, match="whole number of 1 or more, not 0"):
        Cache(tmp_path, 0)
    with pytest.raises(InputError, match="can't be the folder of a cache"):
        Cache(tmp_path.with_name("file"), 10)
