"""Writes the tables of README.md and RESULTS.md from the records of runs, so that no number there is typed by hand.

python -m utils.lab.readme RUN      # from artefacts/RUN and submissions/RUN
python -m utils.lab.readme --bench  # from artefacts/bench: the sections that ran
python -m utils.lab.readme --flow-images FILE --flow-sources FILE --audit FILE --robust-images FILE --robust-run FILE
                                    # each from what `--json` of `flow_images`, `audit` or `robustness` wrote

A table stands between the marks `<!-- name -->` and `<!-- /name -->` in one of the documents. The line below it names
the command and the commit of its record. If artefacts/times.json exists, every call also writes the table of times; the
file is a list of {what, minutes, cores, commit}, where minutes are those of several machines.
"""

import argparse
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from utils.artefacts import atomic_path, read_artefact
from utils.evaluate.rows import HEADLINE
from utils.evaluate.scores import Interval
from utils.lab.flow_images import GAIN, METRICS, POOLED
from utils.lab.tables import interval_texts, load, wide
from utils.paths import ROOT
from utils.report.tables import (
    cell,
    markdown_table,
    run_command,
    score_span,
    scores_with_intervals,
    short_commit,
    signed,
)

DOCUMENTS = ("README.md", "RESULTS.md")
FACE_MODEL = "face-model-"  # begins the marks of runs with people of another face model
PUBLISHED = ("published by the paper, on 4DMR's hidden test", "0.536", "")  # arXiv 2603.26849
# Columns of the flow table: heading, kind of frames and column in the benchmark's table, format.
FLOW_COLUMNS = (
    ("error, head still", "256 px, head still, noise x1", "value", "{:.3f}"),
    ("error, head moves", "256 px, head moves, noise x1", "value", "{:.3f}"),
    ("error, no blink or glance", "256 px, head still, noise x1, no blink or glance", "value", "{:.3f}"),
    ("error without the head's motion", "256 px, head moves, noise x1", "nonrigid_epe", "{:.3f}"),
    ("error at 128 px", "128 px, head still, noise x1", "value", "{:.3f}"),
    ("direction, degrees", "256 px, head still, noise x1", "direction_deg", "{:.1f}"),
    ("ms", "256 px, head still, noise x1", "ms", "{:.0f}"),
)


# Tables of a run ----------------------------------------------------------------------------------------------------


def run_tables(run: str) -> dict[str, str]:
    """The tables of one run, by mark; the tables of the ablation only if it ran."""
    submit = read_artefact(ROOT / "submissions" / run / "run.json")
    data = submit.get("data", {})
    tables = {"results": results(run, submit)}
    path = ROOT / "artefacts" / run / "ablation.csv"
    if path.exists():
        table, record = read_artefact(path), _record(run, "04_ablation")
        source = made_by(run_command("ablation", run, record | {"data": data}), [record])
        tables["ablation"] = markdown_table(ablation(table)) + source
        tables["headline"] = markdown_table(headline(table)) + source
    if data.get("face_model"):  # README has the table of our face model only
        return {FACE_MODEL + mark: table for mark, table in tables.items() if mark != "headline"}
    return tables


def results(run: str, submit: Mapping[str, Any]) -> str:
    """The figures of merit that the data of a run allow."""
    card, flow, held_out = (_record(run, stage) for stage in ("01_render", "02_flow_apex", "03_train"))
    board = {row["prediction"]: row for row in submit["scores"].get("leaderboard", [])}
    rows = [("held-out subjects of the training split, macro-UF1", str(Interval(**held_out["scores"]["interval"])))]
    if board:
        trivial = max((row for name, row in board.items() if name != "ours"), key=lambda row: row["macro_uf1"])
        rows += [
            ("test subjects (local leaderboard), macro-UF1", score_span(board["ours"])),
            ("best answer there that looks at no clip", score_span(trivial)),
        ]
    for label, record, name, form in (
        ("a classifier that is given the true unit intensities", card, "true_units", "{:.3f}"),
        ("apex, mean absolute error in frames", flow, "apex_mean_abs_frames", "{:.2f}"),
        ("flow, mean end-point error in px of a 256 px face", flow, "flow_epe_px", "{:.3f}"),
    ):
        if name in record["scores"]:
            rows.append((label, form.format(record["scores"][name])))
    table = markdown_table(pd.DataFrame(rows, columns=["measure", "value"]))
    return table + made_by(run_command("all", run, submit), (card, flow, held_out, submit))


def ablation(table: pd.DataFrame) -> pd.DataFrame:
    """All rows of the ablation."""
    return scores_with_intervals(table).assign(
        UAR=table["uar"].map("{:.3f}".format),
        mAP=table["map"].map("{:.3f}".format),
        seeds=table["seeds"],
        folds=table["folds"],
        parameters=table["parameters"].map("{:,}".format),
        seconds=table["seconds"].round().astype(int),
    )


def headline(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of HEADLINE, and the published score of the paper."""
    variants = table.set_index("variant", drop=False)
    rows = scores_with_intervals(variants.loc[[name for name in HEADLINE if name in variants.index]])
    return pd.concat([rows, pd.DataFrame([PUBLISHED], columns=rows.columns)])


def _record(run: str, stage: str) -> dict[str, Any]:
    return read_artefact(ROOT / "artefacts" / run / "records" / f"{stage}.json")


# Tables of the benchmark --------------------------------------------------------------------------------------------


def bench_tables() -> dict[str, str]:
    """The tables of the benchmark's sections that ran, by mark."""
    table, record = load(ROOT / "artefacts" / "bench" / "bench.json")
    marks = table["section"].map({"damaged_flow": "damaged", "real_skin": "real-skin", "flow": "flow", "apex": "apex"})
    return {
        mark: markdown_table(LAYOUTS[mark](rows)) + made_by(bench_command(rows, record), [record])
        for mark, rows in table.groupby(marks.fillna("bench"), sort=False)
    }


def flow_methods(rows: pd.DataFrame) -> pd.DataFrame:
    """Flow methods against exact flow: the FLOW_COLUMNS whose frames were measured."""
    by_frames = {frames: part.set_index("name") for frames, part in rows.groupby("frames")}
    columns = {
        heading: by_frames[frames][column].map(form.format)
        for heading, frames, column, form in FLOW_COLUMNS
        if frames in by_frames
    }
    return pd.DataFrame(columns).loc[rows["name"].unique()].rename_axis("method").reset_index()


def damaged_flow(rows: pd.DataFrame) -> pd.DataFrame:
    """The error of our flow and of DeepFlow by damage of the frames."""
    return wide(rows.assign(name="error, " + rows["name"]), rows["value"].map("{:.3f}".format), "frames", "name")


def real_skin(rows: pd.DataFrame) -> pd.DataFrame:
    """By damage of photographs: our error, how much larger the error of each other method is, and three more measures
    of ours, two of them beside the best of the others."""
    ours, *theirs = rows["name"].unique()
    mine = rows[rows["name"] == ours]
    texts = [signed(span) for span in rows[["lead", "lead_low", "lead_high"]].to_numpy()]
    leads = wide(rows, texts, "frames", "name")
    columns = {"photographs": leads["frames"], f"error, {ours}": mine["value"].map("{:.3f}".format).to_numpy()}
    columns |= {f"{name} minus {ours}": leads[name] for name in theirs}
    for heading, measure in (("where skin moves", "moving_epe"), ("without the head's motion", "nonrigid_epe")):
        values = rows.pivot_table(measure, "frames", "name", sort=False)
        pairs = zip(values[ours], values[theirs].min(axis=1), strict=True)
        columns[f"{heading}, {ours} / best other"] = [f"{error:.3f} / {best:.3f}" for error, best in pairs]
    return pd.DataFrame(columns).assign(**{"kept of a small push": mine["kept_peak"].map("{:.0%}".format).to_numpy()})


def apex(rows: pd.DataFrame) -> pd.DataFrame:
    """The mean error of the apex, and the number of clips that are far off, by what disturbs the clips and by rule."""
    forms = rows["unit"].map({"frames": "{:.2f}", "clips": "{:.0f}"})
    return wide(rows, [form.format(value) for form, value in zip(forms, rows["value"], strict=True)], "frames", "name")


def benchmark(rows: pd.DataFrame) -> pd.DataFrame:
    """The other sections of the benchmark, a line per row."""
    values = rows["value"].astype(float).map(cell) + " " + rows["unit"]
    columns = {"section": rows["section"], "what": rows["name"], "value": values}
    return pd.DataFrame(columns).assign(ratio=rows["ratio"].astype(float).map(cell))


LAYOUTS = {"flow": flow_methods, "damaged": damaged_flow, "real-skin": real_skin, "apex": apex, "bench": benchmark}


def bench_command(rows: pd.DataFrame, record: Mapping[str, Any]) -> str:
    """The command that measures these rows of the benchmark."""
    sections = " ".join(rows["section"].unique())
    if record["parameters"]["quick"]:
        return f"python -m utils.lab.bench --quick --only {sections}"
    faces = " FACES=DIR" if "real_skin" in sections and record["parameters"].get("faces") else ""
    return f'make bench ONLY="{sections}"{faces}'


# Tables of other records --------------------------------------------------------------------------------------------


def flow_images(table: pd.DataFrame) -> pd.DataFrame:
    """The pooled scores of flow images with their intervals, the paired gain, and UF1 of each database."""
    pooled = table["database"] == POOLED
    table = table[(table["measure"] == "UF1") | pooled & table["measure"].isin((*METRICS, GAIN))]
    headings = table["measure"].where(pooled, "UF1 " + table["database"])
    texts = table["value"].map("{:.3f}".format).mask(pooled, pd.Series(interval_texts(table), table.index))
    return wide(table.assign(heading=headings), texts, "row", "heading")


def audit(table: pd.DataFrame) -> pd.DataFrame:
    """UF1 of each network, honest and leaky, and the paired difference."""
    table = table[table["measure"] == "UF1"]
    headings = {"honest": "UF1, honest", "leaky": "UF1, leaky"}
    return wide(table, interval_texts(table), "network", "choice").rename(columns=headings)


def robustness(table: pd.DataFrame) -> pd.DataFrame:
    """The paired difference of each network under each condition, and UF1 where no difference was taken."""
    compared = table["unit"] == "difference"
    table = table[compared | ~table["clips"].isin(table["clips"][compared])]
    return wide(table, interval_texts(table), "clips", "network")


RECORDS = {"flow-images": flow_images, "flow-sources": flow_images, "audit": audit}
RECORDS |= {"robust-images": robustness, "robust-run": robustness}


def times(path: Path) -> pd.DataFrame:
    """How long the commands take: the range over the machines."""
    table = pd.DataFrame(read_artefact(path))
    minutes = [" to ".join(f"{m:.0f}" for m in sorted({min(each), max(each)})) for each in table["minutes"]]
    columns = {"command": "`" + table["what"] + "`", "minutes": minutes}
    return pd.DataFrame(columns).assign(cores=table["cores"], commit=table["commit"].map(short_commit))


def made_by(command: str, records: Iterable[Mapping[str, Any]]) -> str:
    """The line below a table: the command that makes its numbers, and the commits that the records name."""
    commits = dict.fromkeys(short_commit(record.get("commit", "unknown")) for record in records)
    return f"\n\nMade by `{command}` at commit {' and '.join(commits)}."


# Documents ----------------------------------------------------------------------------------------------------------


def fill(texts: Mapping[str, str], mark: str, table: str) -> dict[str, str]:
    """The documents, by name, with the lines between `<!-- mark -->` and `<!-- /mark -->` replaced by the table.

    Raises ValueError unless the marks stand exactly once over all documents.
    """
    pattern = re.compile(rf"(<!-- {mark} -->\n).*?(<!-- /{mark} -->)", flags=re.S)
    count = sum(len(pattern.findall(text)) for text in texts.values())
    if count != 1:
        raise ValueError(
            f"the marks <!-- {mark} --> stand {count} times in {' and '.join(texts)}. "
            f"Remedy: put <!-- {mark} --> and <!-- /{mark} --> once where the table goes."
        )
    return {name: pattern.sub(lambda m: m[1] + table + "\n" + m[2], text) for name, text in texts.items()}


def write_tables(tables: Mapping[str, str]) -> None:
    """Write tables, by mark, into the documents. A document without a change is not written."""
    old = texts = {name: (ROOT / name).read_text(encoding="utf-8") for name in DOCUMENTS}
    for mark, table in tables.items():
        texts = fill(texts, mark, table)
    for name, text in texts.items():
        if text != old[name]:
            with atomic_path(ROOT / name) as temporary:
                temporary.write_text(text, encoding="utf-8")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", nargs="?", help="name of a finished run, such as demo or full")
    parser.add_argument("--bench", action="store_true", help="the tables of the benchmark")
    for mark, layout in RECORDS.items():
        words = f"the table of what `utils.lab.{layout.__name__} --json` wrote"
        parser.add_argument(f"--{mark}", dest=mark, type=Path, metavar="FILE", help=words)
    options = vars(parser.parse_args(arguments))
    tables = run_tables(options["run"]) if options["run"] else {}
    tables |= bench_tables() if options["bench"] else {}
    for mark, layout in RECORDS.items():
        if options[mark]:
            table, record = load(options[mark])
            tables[mark] = markdown_table(layout(table)) + made_by(f"python -m utils.lab.{layout.__name__}", [record])
    path = ROOT / "artefacts" / "times.json"
    if path.exists():
        tables["times"] = markdown_table(times(path))
    write_tables(tables)
    print(f"written: {', '.join(tables) or 'nothing'}")


if __name__ == "__main__":
    main()
