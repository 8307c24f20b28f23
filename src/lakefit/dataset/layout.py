"""Where everything lies under `<output.path>/<name>/`."""

from dataclasses import dataclass

from lakefit.config.pipeline import Pipeline
from lakefit.dataset.object_path import AnyPath, any_path

RUN = "run.json"
ROLLED_BACK = "rolled_back"
"""In run.json: when a person took the model back."""
CURRENT = "current.json"
MODEL = "model.keras"
WEIGHTS = "model.weights.h5"
HISTORY = "history.json"
METRICS = "metrics.json"
PREDICTIONS = "predictions"
TENSORBOARD = "tensorboard"
CHECKPOINTS = "checkpoints"
STUDY = "study"
"""What a folder of `studies` has of Optuna's: the journal and the pictures."""
JOURNAL = "journal.log"
TUNED = "tuned.json"
ARTIFACT = "artifact.json"
SAVED_MODEL = "saved_model"
PIPELINE = "pipeline.yaml"
SCORE = "_score.json"
SCORE_LOCK = "_lock"


@dataclass(frozen=True, slots=True)
class Layout:
    """The folders and files of one pipeline's output."""

    root: AnyPath

    @classmethod
    def of(cls, pipeline: Pipeline) -> "Layout":
        return cls(any_path(pipeline.output.path) / pipeline.name)

    def dataset(self, fingerprint: str) -> AnyPath:
        return self.root / "datasets" / fingerprint

    def run(self, fingerprint: str) -> AnyPath:
        return self.root / "runs" / fingerprint

    def study(self, fingerprint: str) -> AnyPath:
        return self.root / "studies" / fingerprint

    def artifact(self, fingerprint: str) -> AnyPath:
        return self.root / "artifacts" / fingerprint

    @property
    def current(self) -> AnyPath:
        return self.root / CURRENT

    @property
    def reading(self) -> AnyPath:
        """What stands for the version of sources that have none, since they were last read."""
        return self.root / "reading.json"

    @property
    def history(self) -> AnyPath:
        """A file a run, which stay when what they tell of is removed."""
        return self.root / "history"

    @property
    def lock(self) -> AnyPath:
        return self.root / "lock"
