"""Predict the emotions in one clip: a video, a folder of one camera's pictures, or a 4D sequence.

    python -m utils.predict --input PATH [--run FOLDER] [--out FOLDER] [--set "views=split moments=spotted"]

The networks are those of a run, or the shipped ones, which were taught by synthetic motion only. With a run, the answer
for a class may be "cannot tell": the held-out people of the run decide which values of the class are possible
(`utils.evaluate.conformal`), and both values may be. Onset, apex and offset are all found (moments=found), since a clip
may begin before the expression and end after it.
"""

import argparse
import os
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from utils.artefacts import atomic_path, read_artefact, write_artefact
from utils.config import Config, load_config, parse_settings
from utils.dataset.folders import ClipLocation
from utils.dataset.labels import MOMENT_COLUMNS
from utils.dataset.readers import open_sequence
from utils.dataset.videos import VIDEO_SUFFIXES
from utils.errors import DataError, reading, reason
from utils.evaluate.conformal import ERROR, answer, possible_values
from utils.evaluate.explain import AU_NAMES, side_names, unit_sides, why
from utils.flow.apex import VISIBLE_PX
from utils.flow.features import Moments, clip_flows, features_of
from utils.parallel import limit_threads
from utils.paths import ROOT
from utils.pipeline import FEATURE_PARAMETERS, VIEW_PARAMETERS, Job
from utils.provenance import commit
from utils.render.view_set import Views
from utils.render.views import views_of
from utils.report.figures.common import save_figure
from utils.report.figures.flow import largest_motion
from utils.report.figures.predict import prediction
from utils.report.film import flow_overlay, write_film
from utils.synthetic.action_units import ACTION_UNITS
from utils.train.decision import decide
from utils.train.shipped import KINDS, load_pretrained, unit_probabilities
from utils.train.stacking import Stack, load_stack, predict_stack

PARAMETERS = (*VIEW_PARAMETERS, *FEATURE_PARAMETERS, "moments")  # of `utils.config` that apply to one clip
TYPES = {parameter.name: parameter.type for parameter in fields(Config) if parameter.name in PARAMETERS}
SHOWN_UNITS = 8  # action units in the picture, the most probable ones
SHIPPED = (
    "Shipped weights: they were taught by synthetic motion of a face model only. They have seen no real person, and "
    "nothing is calibrated for real people. Take the probabilities as hints."
)


@dataclass(frozen=True)
class Model:
    """The trained networks that judge a clip.

    origin: a sentence on their training and on what it means for real people. parameters, scores: of a run, its
    parameters and the `conformal_scores` of its held-out people.
    """

    stack: Stack
    origin: str
    parameters: dict[str, Any] = field(default_factory=dict)
    scores: pd.DataFrame | None = None


@dataclass(frozen=True)
class Prediction:
    """The answer for one clip, and everything it was made from."""

    id: str
    config: Config
    model: Model
    fps: float
    views: Views
    moments: Moments
    curve: np.ndarray  # (T,) px
    flows: np.ndarray  # (V, P, S, S, 2) px
    classes: pd.DataFrame  # of `class_table`
    units: pd.Series  # probability by AU
    sides: pd.Series  # by AU: "left", "right", "both", or "" if the side is unknown
    warnings: tuple[str, ...]


# The networks --------------------------------------------------------------------------------------------------------


def shipped_model(n_views: int) -> Model:
    """The shipped network for this number of views."""
    ensemble = load_pretrained(KINDS[n_views])
    return Model(Stack({KINDS[n_views]: ensemble}, {KINDS[n_views]: 1.0}, {}, ensemble.thresholds), SHIPPED)


def model_of_run(run: str) -> Model:
    """The networks of a run. run: its name, or the folder of its submission. Raises DataError if files are missing."""
    folders = [folder for folder in (Path(run), ROOT / "submissions" / run) if (folder / "model.json").is_file()]
    if not folders:
        fault = "there is no run of this name with trained networks (model.json)"
        raise DataError.at(run, fault, "name a folder that make submit wrote, such as submissions/demo")
    folder = folders[0].absolute()
    with reading(folder, "the run", "copy the whole folder, or run make submit again"):
        stack, record = load_stack(folder), read_artefact(folder / "run.json")
        data, parameters = record["data"], record["parameters"]
        scores = read_artefact(folder / "conformal.csv") if (folder / "conformal.csv").exists() else None
    if data.get("synthetic"):
        clips = "clips of synthetic faces: nobody has measured them on real people"
    else:
        clips = "clips of its own data: nobody has measured them on other people, cameras and labels"
    origin = (
        f"Weights of run {folder.name}, trained on {data['training']} {clips}. Action units by the shipped weights."
    )
    return Model(stack, origin, parameters, scores)


def prepare(path: Path, run: str = "", settings: str = "") -> tuple[Config, Model]:
    """The configuration for a clip, and the networks that judge it.

    Views are cut or rendered as the run did and `settings` say, else by what lies there. Raises DataError for a clip
    that cannot be opened and a run of another number of views, ValueError for a setting.
    """
    _check_input(path)
    model = model_of_run(run) if run else None
    parameters = {name: value for name, value in model.parameters.items() if name in TYPES} if model else {}
    if parameters.get("views") != "split":
        parameters["views"] = "render" if open_sequence(path).kind == "mesh" else "single"
    config = load_config(**(parameters | {"moments": "found"} | parse_settings(settings, TYPES)))
    if config.moments == "given":
        raise ValueError("moments='given' needs a table, but one clip has none. Remedy: choose found or spotted.")
    model = model or shipped_model(config.n_views)
    if (views := model.stack.leading.model_config.views) != config.n_views:
        fault = f"views={config.views} makes {config.n_views} view(s) of it, and the networks of {run} need {views}"
        setting = "views=split for pictures of two cameras side by side" if views == 2 else "views=single"
        raise DataError.at(path, fault, f"set {setting}, choose another run, or no run for the shipped weights")
    return config, model


def _check_input(path: Path) -> None:
    """Raise DataError unless the path is a folder, or a video by its suffix."""
    remedy = f"name a video ({', '.join(VIDEO_SUFFIXES)}), or a folder of pictures or meshes, one for each frame"
    if not path.exists():
        raise DataError.at(path, "there is no such file or folder", remedy)
    if not path.is_dir() and path.suffix.lower() not in VIDEO_SUFFIXES:
        raise DataError.at(path, "its suffix is not that of a video", remedy)


# The answer ---------------------------------------------------------------------------------------------------------


def predict(path: Path, config: Config, model: Model) -> Prediction:
    """The answer for one clip. Raises DataError if it cannot be read."""
    job = Job(config, "test", path.stem if path.is_file() else path.name, ClipLocation(path))
    views = Views.from_arrays(views_of(path, **job.view_parameters))
    features = features_of(views, **job.feature_parameters)
    moments = tuple(features["moments"].tolist())
    x = features["x"][None]
    probability, _ = predict_stack(model.stack, x)
    units = unit_probabilities(KINDS[config.n_views], x)[0]
    return Prediction(
        job.id,
        config,
        model,
        job.sequence().fps,
        views,
        moments,
        features["curve"],
        clip_flows(views, moments, config.flow_method),
        class_table(model, probability),
        pd.Series(units, index=list(ACTION_UNITS)),
        pd.Series(side_names(units, unit_sides(x)[0]), index=list(ACTION_UNITS)),
        (*views.warnings, *_still(job.id, features["curve"], config)),
    )


def class_table(model: Model, probability: np.ndarray) -> pd.DataFrame:
    """A row per class for the probabilities (1, K) of a clip.

    Columns: probability, threshold, decision; possible: the values ("no", "yes") that the held-out people of the run
    leave possible; answer: "yes", "no" or "cannot tell". The last two are None for the shipped weights.
    """
    names, thresholds = model.stack.leading.classes, model.stack.thresholds.values
    columns = {"probability": probability[0], "threshold": thresholds, "decision": decide(probability, thresholds)[0]}
    table = pd.DataFrame(columns, index=pd.Index(names, name="class")).assign(possible=None, answer=None)
    if model.scores is not None:
        possible = possible_values(model.scores, names, probability)[0]
        table["possible"] = [[word for word, on in zip(("no", "yes"), row, strict=True) if on] for row in possible]
        table["answer"] = [answer(row) for row in possible]
    return table


def _still(id: str, curve: np.ndarray, config: Config) -> list[str]:
    """A warning if nothing moves more than the noise."""
    if curve.max() >= VISIBLE_PX * config.n_views * min(config.size, config.apex_size) / 256:
        return []
    remedy = "give a clip with a visible expression, or with a larger or sharper face"
    return [f"{id}: nothing moves more than the noise, so the answer means little. Remedy: {remedy}."]


def record_of(result: Prediction) -> dict[str, Any]:
    """The content of prediction.json."""
    return {
        "input": result.id,
        "weights": result.model.origin,
        "calibration": calibration_words(result.model),
        "parameters": {name: getattr(result.config, name) for name in PARAMETERS},
        "frames": len(result.views.frames),
        "fps": result.fps,
        "crop": result.views.source,
        "moments": dict(zip(MOMENT_COLUMNS, result.moments, strict=True)),
        "classes": result.classes.to_dict("index"),
        "action_units": {
            au: {"name": AU_NAMES[au], "probability": p, "side": result.sides[au] or None}
            for au, p in result.units.items()
        },
        "warnings": result.warnings,
        "commit": commit(),
    }


def calibration_words(model: Model) -> str:
    """A sentence on whom the answers hold for."""
    if model.scores is None:
        return "not calibrated: take the probabilities as hints"
    people = model.scores["person"].nunique()
    return (
        f"the possible values of a class include the truth in at least {1 - ERROR:.0%} of the clips of people like the "
        f"{people} held-out people of the run; for others nothing is promised. A value that fewer than nine of them "
        "showed always stays possible"
    )


def words_of(result: Prediction) -> str:
    """The answer as a text."""
    onset, apex, offset = result.moments
    lines = [*result.warnings, f"{len(result.views.frames)} frames, onset {onset}, apex {apex}, offset {offset}"]
    for name, row in result.classes.iterrows():
        decided = "yes" if row["decision"] else "no"
        lines.append(
            f"{name:<10} {row['probability']:.2f}  {row['answer'] or f'{decided} by its threshold, not calibrated'}"
        )
    table = result.classes
    decisions = table["probability"].to_numpy(), table["decision"].to_numpy(), table.index
    lines.append(why(result.id, *decisions, result.units.to_numpy()))
    for au, side in result.sides.items():
        if side in ("left", "right"):
            lines.append(f"{au} ({AU_NAMES[au]}) mostly on the person's {side}")
    return "\n".join([*lines, calibration_words(result.model)])


# Files --------------------------------------------------------------------------------------------------------------


def write_prediction(result: Prediction, folder: Path) -> None:
    """Write prediction.png, overlay.mp4 and prediction.json atomically. Raises DataError if that fails."""
    figure = prediction(
        result.views,
        result.moments,
        result.curve,
        result.flows,
        result.classes.rename(lambda name: f"{name}: {result.classes.loc[name, 'answer'] or 'not calibrated'}"),
        result.units.nlargest(SHOWN_UNITS).rename(lambda au: f"{AU_NAMES[au]} {au} {result.sides[au]}".strip()),
        f"{result.id}\n{result.model.origin}",
    )
    largest = largest_motion(result.flows, result.views.masks)
    film = flow_overlay(result.views, result.moments, result.config.flow_method, largest)
    try:
        save_figure(figure, folder / "prediction.png")
        with atomic_path(folder / "overlay.mp4") as temporary:
            write_film(temporary, film, result.fps)
        write_artefact(folder / "prediction.json", record_of(result))
    except OSError as error:
        fault = f"the answer cannot be written there ({reason(error)})"
        raise DataError.at(folder, fault, "name another folder with OUT=") from error


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m utils.predict", description=__doc__.split("\n")[0])
    parser.add_argument("--input", required=True, help="video, folder of one camera's pictures, or of a 4D sequence")
    parser.add_argument("--run", default="", help="name of a run, or the folder of its submission")
    parser.add_argument("--out", default="", help="folder for the answer (default: predictions/<name of the input>)")
    parser.add_argument("--set", default="", help=f"name=value name=value, of {', '.join(PARAMETERS)}")
    options = parser.parse_args()
    limit_threads()  # as in the stages of a run: the same numbers, and faster on a busy machine
    try:
        if not options.input:
            raise ValueError("INPUT is missing. Remedy: name a clip, as in make predict INPUT=clip.mp4.")
        path = Path(os.path.abspath(options.input))
        config, model = prepare(path, options.run, options.set)
        print(model.origin, flush=True)
        result = predict(path, config, model)
        folder = Path(options.out) if options.out else ROOT / "predictions" / result.id
        write_prediction(result, folder)
    except ValueError as error:
        parser.exit(2, f"{error}\n")
    print(words_of(result))
    print(f"{folder}: prediction.json, prediction.png, overlay.mp4")


if __name__ == "__main__":
    main()
