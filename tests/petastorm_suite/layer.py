"""A pytest plugin: Petastorm's own tests see the layer, and the old names that they use themselves.

Their modules are Petastorm's too, so the layer's import hook serves them. What only they need is added here: it is no
part of the layer.
"""

import inspect
from collections import namedtuple

import pandas.testing

import lakefit.petastorm
from lakefit.petastorm import facades

_ArgSpec = namedtuple("_ArgSpec", "args varargs keywords defaults")


def _inspect() -> dict[str, object]:
    # Gone since Python 3.11.
    return {"getargspec": lambda function: _ArgSpec(*inspect.getfullargspec(function)[:4])}


def _pandas_util_testing() -> dict[str, object]:
    return {"assert_frame_equal": pandas.testing.assert_frame_equal}


facades._NAMES["inspect"] = _inspect
facades._NAMES["pandas.util.testing"] = _pandas_util_testing
facades._INVENTED |= {"pandas.util.testing"}
# The suite writes and reads indexes of row groups, and schemas of Petastorm's earliest days.
lakefit.petastorm.trust_pickle = True
