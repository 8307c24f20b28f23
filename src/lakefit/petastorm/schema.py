"""Unischema as JSON beside Petastorm's pickle, and pickles that are read only where the user vouches for them.

Petastorm keeps a Unischema, and the index of row groups, as pickles inside `_common_metadata`: whoever can write that
file runs code where it is read. `materialize_dataset` writes the same schema as JSON too (`KEY`), which is read first.
A dataset with the pickle alone needs `lakefit.petastorm.trust_pickle = True`; even then only the classes that such
pickles are made of are let in (Petastorm's own RestrictedUnpickler admits all of `builtins`, `eval` too).
"""

import hashlib
import io
import json
import pickle
import sys
import warnings
from decimal import Decimal
from typing import Any

import numpy as np

from lakefit.errors import InputError

KEY = b"lakefit.unischema.v1"
"""The key in the metadata of `_common_metadata` under which the JSON stands."""
_PETASTORM_KEY = b"dataset-toolkit.unischema.v1"

# The classes whose instances such pickles are made of. They do nothing when they are made.
_CLASSES = {
    "petastorm.unischema": {"Unischema", "UnischemaField"},
    "petastorm.codecs": {"CompressedImageCodec", "NdarrayCodec", "CompressedNdarrayCodec", "ScalarCodec"},
    "petastorm.etl.rowgroup_indexers": {"SingleFieldIndexer", "FieldNotNullIndexer"},
    "collections": {"OrderedDict", "defaultdict"},
    "decimal": {"Decimal"},
    "builtins": {
        t.__name__ for t in (object, set, frozenset, list, dict, tuple, int, float, complex, str, bytes, bool)
    },
    "copyreg": {"_reconstructor"},
}
_PLAIN_TYPES = {"decimal.Decimal": Decimal, "str": str, "bytes": bytes, "int": int, "float": float, "bool": bool}
_OLD_MODULES = {"__builtin__": "builtins", "copy_reg": "copyreg", "numpy.core.multiarray": "numpy._core.multiarray"}
_OLD_NAMES = {"unicode": "str", "long": "int", "unicode_": "str_", "string_": "bytes_", "float_": "float64"}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        module, name = _OLD_MODULES.get(module, module), _OLD_NAMES.get(name, name)
        if "." in name:
            # A dotted name leads anywhere: pyspark.sql.types imports ctypes.
            raise pickle.UnpicklingError(f"global '{module}.{name}' is forbidden")
        if name in _CLASSES.get(module, ()):
            return super().find_class(module, name)
        if module == "numpy" and isinstance(found := getattr(np, name, None), type):
            if issubclass(found, (np.generic, np.dtype)):
                return found
        elif (module, name) == ("numpy._core.multiarray", "scalar"):
            return super().find_class(module, name)
        elif module == "pyspark.sql.types":
            from pyspark.sql.types import DataType

            of_spark = super().find_class(module, name)
            if isinstance(of_spark, type) and issubclass(of_spark, DataType):
                return of_spark
        elif (module, name) == ("pyspark.serializers", "_restore"):
            # Old PySpark pickled every namedtuple in this way.
            return _restored_namedtuple
        raise pickle.UnpicklingError(f"global '{module}.{name}' is forbidden")


def _restored_namedtuple(name: str, fields: Any, values: Any) -> Any:
    from petastorm.unischema import UnischemaField

    if name != "UnischemaField":
        raise pickle.UnpicklingError(f"namedtuple {name!r} is forbidden")
    return UnischemaField(**dict(zip(fields, values, strict=True)))


def legacy(module: Any) -> None:
    """Mend petastorm.etl.legacy, through which all of Petastorm's pickles of metadata are read."""
    loads = module.depickle_legacy_package_name_compatible

    def restricted_loads(pickled: bytes) -> Any:
        return _Unpickler(io.BytesIO(pickled)).load()

    def depickle_legacy_package_name_compatible(pickled_string: bytes) -> Any:
        if not sys.modules["lakefit.petastorm"].trust_pickle:
            raise InputError(
                "A Unischema or an index of row groups is there as a pickle alone, which may run any code. If you "
                "trust whoever can write the dataset's _common_metadata, set `lakefit.petastorm.trust_pickle = True` "
                "before you open it, or have the schema added as JSON, once: python -m lakefit.petastorm "
                "--trust-pickle petastorm-generate-metadata.py --dataset_url URL"
            )
        return loads(pickled_string)

    module.restricted_loads = restricted_loads
    module.depickle_legacy_package_name_compatible = depickle_legacy_package_name_compatible


def dataset_metadata(module: Any) -> None:
    """Mend petastorm.etl.dataset_metadata, which writes and reads the Unischema of a dataset."""
    get_schema, generate = module.get_schema, module._generate_unischema_metadata

    def with_json(dataset: Any, schema: Any) -> None:
        generate(dataset, schema)
        try:
            described = to_json(schema, module.pickle.dumps(schema))
        except ValueError as error:
            warnings.warn(f"The Unischema is stored as a pickle alone: {error}.", stacklevel=2)
        else:
            module.utils.add_to_dataset_metadata(dataset, KEY, described)

    def json_first(dataset: Any) -> Any:
        stored = dataset.common_metadata.metadata or {} if dataset.common_metadata else {}
        if KEY in stored:
            schema = from_json(stored[KEY], stored.get(_PETASTORM_KEY, b""))
            if schema is not None:
                return schema
        return get_schema(dataset)

    module._generate_unischema_metadata = with_json
    module.get_schema = json_first


def to_json(schema: Any, pickled: bytes) -> str:
    """Return a petastorm.unischema.Unischema as JSON, with the checksum of the pickle beside which it stands.

    Raises:
        ValueError: a field's type or codec is none of Petastorm's own.
    """
    fields = [
        {
            "name": field.name,
            "numpy_dtype": _dtype_name(field.numpy_dtype),
            "shape": list(field.shape),
            "codec": _described(field.codec),
            "nullable": bool(field.nullable),
        }
        for field in schema.fields.values()
    ]
    return json.dumps({"name": schema._name, "fields": fields, "pickle": hashlib.sha256(pickled).hexdigest()})


def from_json(described: bytes, pickled: bytes) -> Any:
    """Return the Unischema of `to_json`; None where the pickle beside it is another than it was.

    Raises:
        InputError: it is damaged.
    """
    from petastorm.unischema import Unischema, UnischemaField

    try:
        content = json.loads(described)
        if content["pickle"] != hashlib.sha256(pickled).hexdigest():
            return None
        fields = [
            UnischemaField(
                str(field["name"]),
                _dtype(field["numpy_dtype"]),
                tuple(field["shape"]),
                _codec(field["codec"]),
                bool(field["nullable"]),
            )
            for field in content["fields"]
        ]
        if unknown := [field.name for field in fields if field.numpy_dtype is None]:
            raise ValueError(f"the type of {unknown[0]!r} is none of a field's")
        return Unischema(str(content["name"]), fields)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise InputError(
            f"The Unischema under {KEY.decode()} in _common_metadata can't be read ({reason}): write the dataset's "
            "metadata again."
        ) from error


def _dtype_name(dtype: Any) -> str:
    of_type = dtype.type if isinstance(dtype, np.dtype) else dtype
    for name in (*_PLAIN_TYPES, f"numpy.{getattr(of_type, '__name__', '')}"):
        if _dtype(name) is of_type:
            return name
    raise ValueError(f"it has a field of type {dtype!r}")


def _dtype(name: str) -> Any:
    """Return the type of a name; None where it is no type of a field."""
    if name in _PLAIN_TYPES:
        return _PLAIN_TYPES[name]
    # Not by getattr: numpy warns of names that it no longer has.
    found = vars(np).get(name.removeprefix("numpy."))
    return found if isinstance(found, type) and issubclass(found, np.generic) else None


def _described(codec: Any) -> dict[str, Any] | None:
    from petastorm import codecs

    if codec is None:
        return None
    if type(codec) is codecs.ScalarCodec:
        return {"class": "ScalarCodec", "spark_type": codec.spark_dtype().json()}
    if type(codec) is codecs.CompressedImageCodec:
        return {"class": "CompressedImageCodec", "image_codec": codec.image_codec, "quality": codec._quality}
    if type(codec) in (codecs.NdarrayCodec, codecs.CompressedNdarrayCodec):
        return {"class": type(codec).__name__}
    raise ValueError(f"it has a field with the codec {type(codec).__name__}")


def _codec(described: dict[str, Any] | None) -> Any:
    from petastorm import codecs

    if described is None:
        return None
    options = {key: value for key, value in described.items() if key != "class"}
    if described["class"] == "ScalarCodec":
        from pyspark.sql.types import _parse_datatype_json_string

        options = {"spark_type": _parse_datatype_json_string(options["spark_type"])}
    if described["class"] not in _CLASSES["petastorm.codecs"]:
        raise ValueError(f"the codec {described['class']!r} is none of Petastorm's")
    return getattr(codecs, described["class"])(**options)
