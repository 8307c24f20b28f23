"""A pytest plugin for the old stack: names that Petastorm's tests use and that Python and pandas there lack too."""

import inspect
import sys
from collections import namedtuple

import pandas.testing

_ArgSpec = namedtuple("_ArgSpec", "args varargs keywords defaults")

inspect.getargspec = lambda function: _ArgSpec(*inspect.getfullargspec(function)[:4])  # type: ignore[attr-defined]
sys.modules["pandas.util.testing"] = pandas.testing
