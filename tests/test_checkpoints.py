"""Checkpoints, encodings and weights that are cut, stops that are asked for, and sums that go on."""

import contextlib
import gc
import math
import os
import pathlib
import signal
import time
import tracemalloc
import types
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf

from facegcn import files
from facegcn.errors import Terminated, UserError
from facegcn.networks.regressor import load_weights, save_weights
from facegcn.photos.packed_file import write_bin
from facegcn.photos.packed_photos import PackedPhotos
from facegcn.training import callbacks, encoding
from facegcn.training.checkpoints import Checkpoints, TrainingState
from facegcn.training.interruption import StopRequest, pipelines_ended


def opened(folder, seconds=math.inf, **parts):
    state = TrainingState()
    variable = tf.Variable(np.zeros(1000, np.float32))
    return Checkpoints(str(folder / "texture"), state, seconds, weights=variable, **parts), state, variable


def saved(folder, count=3):
    checkpoints, state, variable = opened(folder)
    for number in range(1, count + 1):
        state.step, state.window = number, {"total": (number / 3, 1)}
        variable.assign(np.full(1000, number))
        checkpoints.save()


def cut(path, share=0.5):
    whole = path.read_bytes()
    path.write_bytes(whole[:int(len(whole) * share)])


# ---------------------------------------------------------------- checkpoints
def test_state_and_weights_come_back_to_the_last_digit(tmp_path):
    saved(tmp_path)
    checkpoints, state, variable = opened(tmp_path)
    assert checkpoints.restore()
    assert state.step == 3 and state.window == {"total": [3 / 3, 1]} and (variable.numpy() == 3).all()
    assert len(list((tmp_path / "texture").glob("*.index"))) == 2, "the newest, and one before it"


def test_a_folder_may_be_named_from_where_one_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    here = pathlib.Path("runs", "00000-demo-resnet", "checkpoints")
    saved(here)
    for step in (3, 8):
        checkpoints, state, variable = opened(here)
        assert checkpoints.restore() and state.step == step and (variable.numpy() == 3).all()
        state.step = 8
        checkpoints.save()
    there = tmp_path / here
    assert tf.train.latest_checkpoint(str(there / "texture")) == str(there / "texture" / "ckpt-5")
    checkpoints, state, _ = opened(there)
    assert checkpoints.restore() and state.step == 8


def test_without_a_checkpoint_training_begins(tmp_path):
    checkpoints, state, _ = opened(tmp_path)
    assert not checkpoints.restore() and state.step == 0 and not (tmp_path / "texture").exists()


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
@pytest.mark.parametrize("ending", ["index", "data-00000-of-00001"])
def test_the_one_before_a_damaged_checkpoint_is_taken(tmp_path, ending, share, caplog):
    saved(tmp_path)
    cut(tmp_path / "texture" / f"ckpt-3.{ending}", share)
    checkpoints, state, variable = opened(tmp_path)
    assert checkpoints.restore() and state.step == 2 and (variable.numpy() == 2).all()
    assert "passing over" in caplog.text and str(tmp_path / "texture" / "ckpt-3") in caplog.text
    state.step = 7
    checkpoints.save()
    again, state, _ = opened(tmp_path)
    assert again.restore() and state.step == 7, "and training goes on from there"


@pytest.mark.parametrize("damage", [lambda path: cut(path), lambda path: path.write_bytes(b""),
                                    lambda path: path.write_bytes(b"\xff\0"), lambda path: path.unlink()])
def test_a_damaged_list_of_checkpoints_is_mended(tmp_path, damage):
    saved(tmp_path)
    damage(tmp_path / "texture" / "checkpoint")
    checkpoints, state, _ = opened(tmp_path)
    assert checkpoints.restore() and state.step == 3


def test_a_process_that_writes_none_changes_nothing(tmp_path):
    saved(tmp_path)
    folder = tmp_path / "texture"
    cut(folder / "ckpt-3.index")
    (folder / "checkpoint").write_bytes(b"no list")
    (folder / "ckpt-4.index.tempstate123").write_bytes(b"another's, at this moment")
    there = {path.name: path.read_bytes() for path in folder.iterdir()}
    checkpoints, state, variable = opened(tmp_path, writes=False)
    assert checkpoints.restore() and state.step == 2 and (variable.numpy() == 2).all()
    checkpoints.save()
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == there


def test_a_lost_half_of_a_checkpoint_is_passed_over(tmp_path):
    saved(tmp_path)
    (tmp_path / "texture" / "ckpt-3.data-00000-of-00001").unlink()
    checkpoints, state, _ = opened(tmp_path)
    assert checkpoints.restore() and state.step == 2


def test_what_a_kill_left_half_written_goes(tmp_path):
    saved(tmp_path)
    folder = tmp_path / "texture"
    whole = {path.name for path in folder.iterdir()}
    (folder / "ckpt-4_temp").mkdir()
    for name in ("ckpt-4_temp/part-00000-of-00001.data-00000-of-00001", "ckpt-4.data-00000-of-00001",
                 "ckpt-4.index.tempstate123", "checkpoint.tmp0a1b"):
        (folder / name).write_bytes(b"half")
    (folder / "notes.txt").write_text("mine")
    checkpoints, state, _ = opened(tmp_path)
    assert checkpoints.restore() and state.step == 3
    assert {path.name for path in folder.iterdir()} == whole | {"notes.txt"}


def test_where_none_is_whole_the_cure_is_said(tmp_path):
    saved(tmp_path)
    for path in (tmp_path / "texture").glob("*.index"):
        cut(path)
    with pytest.raises(UserError, match="no checkpoint in .*texture is whole: delete"):
        opened(tmp_path)


def test_a_checkpoint_of_other_networks_is_refused(tmp_path):
    saved(tmp_path)
    checkpoints, _, _ = opened(tmp_path, critic=tf.Variable(1.0))
    with pytest.raises(UserError, match="does not fit the networks"):
        checkpoints.restore()


def test_a_full_disk_is_named_and_the_checkpoint_before_stays(tmp_path, monkeypatch):
    saved(tmp_path)
    checkpoints, _, _ = opened(tmp_path)

    def full(*_, **__):
        raise tf.errors.ResourceExhaustedError(None, None, "ckpt-4: No space left on device")

    for name in ("write", "_write"):  # whichever the manager calls
        monkeypatch.setattr(tf.train.Checkpoint, name, full)
    with pytest.raises(UserError, match=r"texture: ckpt-4: No space left .*--restore continues"):
        checkpoints.save()
    again, state, _ = opened(tmp_path)
    assert again.restore() and state.step == 3


def test_another_one_is_due_when_the_newest_is_too_old(tmp_path, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    checkpoints, _, _ = opened(tmp_path, 300.0)
    for seconds, due in ((299.9, False), (0.2, True)):
        now[0] += seconds
        assert checkpoints.due() is due
    checkpoints.save()
    assert not checkpoints.due()
    now[0] += 300.0
    assert checkpoints.due() and opened(tmp_path / "always", 0.0)[0].due()
    assert not opened(tmp_path / "never")[0].due()


# ---------------------------------------------------------------- sums that go on
class Counting(keras.Model):
    """Terms that differ from step to step."""

    def __init__(self, first=0):
        super().__init__()
        self.count = tf.Variable(float(first))

    def train_step(self, data):
        self.count.assign_add(1.0)
        return {"total": 1.0 / self.count}


def lines_of(state, first, steps, lines):
    model = Counting(first)
    model.compile()
    data = tf.data.Dataset.from_tensors(np.zeros((1, 1), np.float32)).repeat()
    log = callbacks.StatsLog(lambda **values: lines.append({**values, "seconds": 0}), "rec", 4, state)
    return model.fit(data, steps_per_epoch=steps, epochs=1, verbose=0, shuffle=False, callbacks=[log]).history["total"]


def kept_of(board, steps=200):
    """Blocks of memory that a fit of so many steps keeps of the numbers that Keras makes of each one's terms."""
    model = Counting()
    model.compile()
    data = tf.data.Dataset.from_tensors(np.zeros((1, 1), np.float32)).repeat()
    model.fit(data, steps_per_epoch=2, verbose=0, shuffle=False, callbacks=[board])
    numbers = tracemalloc.Filter(True, "*/keras/src/utils/python_utils.py")
    tracemalloc.start()
    try:
        model.fit(data, steps_per_epoch=steps, verbose=0, shuffle=False, callbacks=[board])
        gc.collect()
        found = tracemalloc.take_snapshot().filter_traces([numbers])
    finally:
        tracemalloc.stop()
    return sum(line.count for line in found.statistics("filename"))


def test_no_number_of_a_step_is_kept(tmp_path):
    assert kept_of(callbacks.EpochBoard(str(tmp_path / "ours"), write_graph=False)) < 20
    assert list((tmp_path / "ours").rglob("events*")), "the epochs' are written"


def test_statistics_of_a_continued_epoch_are_those_of_a_whole_one():
    whole, parts = [], []
    mean = lines_of(TrainingState(), 0, 10, whole)
    state = TrainingState()
    lines_of(state, 0, 6, parts)
    # The fit above ended an epoch; in a run that is stopped it would be under way.
    state = TrainingState()
    state.step, state.in_epoch = 6, 6
    state.window = {"total": (1 / 5 + 1 / 6, 2)}
    state.epoch_sums = {"total": (sum(1 / n for n in range(1, 7)), 6)}
    restored = TrainingState()
    restored.deserialize(state.serialize().encode())
    assert lines_of(restored, 6, 4, parts) == pytest.approx(mean)
    assert parts == whole and restored.epoch == 1 and restored.in_epoch == 0


# ---------------------------------------------------------------- stops
@pytest.mark.parametrize(("number", "kind"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)])
def test_a_stop_waits_for_the_step_and_a_second_one_does_not(number, kind):
    before = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
    outer = signal.signal(number, before)  # a test run in the background of a script ignores Ctrl-C
    with pytest.raises(kind), StopRequest():
        signal.raise_signal(number)
        pytest.fail("where no step is awaited it ends the program at once")
    with pytest.raises(kind), StopRequest() as stop:
        stop.awaited = True
        signal.raise_signal(number)
        assert stop.asked
        stop.obey()
        pytest.fail("it was asked for")
    with pytest.raises(kind), StopRequest() as stop:
        stop.awaited = True
        signal.raise_signal(number)
        signal.raise_signal(number)
        pytest.fail("the second one ends the program")
    with pytest.raises(kind), StopRequest() as stop:
        stop.awaited = True
        signal.raise_signal(number)  # and nobody obeys before the training is over
    assert signal.signal(number, outer) is before


def test_a_signal_that_is_ignored_stays_so():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with StopRequest() as stop:
            signal.raise_signal(signal.SIGINT)
        assert not stop.asked and signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


class Saved:
    """Stands for Checkpoints: remembers at which step it saved."""

    def __init__(self):
        self.state, self.at, self.old = TrainingState(), [], False

    def save(self):
        self.at.append(self.state.step)

    def due(self):
        return self.old


@pytest.mark.parametrize(("asked_at", "expected"), [(2, [2]), (3, [3]), (4, [4]), (6, [4, 6])])
def test_a_stopped_training_is_saved_after_the_step(asked_at, expected):
    checkpoints, model = Saved(), Counting()
    model.compile()
    with StopRequest() as stop:
        ask = keras.callbacks.LambdaCallback(on_train_batch_begin=lambda batch, logs=None: int(
            model.count) == asked_at - 1 and os.kill(os.getpid(), signal.SIGTERM))
        log = callbacks.StatsLog(lambda **_: None, "render", 4, checkpoints.state)
        with pytest.raises(Terminated):
            model.fit(tf.data.Dataset.from_tensors(np.zeros((1, 1), np.float32)).repeat(), steps_per_epoch=4, epochs=3,
                      verbose=0, shuffle=False, callbacks=[ask, log, callbacks.SaveCheckpoints(checkpoints, stop)])
        stop._request = None
    assert checkpoints.at == expected and int(model.count) == asked_at


@pytest.mark.parametrize(("moment", "expected"), [("on_test_batch_end", [4, 7]), ("on_epoch_end", [4, 7, 8])])
def test_who_is_stopped_in_a_validation_loses_one_step_and_behind_it_none(moment, expected):
    class Validated(Counting):
        def test_step(self, data):
            return {"total": 0.0}

    checkpoints, model = Saved(), Validated()
    model.compile()
    data = tf.data.Dataset.from_tensors(np.zeros((1, 1), np.float32))
    with StopRequest() as stop:
        ask = keras.callbacks.LambdaCallback(**{moment: lambda number, logs=None: checkpoints.state.step >= 7
                                                and os.kill(os.getpid(), signal.SIGTERM)})
        log = callbacks.StatsLog(lambda **_: None, "render", 4, checkpoints.state)
        with pytest.raises(Terminated):
            model.fit(data.repeat(), steps_per_epoch=4, epochs=2, verbose=0, shuffle=False,
                      validation_data=data.repeat(5), validation_freq=2,
                      callbacks=[log, ask, callbacks.SaveCheckpoints(checkpoints, stop, 2)])
        stop._request = None
    assert checkpoints.at == expected and checkpoints.state.step == expected[-1] + (moment == "on_test_batch_end")


def test_a_stop_between_two_fits_does_not_wait_for_the_next_one_to_compile():
    checkpoints, model = Saved(), Counting()
    model.compile()
    with pytest.raises(Terminated), StopRequest() as stop:
        saving = callbacks.SaveCheckpoints(checkpoints, stop)
        stop.awaited = True  # as a fit leaves it
        signal.raise_signal(signal.SIGTERM)
        model.fit(tf.data.Dataset.from_tensors(np.zeros((1, 1), np.float32)).repeat(), steps_per_epoch=2,
                  verbose=0, shuffle=False, callbacks=[saving])
    assert int(model.count) == 0 and checkpoints.at == []


def test_long_epochs_are_saved_now_and_then():
    checkpoints, model = Saved(), Counting()
    model.compile()
    checkpoints.old = True
    log = callbacks.StatsLog(lambda **_: None, "render", 4, checkpoints.state)
    model.fit(tf.data.Dataset.from_tensors(np.zeros((1, 1), np.float32)).repeat(), steps_per_epoch=3, epochs=1,
              verbose=0, shuffle=False, callbacks=[log, callbacks.SaveCheckpoints(checkpoints, StopRequest())])
    assert checkpoints.at == [1, 2, 3] and checkpoints.state.epoch == 1


def test_weights_without_room_are_refused_before_hdf5_complains(tmp_path, monkeypatch):
    """It writes tracebacks of its own where a disk becomes full."""
    path = tmp_path / "texture.weights.h5"
    network = keras.Sequential([keras.Input((3,)), keras.layers.Dense(200)])
    saving = callbacks.SaveCheckpoints(Saved(), StopRequest(), None, str(path), network)
    with monkeypatch.context() as patch:
        patch.setattr(files.shutil, "disk_usage", lambda folder: types.SimpleNamespace(free=3200))
        with pytest.raises(OSError, match="No space left.*texture.weights.h5"):
            saving.on_epoch_end(0)
    assert not os.listdir(tmp_path)
    saving.on_epoch_end(0)
    assert 3200 < path.stat().st_size < 4 * 800 + 2 * callbacks._OVERHEAD + 8192


def test_an_exception_leaves_no_pipeline_behind():
    """Iterators that live until the interpreter ends make it wait for ever for their threads."""
    alive = []

    def train():
        def slow(number):
            time.sleep(0.01)
            return number
        data = tf.data.Dataset.counter().map(lambda n: tf.numpy_function(slow, [n], tf.int64), 2).prefetch(2)
        iterator = iter(data)
        alive.append(weakref.ref(iterator))
        cycle = [iterator]
        cycle.append(cycle)
        next(iterator)
        raise KeyboardInterrupt

    gc.disable()  # only what is done on purpose counts
    try:
        with pytest.raises(KeyboardInterrupt) as caught, pipelines_ended():
            train()
        assert alive[0]() is None and caught.value.__traceback__ is not None
    finally:
        gc.enable()


# ---------------------------------------------------------------- encodings
class Encoder:
    """Stands for a PhotoEncoder: counts what it encodes, and can be interrupted."""

    def __init__(self):
        self.seen, self.limit = [], None

        class Model:
            class morphable:
                coefficient_count = 3
        self.face_model = Model

    def __call__(self, rgba, targets, dense):
        assert targets.shape == (len(rgba), 73, 2) and dense.shape == (len(rgba), 468, 3)
        numbers = np.round((np.asarray(rgba)[:, 0, 0, 0] + 1) * 127.5).astype(np.float32)
        if self.limit is not None and len(self.seen) >= self.limit:
            raise KeyboardInterrupt
        self.seen += [int(number) for number in numbers]
        return encoding.Encoding(np.repeat(numbers[:, None], 3, 1), np.repeat(numbers[:, None], 2, 1) + 0.5), None


@pytest.fixture
def packed(tmp_path, monkeypatch):
    path, names = str(tmp_path / "faces.bin"), [f"n{i}" for i in range(10)]
    write_bin(path, names, [np.full((4, 4, 4), i, np.uint8) for i in range(10)])
    monkeypatch.setattr(encoding, "_PART", 4)
    monkeypatch.setattr(encoding, "_key", lambda encoder, packed: "key")
    return PackedPhotos(path, names, {}, np.zeros((10, 73, 2), np.float32))


def check(found):
    np.testing.assert_array_equal(found.coeff, np.repeat(np.arange(10.0)[:, None], 3, 1))
    np.testing.assert_array_equal(found.embedding, np.repeat(np.arange(10.0)[:, None], 2, 1) + 0.5)


def test_an_interrupted_encoding_goes_on(packed, tmp_path, caplog):
    encoder = Encoder()
    encoder.limit = 6
    with pytest.raises(KeyboardInterrupt):
        encoding.encode_packed(encoder, packed, batch_size=2)
    assert encoder.seen == [0, 1, 2, 3, 4, 5]
    encoder.limit = None
    check(encoding.encode_packed(encoder, packed, batch_size=2))
    assert encoder.seen[6:] == [4, 5, 6, 7, 8, 9], "the first part was kept"
    found = encoding.encode_packed(encoder, packed)
    check(found)
    assert len(encoder.seen) == 12 and isinstance(found.coeff, np.memmap)
    assert sorted(path.name for path in tmp_path.glob("*encoding*")) == ["faces.bin.encoding-key.npy"]


def test_parts_that_do_not_fit_and_parts_left_behind_are_not_trusted(packed, tmp_path, monkeypatch):
    """As after a kill between the whole file and the removal of its parts; and parts of other sizes."""
    monkeypatch.setattr(encoding.shutil, "rmtree", lambda *a, **b: None)
    encoding.encode_packed(Encoder(), packed)
    monkeypatch.undo()
    folder = tmp_path / "faces.bin.encoding-key.npy.parts"
    assert len(os.listdir(folder)) == 3
    (tmp_path / "faces.bin.encoding-key.npy").unlink()
    monkeypatch.setattr(encoding, "_PART", 5)
    monkeypatch.setattr(encoding, "_key", lambda encoder, packed: "key")
    encoder = Encoder()
    check(encoding.encode_packed(encoder, packed, batch_size=5))
    assert encoder.seen == list(range(10)), "a part of 4 photos is none of 5"
    os.makedirs(folder)
    check(encoding.encode_packed(encoder, packed))
    assert not folder.exists() and len(encoder.seen) == 10


def test_progress_is_shown_photo_by_photo(packed, monkeypatch):
    """A part takes minutes."""
    shown = []

    class Bar:
        def __init__(self, total, **how):
            shown.append(total)
        __enter__ = __exit__ = lambda self, *how: self

        def update(self, count):
            shown.append(count)
    monkeypatch.setattr(encoding, "tqdm", Bar)
    encoding.encode_packed(Encoder(), packed, batch_size=2)
    assert shown == [10, 2, 2, 2, 2, 2]


@pytest.mark.parametrize("share", [0.0, 0.2, 0.9])
def test_a_cut_encoding_is_made_anew_and_said(packed, tmp_path, share, caplog):
    encoding.encode_packed(Encoder(), packed)
    cut(tmp_path / "faces.bin.encoding-key.npy", share)
    check(encoding.encode_packed(Encoder(), packed))
    assert "faces.bin.encoding-key.npy is damaged" in caplog.text and "made anew" in caplog.text


def test_a_cut_part_is_encoded_again_and_older_encodings_go(packed, tmp_path):
    encoder = Encoder()
    encoder.limit = 8
    with pytest.raises(KeyboardInterrupt):
        encoding.encode_packed(encoder, packed, batch_size=4)
    cut(tmp_path / "faces.bin.encoding-key.npy.parts" / "000000000.npz")
    (tmp_path / "faces.bin.encoding-old.npz").write_bytes(b"")
    (tmp_path / "faces.bin.encoding-old.npy").write_bytes(b"")
    old, new = (tmp_path / f"faces.bin.encoding-{name}.npy.parts" for name in ("old", "new"))
    old.mkdir()
    new.mkdir()
    os.utime(old, (0, 0))
    encoder.limit = None
    check(encoding.encode_packed(encoder, packed))
    assert encoder.seen[8:] == [0, 1, 2, 3, 8, 9]
    assert sorted(path.name for path in tmp_path.glob("*encoding*")) == ["faces.bin.encoding-key.npy", new.name], \
        "what another training may be writing stays"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="only some systems have a device that is always full")
def test_an_encoding_without_room_is_an_error_and_its_parts_stay(packed, tmp_path, monkeypatch):
    """Written through a memory map it would end the process, without a word."""
    with monkeypatch.context() as patch:
        patch.setattr(encoding, "written_whole", lambda path: contextlib.nullcontext("/dev/full"))
        with pytest.raises(OSError, match="No space left"):
            encoding.encode_packed(Encoder(), packed, batch_size=4)
    encoder = Encoder()
    check(encoding.encode_packed(encoder, packed, batch_size=4))
    assert encoder.seen == [], "what was encoded is kept"


def test_the_key_covers_photos_points_fit_model_and_code(tmp_path, monkeypatch):
    path = str(tmp_path / "faces.bin")

    def key(value=0, targets=0.0, dense=0.0, fitter=None, model="m"):
        write_bin(path, ["a"], [np.full((4, 4, 4), value, np.uint8)])
        face_model = types.SimpleNamespace(regressor=types.SimpleNamespace(weights=[tf.Variable(1.0)]), facenet=None,
                                           morphable=types.SimpleNamespace(digest=model))
        packed = PackedPhotos(path, ["a"], {}, np.full((1, 73, 2), targets, np.float32),
                              dense=np.full((1, 468, 3), dense, np.float32))
        fitter = fitter and types.SimpleNamespace(digest=fitter)
        return encoding._key(types.SimpleNamespace(face_model=face_model, fitter=fitter), packed)

    keys = [key(), key(value=1), key(targets=1.0), key(dense=1.0), key(fitter="f"), key(fitter="g"), key(model="n")]
    assert key() == keys[0], "the same again is the same"
    modules = []
    monkeypatch.setattr(encoding, "code_version", lambda *names: modules.extend(names) or "later")
    keys.append(key())
    assert len(set(keys)) == len(keys)
    assert {"facegcn.training.encoding", "facegcn.fitting", "facegcn.face_model"} <= set(modules)


# ---------------------------------------------------------------- the regressor's weights
@pytest.fixture
def network():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="dense")])
    model.layers[0].kernel.assign(np.float32([[0.1, -2.5], [1e-4, 3], [0, 7.3]]))
    return model


def test_weights_are_small_but_no_value_is_lost(network, tmp_path):
    path = str(tmp_path / "regressor.npz")
    save_weights(network, path)
    assert {array.dtype for array in np.load(path).values()} == {np.dtype(np.float16)}
    for value in (7e4, 1e-8):
        network.layers[0].bias.assign([value, value / 2])
        save_weights(network, path)
        load_weights(network, path)
        np.testing.assert_array_equal(network.layers[0].bias.numpy(), np.float32([value, value / 2]))
        assert np.load(path)[network.layers[0].kernel.path].dtype == np.float16, "the others stay small"


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused_and_the_file_stays(network, tmp_path, value):
    path = tmp_path / "regressor.npz"
    save_weights(network, str(path))
    before = path.read_bytes()
    network.layers[0].bias.assign([value, 0])
    with pytest.raises(UserError, match="bias is not finite"):
        save_weights(network, str(path))
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["regressor.npz"]


def test_damaged_weights_change_no_network(network, tmp_path):
    path = str(tmp_path / "regressor.npz")
    save_weights(network, path)
    arrays = dict(np.load(path))
    arrays[network.layers[0].bias.path] = np.full(2, np.nan, np.float32)
    arrays[network.layers[0].kernel.path] += 1
    np.savez(path, **arrays)
    before = network.layers[0].kernel.numpy()
    with pytest.raises(UserError, match="regressor.npz is damaged"):
        load_weights(network, path)
    np.testing.assert_array_equal(network.layers[0].kernel.numpy(), before)
