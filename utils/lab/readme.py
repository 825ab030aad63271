"""Writes the tables of README.md and RESULTS.md from the records that runs left, so that no number there is typed.

python -m utils.lab.readme RUN        # from artefacts/RUN and submissions/RUN
python -m utils.lab.readme --bench    # from artefacts/bench, the tables of the sections that ran
python -m utils.lab.readme --flow-images FILE.json    # what `utils.lab.flow_images --json` wrote of one
python -m utils.lab.readme --flow-sources FILE.json   # source, and of several
python -m utils.lab.readme --audit FILE.json          # what `utils.lab.audit --json` wrote
python -m utils.lab.readme --robust-images FILE.json  # what `utils.lab.robustness --json` wrote of images
python -m utils.lab.readme --robust-run FILE.json     # and of a run

A table stands between `<!-- name -->` and `<!-- /name -->` in either document, with the commit that its record names.
Times come from artefacts/times.json, where it is, with every call: a list of {what, minutes, cores, commit}.
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
from utils.paths import ROOT
from utils.report.tables import _signed, _span, cell, markdown_table, run_command, scores_with_intervals, short_commit

DOCUMENTS = ("README.md", "RESULTS.md")
MARKS = (
    *("times", "results", "headline", "ablation", "flow", "damaged", "real-skin", "apex", "bench"),
    *("flow-images", "flow-sources", "audit", "robust-images", "robust-run"),
    *("face-model-results", "face-model-headline", "face-model-ablation"),
)
# Columns of the flow table: heading, place as the benchmark's record names it, what is shown of it.
FLOW_COLUMNS = (
    ("error, head still", "head still", "value", "{:.3f}"),
    ("error, head moves", "head moves", "value", "{:.3f}"),
    ("error, no blink or glance", "no blink or glance", "value", "{:.3f}"),
    ("error without the head's motion", "head moves", "nonrigid_epe", "{:.3f}"),
    ("error at 128 px", "128 px", "value", "{:.3f}"),
    ("direction, degrees", "head still", "direction_deg", "{:.1f}"),
    ("ms", "head still", "ms", "{:.0f}"),
)


# Tables of a run ----------------------------------------------------------------------------------------------------


def run_tables(run: str) -> dict[str, str]:
    """The tables of one run, by mark; those of the ablation only where it ran.

    A run on faces of another model (FACE_MODEL=) has marks of its own.
    """
    tables = {"results": results(run)}
    if (ROOT / "artefacts" / run / "ablation.csv").exists():
        tables |= {"headline": headline(run), "ablation": ablation(run)}
    prefix = "face-model-" if _submission(run).get("data", {}).get("face_model") else ""
    return {prefix + mark: table for mark, table in tables.items()}


def results(run: str) -> str:
    """The figures of merit of one run as a Markdown table: those that its data allow."""
    card, flow, held = (_record(run, stage) for stage in ("01_render", "02_flow_apex", "03_train"))
    submit = _submission(run)
    board = {row["prediction"]: row for row in submit["scores"].get("leaderboard", [])}
    rows = [("held-out subjects of the training split, macro-UF1", str(Interval(**held["scores"]["interval"])))]
    if board:
        trivial = max((row for name, row in board.items() if name != "ours"), key=lambda row: row["macro_uf1"])
        rows += [
            ("test subjects (local leaderboard), macro-UF1", _span(board["ours"])),
            ("best answer there that looks at no clip", _span(trivial)),
        ]
    for label, scores, name, form in (
        ("a classifier that is given the true unit intensities", card, "true_units", "{:.3f}"),
        ("apex, mean absolute error in frames", flow, "apex_mean_abs_frames", "{:.2f}"),
        ("flow, mean end-point error in px of a 256 px face", flow, "flow_epe_px", "{:.3f}"),
    ):
        if name in scores["scores"]:
            rows.append((label, form.format(scores["scores"][name])))
    table = markdown_table(pd.DataFrame(rows, columns=["measure", "value"]))
    return table + made_by(run_command("all", run, submit), (card, flow, held, submit))


def headline(run: str) -> str:
    """The rows of HEADLINE that a run's ablation has: without rendered views there is none without stabilisation."""
    table = read_artefact(ROOT / "artefacts" / run / "ablation.csv").set_index("variant", drop=False)
    rows = table.loc[[name for name in HEADLINE if name in table.index]]
    return markdown_table(scores_with_intervals(rows)) + _ablation_made_by(run)


def ablation(run: str) -> str:
    """The whole ablation of one run as a Markdown table."""
    table = read_artefact(ROOT / "artefacts" / run / "ablation.csv")
    more = {
        "UAR": table["uar"].map("{:.3f}".format),
        "mAP": table["map"].map("{:.3f}".format),
        "seeds": table["seeds"],
        "folds": table["folds"],
        "parameters": table["parameters"].map("{:,}".format),
        "seconds": table["seconds"].round().astype(int),
    }
    return markdown_table(scores_with_intervals(table).assign(**more)) + _ablation_made_by(run)


def _ablation_made_by(run: str) -> str:
    record = _record(run, "04_ablation")
    return made_by(run_command("ablation", run, record | {"data": _submission(run).get("data", {})}), [record])


def _submission(run: str) -> dict[str, Any]:
    return read_artefact(ROOT / "submissions" / run / "run.json")


def _record(run: str, stage: str) -> dict[str, Any]:
    return read_artefact(ROOT / "artefacts" / run / "records" / f"{stage}.json")


# Tables of other records --------------------------------------------------------------------------------------------


def bench_tables() -> dict[str, str]:
    """The tables of the benchmark, by mark: those of the sections that ran."""
    record = read_artefact(ROOT / "artefacts" / "bench" / "bench.json")
    rows = pd.DataFrame(record["rows"])
    makers = {
        "flow": (flow_methods, rows["section"] == "flow"),
        "damaged": (damaged_flow, rows["section"] == "damaged_flow"),
        "real-skin": (real_skin, rows["section"] == "real_skin"),
        "apex": (apex, rows["section"] == "apex"),
        "bench": (benchmark, ~rows["section"].isin(["flow", "damaged_flow", "real_skin", "apex"])),
    }
    return {
        mark: make(rows[chosen]) + made_by(bench_command(rows[chosen], record), [record])
        for mark, (make, chosen) in makers.items()
        if chosen.any()
    }


def flow_methods(rows: pd.DataFrame) -> str:
    """Flow methods against exact flow in the places that the benchmark's record marks as shown; one that it lacks
    has no column."""
    rows = rows.assign(method=rows["name"].str.split(": ", n=1).str[1])
    places = {place: part.set_index("method") for place, part in rows.groupby("shown")}
    text = {
        heading: places[place][column].map(form.format)
        for heading, place, column, form in FLOW_COLUMNS
        if place in places
    }
    methods = rows["method"].drop_duplicates()
    return markdown_table(pd.DataFrame(text).loc[methods].rename_axis("method").reset_index())


def damaged_flow(rows: pd.DataFrame) -> str:
    """Error of our flow and of DeepFlow by what was done to the frames."""
    rows = rows.copy()
    rows[["frames", "method"]] = rows["name"].str.rsplit(": ", n=1, expand=True)
    wide = rows.pivot_table("value", "frames", "method", sort=False).map("{:.3f}".format)
    return markdown_table(wide.add_prefix("error, ").reset_index())


def real_skin(rows: pd.DataFrame) -> str:
    """By what was done to photographs: our error, by how much each other method errs more, and three more measures of
    ours beside the best of the others."""
    rows = rows.dropna(subset=["moving_epe"]).copy()  # those of clips without truth have none
    rows[["photographs", "method"]] = rows["name"].str.rsplit(": ", n=1, expand=True)
    ours, *others = rows["method"].unique()
    wide = {
        measure: rows.pivot_table(measure, "photographs", "method", sort=False)
        for measure in ("value", "moving_epe", "nonrigid_epe", "kept_peak")
    }
    leads = rows.pivot(index="photographs", columns="method", values="lead")
    columns = {f"error, {ours}": wide["value"][ours].map("{:.3f}".format)}
    columns |= {f"{name} less that": leads[name].loc[wide["value"].index] for name in others}
    for heading, measure in (("where skin moves", "moving_epe"), ("without the head's motion", "nonrigid_epe")):
        best = wide[measure][others].min(axis=1)
        columns[f"{heading}, {ours} / best other"] = [
            f"{own:.3f} / {other:.3f}" for own, other in zip(wide[measure][ours], best, strict=True)
        ]
    columns["kept of a small push"] = wide["kept_peak"][ours].map("{:.0%}".format)
    return markdown_table(pd.DataFrame(columns).rename_axis("photographs").reset_index())


def apex(rows: pd.DataFrame) -> str:
    """Mean error of the apex by what disturbs the clips, and how many clips are far off: a column for each rule."""
    rows = rows.copy()
    rows[["frames", "rule"]] = rows["name"].str.rsplit(": ", n=1, expand=True)
    rows["text"] = (
        rows["value"].map("{:.2f}".format).where(rows["unit"] == "frames", rows["value"].map("{:.0f}".format))
    )
    wide = rows.pivot(index="frames", columns="rule", values="text")
    return markdown_table(wide.loc[rows["frames"].unique(), rows["rule"].unique()].reset_index())


def benchmark(rows: pd.DataFrame) -> str:
    """Sections of the benchmark, a row a line."""
    columns = {
        "section": rows["section"],
        "what": rows["name"],
        "value": [f"{cell(float(value))} {unit}" for value, unit in zip(rows["value"], rows["unit"], strict=True)],
        "ratio": [cell(float(ratio)) for ratio in rows["ratio"]],
    }
    return markdown_table(pd.DataFrame(columns))


def flow_images(path: Path) -> str:
    """The rows that `flow_images` wrote as a Markdown table: UF1, UAR, the paired gain, and UF1 of each database."""
    record = read_artefact(path)
    parts = [part for part in record["clips"] if part != "pooled"]
    lines = []
    for name, row in record["rows"].items():
        pooled = row["pooled"]
        line = {"row": name} | {key.upper(): str(Interval(**pooled[key])) for key in ("uf1", "uar")}
        gain = pooled["gain"]
        line["UF1 less the network's"] = _signed([gain[end] for end in ("value", "low", "high")]) if gain else ""
        lines.append(line | {f"UF1 {part}": f"{row[part]['uf1']['value']:.3f}" for part in parts})
    return markdown_table(pd.DataFrame(lines)) + made_by("python -m utils.lab.flow_images", [record])


def audit(path: Path) -> str:
    """The rows that `audit` wrote as a Markdown table: UF1 honest and leaky, and the paired price."""
    record = read_artefact(path)
    lines = []
    for name, row in record["rows"].items():
        honest, leaky = (str(Interval(**row[how]["uf1"])) for how in ("honest", "leaky"))
        price = _signed([row["price"][end] for end in ("value", "low", "high")])
        lines.append({"network": name, "UF1, honest": honest, "UF1, leaky": leaky, "leaky less honest": price})
    return markdown_table(pd.DataFrame(lines)) + made_by("python -m utils.lab.audit", [record])


def robustness(path: Path) -> str:
    """What `robustness` wrote as a Markdown table: UF1 as learnt, and in other conditions the paired difference; of
    networks that learnt from the other databases UF1."""
    record = read_artefact(path)
    columns = {}
    for name, conditions in record["rows"].items():
        (usual, first), *others = conditions.items()
        column = {usual: str(Interval(**first["uf1"]))}
        for condition, scores in others:
            column[condition] = _signed([scores["difference"][end] for end in ("value", "low", "high")])
        for dataset, scores in record.get("across", {}).get(name, {}).items():
            column[f"{dataset}, learnt from the others"] = str(Interval(**scores["uf1"]))
        columns[name] = column
    table = pd.DataFrame(columns).fillna("").rename_axis("clips").reset_index()
    return markdown_table(table) + made_by("python -m utils.lab.robustness", [record])


def times() -> str:
    """How long the commands take, from artefacts/times.json."""
    rows = [
        {
            "command": f"`{row['what']}`",
            "minutes": f"{row['minutes']:.1f}",
            "cores": row["cores"],
            "commit": short_commit(row["commit"]),
        }
        for row in read_artefact(_times_path())
    ]
    return markdown_table(pd.DataFrame(rows))


def _times_path() -> Path:
    return ROOT / "artefacts" / "times.json"


# Where a table comes from -------------------------------------------------------------------------------------------


def made_by(command: str, records: Iterable[Mapping[str, Any]]) -> str:
    """The line below a table: the command that makes its numbers, and the commits that the records name."""
    commits = dict.fromkeys(short_commit(record.get("commit", "unknown")) for record in records)
    return f"\n\nMade by `{command}` at commit {' and '.join(commits)}."


def bench_command(rows: pd.DataFrame, record: Mapping[str, Any]) -> str:
    """The command that measures these rows of a benchmark's record."""
    sections = " ".join(rows["section"].unique())
    if record["parameters"]["quick"]:
        return f"python -m utils.lab.bench --quick --only {sections}"
    given = record["parameters"] if "real_skin" in sections.split() else {}
    return f'make bench ONLY="{sections}"' + "".join(
        f" {name.upper()}=DIR" for name in ("faces", "clips") if given.get(name)
    )


# Documents ----------------------------------------------------------------------------------------------------------


def fill(texts: Mapping[str, str], name: str, table: str) -> dict[str, str]:
    """The documents, by name, with the lines between `<!-- name -->` and `<!-- /name -->` replaced.

    ValueError unless the marks stand exactly once over all documents.
    """
    pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", flags=re.S)
    found = sum(len(pattern.findall(text)) for text in texts.values())
    if found != 1:
        raise ValueError(
            f"the marks <!-- {name} --> stand {found} times in {' and '.join(texts)}. "
            f"Remedy: put <!-- {name} --> and <!-- /{name} --> once where the table goes."
        )
    return {place: pattern.sub(lambda m: m[1] + table + "\n" + m[2], text) for place, text in texts.items()}


def read_documents() -> dict[str, str]:
    """The texts of DOCUMENTS, by name. ValueError unless every mark stands exactly once over them."""
    texts = {name: (ROOT / name).read_text(encoding="utf-8") for name in DOCUMENTS}
    for mark in MARKS:
        fill(texts, mark, "")
    return texts


def write_tables(tables: Mapping[str, str]) -> None:
    """Put tables, by mark, into the documents; a document in which nothing changes is not touched."""
    old = texts = read_documents()
    for name, table in tables.items():
        texts = fill(texts, name, table)
    for name, text in texts.items():
        if text != old[name]:
            with atomic_path(ROOT / name) as temporary:
                temporary.write_text(text, encoding="utf-8")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", nargs="?", help="name of a finished run, such as demo or full")
    parser.add_argument("--bench", action="store_true", help="the tables of the benchmark")
    parser.add_argument("--flow-images", type=Path, metavar="FILE", help="the table of real flow images")
    parser.add_argument("--flow-sources", type=Path, metavar="FILE", help="the same of several sources")
    parser.add_argument("--audit", type=Path, metavar="FILE", help="the table of the audit")
    parser.add_argument("--robust-images", type=Path, metavar="FILE", help="the table of flow images seen otherwise")
    parser.add_argument("--robust-run", type=Path, metavar="FILE", help="the table of a run's clips seen otherwise")
    options = parser.parse_args(arguments)
    tables = run_tables(options.run) if options.run else {}
    tables |= bench_tables() if options.bench else {}
    if options.flow_images:
        tables["flow-images"] = flow_images(options.flow_images)
    if options.flow_sources:
        tables["flow-sources"] = flow_images(options.flow_sources)
    if options.audit:
        tables["audit"] = audit(options.audit)
    for name in ("robust-images", "robust-run"):
        if path := getattr(options, name.replace("-", "_")):
            tables[name] = robustness(path)
    if _times_path().exists():
        tables["times"] = times()
    write_tables(tables)
    print(f"written: {', '.join(tables) or 'nothing'}")


if __name__ == "__main__":
    main()
