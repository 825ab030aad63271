"""Facts about the audit: what a leak changes, which epoch is kept, and what the command prints."""

import sys
from dataclasses import replace

import numpy as np
import pytest
from helpers.data import write_shared_images

from utils.evaluate.protocol import grouped_folds
from utils.lab.audit import audit, audited, main
from utils.lab.flow_images import read_sources
from utils.lab.htnet import HTNetConfig
from utils.lab.tables import load
from utils.train.ensemble import predict
from utils.train.fit import fit, network_estimator
from utils.train.network import ModelConfig
from utils.train.settings import TrainConfig

QUICK = TrainConfig(mode="single-label", epochs=6, patience=6, batch=16, stop_by="accuracy")
TWO_CLASSES = {"classes": 2, "views": 1, "phases": 1}


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    root, labels = write_shared_images(tmp_path_factory.mktemp("images"), clips=48)
    return next(iter(read_sources([str(root)], str(labels))[0].values()))


def test_a_leak_can_only_be_seen_in_the_choice_of_the_epoch(samples):
    """Where nothing in the pictures tells the label, choosing on the test person beats chance, and honesty does not."""
    rng = np.random.default_rng(0)
    x = rng.normal(0, 1, samples.x.shape)
    noise = replace(samples, x=x, y=np.eye(2)[rng.integers(0, 2, len(samples))])
    network = network_estimator(ModelConfig(**TWO_CLASSES), replace(QUICK, epochs=15, patience=15), "first")
    table = audit(noise, {"network": network}, seed=0, jobs=1)
    uf1 = table[table["measure"] == "UF1"].set_index("choice")["value"]
    assert uf1["leaky"] > uf1["honest"] + 0.05
    assert uf1["leaky less honest"] == pytest.approx(uf1["leaky"] - uf1["honest"])


def test_the_epoch_that_is_kept_is_the_most_accurate(samples):
    train, val = (samples.subset(part) for part in grouped_folds(samples.y, samples.subjects, 3)[0])
    ensemble = fit(train, val, ModelConfig(**TWO_CLASSES), QUICK)
    assert len(ensemble.members[0].history) == QUICK.epochs and 1 <= ensemble.members[0].epoch <= QUICK.epochs
    with pytest.raises(ValueError, match="stop_by is 'accuracy'. Remedy"):
        TrainConfig(stop_by="accuracy")


def test_the_transformer_learns_where_motion_is(samples):
    plain = replace(QUICK, epochs=30, patience=0, stop_by="loss", lr=1e-3, loss="bce", mirror=0.0, mixup=0.0)
    train, test = (samples.subset(part) for part in grouped_folds(samples.y, samples.subjects, 3)[0])
    answers = predict(fit(train, None, HTNetConfig(**TWO_CLASSES), plain), test.x)[0]
    assert (answers.argmax(1) == test.y.argmax(1)).mean() > 0.9


def test_the_command_audits_all_networks_and_prints_their_table(samples, tmp_path, monkeypatch, capsys):
    root, labels = write_shared_images(tmp_path)
    assert {"STSTNet", "Off-ApexNet", "HTNet, small", "ours"} < set(audited(samples))
    quick = {"ours": network_estimator(ModelConfig(**TWO_CLASSES), QUICK, "first")}
    monkeypatch.setattr("utils.lab.audit.audited", lambda samples: quick)
    command = ["audit", "--root", str(root), "--labels", str(labels), "--jobs", "1", "--json", str(tmp_path / "a.json")]
    monkeypatch.setattr(sys, "argv", command)
    main()
    header, _, uf1, uar = capsys.readouterr().out.splitlines()
    assert header == "| network | measure | n | subjects | honest | leaky | leaky less honest |"
    assert uf1.startswith("| ours | UF1 | 24 | 6 | ") and uar.startswith("| ours | UAR | 24 | 6 | ")
    assert len(load(tmp_path / "a.json")[0]) == 6
    monkeypatch.setattr(sys, "argv", ["audit", "--root", str(tmp_path / "none")])
    with pytest.raises(SystemExit, match="error: .*Remedy"):
        main()
