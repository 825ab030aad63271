"""The variants that `04_ablation` compares: the paper's, ours, and the baselines, all through one protocol."""

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import numpy as np

from utils.artefacts import artefact_key, cached, read_artefact
from utils.baselines import average, baselines, rbf_svm
from utils.config import CLASSES, Config
from utils.dataset.samples import Samples
from utils.dataset.sequences import open_sequence
from utils.dataset.tables import DataRoot
from utils.evaluate import OutOfFold, Predictor, cross_validate, grouped_folds, leave_one_subject_out, run_leaking_fold
from utils.features import clip_features
from utils.model import ModelConfig
from utils.parallel import parallel_map
from utils.pipeline import Job, load_views, samples_of
from utils.pretrain import FINE_TUNE, fine_tuned_predictor, initial_state, load_pretrained, zero_shot_predictor
from utils.render import TexturedMesh, get_renderer
from utils.train import Fitted, TrainConfig, fit_ensemble, network_predictor
from utils.views import view_cameras

SCRATCH, PRETRAINED, ZERO_SHOT = "ours, from scratch", "ours, pretrained", "zero-shot"
OTHER_FLOWS = ("faceflow", "dis", "farneback")  # the fast ones of the registry
Transform = Callable[[Samples], Samples]


@dataclass(frozen=True)
class Variant:
    """A row of the table: a predictor, and what it is shown of the samples."""

    predictor: Predictor
    transform: Transform = lambda samples: samples
    leaking: bool = False


def outer_folds(config: Config, samples: Samples) -> list:
    """The outer folds by subject that the config names: "loso" or a number."""
    if config.folds == "loso":
        return leave_one_subject_out(samples.subjects)
    return grouped_folds(samples.y, samples.subjects, int(config.folds), seed=config.seed)


def network(config: Config, model: ModelConfig | None = None, train: TrainConfig | None = None) -> Predictor:
    """Our network from scratch: one per inner fold, averaged; thresholds from their held-out parts."""
    return network_predictor(model or model_config(config), train or train_config(config))


def model_config(config: Config, **changes) -> ModelConfig:
    return ModelConfig(size=config.feature_size, **changes)


def train_config(config: Config, **changes) -> TrainConfig:
    return TrainConfig(epochs=config.epochs, **changes)


def submitted(config: Config) -> str:
    """The variant that `03_train` scores and `05_submit` submits."""
    return PRETRAINED if config.pretrained else SCRATCH


def variants(config: Config) -> dict[str, Variant]:
    """Name -> variant, in the order of the table; the first, SCRATCH, is the reference.

    All our networks start from scratch but for PRETRAINED and ZERO_SHOT, which were taught by synthetic motion.
    """

    def ours(model: dict | None = None, train: dict | None = None, transform: Transform | None = None) -> Variant:
        predictor = network(config, model_config(config, **(model or {})), train_config(config, **(train or {})))
        return Variant(predictor, transform) if transform else Variant(predictor)

    rows = {
        SCRATCH: ours(),
        PRETRAINED: Variant(fine_tuned_predictor("dual", len(CLASSES))),
        ZERO_SHOT: Variant(zero_shot_predictor(load_pretrained("dual"))),
        "ours + RBF-SVM": Variant(average(network(config), rbf_svm())),
        "without fusion attention": ours({"attention": False}),
        "without SE": ours({"se": False}),
        "without both": ours({"attention": False, "se": False}),
        "left view alone": ours({"views": 1}, transform=lambda s: s.take_views([0])),
        "right view alone": ours({"views": 1}, transform=lambda s: s.take_views([1])),
        "onset to apex alone": ours({"phases": 1}, transform=lambda s: s.take_phases([0])),
        "apex to offset alone": ours({"phases": 1}, transform=lambda s: s.take_phases([1])),
        "u alone": ours({"streams": ("u",), "se": False}),
        "v alone": ours({"streams": ("v",), "se": False}),
        "magnitude alone": ours({"streams": ("magnitude",)}),
        "cross-entropy for focal": ours(train={"loss": "bce"}),
        "LEAK: epoch and thresholds on the test fold": Variant(
            network_predictor(model_config(config), train_config(config), how="first"), leaking=True
        ),
        "its honest counterpart": Variant(network_predictor(model_config(config), train_config(config), how="first")),
    }
    return rows | {name: Variant(predictor) for name, predictor in baselines().items()}


def held_out(config: Config, samples: Samples, name: str, variant: Variant, seeds: int) -> OutOfFold:
    """Held-out predictions of one variant on the config's folds and `seeds` repetitions, kept under its name."""
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    path = config.work_root / "held_out" / f"{slug}-{seeds}.npz"  # 03 and 04 may ask for different numbers of seeds
    parameters = {"name": name, "seeds": seeds, "config": config.record, "samples": _digest(samples)}

    def make() -> dict[str, np.ndarray]:
        run = {"run": run_leaking_fold} if variant.leaking else {}
        oof = cross_validate(
            variant.transform(samples),
            variant.predictor,
            outer_folds(config, samples),
            range(config.seed, config.seed + seeds),
            config.jobs,
            config.inner_folds,
            **run,
        )
        return {
            f.name: np.asarray(json.dumps(oof.notes) if f.name == "notes" else getattr(oof, f.name))
            for f in fields(oof)
        }

    stored = cached(path, artefact_key((), parameters, held_out), make)
    simple = {
        "classes": tuple(stored["classes"].tolist()),
        "seeds": tuple(stored["seeds"].tolist()),
        "notes": json.loads(str(stored["notes"])),
        "seconds": float(stored["seconds"]),
    }
    return OutOfFold(**(stored | simple))


def _digest(samples: Samples) -> str:
    parts = (samples.x, samples.y, samples.ids, samples.subjects)
    return hashlib.sha256(b"".join(np.ascontiguousarray(part).tobytes() for part in parts)).hexdigest()


def unstabilised_samples(
    config: Config, data: DataRoot, samples: Samples, moments: dict[str, tuple[int, int, int]]
) -> Samples:
    """The same clips and moments, but rendered with the head's rigid motion left in (training split)."""
    tasks = [(Job(config, "train", id), moments[id]) for id in samples.ids]
    maps = parallel_map(_unstabilised, tasks, config.jobs, description="views without stabilisation")
    return samples_of(data, "train", list(zip(samples.ids, maps, strict=True)))


def _unstabilised(task: tuple[Job, tuple[int, int, int]]) -> np.ndarray:
    job, moments = task
    config = job.config
    parameters = {"moments": list(moments)} | {
        name: getattr(config, name) for name in ("size", "yaw_deg", "renderer", "flow_method", "feature_size")
    }

    def make() -> dict[str, np.ndarray]:
        sequence = open_sequence(job.folder)
        cameras = view_cameras(sequence.geometry(0)[0], config.size, config.yaw_deg)
        pictures = []
        for t in moments:
            shape, faces, uv = sequence.geometry(t)
            mesh = TexturedMesh(shape, faces, uv, sequence.texture(t))
            pictures.append(get_renderer(config.renderer).render(mesh, cameras))
        frames = np.stack([[picture.rgb for picture in pair] for pair in pictures])
        masks = np.stack([picture.mask for picture in pictures[0]])
        return {"x": clip_features(frames, masks, (0, 1, 2), config.feature_size, config.flow_method)}

    path = config.work_root / "features" / "unstabilised" / f"{job.id}.npz"
    return cached(path, artefact_key([job.folder], parameters, _unstabilised), make)["x"]


def samples_with_flow(
    config: Config, data: DataRoot, samples: Samples, moments: dict[str, tuple[int, int, int]]
) -> Samples:
    """The same clips and moments with the flow of `config.flow_method` (training split)."""
    tasks = [(Job(config, "train", id), moments[id]) for id in samples.ids]
    maps = parallel_map(_with_flow, tasks, config.jobs, description=f"flow by {config.flow_method}")
    return samples_of(data, "train", list(zip(samples.ids, maps, strict=True)))


def _with_flow(task: tuple[Job, tuple[int, int, int]]) -> np.ndarray:
    job, moments = task
    config = job.config
    parameters = {"moments": list(moments), "size": config.feature_size, "method": config.flow_method}

    def make() -> dict[str, np.ndarray]:
        views = load_views(job.views_path)
        return {"x": clip_features(views.frames, views.masks, **parameters, subtract_head=not views.stabilised)}

    path = config.work_root / "features" / f"flow-{config.flow_method}" / f"{job.id}.npz"
    return cached(path, artefact_key([job.views_path], parameters, _with_flow), make)["x"]


# What the notebooks call ----------------------------------------------------------------------------------------------


def ablate(config: Config, samples: Samples) -> dict[str, OutOfFold]:
    """Held-out predictions of every variant, by name, in the order of the table."""
    return {
        name: held_out(config, samples, name, variant, config.ablation_seeds)
        for name, variant in variants(config).items()
    }


def no_stabilisation(config: Config, data: DataRoot, samples: Samples) -> dict[str, OutOfFold]:
    """The row "without 3D stabilisation"; empty where the views were not rendered and stabilised in the first place."""
    if config.views != "render" or not config.stabilise:
        return {}
    moved = unstabilised_samples(config, data, samples, _moments(config, samples))
    name = "without 3D stabilisation"
    return {name: held_out(config, moved, name, variants(config)[SCRATCH], config.ablation_seeds)}


def other_flows(config: Config, data: DataRoot, samples: Samples) -> dict[str, OutOfFold]:
    """Rows "flow by <method>": the same clips, moments and network on the flow of the other methods of OTHER_FLOWS."""
    moments, rows = _moments(config, samples), {}
    for method in OTHER_FLOWS:
        if method != config.flow_method:
            other = samples_with_flow(replace(config, flow_method=method), data, samples, moments)
            name = f"flow by {method}"
            rows[name] = held_out(config, other, name, variants(config)[SCRATCH], config.ablation_seeds)
    return rows


def _moments(config: Config, samples: Samples) -> dict[str, tuple[int, int, int]]:
    """Onset, apex and offset of every clip by Id, as `02_flow_apex` left them."""
    table = read_artefact(config.work_root / "features" / "moments.csv").set_index("Id")
    return {id: tuple(table.loc[id, ["onset", "apex", "offset"]].astype(int).tolist()) for id in samples.ids}


def network_of_fold(config: Config, samples: Samples, fold: int) -> Fitted:
    """The networks that `held_out` trains for one outer fold of the first seed, trained again to be looked at."""
    train = samples.subset(outer_folds(config, samples)[fold][0])
    return final_network(config, train)


def final_network(config: Config, train: Samples) -> Fitted:
    """The ensemble for unseen subjects: a network per inner fold of all training clips."""
    n_folds = min(config.inner_folds, len(np.unique(train.subjects)))
    inner = grouped_folds(train.y, train.subjects, n_folds, config.seed)
    if config.pretrained:
        model = replace(load_pretrained("dual").model_config, units=0)
        return fit_ensemble(train, inner, model, FINE_TUNE["dual"], config.seed, initial_state("dual"))
    return fit_ensemble(train, inner, model_config(config), train_config(config), config.seed)
