"""One clip, one answer: what a video, a folder of one camera's pictures or a 4D sequence shows, and what that is worth.

    python -m utils.predict --input PATH [--run FOLDER] [--out FOLDER] [--set "views=split moments=spotted"]

The networks are those of a run, or the ones that ship, which were taught by synthetic motion alone. A run says of each
class which values its held-out people leave possible (`utils.evaluate.conformal`); where both are, the answer is
"cannot tell". Onset, apex and offset are found, since a clip of somebody's may begin before the expression and end
after it. Where it does not, as in a run's own clips, that costs little: of 69 clips of six synthetic people whom a run
had not seen, 95% of the true values were possible ones with moments=found as with spotted, and macro-UF1 was 0.73 and
0.75.
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

PARAMETERS = (*VIEW_PARAMETERS, *FEATURE_PARAMETERS, "moments")  # of the config, that change what is made of one clip
TYPES = {one.name: one.type for one in fields(Config) if one.name in PARAMETERS}
SHOWN_UNITS = 8  # most probable action units in the picture
SHIPPED = (
    "Weights that ship, taught by synthetic motion of a face model alone: no real person was seen in training, and "
    "nothing is calibrated for real people. Take the probabilities as hints."
)


@dataclass(frozen=True)
class Model:
    """What judges a clip: networks, a line on what they were taught and what that means for real people; of a run also
    its parameters, and how far it was off on held-out people (`conformal_scores`)."""

    stack: Stack
    origin: str
    parameters: dict[str, Any] = field(default_factory=dict)
    scores: pd.DataFrame | None = None


@dataclass(frozen=True)
class Prediction:
    """What one clip shows, and what it was made from."""

    id: str
    config: Config
    model: Model
    fps: float
    views: Views
    moments: Moments
    curve: np.ndarray  # (T,) px
    flows: np.ndarray  # (V, P, S, S, 2) px
    classes: pd.DataFrame  # `judged`
    units: pd.Series  # probability by AU
    sides: pd.Series  # "left", "right" or "both" by AU, "" where that is not told
    warnings: tuple[str, ...]


# What judges --------------------------------------------------------------------------------------------------------


def shipped_model(n_views: int) -> Model:
    """The network that ships for so many views."""
    ensemble = load_pretrained(KINDS[n_views])
    return Model(Stack({KINDS[n_views]: ensemble}, {KINDS[n_views]: 1.0}, {}, ensemble.thresholds), SHIPPED)


def model_of_run(run: str) -> Model:
    """The networks of a run, named or by the folder of its submission. Raises DataError where that is not whole."""
    found = [folder for folder in (Path(run), ROOT / "submissions" / run) if (folder / "model.json").is_file()]
    if not found:
        fault = "there is no run with trained networks (model.json) by that name"
        raise DataError.at(run, fault, "name a folder that make submit left, such as submissions/demo")
    folder = found[0].absolute()
    with reading(folder, "what the run left", "copy the folder whole, or run make submit again"):
        stack, record = load_stack(folder), read_artefact(folder / "run.json")
        data, parameters = record["data"], record["parameters"]
        scores = read_artefact(folder / "conformal.csv") if (folder / "conformal.csv").exists() else None
    if data.get("synthetic"):
        whose = "clips of synthetic faces: what they are worth on real people is not known"
    else:
        whose = "clips of its own data: what they are worth on other people, cameras and labels is not known"
    origin = f"Weights of run {folder.name}, trained on {data['training']} {whose}. Action units by those that ship."
    return Model(stack, origin, parameters, scores)


def prepare(path: Path, run: str = "", settings: str = "") -> tuple[Config, Model]:
    """How a clip is looked at, and what judges it.

    Views are cut or rendered as the run did and `settings` say, else by what lies there. Raises DataError for a clip
    that cannot be opened and a run of another number of views, ValueError for a setting.
    """
    _check_input(path)
    model = model_of_run(run) if run else None
    usual = {name: value for name, value in model.parameters.items() if name in TYPES} if model else {}
    if usual.get("views") != "split":
        usual["views"] = "render" if open_sequence(path).kind == "mesh" else "single"
    config = load_config(**(usual | {"moments": "found"} | parse_settings(settings, TYPES)))
    if config.moments == "given":
        raise ValueError("moments='given' needs a table, and one clip has none. Remedy: choose found or spotted.")
    model = model or shipped_model(config.n_views)
    if (known := model.stack.leading.model_config.views) != config.n_views:
        fault = f"views={config.views} makes {config.n_views} of it, and the networks of {run} take {known}"
        other = "views=split where two cameras stand side by side in it" if known == 2 else "views=single"
        raise DataError.at(path, fault, f"set {other}, choose another run, or none for the weights that ship")
    return config, model


def _check_input(path: Path) -> None:
    """Raise DataError for what is neither a video by its name nor a folder."""
    usual = f"name a video ({', '.join(VIDEO_SUFFIXES)}), or a folder of pictures or meshes, one for each frame"
    if not path.exists():
        raise DataError.at(path, "there is no such file or folder", usual)
    if not path.is_dir() and path.suffix.lower() not in VIDEO_SUFFIXES:
        raise DataError.at(path, "it is no video by its name", usual)


# The answer ---------------------------------------------------------------------------------------------------------


def predict(path: Path, config: Config, model: Model) -> Prediction:
    """What a clip shows. Raises DataError where it cannot be read."""
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
        judged(model, probability),
        pd.Series(units, index=list(ACTION_UNITS)),
        pd.Series(side_names(units, unit_sides(x)[0]), index=list(ACTION_UNITS)),
        (*views.warnings, *_still(job.id, features["curve"], config)),
    )


def judged(model: Model, probability: np.ndarray) -> pd.DataFrame:
    """A row per class for the probabilities (1, K) of a clip: probability, threshold, decision; possible, the values
    ("no", "yes") that held-out people leave, and answer, which may be "cannot tell": None where nothing is calibrated.
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
    """A warning where nothing moves by more than noise does."""
    if curve.max() >= VISIBLE_PX * config.n_views * min(config.size, config.apex_size) / 256:
        return []
    remedy = "give a clip in which the expression shows, with a larger or a sharper face"
    return [f"{id}: nothing moves by more than noise does, so the answer means little. Remedy: {remedy}."]


def record_of(found: Prediction) -> dict[str, Any]:
    """What prediction.json holds."""
    return {
        "input": found.id,
        "weights": found.model.origin,
        "calibration": calibration_words(found.model),
        "parameters": {name: getattr(found.config, name) for name in PARAMETERS},
        "frames": len(found.views.frames),
        "fps": found.fps,
        "crop": found.views.source,
        "moments": dict(zip(MOMENT_COLUMNS, found.moments, strict=True)),
        "classes": found.classes.to_dict("index"),
        "action_units": {
            au: {"name": AU_NAMES[au], "probability": p, "side": found.sides[au] or None}
            for au, p in found.units.items()
        },
        "warnings": found.warnings,
        "commit": commit(),
    }


def calibration_words(model: Model) -> str:
    """For whom the answers hold."""
    if model.scores is None:
        return "nothing is calibrated: the probabilities stand alone"
    people = model.scores["person"].nunique()
    return (
        f"the truth is among the possible values of a class in {1 - ERROR:.0%} of clips or more, of people drawn as "
        f"the {people} held-out ones of the run were, and of no others; what fewer than nine of them showed stays "
        "possible"
    )


def words_of(found: Prediction) -> str:
    """The answer as a person reads it."""
    onset, apex, offset = found.moments
    lines = [*found.warnings, f"{len(found.views.frames)} frames, onset {onset}, apex {apex}, offset {offset}"]
    for name, row in found.classes.iterrows():
        decided = "yes" if row["decision"] else "no"
        lines.append(f"{name:<10} {row['probability']:.2f}  {row['answer'] or f'{decided} by its threshold alone'}")
    table = found.classes
    judgement = table["probability"].to_numpy(), table["decision"].to_numpy(), table.index, found.units.to_numpy()
    lines.append(why(found.id, *judgement))
    for au, side in found.sides.items():
        if side in ("left", "right"):
            lines.append(f"{au} ({AU_NAMES[au]}) on the person's {side} alone, or nearly so")
    return "\n".join([*lines, calibration_words(found.model)])


# Files --------------------------------------------------------------------------------------------------------------


def write_prediction(found: Prediction, folder: Path) -> None:
    """Write prediction.png, overlay.mp4 and prediction.json, each whole or not at all. Raises DataError where that
    cannot be."""
    figure = prediction(
        found.views,
        found.moments,
        found.curve,
        found.flows,
        found.classes.rename(lambda name: f"{name}: {found.classes.loc[name, 'answer'] or 'not calibrated'}"),
        found.units.nlargest(SHOWN_UNITS).rename(lambda au: f"{AU_NAMES[au]} {au} {found.sides[au]}".strip()),
        f"{found.id}\n{found.model.origin}",
    )
    largest = largest_motion(found.flows, found.views.masks)
    film = flow_overlay(found.views, found.moments, found.config.flow_method, largest)
    try:
        save_figure(figure, folder / "prediction.png")
        with atomic_path(folder / "overlay.mp4") as temporary:
            write_film(temporary, film, found.fps)
        write_artefact(folder / "prediction.json", record_of(found))
    except OSError as error:
        fault = f"nothing can be written there ({reason(error)})"
        raise DataError.at(folder, fault, "name another folder by OUT=") from error


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m utils.predict", description=__doc__.split("\n")[0])
    parser.add_argument("--input", required=True, help="video, folder of one camera's pictures, or of a 4D sequence")
    parser.add_argument("--run", default="", help="name of a run, or the folder of its submission")
    parser.add_argument("--out", default="", help="folder for the answer (default: predictions/<name of the input>)")
    parser.add_argument("--set", default="", help=f"name=value name=value, of {', '.join(PARAMETERS)}")
    options = parser.parse_args()
    limit_threads()  # as in a run's stages: the same numbers, and on a busy machine a fraction of the time
    try:
        if not options.input:
            raise ValueError("no clip is named. Remedy: say which, as in make predict INPUT=clip.mp4.")
        path = Path(os.path.abspath(options.input))
        config, model = prepare(path, options.run, options.set)
        print(model.origin, flush=True)
        found = predict(path, config, model)
        folder = Path(options.out) if options.out else ROOT / "predictions" / found.id
        write_prediction(found, folder)
    except ValueError as error:
        parser.exit(2, f"{error}\n")
    print(words_of(found))
    print(f"{folder}: prediction.json, prediction.png, overlay.mp4")


if __name__ == "__main__":
    main()
