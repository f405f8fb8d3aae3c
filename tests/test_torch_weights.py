"""Published PyTorch weights: conversion against PyTorch itself, safe reading, every mistake by itself.

PyTorch and safetensors are optional; what needs them is skipped without them.
"""

import pickle
import sys
import types

import numpy as np
import pytest

from facegcn.assets import __main__ as assets
from facegcn.config import Config
from facegcn.errors import UserError
from facegcn.identity import recognizers
from facegcn.identity.recognizers import ARCHITECTURES, FaceRecognizer, load_recognizers
from facegcn.identity.torch_weights import fitting_arrays, load_converted, read_state_dict, save_converted
from tests import face_networks
from tests.face_networks import SHAPES, random_inputs

OPTIONAL = "an optional package is not here; .venv/bin/python -m pip install 'torch>=2.6' safetensors runs this test"


@pytest.fixture(scope="module")
def weights():
    """Random published-like weights by architecture."""
    return {name: face_networks.random_weights(shapes, seed) for seed, (name, shapes) in enumerate(SHAPES.items())}


@pytest.fixture(scope="module")
def network():
    """A LightCNN-29."""
    return ARCHITECTURES["light_cnn_29"].build()


# ---------------------------------------------------------------- PyTorch
def _torch_light_cnn(version):
    """LightCNN-29 as PyTorch modules, with the published names."""
    torch = pytest.importorskip("torch", reason=OPTIONAL)
    from torch import nn

    class Mfm(nn.Module):
        def __init__(self, filter_layer):
            super().__init__()
            self.filter = filter_layer

        def forward(self, x):
            return torch.stack(torch.chunk(self.filter(x), 2, dim=1)).amax(dim=0)

    class Residual(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.conv1, self.conv2 = (Mfm(nn.Conv2d(width, 2 * width, 3, padding=1)) for _ in range(2))

        def forward(self, x):
            return x + self.conv2(self.conv1(x))

    class Group(nn.Module):
        def __init__(self, before, after):
            super().__init__()
            self.conv_a = Mfm(nn.Conv2d(before, 2 * before, 1))
            self.conv = Mfm(nn.Conv2d(before, 2 * after, 3, padding=1))

        def forward(self, x):
            return self.conv(self.conv_a(x))

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1 = Mfm(nn.Conv2d(1, 96, 5, padding=2))
            widths = [48, 96, 192, 128, 128]
            for k in range(4):
                setattr(self, f"block{k + 1}", nn.Sequential(*[Residual(widths[k]) for _ in range(k + 1)]))
                setattr(self, f"group{k + 1}", Group(widths[k], widths[k + 1]))
            self.fc = Mfm(nn.Linear(8192, 512)) if version == 1 else nn.Linear(8192, 256)
            self.fc2 = nn.Linear(256, 11, bias=version == 1)

        def halve(self, x):
            if version == 1:
                return nn.functional.max_pool2d(x, 2, ceil_mode=True)
            return nn.functional.max_pool2d(x, 2) + nn.functional.avg_pool2d(x, 2)

        def forward(self, x):
            x = self.halve(self.group1(self.block1(self.halve(self.conv1(x)))))
            x = self.halve(self.group2(self.block2(x)))
            x = self.halve(self.group4(self.block4(self.group3(self.block3(x)))))
            return self.fc(x.flatten(1))
    return Network()


def _torch_ir50():
    """IR-50 as PyTorch modules, with the published names."""
    pytest.importorskip("torch", reason=OPTIONAL)
    from torch import nn

    class Unit(nn.Module):
        def __init__(self, before, after, stride):
            super().__init__()
            self.shortcut_layer = nn.MaxPool2d(1, stride) if before == after else nn.Sequential(
                nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))
            self.res_layer = nn.Sequential(
                nn.BatchNorm2d(before), nn.Conv2d(before, after, 3, 1, 1, bias=False), nn.PReLU(after),
                nn.Conv2d(after, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after))

        def forward(self, x):
            return self.shortcut_layer(x) + self.res_layer(x)

    network = nn.Sequential()
    network.add_module("input_layer", nn.Sequential(nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64),
                                                    nn.PReLU(64)))
    network.add_module("body", nn.Sequential(*[Unit(*unit) for unit in face_networks.IR50_UNITS]))
    network.add_module("output_layer", nn.Sequential(nn.BatchNorm2d(512), nn.Dropout(), nn.Flatten(),
                                                     nn.Linear(512 * 7 * 7, 512), nn.BatchNorm1d(512)))
    return network


@pytest.mark.parametrize("name", SHAPES)
def test_checkpoints_convert_to_what_pytorch_computes(name, weights, tmp_path, rng, capsys):
    torch = pytest.importorskip("torch", reason=OPTIONAL)
    command, checkpoint, out = ARCHITECTURES[name].command, tmp_path / "weights.pth.tar", tmp_path / "out.npz"
    network = _torch_ir50() if name == "ir50" else _torch_light_cnn(2 if name.endswith("v2") else 1)
    network.load_state_dict({**network.state_dict(), **{k: torch.from_numpy(v) for k, v in weights[name].items()}})
    state = network.eval().state_dict()
    if name == "light_cnn_29":  # the oldest kind of file, as training left it
        state = {"epoch": 80, "arch": "LightCNN", "prec1": torch.tensor(99.0),
                 "state_dict": {f"module.{key}": value for key, value in state.items()}}
        torch.save(state, checkpoint, _use_new_zipfile_serialization=False)
    else:
        torch.save(state, checkpoint)
    assert assets.main([command, "--source", str(checkpoint), "--out", str(out)]) == 0
    assert ARCHITECTURES[name].title + ";" in capsys.readouterr().out
    assert load_converted(str(out))[0] == name
    inputs = random_inputs(name, rng)
    with torch.no_grad():
        wanted = network(torch.from_numpy(inputs.transpose(0, 3, 1, 2).copy())).numpy()
        if name == "ir50":
            wanted = wanted + network(torch.from_numpy(inputs[:, :, ::-1].transpose(0, 3, 1, 2).copy())).numpy()
    np.testing.assert_allclose(FaceRecognizer.load(str(out), command).features(inputs), wanted,
                               atol=1e-4 * np.abs(wanted).max())


@pytest.mark.parametrize("name", SHAPES)
def test_conversion_keeps_every_array_and_leaves_out_the_rest(name, weights, tmp_path, monkeypatch, capsys):
    superfluous = {"input_layer.1.num_batches_tracked": np.int64(7)}
    if name != "ir50":
        superfluous["fc2.weight"] = np.zeros((5, 256), np.float32)
    monkeypatch.setattr(recognizers, "read_state_dict", lambda path: {**superfluous, **weights[name]})
    command, out = ARCHITECTURES[name].command, str(tmp_path / "new" / "w.npz")
    assert assets.main([command, "--source", "w.pth", "--out", out]) == 0
    assert f"--set {command.replace('-', '_')}_file={out}" in capsys.readouterr().out
    found, arrays = load_converted(out)
    assert found == name and arrays.keys() == weights[name].keys()
    assert all(np.array_equal(arrays[key], value) for key, value in weights[name].items())
    assert FaceRecognizer.load(out, command).features(random_inputs(name, np.random.default_rng(0))).std() > 0


def test_safetensors_convert_without_pytorch(weights, tmp_path, monkeypatch):
    numpy_files = pytest.importorskip("safetensors.numpy", reason=OPTIONAL)
    monkeypatch.setitem(sys.modules, "torch", None)
    extras = {"fc2.weight": np.zeros((5, 256), np.float32), "fc2.bias": np.zeros(5, np.float32)}
    arrays = {**weights["light_cnn_29"], **extras}
    source, out = str(tmp_path / "w.safetensors"), str(tmp_path / "w.npz")
    numpy_files.save_file({f"module.{name}": value.astype(np.float16) for name, value in arrays.items()}, source)
    assert recognizers.convert_recognizer("light-cnn", source, out) == "light_cnn_29"
    name, arrays = load_converted(out)
    assert name == "light_cnn_29" and arrays.keys() == SHAPES[name].keys()
    for key, value in weights[name].items():
        assert arrays[key].dtype == np.float32
        np.testing.assert_array_equal(arrays[key], value.astype(np.float16))


# ---------------------------------------------------------------- mistakes
def _message(call, *arguments):
    with pytest.raises(UserError) as caught:
        call(*arguments)
    return str(caught.value)


def _misfit(network, arrays):
    return _message(fitting_arrays, network, arrays, "w.pth", "LightCNN-29", ("fc2.weight",))


def test_an_absent_file(tmp_path):
    assert "there is no weight file" in _message(read_state_dict, str(tmp_path / "nowhere.pth"))


@pytest.mark.parametrize(("package", "file"), [("torch", "w.pth"), ("safetensors", "w.safetensors")])
def test_the_optional_package_is_named(package, file, tmp_path, monkeypatch, capsys):
    for module in [name for name in sys.modules if name.split(".")[0] == package] + [package, f"{package}.numpy"]:
        monkeypatch.setitem(sys.modules, module, None)
    (tmp_path / file).write_bytes(b"anything")
    assert assets.main(["ir50", "--source", str(tmp_path / file), "--out", str(tmp_path / "o.npz")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and f"pip install {package}" in error and error.count("error:") == 1


@pytest.mark.parametrize("version, old", [("1.13.1", True), ("2.5.1+cu121", True), ("2.6.0a0+git1", False),
                                          ("2.6.0+cpu", False), ("2.10.0", False), ("3.0.0", False)])
def test_a_pytorch_that_runs_what_it_reads_is_not_asked_to(version, old, tmp_path, monkeypatch):
    """Below 2.6 ``weights_only`` can be got round (CVE-2025-32434)."""
    asked = []

    class Tensor:
        pass

    def load(path, map_location, weights_only):
        asked.append((path, weights_only))
        return {"not": "tensors"}

    monkeypatch.setitem(sys.modules, "torch", types.SimpleNamespace(__version__=version, load=load, Tensor=Tensor))
    file = tmp_path / "w.pth"
    file.write_bytes(b"anything")
    message = _message(read_state_dict, str(file))
    if old:
        assert not asked and f"PyTorch {version}" in message
        assert "2.6 or later" in message and "pip install 'torch>=2.6'" in message and ".safetensors" in message
    else:
        assert asked == [(str(file), True)] and "holds no state dict" in message


class _Intruder:
    """Unpickling one makes a folder."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        import os
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_pickle_that_is_more_than_tensors_is_not_run(wrapped, tmp_path):
    torch = pytest.importorskip("torch", reason=OPTIONAL)
    intruder, file = _Intruder(str(tmp_path / "ran")), tmp_path / "w.pth"
    if wrapped:
        torch.save({"state_dict": {"fc.weight": torch.ones(2)}, "extra": intruder}, file)
    else:
        file.write_bytes(pickle.dumps(intruder, protocol=2))
    message = _message(read_state_dict, str(file))
    assert "can run programs" in message and ".safetensors" in message and not (tmp_path / "ran").exists()


def test_checkpoints_that_hold_no_state_dict(tmp_path):
    torch = pytest.importorskip("torch", reason=OPTIONAL)
    for content in ({"epoch": 3}, [torch.ones(2)], torch.ones(2)):
        torch.save(content, tmp_path / "w.pth")
        assert "holds no state dict" in _message(read_state_dict, str(tmp_path / "w.pth"))


@pytest.mark.parametrize("kept", [0.0, 0.5, 0.999])
def test_a_truncated_checkpoint(kept, tmp_path):
    torch = pytest.importorskip("torch", reason=OPTIONAL)
    torch.save({"a": torch.ones(1000)}, tmp_path / "w.pth")
    whole = (tmp_path / "w.pth").read_bytes()
    (tmp_path / "w.pth").write_bytes(whole[:int(kept * len(whole))])
    assert str(tmp_path / "w.pth") in _message(read_state_dict, str(tmp_path / "w.pth"))


def test_a_broken_safetensors_file(tmp_path):
    pytest.importorskip("safetensors", reason=OPTIONAL)
    (tmp_path / "w.safetensors").write_text("not tensors")
    assert "not a readable .safetensors file" in _message(read_state_dict, str(tmp_path / "w.safetensors"))


def test_all_missing_and_misshaped_weights_are_named_at_once(weights, network):
    arrays = dict(weights["light_cnn_29"])
    del arrays["conv1.filter.bias"], arrays["block4.3.conv2.filter.weight"]
    arrays["fc.filter.weight"] = np.zeros((512, 8191), np.float32)
    arrays["group1.conv.filter.bias"] = np.zeros((1, 192), np.float32)
    arrays["group2.conv.filter.bias"] = np.full(384, np.nan, np.float32)
    arrays["block5.0.conv1.filter.bias"] = np.zeros(4, np.float32)
    message = _misfit(network, {**arrays, "fc2.weight": np.zeros(3)})
    assert "Missing: conv1.filter.bias, block4.3.conv2.filter.weight;" in message
    assert "fc.filter.weight (512, 8191) instead of (512, 8192)" in message
    assert "group1.conv.filter.bias (1, 192) instead of (192,)" in message
    assert "not all finite numbers: group2.conv.filter.bias;" in message
    assert message.endswith("unknown: block5.0.conv1.filter.bias")


def test_weights_that_are_not_floating_point(weights, network):
    assert "finite numbers: conv1.filter.bias" in _misfit(
        network, {**weights["light_cnn_29"], "conv1.filter.bias": np.zeros(96, np.int64)})


def test_superfluous_weights_are_left_out(weights, network):
    kept = fitting_arrays(network, {**weights["light_cnn_29"], "fc2.weight": np.zeros(3)}, "w", "t", ("fc2.weight",))
    assert kept.keys() == SHAPES["light_cnn_29"].keys()


def test_another_architecture(weights, network):
    message = _misfit(network, weights["ir50"])
    assert "another architecture than LightCNN-29" in message and "input_layer.0.weight" in message
    version_2 = _misfit(network, weights["light_cnn_29_v2"])
    assert "Missing: fc.filter.weight, fc.filter.bias" in version_2 and "unknown: fc.weight, fc.bias" in version_2
    excited = {**weights["ir50"], "body.0.res_layer.5.fc1.weight": np.zeros((4, 64, 1, 1), np.float32)}
    message = _message(fitting_arrays, ARCHITECTURES["ir50"].build(), excited, "w.pth", "IR-50")
    assert message == "w.pth does not fit IR-50. Unknown: body.0.res_layer.5.fc1.weight"


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    message = _message(save_converted, str(tmp_path / "file" / "o.npz"), "ir50", {"a": np.ones(2)})
    assert str(tmp_path / "file") in message and "cannot be made" in message


def test_converted_files_are_checked(tmp_path, weights):
    for name, content in (("text.npz", b"hello"), ("empty.npz", b"")):
        (tmp_path / name).write_bytes(content)
        assert "not a converted weight file" in _message(load_converted, str(tmp_path / name))
    np.save(tmp_path / "array.npy", np.ones(3))
    np.savez(tmp_path / "other.npz", a=np.ones(3))
    np.savez(tmp_path / "pickled.npz", architecture="ir50", format=1, a=np.array([{}], dtype=object))
    for name in ("array.npy", "other.npz", "pickled.npz"):
        assert "not a converted weight file" in _message(load_converted, str(tmp_path / name))
    np.savez(tmp_path / "later.npz", architecture="ir50", format=2)
    assert "format 2" in _message(load_converted, str(tmp_path / "later.npz"))
    save_converted(str(tmp_path / "short.npz"), "light_cnn_29", {"conv1.filter.bias": np.zeros(96, np.float32)})
    assert "Missing: conv1.filter.weight" in _message(FaceRecognizer.load, str(tmp_path / "short.npz"), "light-cnn")


def test_settings_with_absent_and_exchanged_files_give_one_message(tmp_path):
    save_converted(str(tmp_path / "cnn.npz"), "light_cnn_29", {})
    message = _message(load_recognizers, Config(root_dir=str(tmp_path), light_cnn_file="no.npz", ir50_file="cnn.npz"))
    assert f"light_cnn_file: there is no weight file {tmp_path / 'no.npz'}" in message
    assert "python -m facegcn.assets light-cnn --source" in message
    assert "ir50_file" in message and "holds the weights of 'light_cnn_29'" in message
    assert load_recognizers(Config()) == {}


def test_a_raw_checkpoint_in_the_settings_tells_how_to_convert_it(tmp_path):
    torch = pytest.importorskip("torch", reason=OPTIONAL)
    torch.save({"a": torch.ones(3)}, tmp_path / "raw.pth")
    message = _message(load_recognizers, Config(root_dir=str(tmp_path), ir50_file="raw.pth"))
    assert "not a converted weight file" in message and "facegcn.assets ir50 --source CHECKPOINT" in message
