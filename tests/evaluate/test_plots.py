"""Pictures of predictions: what is counted in them, and one that can be read for every kind of label."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from lakefit.dataset.features import LabelFeature
from lakefit.evaluate.plots import calibration, counts_of_confusion, write_plots
from lakefit.evaluate.rows import SplitRows


def test_a_confusion_matrix_counts_true_classes_down_and_chosen_ones_across() -> None:
    counts = counts_of_confusion(np.array([0, 0, 2, 2, 2]), np.array([0, 1, 2, 2, 0]), 3)
    assert counts.tolist() == [[1, 1, 0], [0, 0, 0], [1, 0, 2]]


def test_calibration_is_of_tenths_that_have_rows() -> None:
    # 1 is no tenth of its own.
    probability = np.array([0.0, 0.05, 0.61, 0.69, 0.95, 1.0])
    mean, share, rows = calibration(np.array([0, 1, 1, 1, 0, 1]), probability)
    np.testing.assert_allclose(mean, [0.025, 0.65, 0.975])
    np.testing.assert_allclose(share, [0.5, 1.0, 0.5])
    assert rows.tolist() == [2, 2, 2]


DICE = np.random.default_rng(1)


@pytest.mark.parametrize(
    ("label", "truth", "predicted", "names"),
    [
        (LabelFeature(), DICE.integers(0, 2, 50), DICE.random(50), {"confusion_matrix", "calibration"}),
        (
            LabelFeature(name="kind", kind="classes", classes=("a", "b", "c")),
            DICE.integers(0, 3, 50),
            DICE.dirichlet([1, 1, 1], 50),
            {"confusion_matrix", "calibration"},
        ),
        (
            LabelFeature(name="kinds", kind="multi_label", classes=("a", "b")),
            DICE.integers(0, 2, (50, 2)),
            DICE.random((50, 2)),
            {"calibration"},
        ),
        (
            LabelFeature(name="y", kind="regression"),
            DICE.normal(size=50),
            DICE.normal(size=50),
            {"predicted_against_true"},
        ),
    ],
)  # fmt: skip
def test_images_are_written_in_place_of_older_ones(
    tmp_path: Path, label: LabelFeature, truth: Any, predicted: Any, names: set[str]
) -> None:
    for _ in range(2):
        write_plots(tmp_path / "evaluation", [label], SplitRows({}, {label.name: truth}, 50), {label.name: predicted})
    (file,) = (tmp_path / "evaluation").iterdir()
    found = {}
    for event in tf.compat.v1.train.summary_iterator(str(file)):
        for value in event.summary.value:
            found[value.tag] = tf.io.decode_image(value.tensor.string_val[2]).numpy()
    assert set(found) == names
    for image in found.values():
        assert image.shape == (600, 600, 3)
        assert len(np.unique(image.reshape(-1, 3), axis=0)) > 10
