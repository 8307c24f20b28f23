"""A packed dataset is the wide one in another form: same rows in the same order, same training."""

import contextlib
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import lakefit
from lakefit.cli import main
from shop import events, write_shop


@pytest.fixture(scope="module")
def lakes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The shop, prepared and trained in both layouts."""
    folder = tmp_path_factory.mktemp("shop")
    pipeline = write_shop(folder)
    lakes = {}
    with contextlib.chdir(folder):
        for layout in ("wide", "packed"):
            settings = [f"output.layout={layout}", f"output.path={layout}", "output.rows_per_group=50"]
            flags = [flag for setting in settings for flag in ("--set", setting)]
            for stage in ("prepare", "train"):
                assert main([stage, str(pipeline), *flags]) == 0
            lakes[layout] = folder / layout / "shop"
    return lakes


def test_both_layouts_hand_out_the_same_batches(lakes: dict[str, Path]) -> None:
    wide, packed = (lakefit.open_dataset(lakes[layout]) for layout in ("wide", "packed"))

    assert (wide.manifest.layout, packed.manifest.layout) == ("wide", "packed")
    assert wide.manifest.fingerprint != packed.manifest.fingerprint
    for split in wide.splits:
        both = [list(dataset.to_numpy(split, batch_size=32, seed=4)) for dataset in (wide, packed)]
        assert len(both[0]) == len(both[1]) > 3
        for one, other in zip(*both, strict=True):
            assert one.keys() == other.keys() == {"numeric", "categorical", "label", "_position"}
            assert all(np.array_equal(one[name], other[name]) for name in one)
        arrow = [list(dataset.to_arrow(split, batch_size=100)) for dataset in (wide, packed)]
        assert arrow[0] == arrow[1]
        assert arrow[0][0].column_names[:2] == list(wide.numeric_columns[:2])


def test_a_packed_file_holds_two_columns_of_values(lakes: dict[str, Path]) -> None:
    dataset = lakefit.open_dataset(lakes["packed"])
    file = pq.ParquetFile(Path(dataset.path) / dataset.manifest.splits["train"].files[0].path)

    assert file.schema_arrow.names == ["_row", "_occurrence", "_position", "numeric", "categorical", "label"]
    assert file.schema_arrow.field("numeric").type.byte_width == 4 * len(dataset.numeric_columns)


def test_training_sees_no_difference(lakes: dict[str, Path]) -> None:
    def history(lake: Path) -> object:
        (path,) = lake.glob("runs/*/history.json")
        return json.loads(path.read_text())

    assert history(lakes["wide"]) == history(lakes["packed"])


def test_inspect_shows_the_columns_of_a_packed_dataset(
    lakes: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    for layout in ("wide", "packed"):
        assert main(["inspect", str(lakes[layout])]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert [line.split()[-1] for line in shown if line.strip().startswith("format")] == ["wide", "packed"]
    assert sum("amount" in line for line in shown) >= 2


def test_plan_says_what_the_feed_takes(lakes: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    pipeline = str(lakes["wide"].parents[1] / "shop.yaml")
    where = ["--set", f"output.path={lakes['wide'].parent}"]
    capsys.readouterr()

    assert main(["plan", pipeline, *where, "--workers", "3", "--batch-size", "100", "--json"]) == 0
    *warnings, result = events(capsys.readouterr().out)
    rows = lakefit.open_dataset(lakes["wide"]).manifest.splits["train"].rows
    assert (result["rows"], result["steps"], result["remainder"]) == (rows, -(-rows // 100), rows % 100)
    assert len(result["row_groups_per_worker"]) == 3
    assert any("Every worker reads more row groups" in warning["message"] for warning in warnings)

    assert main(["plan", pipeline, *where]) == 0
    shown = capsys.readouterr().out
    for part in ("steps an epoch", "memory a worker", "MB/s a worker, at 1,000,000 rows/s"):
        assert part in shown

    assert main(["plan", pipeline, *where, "--workers", "65"]) == 2
    assert "A batch of 64 rows can't be shared by 65 workers" in capsys.readouterr().err
    assert main(["plan", pipeline, "--set", "output.path=nowhere"]) == 2


def test_a_remainder_that_leaves_no_batch_is_refused_before_training(
    lakes: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    pipeline = lakes["wide"].parents[1] / "shop.yaml"
    with contextlib.chdir(pipeline.parent):
        given = ["output.path=wide", "output.rows_per_group=50", "train.feed.remainder=drop"]
        given += ["train.fit.batch_size=50000", "output.layout=wide"]
        flags = [flag for setting in given for flag in ("--set", setting)]
        assert main(["train", str(pipeline), *flags]) == 2
    said = capsys.readouterr().err
    assert "train.feed.remainder" in said
    assert "fewer than a batch of 50,000" in said
