"""What is wrong with a training, in plain words, with the likely cause. Checked between blocks of steps and epochs."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

from lakefit.train.probe import Findings

_RISING = 3
"""Epochs in a row in which the validation's loss rises and the training's falls."""


def diverged(loss: float, where: str) -> str:
    """Return what to say where the loss is not a number, or infinite."""
    return (
        f"The loss is {loss} {where}: training has diverged. Lower train.compile.optimizer's learning_rate, clip the "
        "gradients (clipnorm: 1.0), or look for extreme values in the numeric features (features.numeric of the "
        "dataset's manifest has their range). Nothing was exported."
    )


def unhealthy(
    history: Mapping[str, Sequence[float]], findings: Findings, gradient_norms: Sequence[float]
) -> dict[str, str]:
    """Return what does not look well after an epoch: a name and a sentence for each.

    history: all epochs' losses and metrics. gradient_norms: of the epochs before.
    """
    said: dict[str, str] = {}
    losses, held_out = history.get("loss", ()), history.get("val_loss", ())
    if len(losses) > 1 and abs(losses[-1] - losses[-2]) <= 1e-5 * abs(losses[-2]):
        said["loss_stands"] = (
            f"the loss has not moved in this epoch ({losses[-2]:.6g}, {losses[-1]:.6g}): the learning rate is too low, "
            "or so high that units have died, or the features say nothing about the label"
        )
    if findings.spread <= 1e-6:
        said["constant_predictions"] = (
            "the model predicts the same for every row: it has learned the label's mean and nothing else; the learning "
            "rate may be too high, or the features constant (`lakefit inspect` shows them)"
        )
    if findings.dead is not None and findings.dead > 0.5:
        said["dead_units"] = (
            f"{findings.dead:.0%} of the units behind a ReLU give 0 for every row of a batch and learn nothing more: "
            "lower the learning rate, or take LeakyReLU or another initializer"
        )
    usual = sorted(gradient_norms)[len(gradient_norms) // 2] if gradient_norms else None
    length = findings.gradient_norm or 0.0
    if length > (1e3 if usual is None else max(10.0, 100 * usual)):
        said["exploding_gradients"] = (
            f"the gradient's length is {length:.3g}"
            + (f", and was {usual:.3g}" if usual is not None else "")
            + ": clip it (clipnorm: 1.0 in train.compile.optimizer), or lower the learning rate"
        )
    last = [(a, b) for a, b in zip(losses, held_out, strict=False)][-_RISING - 1 :]
    if len(last) > _RISING and all(after[0] < before[0] and after[1] > before[1] for before, after in pairwise(last)):
        said["overfitting"] = (
            f"the validation's loss has risen for {_RISING} epochs ({last[0][1]:.4f} to {last[-1][1]:.4f}) while the "
            "training's fell: the model learns the training rows by heart; stop early ({EarlyStopping: "
            "{restore_best_weights: true}}), add Dropout, or make it smaller"
        )
    return said
