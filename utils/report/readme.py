"""Writes the tables of README.md from the records that runs left, so that no number there is typed.

python -m utils.report.readme RUN        # from artefacts/RUN and submissions/RUN
python -m utils.report.readme --bench    # from artefacts/bench, the tables of the sections that ran
python -m utils.report.readme --flow-images FILE.json    # what `utils.experiments.flow_images --json` wrote
"""

import argparse
import re
from pathlib import Path

import pandas as pd

from utils.artefacts import atomic_path, read_artefact
from utils.paths import ROOT
from utils.report.markdown import cell, markdown_table
from utils.train.scores import Interval

README = ROOT / "README.md"


def results(run: str) -> str:
    """The figures of merit of one run as a Markdown table."""
    records = {
        path.stem: read_artefact(path) for path in sorted((ROOT / "artefacts" / run / "records").glob("0*.json"))
    }
    submit = read_artefact(ROOT / "submissions" / run / "run.json")
    board = {row["prediction"]: row for row in submit["scores"]["leaderboard"]}
    held, flow, card = (records[name]["scores"] for name in ("03_train", "02_flow_apex", "01_render"))
    span = held["interval"]
    rows = [
        (
            "Held-out subjects of the training split, macro-UF1",
            f"{span['value']:.3f} [{span['low']:.3f}, {span['high']:.3f}]",
        ),
        ("Local leaderboard (test subjects), macro-UF1", _span(board["ours"])),
        (
            "best trivial answer there",
            _span(max((r for n, r in board.items() if n != "ours"), key=lambda r: r["macro_uf1"])),
        ),
        ("bound: a classifier given the true unit intensities", f"{card['true_units']:.3f}"),
        ("apex, mean absolute error in frames, all confounders", f"{flow['apex_mean_abs_frames']:.2f}"),
        ("flow, end-point error in px of a 256 px face", f"{flow['flow_epe_px']:.3f}"),
    ]
    return markdown_table(pd.DataFrame(rows, columns=["figure", "value"]))


def ablation(run: str) -> str:
    """The ablation of one run as a Markdown table."""
    table = read_artefact(ROOT / "artefacts" / run / "ablation.csv")
    rows = pd.DataFrame(
        {
            "variant": table["variant"],
            "macro-UF1 [95%]": [_span(row) for _, row in table.iterrows()],
            "difference to ours, from scratch [95%]": [_gain(row) for _, row in table.iterrows()],
            "UAR": table["uar"].map("{:.3f}".format),
            "mAP": table["map"].map("{:.3f}".format),
            "seeds": table["seeds"],
            "folds": table["folds"],
            "parameters": table["parameters"].map("{:,}".format),
            "seconds": table["seconds"].round().astype(int),
        }
    )
    return markdown_table(rows)


def flow_methods() -> str:
    """Flow methods against exact flow in the three places that the benchmark's record marks as shown."""
    table = _bench_rows()
    rows = table[table["section"] == "flow"].copy()
    rows["method"] = rows["name"].str.split(": ", n=1).str[1]
    places = ("head still", "head moves", "no blink or glance")
    still, moving, quiet = (rows[rows["shown"] == place].set_index("method") for place in places)
    text = {
        "EPE, head still": still["value"].map("{:.3f}".format),
        "EPE, head moves": moving["value"].map("{:.3f}".format),
        "no blink or glance": quiet["value"].map("{:.3f}".format),
        "without the head's motion": moving["still_epe"].map("{:.3f}".format),
        "direction, degrees": still["direction_deg"].map("{:.1f}".format),
        "ms": still["ms"].map("{:.0f}".format),
    }
    return markdown_table(pd.DataFrame(text).rename_axis("method").reset_index())


def damaged_flow() -> str:
    """Error of our flow and of DeepFlow by what was done to the frames, from the benchmark's record."""
    table = _bench_rows()
    rows = table[table["section"] == "damaged_flow"].copy()
    rows[["frames", "method"]] = rows["name"].str.rsplit(": ", n=1, expand=True)
    wide = rows.pivot_table("value", "frames", "method", sort=False).map("{:.3f}".format)
    return markdown_table(wide.add_prefix("EPE, ").reset_index())


def benchmark() -> str:
    """All sections of the benchmark but those of the flow methods, a row a line."""
    table = _bench_rows()
    table = table[~table["section"].isin(["flow", "damaged_flow"])]
    rows = {
        "section": table["section"],
        "what": table["name"],
        "value": [f"{cell(float(value))} {unit}" for value, unit in zip(table["value"], table["unit"], strict=True)],
        "ratio": [cell(float(ratio)) for ratio in table["ratio"]],
    }
    return markdown_table(pd.DataFrame(rows))


def flow_images(path: Path) -> str:
    """The rows that `flow_images` wrote as a Markdown table: UF1, UAR, the paired gain, and UF1 of each database."""
    record = read_artefact(path)
    parts = [part for part in record["clips"] if part != "pooled"]
    lines = []
    for name, row in record["rows"].items():
        pooled = row["pooled"]
        line = {"row": name} | {key.upper(): str(Interval(**pooled[key])) for key in ("uf1", "uar")}
        line["UF1 less the network's"] = _signed(pooled["gain"]) if pooled["gain"] else ""
        lines.append(line | {f"UF1 {part}": f"{row[part]['uf1']['value']:.3f}" for part in parts})
    return markdown_table(pd.DataFrame(lines))


def _bench_rows() -> pd.DataFrame:
    return pd.DataFrame(read_artefact(ROOT / "artefacts" / "bench" / "bench.json")["rows"])


def _span(row) -> str:
    return f"{row['macro_uf1']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"


def _gain(row) -> str:
    return _signed({"value": row["difference"], "low": row["difference_low"], "high": row["difference_high"]})


def _signed(span: dict[str, float]) -> str:
    return f"{span['value']:+.3f} [{span['low']:+.3f}, {span['high']:+.3f}]"


def fill(text: str, name: str, table: str) -> str:
    """The text with the lines between `<!-- name -->` and `<!-- /name -->` replaced. ValueError without the marks."""
    filled, found = re.subn(
        rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", lambda m: m[1] + table + "\n" + m[2], text, flags=re.S
    )
    if not found:
        raise ValueError(
            f"{README.name}: the marks <!-- {name} --> are missing. Remedy: put them where the table goes."
        )
    return filled


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", nargs="?", help="name of a finished run, such as demo or full")
    parser.add_argument("--bench", action="store_true", help="the tables of the benchmark")
    parser.add_argument("--flow-images", type=Path, metavar="FILE", help="the table of real flow images")
    options = parser.parse_args()
    tables = {"results": results(options.run), "ablation": ablation(options.run)} if options.run else {}
    if options.bench:
        run_sections = set(_bench_rows()["section"])
        tables |= {"flow": flow_methods()} if "flow" in run_sections else {}
        tables |= {"damaged": damaged_flow()} if "damaged_flow" in run_sections else {}
        tables |= {"bench": benchmark()} if run_sections - {"flow", "damaged_flow"} else {}
    if options.flow_images:
        tables["flow-images"] = flow_images(options.flow_images)
    text = README.read_text(encoding="utf-8")
    for name, table in tables.items():
        text = fill(text, name, table)
    with atomic_path(README) as temporary:
        temporary.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
