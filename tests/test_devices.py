"""Several devices and processes: equal parts, the same numbers, and an end when one is gone."""

import json
import logging
import os
import signal
import socket
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from facegcn.errors import Terminated, UserError
from facegcn.training import peers
from facegcn.training.devices import WHOLE, Devices, Share
from facegcn.training.interruption import StopRequest
from facegcn.training.peers import Cluster, PeerWatch
from tests.conftest import ROOT


def test_a_step_on_two_devices_is_one_step_on_the_whole_batch():
    done = subprocess.run([sys.executable, "-m", "tests.replica_steps"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert {"pixel", "truth", "gradient_penalty", "wasserstein", "drawn", "gradient 0"} <= found.keys()
    assert len(found) > 15, "variables of critic and optimiser, too"
    for name, difference in found.items():
        assert difference < 2e-5, (name, found)


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_processes_share_each_batch_without_gap_or_overlap(processes):
    shares = [Share(processes, index, 8) for index in range(processes)]
    kept = [{n for n in range(64) if share.kept(16) is None or share.kept(16)(n)} for share in shares]
    assert set.union(*kept) == set(range(64)) and sum(map(len, kept)) == 64
    assert [share.part(16) * share.local_replicas * processes for share in shares] == [16] * processes
    assert all(n % 16 // (16 // processes) == index for index, mine in enumerate(kept) for n in mine)


def test_batches_that_cannot_be_split_are_refused():
    devices = Devices()
    devices.check_batches(batch_size=5)
    devices.replicas = 4
    devices.check_batches(batch_size=8, rec_photo_batch=0)
    with pytest.raises(UserError, match="batch_size .* 4 devices .* 6 .*set batch_size=4 or 8"):
        devices.check_batches(batch_size=6)
    with pytest.raises(UserError, match="set rec_batch_size=4,"):
        devices.check_batches(rec_batch_size=3)


def test_one_device_changes_nothing(tmp_path):
    devices, data = Devices(), tf.data.Dataset.range(3)
    assert devices.chief and devices.replicas == 1
    assert devices.batches(lambda share: data if share == WHOLE else None) is data
    assert devices.from_chief("said") == "said"
    with devices.scope(), devices.chief_first():
        devices.check_same("values", np.arange(3))
    assert not tf.distribute.has_strategy()


def with_tf_config(monkeypatch, jobs, kind="worker", index=0):
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": jobs, "task": {"type": kind, "index": index}}))
    return Cluster.from_environment()


def test_processes_are_numbered_from_the_chief_on(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    assert Cluster.from_environment() is None
    jobs = {"worker": ["b:2", "[::1]:3"], "chief": ["a:1"]}
    cluster = with_tf_config(monkeypatch, jobs, index=1)
    assert cluster == (("a:1", "b:2", "[::1]:3"), 2) and cluster.name(0) == "worker 0 (a:1)"
    assert with_tf_config(monkeypatch, jobs, "chief").index == 0
    assert with_tf_config(monkeypatch, {"worker": ["a:1"]}) is None, "alone"


@pytest.mark.parametrize("text", [
    "{", "[]", '{"cluster": {"worker": ["a", "b:1"]}, "task": {"type": "worker", "index": 0}}',
    '{"cluster": {"worker": ["a:1", "b:1"], "ps": ["c:1"]}, "task": {"type": "worker", "index": 0}}',
    '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 2}}',
    '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "evaluator", "index": 0}}',
    '{"cluster": {"worker": ["a:1", "b:1"]}}'])
def test_a_cluster_that_cannot_be_understood_is_named(monkeypatch, text):
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(UserError, match="TF_CONFIG cannot be understood.*unset it"):
        Cluster.from_environment()


def test_a_process_that_is_gone_ends_this_one_with_one_message(monkeypatch, caplog):
    ended = []
    monkeypatch.setattr(peers, "_INTERVAL", 0.02)
    monkeypatch.setattr(peers.os, "_exit", lambda code: ended.append(code) or watch._over.set())
    with socket.create_server(("127.0.0.1", 0)) as server, caplog.at_level(logging.ERROR, "facegcn"):
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with PeerWatch(Cluster((address, "127.0.0.1:1"), 1)) as watch:
            watch._thread.join(0.3)
            assert watch._thread.is_alive() and not ended, "it is there"
            server.close()
            watch._thread.join(20)
    assert ended == [peers.EXIT_PEER_GONE]
    assert len(caplog.messages) == 1 and f"worker 0 ({address}) is gone" in caplog.text and "--restore" in caplog.text


def test_several_processes_stop_at_the_step_they_agreed_on():
    met = []
    with pytest.raises(Terminated), StopRequest(lambda: met.append(1)) as stop:
        stop.awaited = True
        os.kill(os.getpid(), signal.SIGTERM)
        stop.obey()
        assert stop.wished and not stop.asked, "the others do not know yet"
        stop.agree()
        assert stop.asked and not met
        stop.obey()
    assert met == [1], "nobody leaves while another still saves"
    with pytest.raises(Terminated), StopRequest(list) as stop:
        stop.agree()  # another process was asked
        stop.obey()
    with pytest.raises(Terminated), StopRequest(lambda: met.append(2)) as stop:
        stop.agree()
        os.kill(os.getpid(), signal.SIGTERM)  # this one is asked itself, a little later, while it saves
        stop.obey()
    assert met == [1, 2], "it waits for the others nevertheless"
    with pytest.raises(Terminated), StopRequest(list) as stop:
        stop.agree()
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        pytest.fail("a second one ends it at once")
    with pytest.raises(Terminated), StopRequest(list) as stop:
        stop.awaited = True
        os.kill(os.getpid(), signal.SIGTERM)  # in the last step
