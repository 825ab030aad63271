"""Write the synthetic data root of a profile, with its card.

    python -m utils.make_data [--profile demo] [--data DIR] [--set "data_seed=9"] [--jobs 2] [--world MODEL]

MODEL is a face model of the user, see `utils.synthetic.blend_shapes`.
"""

import argparse
from pathlib import Path

from utils.artefacts import artefact_key, is_current
from utils.config import Config, load_config
from utils.report.data_card import write_card
from utils.synthetic.data_root import make_dataset
from utils.synthetic.truth import TRUTH


def make_data(config: Config, world: Path | None = None) -> None:
    """The data root of a configuration and its card, as far as they are not current; people of the face model `world`.

    Raises DataError for a face model that cannot be read.
    """
    root = make_dataset(config.data_root, **config.synthetic, jobs=config.jobs, world=world)
    key = artefact_key([root / TRUTH], None, write_card)
    if not is_current(root / "card" / "card.json", key):
        write_card(root, key)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--profile", default="demo")
    parser.add_argument("--data", default="", help="folder to write (default: the profile's)")
    parser.add_argument("--set", default="", help="single parameters, as in SET of the Makefile")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--world", type=Path, help="face model of which people are (default: ours)")
    options = parser.parse_args()
    try:
        config = load_config(options.profile, options.set, data=options.data, jobs=options.jobs)
        make_data(config, options.world)
    except ValueError as error:  # of the parameters, the folder or the face model
        raise SystemExit(str(error)) from None
    print(f"synthetic 4D faces: {config.data_root}")


if __name__ == "__main__":
    main()
