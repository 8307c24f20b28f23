"""Petastorm 0.13.1 on today's pyarrow, numpy, pandas and Spark: `import lakefit.petastorm` before `import petastorm`.

Petastorm uses names that pyarrow 15 and numpy 2 took away, and uses them while it is being imported. This package puts
an import hook before it: Petastorm's modules, and no others, see *facades* of pyarrow and numpy that still have the old
names, and what Petastorm itself does wrong is mended module by module. docs/petastorm.md lists it all.

    hook.py            finds Petastorm's modules and gives each its own `__import__`
    facades.py         what that `__import__` hands out
    file_systems.py    file systems by the names that Petastorm has for them
    legacy_parquet.py  pyarrow's old ParquetDataset, on today's pyarrow
    mends.py           which mend belongs to which module
    pools.py           pools that lose no rows and deliver in the order of the plan
    order.py           orders of row groups and rows that depend on seed and epoch alone
    processes.py       the layer in pool workers and on Spark's executors
    schema.py          Unischema as JSON, and pickles that nobody vouches for
"""

from lakefit.petastorm.hook import install

trust_pickle = False
"""Set to True to read a Unischema or an index of row groups that is there as a pickle alone (schema.py)."""

install()

__all__ = ["install", "trust_pickle"]
