"""What runs on the device: uint8 fields of view in, the network's answers out, everything between in one module.

The module is what engines run, compile or convert, so that resizing and normalisation are the same in all of them.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from wsi_pipeline.inference.rewrite import SmallMaps, rewrite
from wsi_pipeline.models.card import Card
from wsi_pipeline.models.ensemble import Ensemble


class FieldNetwork(nn.Module):
    """A bundle's network behind its normalisation.

    Normalisation is one multiplication and one addition. It is not folded into the first convolution: that pads with
    zeros, which after normalisation are the mean colour, so the fold would be wrong along the borders; and it takes
    0.2 % of a batch's time.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, network: nn.Module, card: Card, small_maps: SmallMaps = "convolutions") -> None:
        """Rewrite a network, which is used up; see `rewrite`."""
        super().__init__()
        self.side = card.input_px
        self.network = rewrite(network, self.side, small_maps)
        mean, std = torch.tensor(card.mean), torch.tensor(card.std)
        self.register_buffer("scale", 1 / (255 * std), persistent=False)
        self.register_buffer("shift", -mean / std, persistent=False)

    def forward(self, fields: Tensor) -> Tensor:
        """From uint8 RGB [n, size, size, 3] to float32 logits [n, classes].

        Of an ensemble, to its members' probabilities [n, members, classes].
        """
        # Channels last in memory all the way: permuting what lies like that moves nothing.
        x = (fields.float() * self.scale + self.shift).permute(0, 3, 1, 2)
        if fields.shape[1] != self.side:
            x = functional.interpolate(x, (self.side, self.side), mode="bilinear", antialias=True, align_corners=False)
        ask = self.network.member_probabilities if isinstance(self.network, Ensemble) else self.network
        answers: Tensor = ask(x)
        return answers.float()
