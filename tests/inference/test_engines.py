"""Every engine against the plain path."""

import importlib.util
import sys

import numpy as np
import pytest
import torch
from plain import CPU, bundle_of, ensemble_of, plain_probabilities, random_fields

from wsi_pipeline.errors import BundleError, ConfigError, InferenceError
from wsi_pipeline.inference import Predictor
from wsi_pipeline.inference.engines import choose_engine, make_engine, openvino_engine
from wsi_pipeline.models.bundle import load_bundle

EXACT = ["torch", "openvino", pytest.param("compile", marks=pytest.mark.slow)]
ARCHITECTURES = [
    "torchvision/resnet18",
    "torchvision/resnet50",
    "efficientnet-lite0",
    "idc-residual-7ch",
    "idc-cnn",
    "resnet50-dense",
]


def predictor(bundle, engine, batch_size=8, **more):
    if (engine, more.get("precision")) == ("openvino", "bf16"):
        import openvino

        if "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            pytest.skip("this CPU has no bf16, which OpenVINO then refuses")
    return Predictor(bundle=bundle, device=CPU, batch_size=batch_size, engine=engine, **more)


@pytest.mark.parametrize("name", ["idc-resnet18", "idc-efficientnet"])
@pytest.mark.parametrize("engine", EXACT)
def test_the_shipped_networks_are_the_plain_ones_within_1e_5(engine, name):
    bundle, fields = load_bundle(name), random_fields(21)
    found = predictor(bundle, engine)
    assert found.facts == {"engine": engine, "precision": "fp32"}
    assert np.abs(found.probabilities(fields) - plain_probabilities(bundle, fields)).max() < 1e-5


@pytest.mark.parametrize("engine", ["torch", "openvino"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_is_the_plain_one_within_1e_5(engine, architecture):
    bundle, fields = bundle_of(architecture), random_fields(7)
    expected = plain_probabilities(bundle, fields)
    assert np.ptp(expected[:, 1]) > 1e-3  # the weights say something
    assert np.abs(predictor(bundle, engine).probabilities(fields) - expected).max() < 1e-5


@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_fields_that_are_resized_and_more_classes(engine):
    bundle, fields = bundle_of("idc-cnn", 5, input_px=64), random_fields(5)
    found = predictor(bundle, engine)
    assert np.abs(found.probabilities(fields) - plain_probabilities(bundle, fields)).max() < 1e-5
    assert found.facts["engine"] == engine


@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_ensembles_and_symmetries_are_the_plain_ones(engine):
    members = bundle_of("idc-cnn"), bundle_of("idc-residual-7ch", bias=(0.1, -0.2))
    fields = random_fields(11)
    single = np.stack([plain_probabilities(member, fields)[:, 1] for member in members])
    probabilities, spread = predictor(ensemble_of(*members), engine).predict_fields(fields)
    assert np.abs(probabilities[:, 1] - single.mean(0)).max() < 1e-5
    assert np.abs(spread - single.std(0)).max() < 1e-5
    forms = [np.rot90(form, turns, (1, 2)) for form in (fields, fields[:, :, ::-1]) for turns in range(4)]
    turned = np.stack([plain_probabilities(members[0], np.ascontiguousarray(form))[:, 1] for form in forms])
    probabilities, spread = predictor(members[0], engine, tta=True).predict_fields(fields)
    assert np.abs(probabilities[:, 1] - turned.mean(0)).max() < 1e-5
    assert np.abs(spread - turned.std(0)).max() < 1e-5


@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_bf16_stays_within_its_bound(engine):
    """0.03 on noise, the worst there is; 0.005 in the mean. On tissue it is less."""
    bundle, fields = load_bundle("idc-resnet18"), random_fields(48)
    found = predictor(bundle, engine, precision="bf16")
    assert found.facts["precision"] == "bf16"
    apart = np.abs(found.probabilities(fields) - plain_probabilities(bundle, fields))
    assert 1e-6 < apart.max() < 0.03
    assert apart.mean() < 0.005


@pytest.mark.parametrize(
    ("engine", "precision"), [("torch", "fp32"), ("openvino", "fp32"), ("openvino", "bf16"), ("torch", "bf16")]
)
@pytest.mark.parametrize("batch_size", [7, 64])
def test_no_probability_depends_on_its_company(engine, precision, batch_size):
    """Bit for bit: order, neighbours, and whether the batch was full."""
    found = predictor(load_bundle("idc-resnet18"), engine, batch_size, precision=precision)
    fields = random_fields(80)
    together = found.probabilities(fields)
    order = np.random.default_rng(1).permutation(80)
    assert np.array_equal(found.probabilities(fields[order]), together[order])
    assert np.array_equal(found.probabilities(fields[:3]), together[:3])
    assert np.array_equal(found.probabilities(fields[37:38]), together[37:38])


@pytest.mark.parametrize(
    ("engine", "precision", "device", "expected"),
    [
        ("auto", "auto", "cpu", ("openvino", "fp32")),
        ("auto", "bf16", "cpu", ("openvino", "bf16")),
        ("openvino-int8", "auto", "cpu", ("openvino-int8", "int8")),
        ("compile", "fp32", "cpu", ("compile", "fp32")),
        ("auto", "auto", "mps", ("torch", "fp32")),
        ("auto", "fp32", "cuda", ("torch", "fp32")),
    ],
)
def test_what_auto_means(engine, precision, device, expected):
    choice = choose_engine(engine, precision, device)
    assert (choice.engine, choice.arithmetic) == expected


@pytest.mark.parametrize(("native", "expected"), [(True, "bf16"), (False, "fp16")])
def test_mixed_precision_is_what_the_gpu_computes_natively(monkeypatch, native, expected):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *, including_emulation: native)
    assert choose_engine("auto", "auto", "cuda").arithmetic == expected


def without_openvino(monkeypatch):
    find = importlib.util.find_spec
    missing = lambda name, *more: None if name in {"openvino", "nncf"} else find(name, *more)  # noqa: E731
    monkeypatch.setattr("wsi_pipeline.inference.engines.choose.find_spec", missing)


def test_without_openvino_auto_is_torch_and_asking_for_it_says_how_to_get_it(monkeypatch):
    without_openvino(monkeypatch)
    assert choose_engine("auto", "auto", CPU).engine == "torch"
    for engine in ("openvino", "openvino-int8"):
        with pytest.raises(ConfigError, match=r'not installed\. .*pip install "wsi-pipeline\[openvino\]"'):
            choose_engine(engine, "auto", CPU)


@pytest.mark.parametrize(
    ("engine", "precision", "device", "expected"),
    [
        ("openvino", "auto", "cuda", "runs on the CPU, not on cuda.*--device cpu"),
        ("openvino-int8", "bf16", "cpu", "exclude each other"),
        ("torch", "bf16", "mps", "not supported on mps.*fp32"),
    ],
)
def test_what_does_not_go_together_is_refused(engine, precision, device, expected):
    with pytest.raises(ConfigError, match=expected):
        choose_engine(engine, precision, device)


def test_a_bundle_without_an_int8_network_says_how_to_make_one():
    with pytest.raises(BundleError, match=r"has no int8 network\. .*wsi-pipeline quantize"):
        predictor(bundle_of("idc-cnn"), "openvino-int8")


def test_an_int8_ensemble_of_an_older_version_is_refused(tmp_path):
    """Its members came before the batch."""
    import openvino
    from openvino import opset13

    fields = opset13.parameter([-1, 50, 50, 3], np.float32)
    means = opset13.unsqueeze(opset13.reduce_mean(fields, [1, 2]), 0)
    old = openvino.Model([opset13.concat([means, means], 0)], [fields])
    openvino.save_model(old, tmp_path / "old.xml")
    with pytest.raises(InferenceError, match=r"of an older version of this program\. Quantise anew"):
        openvino_engine.read(tmp_path / "old.xml")


class Stubborn(torch.nn.Module):
    """Answers batches of two only, once it was traced with two."""

    def forward(self, x):
        return torch.cat([torch.zeros(len(x), 1), x[:, 0, 0, :1]], 1)


def test_where_openvino_does_not_take_the_network_auto_is_torch(caplog):
    from dataclasses import replace

    bundle = replace(bundle_of("idc-cnn"), digest="stubborn", build=lambda: Stubborn().eval())
    with pytest.raises(InferenceError, match=r"engine openvino: cannot take this network .*--engine torch"):
        predictor(bundle, "openvino", 9)
    with caplog.at_level("INFO"):
        found = predictor(bundle, "auto", 9)
    assert found.facts == {"engine": "torch", "precision": "fp32"}
    assert "torch takes its place" in caplog.text
    fields = random_fields(12)
    assert np.abs(found.probabilities(fields) - plain_probabilities(bundle, fields)).max() < 1e-5


def test_openvino_computes_in_the_precision_that_is_asked_for():
    """Left to itself it takes bf16 on CPUs that have it."""
    engine = make_engine(bundle_of("idc-cnn"), CPU, engine="openvino", precision="fp32", batch_size=4)
    compiled = engine._queue[0].get_compiled_model()
    assert compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name() == "f32"


def test_the_run_path_takes_no_compiler_along():
    """They cost more than a second of a run's start."""
    import subprocess

    code = (
        "import sys\n"
        "from wsi_pipeline.inference import Predictor\n"
        "from wsi_pipeline.models.bundle import load_bundle\n"
        "Predictor(bundle=load_bundle('idc-resnet18'), device='cpu', batch_size=2, engine='torch')\n"
        "print(sorted({'torchvision', 'torch._dynamo', 'torch._inductor'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
