import sys
from dataclasses import replace

import numpy as np
import pytest
from helpers.data import write_shared_images

from utils.evaluate.protocol import grouped_folds
from utils.lab.audit import audit, audited, format_audit, main
from utils.lab.flow_images import read_sources
from utils.lab.htnet import HTNetConfig
from utils.train.ensemble import predict
from utils.train.fit import fit, network_estimator
from utils.train.network import ModelConfig
from utils.train.settings import TrainConfig

QUICK = TrainConfig(mode="single-label", epochs=6, patience=6, batch=16, stop_by="accuracy")


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    root, labels = write_shared_images(tmp_path_factory.mktemp("images"), clips=48)
    return next(iter(read_sources([str(root)], str(labels))[0].values()))


def test_a_leak_can_only_be_seen_in_the_choice_of_the_epoch(samples):
    """Where nothing in the pictures tells the label, choosing on the test person beats chance, and honesty does not."""
    rng = np.random.default_rng(0)
    noise = replace(
        samples,
        x=rng.normal(0, 1, samples.x.shape),
        y=np.eye(2)[rng.integers(0, 2, len(samples))],
    )
    row = {
        "network": network_estimator(
            ModelConfig(classes=2, views=1, phases=1), replace(QUICK, epochs=15, patience=15), "first"
        )
    }
    found = audit(noise, row)["network"]
    assert found["leaky"]["uf1"]["value"] > found["honest"]["uf1"]["value"] + 0.05
    assert found["price"]["value"] == pytest.approx(found["leaky"]["uf1"]["value"] - found["honest"]["uf1"]["value"])


def test_the_epoch_that_is_kept_is_the_most_accurate(samples):
    train, val = (samples.subset(part) for part in grouped_folds(samples.y, samples.subjects, 3)[0])
    ensemble = fit(train, val, ModelConfig(classes=2, views=1, phases=1), QUICK)
    assert len(ensemble.members[0].history) == QUICK.epochs and 1 <= ensemble.members[0].epoch <= QUICK.epochs
    with pytest.raises(ValueError, match="stop_by is 'accuracy'. Remedy"):
        TrainConfig(stop_by="accuracy")


def test_the_transformer_learns_where_motion_is(samples):
    config = HTNetConfig(classes=2, views=1, phases=1)
    plain = replace(QUICK, epochs=30, patience=0, stop_by="loss", lr=1e-3, loss="bce", mirror=0.0, mixup=0.0)
    train, test = (samples.subset(part) for part in grouped_folds(samples.y, samples.subjects, 3)[0])
    answers = predict(fit(train, None, config, plain), test.x)[0]
    assert (answers.argmax(1) == test.y.argmax(1)).mean() > 0.9


def test_the_command_audits_all_networks(samples, tmp_path, monkeypatch, capsys):
    root, labels = write_shared_images(tmp_path)
    names = list(audited(samples))
    assert {"STSTNet", "Off-ApexNet", "HTNet, small", "ours"} < set(names)
    quick = {"ours": network_estimator(ModelConfig(classes=2, views=1, phases=1), QUICK, "first")}
    monkeypatch.setattr("utils.lab.audit.audited", lambda samples: quick)
    arguments = [
        "audit",
        "--root",
        str(root),
        "--labels",
        str(labels),
        "--jobs",
        "1",
        "--json",
        str(tmp_path / "a.json"),
    ]
    monkeypatch.setattr(sys, "argv", arguments)
    main()
    assert "ours" in capsys.readouterr().out and (tmp_path / "a.json").exists()
    monkeypatch.setattr(sys, "argv", ["audit", "--root", str(tmp_path / "none")])
    with pytest.raises(SystemExit, match="error: .*Remedy"):
        main()


def test_a_table_says_whom_it_is_of():
    span = {"value": 0.5, "low": 0.4, "high": 0.6}
    row = {"honest": {"uf1": span}, "leaky": {"uf1": span}, "price": span}
    text = format_audit({"clips": 24, "subjects": 6, "seed": 1, "rows": {"ours": row}})
    assert text.startswith("24 clips, 6 subjects, leave one subject out, seed 1") and "0.500 [0.400, 0.600]" in text
