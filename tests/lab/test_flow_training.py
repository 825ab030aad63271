"""Facts about the flow network's training: it goes on where it was cut off, and its lessons come in their order."""

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


def states(net):
    return list(net.state_dict().values())


def test_a_training_that_was_cut_off_ends_as_one_that_was_not(lessons, tmp_path, monkeypatch):
    whole = train(lessons, CONFIG, SMALL)
    save = train_flow.save_checkpoint

    def cut_off(path, key, epoch, parts):
        save(path, key, epoch, parts)
        if epoch == 2:
            raise CutOffError

    monkeypatch.setattr(train_flow, "save_checkpoint", cut_off)
    with pytest.raises(CutOffError):
        train(lessons, CONFIG, SMALL, tmp_path / "kept.pt")
    monkeypatch.setattr(train_flow, "save_checkpoint", save)
    epochs = []
    monkeypatch.setattr(train_flow, "save_checkpoint", lambda path, key, epoch, parts: epochs.append(epoch))
    again = train(lessons, CONFIG, SMALL, tmp_path / "kept.pt")
    assert epochs == [3] and all(map(torch.equal, states(whole), states(again)))
    assert len(list(tmp_path.iterdir())) == 1


def test_what_another_training_kept_is_not_gone_on_with(lessons, tmp_path, capsys):
    train(lessons, CONFIG, SMALL, tmp_path / "kept.pt")
    other = replace(CONFIG, seed=1)
    assert not all(map(torch.equal, states(train(lessons, other, SMALL)), states(train(lessons, CONFIG, SMALL))))
    capsys.readouterr()
    train(lessons, other, SMALL, tmp_path / "kept.pt")
    assert "epoch 1/3" in capsys.readouterr().out


def test_a_second_course_begins_where_the_first_ended_and_leaves_it_as_it_was(lessons, tmp_path):
    first = train(lessons, CONFIG, SMALL)
    before = [value.clone() for value in states(first)]
    still = train(lessons, replace(CONFIG, epochs=1, lr=0.0, average=0.0, masked=1.0), first, tmp_path / "kept.pt")
    assert all(map(torch.equal, before, states(still)))
    second = train(lessons, replace(CONFIG, epochs=1, masked=1.0), first, tmp_path / "other.pt")
    assert all(map(torch.equal, before, states(first))) and not all(map(torch.equal, before, states(second)))


def test_items_come_in_their_order_and_faults_where_they_are():
    def three():
        yield from range(3)
        raise CutOffError("the fourth")

    assert list(prefetched(iter(range(20)))) == list(range(20))
    found = []
    with pytest.raises(CutOffError, match="the fourth"):
        found.extend(prefetched(three()))


def test_items_that_nobody_takes_any_more_are_made_no_longer():
    items = prefetched(iter(range(100)))
    assert next(items) == 0
    (worker,) = [thread for thread in threading.enumerate() if thread.name == train_flow.PREFETCHING]
    items.close()
    worker.join(60)
    assert not worker.is_alive()
