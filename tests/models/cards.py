"""Cards for the tests of bundles."""

from wsi_pipeline.models.card import Card, Threshold, Weights


def card(**changes) -> Card:
    """A card that is right, but for the changes; the digest of the weights is filled in on saving."""
    values = {
        "name": "tiny",
        "architecture": "torchvision/resnet18",
        "class_names": ("other", "IDC"),
        "positive_class": "IDC",
        "patch_size_px": 50,
        "mpp": 4.0,
        "input_px": 50,
        "mean": (0.5, 0.5, 0.5),
        "std": (0.2, 0.2, 0.2),
        "threshold": Threshold(value=0.4, chosen="for the test"),
        "weights": Weights(sha256="0" * 64),
    }
    return Card.model_validate(values | changes)
