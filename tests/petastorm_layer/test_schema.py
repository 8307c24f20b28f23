"""A Unischema travels as JSON; a pickle is read only where the user vouches for it, and then no code runs."""

import io
import json
import os
import pickle
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import lakefit.petastorm
from lakefit.errors import InputError
from lakefit.petastorm import legacy_parquet, schema


@pytest.fixture
def unischema(petastorm: Any) -> Any:
    from petastorm import codecs
    from petastorm.unischema import Unischema, UnischemaField
    from pyspark.sql.types import DecimalType, LongType, StringType

    return Unischema(
        "Everything",
        [
            UnischemaField("id", np.int64, (), codecs.ScalarCodec(LongType()), False),
            UnischemaField("name", np.str_, (), codecs.ScalarCodec(StringType()), True),
            UnischemaField("price", Decimal, (), codecs.ScalarCodec(DecimalType(12, 3)), True),
            UnischemaField("flag", np.bool_, (), None, False),
            UnischemaField("when", np.datetime64, (), None, True),
            UnischemaField("matrix", np.float32, (None, 3), codecs.NdarrayCodec(), False),
            UnischemaField("packed", np.uint16, (2,), codecs.CompressedNdarrayCodec(), False),
        ],
    )


def described(found: Any) -> list[tuple[Any, ...]]:
    return [(*tuple(f)[:3], str(f.codec), f.nullable) for f in found.fields.values()]


def stored(folder: Path, metadata: dict[bytes, bytes]) -> legacy_parquet.ParquetDataset:
    pq.write_table(pa.table({"id": [1]}), folder / "part-0.parquet")
    pq.write_metadata(pa.schema([("id", pa.int64())]).with_metadata(metadata), folder / "_common_metadata")
    return legacy_parquet.ParquetDataset(str(folder))


def test_json_holds_all_that_the_pickle_does(unischema: Any) -> None:
    pickled = pickle.dumps(unischema)

    text = schema.to_json(unischema, pickled)

    found = schema.from_json(text.encode(), pickled)
    assert described(found) == described(unischema)
    assert found._name == "Everything"
    assert "pyspark" not in text


def test_what_is_written_is_both_and_the_json_is_read(petastorm: Any, unischema: Any, tmp_path: Path) -> None:
    from petastorm.etl import dataset_metadata

    pq.write_table(pa.table({"id": [1]}), tmp_path / "part-0.parquet")
    dataset_metadata._generate_unischema_metadata(legacy_parquet.ParquetDataset(str(tmp_path)), unischema)

    dataset = legacy_parquet.ParquetDataset(str(tmp_path))
    assert {schema.KEY, dataset_metadata.UNISCHEMA_KEY} <= set(dataset.common_metadata.metadata)
    assert not lakefit.petastorm.trust_pickle
    assert described(dataset_metadata.get_schema(dataset)) == described(unischema)


def test_a_pickle_alone_is_refused_unless_it_is_trusted(
    petastorm: Any, unischema: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from petastorm.etl import dataset_metadata

    dataset = stored(tmp_path, {dataset_metadata.UNISCHEMA_KEY: pickle.dumps(unischema)})

    with pytest.raises(InputError, match=r"lakefit\.petastorm\.trust_pickle = True"):
        dataset_metadata.get_schema(dataset)
    monkeypatch.setattr(lakefit.petastorm, "trust_pickle", True)
    assert described(dataset_metadata.get_schema(dataset)) == described(unischema)


def test_json_of_another_pickle_does_not_count(petastorm: Any, unischema: Any, tmp_path: Path) -> None:
    """A Petastorm without the layer has written a new schema and left ours."""
    from petastorm.etl import dataset_metadata

    text = schema.to_json(unischema, b"an older pickle").encode()
    dataset = stored(tmp_path, {schema.KEY: text, dataset_metadata.UNISCHEMA_KEY: pickle.dumps(unischema)})

    with pytest.raises(InputError, match="trust_pickle"):
        dataset_metadata.get_schema(dataset)


class _Runs:
    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        (eval, ("open('{mark}', 'w')",)),
        (exec, ("open('{mark}', 'w')",)),
        (os.system, ("touch {mark}",)),
        (open, ("{mark}", "w")),
        (np.memmap, ("{mark}", "uint8", "w+", 0, 1)),
        (np.save, ("{mark}", 1)),
        (getattr, (np, "save")),
        (__import__, ("os",)),
        (type, ("X", (), {})),
        (Path, ("{mark}",)),
    ],
)
def test_a_trusted_pickle_runs_nothing(
    petastorm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: Any, arguments: Any
) -> None:
    from petastorm.etl import dataset_metadata

    monkeypatch.setattr(lakefit.petastorm, "trust_pickle", True)
    mark = tmp_path / "mark"
    arguments = [a.format(mark=mark) if isinstance(a, str) else a for a in arguments]
    try:
        harmful = pickle.dumps(_Runs(function, *arguments))
    except TypeError:  # a module as an argument
        harmful = pickle.dumps(_Runs(function, "x", "y"))
    dataset = stored(tmp_path, {dataset_metadata.UNISCHEMA_KEY: harmful})

    with pytest.raises(pickle.UnpicklingError, match="is forbidden"):
        dataset_metadata.get_schema(dataset)
    assert not mark.exists()


@pytest.mark.parametrize(
    "name", ["ctypes._types.CodeType", "ctypes._types.FunctionType", "_parse_datatype_string", "Row"]
)
def test_of_sparks_types_only_types_are_let_in(petastorm: Any, name: str) -> None:
    pickled = b"\x80\x04" + b"".join(
        b"\x8c" + bytes([len(part)]) + part for part in (b"pyspark.sql.types", name.encode())
    )

    with pytest.raises((pickle.UnpicklingError, AttributeError), match=r"is forbidden|has no attribute"):
        schema._Unpickler(io.BytesIO(pickled + b"\x93.")).load()


def test_a_dtype_stands_for_its_type(petastorm: Any) -> None:
    assert schema._dtype_name(np.dtype("int32")) == schema._dtype_name(np.int32) == "numpy.int32"
    assert schema._dtype_name(str) == "str"


def test_names_of_old_numpy_and_python_are_still_read(petastorm: Any) -> None:
    old = b"cnumpy\nunicode_\n."
    assert schema._Unpickler(io.BytesIO(old)).load() is np.str_
    assert schema._Unpickler(io.BytesIO(b"c__builtin__\nlong\n.")).load() is int


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content["fields"][0].update(numpy_dtype="numpy.memmap"),
        lambda content: content["fields"][0].update(numpy_dtype="numpy.save"),
        lambda content: content["fields"][0].update(codec={"class": "DataframeColumnCodec"}),
        lambda content: content["fields"][0].update(codec={"class": "NdarrayCodec", "evil": 1}),
        lambda content: content["fields"][0].pop("shape"),
        lambda content: content.update(fields=[1]),
    ],
)
def test_damaged_json_is_said_to_be_so(petastorm: Any, unischema: Any, change: Any) -> None:
    content = json.loads(schema.to_json(unischema, b""))
    change(content)

    with pytest.raises(InputError, match=r"lakefit\.unischema\.v1 in _common_metadata can't be read"):
        schema.from_json(json.dumps(content).encode(), b"")


def test_a_codec_of_the_users_own_is_stored_as_a_pickle_alone(petastorm: Any, tmp_path: Path) -> None:
    from petastorm.codecs import DataframeColumnCodec
    from petastorm.etl import dataset_metadata
    from petastorm.unischema import Unischema, UnischemaField

    own = type("Own", (DataframeColumnCodec,), {})
    globals()["Own"] = own
    pq.write_table(pa.table({"id": [1]}), tmp_path / "part-0.parquet")
    dataset = legacy_parquet.ParquetDataset(str(tmp_path))

    with pytest.warns(UserWarning, match=r"as a pickle alone: it has a field with the codec Own"):
        dataset_metadata._generate_unischema_metadata(
            dataset, Unischema("Custom", [UnischemaField("id", np.int64, (), own(), False)])
        )
