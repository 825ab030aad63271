"""Write the synthetic data root of a profile, with its card.

    python -m utils.make_data [--profile demo] [--data DIR] [--set "data_seed=9"] [--jobs 2] [--face-model MODEL]

MODEL is a face model of the user, see `utils.synthetic.blend_shapes`.
"""

import argparse
from pathlib import Path

from utils.artefacts import artefact_key, is_current
from utils.config import Config, load_config
from utils.report.data_card import write_card
from utils.synthetic.data_root import make_dataset
from utils.synthetic.truth import TRUTH


def make_data(config: Config, face_model: Path | None = None) -> None:
    """Make the data root of a configuration, and its card, where they are not current.

    face_model: the user's, ours by default.

    Raises DataError for a face model that cannot be read.
    """
    root = make_dataset(config.data_root, **config.synthetic, jobs=config.jobs, face_model=face_model)
    key = artefact_key([root / TRUTH], None, write_card)
    if not is_current(root / "card" / "card.json", key):
        write_card(root, key)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--profile", default="demo")
    parser.add_argument("--data", default="", help="folder to write (default: the profile's)")
    parser.add_argument("--set", default="", help="single parameters, as in SET of the Makefile")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--face-model", type=Path, help="face model of the people (default: ours)")
    options = parser.parse_args()
    try:
        config = load_config(options.profile, options.set, data=options.data, jobs=options.jobs)
        make_data(config, options.face_model)
    except ValueError as error:  # of the parameters, the folder or the face model
        raise SystemExit(str(error)) from None
    print(f"synthetic 4D faces: {config.data_root}")


if __name__ == "__main__":
    main()
