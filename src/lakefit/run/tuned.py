"""What a study has found for a pipeline file, which every run of it uses from then on."""

from typing import Any

from lakefit.config import Pipeline, PipelineSource, load_pipeline
from lakefit.console import Console
from lakefit.dataset.fingerprint import fingerprint
from lakefit.dataset.layout import TUNED, Layout
from lakefit.dataset.object_path import AnyPath
from lakefit.dataset.publish import read_json


def tuned_of(pipeline: Pipeline) -> str:
    """Return the fingerprint of the settings that a study has searched from: of `train` as the file has it, and of what
    `tune` searches for. Whatever the dataset: a study of yesterday's rows is used for today's."""
    assert pipeline.tune is not None
    tune = pipeline.tune.model_dump(mode="json", include={"search", "objective", "mode"})
    return fingerprint({"train": pipeline.train.model_dump(mode="json", by_alias=True), "tune": tune})


def load_tuned(
    path: "str | AnyPath", overrides: tuple[str, ...]
) -> tuple[Pipeline, PipelineSource, tuple[str, ...], dict[str, Any] | None]:
    """Return a pipeline file as `load_pipeline` does, with the values that its study has found, all that was set, and
    what `tuned.json` says of the study, with `used`: false where that is of other settings; None where there is none.

    Raises:
        ConfigError: as `load_pipeline`.
    """
    pipeline, source = load_pipeline(path, overrides)
    found = read_json(Layout.of(pipeline).root / TUNED) if pipeline.tune is not None else None
    if found is None:
        return pipeline, source, overrides, None
    if found.get("of") != tuned_of(pipeline):
        return pipeline, source, overrides, {**found, "used": False}
    overrides = (*overrides, *found["overrides"])
    return *load_pipeline(path, overrides), overrides, {**found, "used": True}


def say_tuned(tuned: dict[str, Any] | None, console: Console) -> None:
    """Say that training uses the values that a study has found, or that these are of other settings."""
    if tuned is None:
        return
    if not tuned["used"]:
        text = f"{TUNED} is of other settings of train or tune, and not used: `lakefit tune` makes one of these"
        console.event("warning", text)
        return
    text = (
        f"train uses what a study has found ({TUNED}): trial {tuned['trial']}, with {tuned['value']:.6g} on dataset "
        f"{tuned['dataset']}: {' '.join(tuned['overrides'])}"
    )
    console.event("tuned", text, **tuned)
