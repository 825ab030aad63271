"""All parameters of a run in one frozen record, and the profiles that give them values.

A profile is a complete set of values; `load_config(profile, name=value)` overrides single ones. A name that
does not exist, a value of another type or out of its range is an error, since papermill itself only warns of a
misspelt parameter.
"""

import math
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from utils.paths import ROOT

# Axes of meshes, see `utils.render.axes`; "auto": y-up where that shows a face, else those that do.
AXIS_NAMES = ("y-up", "z-up", "z-up-back", "camera", "back", "x-front", "x-back", "z-up-x", "y-down", "z-down")
# What a parameter may be, where that is one of a few words.
CHOICES: dict[str, tuple[str, ...]] = {
    "clip_table": ("4dme", "smoke"),
    "expressions": ("literature", "emfacs"),
    "views": ("render", "split", "single"),
    "axes": ("auto", *AXIS_NAMES),
    "renderer": ("auto", "egl", "osmesa", "embree"),
    "flow_method": ("faceflow", "farneback", "dis", "tvl1", "deepflow"),
    "apex_method": ("faceflow", "farneback", "dis", "tvl1", "deepflow"),
    "moments": ("spotted", "found", "given"),
}
# The least and the largest value of a number.
RANGES: dict[str, tuple[float, float]] = {
    "seed": (0, 2**31 - 1),
    "data_seed": (0, 2**31 - 1),
    "jobs": (1, math.inf),
    "n_subjects": (3, math.inf),
    "n_test_subjects": (1, math.inf),
    "yaw_deg": (0, 80),
    "size": (32, 4096),
    "apex_size": (32, 4096),
    "feature_size": (8, 512),
    "inner_folds": (2, math.inf),
    "seeds": (1, math.inf),
    "ablation_seeds": (1, math.inf),
    "epochs": (0, math.inf),
}
PLACES = ("data", "work", "out")  # belong to a machine
NO_RESULT = ("profile", "jobs", *PLACES)  # change nothing that comes out


@dataclass(frozen=True)
class Config:
    profile: str = "demo"
    # data root; empty: data/<dataset> in the repository, which `make data` fills with synthetic faces
    data: str = ""
    dataset: str = "demo"
    work: str = ""  # where the stages leave their artefacts; empty: artefacts/<profile> in the repository
    out: str = ""  # where the submission goes; empty: submissions/<name of the work folder> in the repository
    seed: int = 0  # of everything but the synthetic data
    jobs: int = 2  # workers over sequences and folds

    # Synthetic data
    clip_table: str = "4dme"  # "4dme": 267 clips as in 4DME; "smoke": 24
    expressions: str = "literature"  # how emotions show: as coders of recordings say, or as the teacher knows them
    n_subjects: int = 24
    n_test_subjects: int = 6
    data_seed: int = 7
    obj_frames: bool = False  # write OBJ + MTL + texture per frame instead of compact clips

    # Real data
    subject_pattern: str = ""  # regular expression with one group that takes the subject from an Id without one

    # 01_render
    # "render": the mesh from two virtual cameras; "split": the halves of the composite; "single": one camera's pictures
    views: str = "render"
    axes: str = "auto"  # of the meshes' files: "y-up" (facing z), "z-up" (facing -y), "camera" (y down) and others
    yaw_deg: float = 25.0  # each virtual camera off the frontal axis, degrees
    size: int = 256  # of the square views, pixels
    stabilise: bool = True  # remove the head's rigid motion in 3D where topology is constant
    renderer: str = "auto"  # "egl", "osmesa", "embree", or the first of them that works

    # 02_flow_apex
    flow_method: str = "faceflow"  # of the phase flows, see utils.flow.methods.FLOW_METHODS
    apex_method: str = "faceflow"  # of the motion curve
    apex_size: int = 256  # pixels, frames are reduced to this for the motion curve
    feature_size: int = 28  # of the network's maps, pixels
    # "spotted": the apex, in a clip that is cut from onset to offset; "found": these two as well, in longer recordings;
    # "given": those of train.csv where it has all three, else as "spotted"
    moments: str = "spotted"

    # 03_train .. 05_submit
    pretrained: bool = True  # stack learners from scratch and from the weights taught by synthetic motion, else scratch
    folds: str = "5"  # outer folds by subject: a number, or "loso"
    inner_folds: int = 4  # subject-disjoint validation inside a training set
    seeds: int = 1  # repetitions of training
    ablation_seeds: int = 1
    epochs: int = 0  # of training our networks; 0: as many as their recipe says (40 from scratch and hard, 12 gently)

    def __post_init__(self) -> None:
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise _refused(name, getattr(self, name), f"choose one of {', '.join(choices)}")
        for name, (low, high) in RANGES.items():
            if not low <= getattr(self, name) <= high:  # NaN is in no range
                limit = f"from {low} to {high}" if high < math.inf else f"of at least {low}"
                raise _refused(name, getattr(self, name), f"choose a number {limit}")
        if self.folds != "loso" and not (self.folds.isdecimal() and int(self.folds) >= 2):
            raise _refused("folds", self.folds, "choose loso (leave one subject out) or a number of at least 2")
        if self.n_test_subjects >= self.n_subjects:
            raise _refused("n_test_subjects", self.n_test_subjects, f"choose fewer than n_subjects={self.n_subjects}")

    @property
    def data_root(self) -> Path:
        return Path(self.data) if self.data else ROOT / "data" / self.dataset

    @property
    def work_root(self) -> Path:
        return Path(self.work) if self.work else ROOT / "artefacts" / self.profile

    @property
    def out_root(self) -> Path:
        return Path(self.out) if self.out else ROOT / "submissions" / self.work_root.name

    @property
    def n_views(self) -> int:
        """How many views a clip has."""
        return 1 if self.views == "single" else 2

    @property
    def record(self) -> dict[str, Any]:
        """The parameters as they go into run.json: without the paths, which belong to a machine."""
        return self._without(PLACES)

    @property
    def result_parameters(self) -> dict[str, Any]:
        """The parameters that can change a result: without paths, the profile's name and the number of workers."""
        return self._without(NO_RESULT)

    @property
    def synthetic(self) -> dict[str, Any]:
        """What the synthetic data are made from, as `utils.synthetic.data_root.make_dataset` takes it."""
        names = ("clip_table", "n_subjects", "n_test_subjects", "data_seed", "obj_frames", "expressions")
        return {name: getattr(self, name) for name in names}

    def _without(self, names: tuple[str, ...]) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if name not in names}


def _refused(name: str, value: object, remedy: str) -> ValueError:
    return ValueError(f"parameter {name}={value!r} is not possible. Remedy: {remedy}.")


PROFILES = {
    "smoke": Config(
        profile="smoke",
        dataset="smoke",
        clip_table="smoke",
        n_subjects=6,
        n_test_subjects=2,
        size=128,
        apex_method="dis",
        apex_size=64,
        folds="2",
        inner_folds=2,
        epochs=4,
    ),
    "demo": Config(),
    "full": Config(profile="full", folds="loso", seeds=3, ablation_seeds=2),
}


def load_config(profile: str = "demo", settings: str = "", **changes: Any) -> Config:
    """The profile's values with `settings` ("views=split seed=3") and `changes` on top.

    Raises ValueError for an unknown profile or name, for a value of another type or out of its range, and for a
    setting that also is a change.
    """
    if profile not in PROFILES:
        raise ValueError(f"profile {profile!r} is unknown. Remedy: choose one of {', '.join(PROFILES)}.")
    types = {field.name: field.type for field in fields(Config)}
    given = parse_settings(settings, types)
    if twice := [name for name in given if name in changes or name == "profile"]:
        raise ValueError(f"setting {twice[0]!r} has an option of its own. Remedy: write {twice[0].upper()}=value.")
    for name, value in (changes := given | changes).items():
        if name not in types:
            raise ValueError(f"parameter {name!r} is unknown. Remedy: choose one of {', '.join(types)}.")
        if type(value) is not types[name] and not (types[name] is float and type(value) is int):
            raise ValueError(f"parameter {name}={value!r} must be {types[name].__name__}. Remedy: pass such a value.")
    return replace(PROFILES[profile], **changes)


def parse_settings(text: str, types: dict[str, type]) -> dict[str, Any]:
    """Turn "name=value name=value" into values of the given types. Raises ValueError for what does not fit."""
    values: dict[str, Any] = {}
    for part in text.split():
        name, equals, value = part.partition("=")
        if not equals or name not in types:
            raise ValueError(
                f"setting {part!r} is not a parameter. Remedy: write name=value with one of {', '.join(types)}."
            )
        if types[name] is bool and value not in ("True", "False"):
            raise ValueError(f"setting {part!r} must be True or False. Remedy: write {name}=True.")
        try:
            values[name] = value == "True" if types[name] is bool else types[name](value)
        except ValueError:
            raise ValueError(f"setting {part!r} must be {types[name].__name__}. Remedy: pass such a value.") from None
    return values
