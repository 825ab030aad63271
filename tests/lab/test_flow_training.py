"""Facts about utils.lab.teachers.train_flow: interrupted trainings continue, and batches are made ahead in order."""

import threading
from dataclasses import replace

import numpy as np
import pytest
import torch

from utils.flow.faceflow_net import OUT, SIZE, FlowNetConfig
from utils.lab.teachers import train_flow
from utils.lab.teachers.flow_lessons import Lessons
from utils.lab.teachers.train_flow import FlowTraining, prefetched, train

SMALL = FlowNetConfig(coarse=(4, 4), fine=(4, 4))
CONFIG = FlowTraining(people=1, epochs=3, batch=4)


class CutOffError(Exception):
    pass


@pytest.fixture(scope="module")
def lessons():
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 255, (2, 8, SIZE, SIZE), dtype=np.uint8)
    flows = rng.normal(0, 0.3, (2, 8, 2, OUT, OUT)).astype(np.float16)
    return Lessons(*frames, *flows, np.ones((8, OUT, OUT), bool))


@pytest.fixture(autouse=True)
def few_pairs_to_standardise(monkeypatch):
    monkeypatch.setattr(train_flow, "STANDARD", 8)


def same(net, other):
    return all(map(torch.equal, net.state_dict().values(), other.state_dict().values()))


def test_an_interrupted_training_ends_with_the_weights_of_an_uninterrupted_one(lessons, tmp_path, monkeypatch):
    uninterrupted = train(lessons, CONFIG, SMALL)
    save, epochs = train_flow.save_checkpoint, []

    def save_and_stop(path, key, epoch, parts):
        save(path, key, epoch, parts)
        epochs.append(epoch)
        if epochs == [1, 2]:
            raise CutOffError

    monkeypatch.setattr(train_flow, "save_checkpoint", save_and_stop)
    with pytest.raises(CutOffError):
        train(lessons, CONFIG, SMALL, tmp_path / "kept.pt")
    continued = train(lessons, CONFIG, SMALL, tmp_path / "kept.pt")
    assert epochs == [1, 2, 3] and same(uninterrupted, continued)
    assert len(list(tmp_path.iterdir())) == 1


def test_the_checkpoint_of_another_training_is_not_used(lessons, tmp_path, capsys):
    first = train(lessons, CONFIG, SMALL, tmp_path / "kept.pt")
    capsys.readouterr()
    assert not same(train(lessons, replace(CONFIG, seed=1), SMALL, tmp_path / "kept.pt"), first)
    assert "epoch 1/3" in capsys.readouterr().out


def test_a_second_course_starts_from_the_first_network_and_leaves_it_unchanged(lessons):
    first = train(lessons, CONFIG, SMALL)
    config = replace(CONFIG, epochs=1, masked=1.0)
    assert same(train(lessons, replace(config, lr=0.0, average=0.0), first), first)
    before = {name: value.clone() for name, value in first.state_dict().items()}
    assert not same(train(lessons, config, first), first)
    assert all(torch.equal(before[name], value) for name, value in first.state_dict().items())


def test_items_come_in_order_and_errors_after_the_items_before_them():
    def three():
        yield from range(3)
        raise CutOffError("the fourth")

    assert list(prefetched(iter(range(20)))) == list(range(20))
    items = []
    with pytest.raises(CutOffError, match="the fourth"):
        items.extend(prefetched(three()))
    assert items == [0, 1, 2]


def test_no_more_items_are_made_after_the_caller_has_stopped():
    items = prefetched(iter(range(100)))
    assert next(items) == 0
    (worker,) = [thread for thread in threading.enumerate() if thread.name.startswith(train_flow.PREFETCHING)]
    items.close()
    worker.join(60)
    assert not worker.is_alive()
