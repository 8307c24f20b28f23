"""Weights of a model from a file that holds all of them."""

import warnings

import keras

from lakefit.dataset.object_path import AnyPath
from lakefit.dataset.publish import local_file


def load_all_weights(model: keras.Model, path: AnyPath) -> None:
    """Give a model the weights of a file.

    Raises:
        FileNotFoundError: there is none. OSError, ValueError, KeyError, UserWarning: it is of other layers.
    """
    with warnings.catch_warnings(), local_file(path) as file:
        # Of layers that the file does not have, Keras only warns.
        warnings.simplefilter("error", UserWarning)
        model.load_weights(file)
