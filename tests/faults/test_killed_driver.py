"""A driver killed at any instant of preparation: what is in use is whole, and the next run ends with the same bytes."""

import json
import time
from typing import Any

import pytest

from faulty import MANY, PLAIN, Shop, dice
from shop import PIPELINE

ROWS = 2_000


@pytest.fixture(scope="module")
def shops(spark: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return a function that makes a shop with an older version in use, and the dataset it should end with."""
    folder = tmp_path_factory.mktemp("shops")
    expected: dict[str, dict[str, bytes]] = {}

    def make(name: str, pipeline: str) -> tuple[Shop, dict[str, bytes]]:
        if pipeline not in expected:
            whole = Shop(folder / f"whole-{len(expected)}", ROWS, "prepare", pipeline=pipeline)
            assert whole.here() == 0
            expected[pipeline] = whole.dataset()
        shop = Shop(folder / name, ROWS, "prepare", pipeline=pipeline)
        assert shop.here("--set", "split.seed=4") == 0
        assert shop.dataset() != expected[pipeline]
        return shop, expected[pipeline]

    return make


def in_use(shop: Shop) -> str:
    return str(json.loads((shop.folder / "lake/shop/current.json").read_text())["dataset"])


@pytest.mark.parametrize("kills", [3, MANY])
def test_killed_at_random_instants_and_before_its_result_is_taken_into_use_it_ends_as_one_never_killed(
    shops: Any, kills: int
) -> None:
    random = dice()
    done = 0
    while done < kills:
        # Read by Arrow and by Spark in turn; a few kills a folder, so that what is left piles up.
        shop, expected = shops(f"killed-{kills}-{done}", (PLAIN, PIPELINE)[done // 3 % 2])
        before = in_use(shop)
        for _ in range(min(3, kills - done)):
            instant = random.uniform(0.2, 7)
            running = shop.kill(lambda seconds, instant=instant: seconds > instant)  # type: ignore[misc]
            done += 1
            print(f"kill {done} of the driver: after {instant:.2f} s, {'running' if running else 'had ended'}")
        if in_use(shop) == before:
            shop.killed_at(r"/current\.json$")
            assert in_use(shop) == before
            assert len(list(shop.folder.glob("lake/shop/datasets/[!.]*"))) == 2
        began = time.monotonic()
        assert shop.finish() == expected
        print(f"finished in {time.monotonic() - began:.1f} s: same dataset")
        assert in_use(shop) != before


@pytest.mark.fault
@pytest.mark.parametrize("at", [r"/manifest\.json$", r"/datasets/\w+$", r"/run\.json$"])
def test_killed_before_any_step_of_publishing_it_ends_as_one_never_killed(shops: Any, at: str) -> None:
    shop, expected = shops(f"killed-at-{at[1:4]}", PLAIN)
    before = in_use(shop)
    shop.killed_at(at)
    print(f"killed before the rename to {at}")
    assert in_use(shop) == before
    assert shop.finish() == expected
