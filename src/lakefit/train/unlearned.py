"""The features and labels of a pipeline before preparation has learned anything: names and kinds, and guessed sizes."""

from lakefit.config import Pipeline
from lakefit.dataset.features import (
    CategoricalFeature,
    Features,
    LabelFeature,
    MultiValuedFeature,
    NumericFeature,
    fixed_features,
)

# Of a vocabulary that may have any size; a model of it is built and thrown away.
GUESSED_SIZE = 10


def unlearned_features(pipeline: Pipeline) -> Features:
    """Return the features as far as the pipeline file tells."""
    section, fixed = pipeline.features, fixed_features(pipeline.features)
    return Features(
        numeric=tuple(
            NumericFeature(name=name, fill=0.0, indicator=f"{name}_missing" if group.indicator else None)
            for group in section.numeric
            for name in group.columns
        ),
        categorical=tuple(
            CategoricalFeature(name=name, vocabulary=_guessed(group.max_size), hash_buckets=group.hash_buckets)
            for group in section.categorical
            for name in group.columns
        ),
        bucketized=fixed.bucketized,
        multi_valued=tuple(
            MultiValuedFeature(
                name=name,
                max_values=group.max_values,
                vocabulary=_guessed(group.max_size),
                counts=(),
                rare=0,
                cut=0,
            )
            for group in section.multi_valued
            for name in group.columns
        ),
        dates=fixed.dates,
        tensors=fixed.tensors,
        images=fixed.images,
    )


def unlearned_labels(pipeline: Pipeline) -> tuple[LabelFeature, ...]:
    """Return the labels as far as the pipeline file tells; without classes where it does not name them."""
    return tuple(
        LabelFeature(
            name=label.name,
            kind=label.type,
            classes=label.classes or (),
            # Somewhere, so that an activation which can't reach it is found.
            offset=1.0 if label.normalize != "none" else 0.0,
            weighted=label.weighted,
        )
        for label in pipeline.label
    )


def _guessed(max_size: int | None) -> tuple[str, ...]:
    return tuple(map(str, range(min(max_size or GUESSED_SIZE, GUESSED_SIZE))))
