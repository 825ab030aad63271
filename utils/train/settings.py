"""`TrainConfig`: the settings of a training."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TrainConfig:
    """The settings of a training. The defaults are ours, chosen by validation on held-out subjects."""

    mode: str = "multi-label"  # sigmoids and thresholds; or "single-label": softmax and arg max
    epochs: int = 40
    patience: int = 15  # stop after so many epochs without improvement; 0: run all epochs and keep the last
    stop_by: str = "loss"  # what must improve on the validation clips; or, for single labels, "accuracy"
    batch: int = 32  # clips
    lr: float = 2e-3
    weight_decay: float = 1e-2  # of AdamW; with 0 it is Adam
    schedule: str = "cosine"  # after a warm-up over a tenth of the steps; or "constant" without warm-up
    loss: str = "focal"  # or "bce": cross-entropy without class weights
    gamma: float = 2.0
    mirror: float = 0.5  # probability of a mirrored clip
    rotate: float = 8.0  # degrees, uniform within +-
    zoom: float = 0.08  # relative, uniform within +-
    shift: float = 0.04  # of the map's side, uniform within +-
    gain: float = 0.2  # standard deviation of the log of a factor on the flow of the clip
    mixup: float = 0.4  # a of Beta(a, a); 0: no mixup
    mirror_average: bool = True  # average the predictions of a clip and its mirror image
    interpolation: float = 1.0  # share of the trained weights in their mean with the initial weights, if there are any
    unit_weight: float = 1.0  # factor of the auxiliary action unit loss
    device: str = "auto"  # "cuda" if available, else "cpu"
    precision: str = "auto"  # "bfloat16" on a CUDA device that supports it, else "float32"

    def __post_init__(self) -> None:
        for name, allowed in (
            ("mode", ("multi-label", "single-label")),
            ("schedule", ("cosine", "constant")),
            ("loss", ("focal", "bce")),
            ("precision", ("auto", "float32", "bfloat16")),
            ("stop_by", ("loss", "accuracy") if self.mode == "single-label" else ("loss",)),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} is {getattr(self, name)!r}. Remedy: one of {allowed}.")
        if not 0 <= self.interpolation <= 1:
            raise ValueError(f"interpolation is {self.interpolation}. Remedy: 0 (initial weights) to 1 (trained).")
