"""Networks in PyTorch that several tests share; import it only where torch is there (pytest.importorskip)."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn


class _Floor(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return x.floor()

    @staticmethod
    def backward(ctx: object, *grads: Tensor) -> Tensor:
        return grads[0]


class FloorThenClip(nn.Module):
    """QCFS in the order of the ICLR 2022 paper: divide, scale, shift, floor, unscale, clip, multiply.

    Bit-equal to ``pascalc.train.QCFS``, which clips first, and a different chain of nodes in the exported graph.
    """

    def __init__(self, levels: int, theta: float) -> None:
        super().__init__()
        self.levels = levels
        self.theta = nn.Parameter(torch.tensor([theta]))

    def forward(self, x: Tensor) -> Tensor:
        staircase: Tensor = _Floor.apply(x / self.theta * self.levels + 0.5)
        return torch.clamp(staircase / self.levels, 0, 1) * self.theta


class _Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int, activations: list[nn.Module]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.act1 = activations[0]
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            conv = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.shortcut = nn.Sequential(OrderedDict(conv=conv, bn=nn.BatchNorm2d(outputs)))
        self.act2 = activations[1]

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(self.act1(self.bn1(self.conv1(x)))))
        result: Tensor = self.act2(out + self.shortcut(x))
        return result


def cifar_resnet20(levels: int = 4, seed: int = 0) -> nn.Sequential:
    """The ResNet-20 for CIFAR-10 with QCFS activations, untrained, in evaluation mode.

    A stem and three stages of three basic blocks with 16, 32 and 64 channels; 19 activations; 1x1 convolutions where
    the shape changes. Input float32 ``[N, 3, 32, 32]``, output logits float32 ``[N, 10]``. Thetas are random, and the
    BatchNormalizations have statistics that keep the activations in the range of the thetas, so all levels occur.
    """
    generator = torch.Generator().manual_seed(seed)

    def activation() -> nn.Module:
        return FloorThenClip(levels, float(torch.empty(()).uniform_(1.0, 3.0, generator=generator)))

    layers: list[tuple[str, nn.Module]] = [
        ("conv", nn.Conv2d(3, 16, 3, padding=1, bias=False)),
        ("bn", nn.BatchNorm2d(16)),
        ("act", activation()),
    ]
    inputs = 16
    for stage, outputs in enumerate((16, 32, 64), start=1):
        for index in range(1, 4):
            stride = 2 if stage > 1 and index == 1 else 1
            layers.append((f"stage{stage}_{index}", _Block(inputs, outputs, stride, [activation(), activation()])))
            inputs = outputs
    layers += [("pool", nn.AdaptiveAvgPool2d(1)), ("flatten", nn.Flatten()), ("fc", nn.Linear(64, 10))]
    model = nn.Sequential(OrderedDict(layers))
    randomise(model, generator)
    return model.eval()


@torch.no_grad()
def randomise(model: nn.Module, generator: torch.Generator) -> None:
    """Random weights that keep the variance, and BatchNormalizations that look as after training."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            fan_in = module.weight[0].numel()
            module.weight.normal_(0.0, (2.0 / fan_in) ** 0.5, generator=generator)
            if module.bias is not None:
                module.bias.normal_(0.0, 0.1, generator=generator)
        elif isinstance(module, nn.BatchNorm2d):
            module.weight.uniform_(0.5, 1.5, generator=generator)
            module.bias.normal_(0.2, 0.3, generator=generator)
            module.running_mean.normal_(0.0, 0.3, generator=generator)  # type: ignore[union-attr, operator]
            module.running_var.uniform_(0.5, 1.5, generator=generator)  # type: ignore[union-attr, operator]
