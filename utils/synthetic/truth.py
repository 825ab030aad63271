"""The truth of synthetic clips (`<DATA>/truth`). Measurements read it; the stages of the pipeline never do."""

from pathlib import Path

import pandas as pd

from utils.artefacts import read_artefact
from utils.config import Config

# What disturbs the clips, and the share of the clips that it disturbs. Random draws follow this order.
CONFOUNDERS = {"blink": 0.35, "gaze": 0.3, "drift": 0.5, "flicker": 0.5}
TRUTH = Path("truth") / "clips.csv"  # in a data root; written last


def load_truth(config: Config) -> pd.DataFrame | None:
    """The truth of all synthetic clips, one row per clip with its Id as index; None for real data."""
    path = config.data_root / TRUTH
    return read_artefact(path).set_index("Id") if path.exists() else None
