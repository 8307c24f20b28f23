"""Petastorm 0.13 on today's pyarrow, numpy and pandas, without changing any of them.

Petastorm 0.13.1 uses names that pyarrow 15 and numpy 2 took away, and uses them while it is being imported. `install`
puts an import hook before it: Petastorm's modules, and no others, see *facades* of pyarrow and numpy that still have
the old names, and a few of its functions are mended after import.

    hook.py            finds Petastorm's modules and gives each its own `__import__`
    facades.py         what that `__import__` hands out
    legacy_parquet.py  the part of pyarrow's old ParquetDataset that Petastorm uses
    mends.py           what is changed in Petastorm itself, by module
"""

from lakefit.feed.petastorm_compat.hook import install

__all__ = ["install"]
