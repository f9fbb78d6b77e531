import json
import struct

import pytest
import torch
from safetensors.torch import save_file

from crossdistill.core.errors import SettingError, StudyError, UnknownNameError, WeightsError
from crossdistill.models._build import build_network, load_network, save_network, saved_description

NAMES = ("ant", "bee", "cat")


@pytest.fixture
def network():
    torch.manual_seed(0)
    return build_network("small/resnet8", 3, (16, 16)).eval()


@pytest.fixture
def images():
    return torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def file(network, tmp_path):
    path = tmp_path / "network.safetensors"
    save_network(network, path, class_names=NAMES, extra={"accuracy": 0.5})
    return path


def test_a_saved_network_answers_as_before(network, images, file):
    with torch.no_grad():
        assert torch.equal(load_network(file).eval()(images).logits, network(images).logits)


def test_equal_networks_are_equal_files(network, file, tmp_path):
    save_network(network, tmp_path / "again.safetensors", class_names=NAMES, extra={"accuracy": 0.5})
    assert (tmp_path / "again.safetensors").read_bytes() == file.read_bytes()


def test_the_file_says_what_it_holds(file):
    description = saved_description(file)
    assert description is not None
    assert (description["model"], description["n_classes"], description["class_names"]) == ("small/resnet8", 3, list(NAMES))
    assert description["extra"] == {"accuracy": 0.5}


def test_settings_size_heads_readout_and_notes_survive(tmp_path):
    network = build_network("small/vit", 3, (32, 32), settings=dict(width=16, depth=4, input_size=(16, 32)))
    network.add_head("distillation")
    network.readout = "mean_heads"
    network.notes.append("The head was drawn by lot.")
    save_network(network, tmp_path / "vit.safetensors", class_names=NAMES)
    loaded = load_network(tmp_path / "vit.safetensors")
    assert (loaded.input_size, loaded.heads, loaded.readout, loaded.notes) == ((16, 32), network.heads, "mean_heads", network.notes)
    for (name, a), (_, b) in zip(network.state_dict().items(), loaded.state_dict().items(), strict=True):
        assert torch.equal(a, b), name


def test_loading_leaves_the_random_generator_alone(file):
    before = torch.get_rng_state()
    load_network(file)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("where", ["tensors", "description", "header length", "cut short", "empty"])
def test_damaged_files_are_refused(file, where):
    content = bytearray(file.read_bytes())
    (header,) = struct.unpack("<Q", content[:8])
    if where == "tensors":
        content[8 + header + 1000] ^= 1
    elif where == "description":
        content = content.replace(b"bee", b"bea")
    elif where == "header length":
        content[0] ^= 1
    else:
        content = content[: len(content) // 2] if where == "cut short" else bytearray()
    file.write_bytes(bytes(content))
    with pytest.raises(WeightsError, match="is damaged"):
        load_network(file)


def test_a_missing_file_and_a_file_of_another_kind_are_refused(tmp_path):
    with pytest.raises(WeightsError, match="there is no file"):
        load_network(tmp_path / "nothing.safetensors")
    (tmp_path / "text.safetensors").write_text("these are no weights")
    with pytest.raises(WeightsError, match="damaged or no safetensors file"):
        load_network(tmp_path / "text.safetensors")


def test_other_class_counts_are_refused_with_both(file):
    assert load_network(file, n_classes=3).n_classes == 3
    with pytest.raises(WeightsError, match="trained on 3 classes, the images have 4.*`class_map`"):
        load_network(file, n_classes=4)


def test_class_map_puts_each_output_at_the_class_of_the_images(network, images, file):
    # The file's outputs 0, 1, 2 are the images' classes 1, none, 0: class 0 is output 2, class 1 is output 0.
    loaded = load_network(file, n_classes=2, class_map=[1, -1, 0]).eval()
    with torch.no_grad():
        torch.testing.assert_close(loaded(images).logits, network(images).logits[:, [2, 0]], rtol=0, atol=1e-6)
        assert loaded(images, ["dense"]).dense["class"].shape[1] == 2
    assert loaded.n_classes == 2


def test_a_network_with_mapped_classes_can_be_saved_again(images, file, tmp_path):
    mapped = load_network(file, class_map=[2, 0, 1]).eval()
    save_network(mapped, tmp_path / "mapped.safetensors", class_names=NAMES)
    with torch.no_grad():
        assert torch.equal(load_network(tmp_path / "mapped.safetensors").eval()(images).logits, mapped(images).logits)


@pytest.mark.parametrize("class_map", [[0, 1], [0, 0, 1], [0, 1, 3]])
def test_a_class_map_that_leaves_classes_out_is_refused(file, class_map):
    with pytest.raises((SettingError, WeightsError), match="class_map gives each of the file's 3 outputs a class"):
        load_network(file, n_classes=3, class_map=class_map)


def test_a_file_that_others_wrote_needs_the_model_it_belongs_to(network, images, tmp_path):
    path = tmp_path / "foreign.safetensors"
    save_file(network.model.state_dict(), path)
    assert saved_description(path) is None
    with torch.no_grad():
        loaded = load_network(path, model="small/resnet8", n_classes=3, size=(16, 16)).eval()
        assert torch.equal(loaded(images).logits, network(images).logits)
        mapped = load_network(path, model="small/resnet8", n_classes=2, size=(16, 16), class_map=[0, -1, 1]).eval()
        torch.testing.assert_close(mapped(images).logits, network(images).logits[:, [0, 2]], rtol=0, atol=1e-6)
    with pytest.raises(WeightsError, match="does not say which network"):
        load_network(path, n_classes=3, size=(16, 16))
    with pytest.raises(WeightsError, match="trained on 3 classes, the images have 4"):
        load_network(path, model="small/resnet8", n_classes=4, size=(16, 16))
    with pytest.raises(WeightsError, match="does not fit small/resnet20"):
        load_network(path, model="small/resnet20", n_classes=3, size=(16, 16))


def test_a_file_of_a_later_format_is_refused(network, tmp_path, monkeypatch):
    monkeypatch.setattr("crossdistill.models._build.FORMAT", "crossdistill-network-99")
    save_network(network, tmp_path / "later.safetensors", class_names=NAMES)
    monkeypatch.undo()
    with pytest.raises(WeightsError, match="format 'crossdistill-network-99'"):
        load_network(tmp_path / "later.safetensors")


def test_a_folder_that_cannot_be_written_is_told(network, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StudyError, match="cannot write"):
        save_network(network, tmp_path / "file" / "network.safetensors", class_names=NAMES)


def test_a_network_that_no_source_built_cannot_be_saved(network, tmp_path):
    network.model_name = ""
    with pytest.raises(SettingError, match="only a network that `build_network` made"):
        save_network(network, tmp_path / "x.safetensors", class_names=NAMES)


def test_the_description_is_plain_json(file):
    assert json.loads(json.dumps(saved_description(file))) == saved_description(file)


@pytest.mark.parametrize(
    ("model", "kind", "text"),
    [
        ("resnet20", SettingError, "a model is called SOURCE/NAME"),
        ("smal/resnet20", UnknownNameError, "no model is called 'smal'. Did you mean 'small'"),
    ],
)
def test_a_name_without_a_source_is_refused(model, kind, text):
    with pytest.raises(kind, match=text):
        build_network(model, 3, (16, 16))
