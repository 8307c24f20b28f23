"""A model that begins with an exported one's weights: embeddings go with the values, and all else must be the same."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lakefit.config import ConfigError
from lakefit.dataset.features import CategoricalFeature, Features, LabelFeature, NumericFeature
from lakefit.train.model import BuiltModel
from lakefit.train.warm_start import warm_start
from models import SIGMOID, SOURCE, build, train

MODEL = {"sequential": [{"Dense": {"units": 3}}, SIGMOID]}


def features(vocabulary: str = "abc", numbers: str = "xy", embedding: str = "city") -> Features:
    return Features(
        numeric=tuple(NumericFeature(name=name, fill=0.0) for name in numbers),
        categorical=(
            CategoricalFeature(name=embedding, vocabulary=tuple(vocabulary), counts=(1,) * len(vocabulary), rare=0),
        ),
    )


def artifact(folder: Path, of: Features, model: Any = MODEL, **label: Any) -> BuiltModel:
    """Write what an export holds of a model with random weights."""
    label_feature = LabelFeature(**label)
    built = build(of, label_feature, model=model)
    built.model.optimizer = None  # as a training's end leaves it
    built.model.save_weights(folder / "model.weights.h5")
    content = {"features": of.model_dump(mode="json"), "labels": [label_feature.model_dump(mode="json")]}
    (folder / "artifact.json").write_text(json.dumps({"fingerprint": "1", **content}), encoding="utf-8")
    return built


def embedding(built: BuiltModel) -> dict[str, Any]:
    """Return the vector of each value."""
    table = np.asarray(built.model.get_layer("lakefit_embedding_0").embeddings)
    words = built.description.vocabulary("city")
    return {"missing": table[0], "unknown": table[1], **dict(zip(words, table[2:], strict=True))}


def test_a_category_keeps_its_vector_wherever_it_stands_in_the_new_vocabulary(tmp_path: Path) -> None:
    before = artifact(tmp_path, features("abc"))
    after = build(features("cdab"), model=MODEL)
    first = embedding(after)
    # Four values take 3 dimensions, as three do.
    assert warm_start(after, train(model=MODEL, warm_start=str(tmp_path)), SOURCE) == 1
    old, new = embedding(before), embedding(after)
    assert all(np.array_equal(new[value], old[value]) for value in ("missing", "unknown", "a", "b", "c"))
    assert np.array_equal(new["d"], first["d"])
    for left, right in zip(before.model.weights[1:], after.model.weights[1:], strict=True):
        assert np.array_equal(np.asarray(left), np.asarray(right))


@pytest.mark.parametrize(
    ("now", "changes", "said"),
    [
        (features(numbers="xz"), {}, "is of other numeric columns: there x, y; here x, z"),
        (features(embedding="town"), {}, "is of other categorical columns: there city; here town"),
        (features(), {"model": {"sequential": [{"Dense": {"units": 4}}, SIGMOID]}}, "the weights do not fit the model"),
        (features(), {"model": {"sequential": [SIGMOID]}}, "the weights do not fit the model: "),
        (
            features("abcdefgh"),
            {},
            "(features.categorical's embedding: N fixes the dimensions): there (5, 3); here (10, 4)",
        ),
    ],
)  # fmt: skip
def test_an_artifact_of_something_else_is_refused_and_both_are_shown(
    tmp_path: Path, now: Features, changes: dict[str, Any], said: str
) -> None:
    artifact(tmp_path, features())
    section = {"model": MODEL, **changes}
    with pytest.raises(ConfigError, match=re.escape(said)):
        warm_start(build(now, **section), train(**section, warm_start=str(tmp_path)), SOURCE)


def test_other_labels_are_refused(tmp_path: Path) -> None:
    artifact(tmp_path, features(), name="late")
    with pytest.raises(ConfigError, match=r"is of other labels: there late \(binary.*\); here label \(binary.*\)"):
        warm_start(build(features(), model=MODEL), train(model=MODEL, warm_start=str(tmp_path)), SOURCE)


def test_an_embedding_of_the_models_own_is_refused_where_vocabularies_differ(tmp_path: Path) -> None:
    layers = {
        "place": {"inputs": "city", "layer": {"Embedding": {"input_dim": 9, "output_dim": 2}}},
        "flat": {"layer": "Flatten"},
        "out": {"layer": SIGMOID},
    }
    own = {"functional": {"layers": layers}}
    before = artifact(tmp_path, features("abc"), own)
    section = {"model": own, "warm_start": str(tmp_path)}
    same = build(features("abc"), model=own)
    assert warm_start(same, train(**section), SOURCE) == 0
    assert all(
        np.array_equal(np.asarray(a), np.asarray(b))
        for a, b in zip(same.model.weights, before.model.weights, strict=True)
    )
    with pytest.raises(
        ConfigError, match="the vocabularies differ, and an Embedding of the model's own can't be moved"
    ):
        warm_start(build(features("acb"), model=own), train(**section), SOURCE)


@pytest.mark.parametrize("missing", ["artifact.json", "model.weights.h5"])
def test_what_is_no_artifact_is_refused(tmp_path: Path, missing: str) -> None:
    artifact(tmp_path, features())
    (tmp_path / missing).unlink()
    with pytest.raises(ConfigError, match=f"is no artifact of `lakefit export`: there is no {missing} in it"):
        warm_start(build(features(), model=MODEL), train(model=MODEL, warm_start=str(tmp_path)), SOURCE)
