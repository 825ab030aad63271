"""All parameters of a run in one frozen record, and the profiles.

A profile is a complete set of values. `load_config(profile, name=value)` overrides single values. An unknown name, or a
value of the wrong type or out of range, is an error, because papermill only warns of a misspelt parameter.
"""

import math
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from utils.paths import ROOT

# Axes of meshes, see `utils.render.axes`. "auto": y-up if the mesh shows a face so, else the axes that show one.
AXIS_NAMES = ("y-up", "z-up", "z-up-back", "camera", "back", "x-front", "x-back", "z-up-x", "y-down", "z-down")
# The possible values of parameters that are words.
CHOICES: dict[str, tuple[str, ...]] = {
    "clip_table": ("4dme", "smoke"),
    "expressions": ("literature", "emfacs"),
    "views": ("render", "split", "single"),
    "axes": ("auto", *AXIS_NAMES),
    "renderer": ("auto", "egl", "osmesa", "embree"),
    "flow_method": ("faceflow", "farneback", "dis", "tvl1", "deepflow"),
    "apex_method": ("faceflow", "farneback", "dis", "tvl1", "deepflow"),
    "moments": ("spotted", "found", "given"),
    "ablation_rows": ("headline", "all"),
}
# The least and the largest value of parameters that are numbers.
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
PLACES = ("data", "work", "out")  # paths of one machine
NO_RESULT = ("profile", "jobs", *PLACES)  # parameters that do not change the results


@dataclass(frozen=True)
class Config:
    profile: str = "demo"
    # data root; empty: data/<dataset> in the repository, where `make data` writes synthetic faces
    data: str = ""
    dataset: str = "demo"
    work: str = ""  # folder of the artefacts; empty: artefacts/<profile> in the repository
    out: str = ""  # folder of the submission; empty: submissions/<name of the work folder> in the repository
    seed: int = 0  # of everything except the synthetic data
    jobs: int = 2  # workers over clips and folds

    # Synthetic data
    clip_table: str = "4dme"  # "4dme": 267 clips as in 4DME; "smoke": 24
    # action units of each emotion: "literature" follows published codings, "emfacs" what the teacher knows
    expressions: str = "literature"
    n_subjects: int = 24
    n_test_subjects: int = 6
    data_seed: int = 7
    obj_frames: bool = False  # write OBJ + MTL + texture per frame instead of compact clips

    # Real data
    subject_pattern: str = ""  # regular expression; its one group is the subject in an Id, if the table has no subjects

    # 01_render
    # "render": the mesh seen from two virtual cameras; "split": the halves of the composite; "single": one camera
    views: str = "render"
    axes: str = "auto"  # of the mesh files: "y-up" (facing z), "z-up" (facing -y), "camera" (y down) and others
    yaw_deg: float = 25.0  # angle of each virtual camera to the frontal axis, degrees
    size: int = 256  # of the square views, pixels
    stabilise: bool = True  # remove the head's rigid motion in 3D if the topology is constant
    renderer: str = "auto"  # "egl", "osmesa", "embree"; "auto": the first of these that works

    # 02_flow_apex
    flow_method: str = "faceflow"  # of the phase flows, see utils.flow.methods.FLOW_METHODS
    apex_method: str = "faceflow"  # of the motion curve
    apex_size: int = 256  # side of the frames for the motion curve, pixels
    feature_size: int = 28  # side of the network's maps, pixels
    # "spotted": the apex is found, onset and offset are the ends of the clip; "found": all three are found, for longer
    # recordings; "given": those of train.csv if it has all three, else as "spotted"
    moments: str = "spotted"

    # 03_train .. 05_submit
    pretrained: bool = True  # stack all learners; False: only the network trained from scratch
    folds: str = "5"  # outer folds by subject: their number, or "loso" (leave one subject out)
    inner_folds: int = 4  # subject-disjoint folds inside each training set
    seeds: int = 1  # repetitions of training
    ablation_seeds: int = 1  # the same in 04
    ablation_rows: str = "headline"  # rows of 04: those that README shows, or "all"
    epochs: int = 0  # of training our networks; 0: as in each learner's settings (40 from scratch and hard, 12 gently)

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
        """The number of views of a clip."""
        return 1 if self.views == "single" else 2

    @property
    def record(self) -> dict[str, Any]:
        """The parameters in run.json: all except the paths."""
        return self._without(PLACES)

    @property
    def result_parameters(self) -> dict[str, Any]:
        """The parameters that can change the results."""
        return self._without(NO_RESULT)

    @property
    def synthetic(self) -> dict[str, Any]:
        """The parameters of the synthetic data, for `utils.synthetic.data_root.make_dataset`."""
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
        ablation_rows="all",
    ),
    "demo": Config(),
    "full": Config(profile="full", folds="loso", seeds=3, ablation_seeds=2, ablation_rows="all"),
}


def load_config(profile: str = "demo", settings: str = "", **changes: Any) -> Config:
    """The values of the profile, changed by `settings` ("views=split seed=3") and by `changes`.

    Raises ValueError for an unknown profile or name, a value of the wrong type or out of range, and a name that is in
    both settings and changes.
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
    """Parse "name=value name=value" into values of these types. Raises ValueError for other names and values."""
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
