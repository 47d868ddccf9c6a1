"""The two example networks, as plain ReLU networks; train.py replaces the ReLUs by QCFS.

Both take float32 ``[N, 1, 28, 28]`` and give logits, float32 ``[N, 10]``.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn


def _conv_bn(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> list[tuple[str, nn.Module]]:
    conv = nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False)
    return [("conv", conv), ("bn", nn.BatchNorm2d(outputs))]


def _block(*layers: tuple[str, nn.Module]) -> nn.Sequential:
    return nn.Sequential(OrderedDict(layers))


def vgg() -> nn.Sequential:
    """Six convolutions and two linear layers, with pooling of every kind.

    Pooling stands before an activation (block 2), as an average after one (block 4) and as a maximum after one
    (block 6): each is a different case for a compiler to spikes.
    """
    return nn.Sequential(
        OrderedDict(
            block1=_block(*_conv_bn(1, 32), ("relu", nn.ReLU())),
            block2=_block(*_conv_bn(32, 32), ("pool", nn.MaxPool2d(2)), ("relu", nn.ReLU())),
            block3=_block(*_conv_bn(32, 64), ("relu", nn.ReLU())),
            block4=_block(*_conv_bn(64, 64), ("relu", nn.ReLU()), ("pool", nn.AvgPool2d(2))),
            block5=_block(*_conv_bn(64, 96), ("relu", nn.ReLU())),
            block6=_block(*_conv_bn(96, 96), ("relu", nn.ReLU()), ("pool", nn.MaxPool2d(2))),
            flatten=nn.Flatten(),
            hidden=_block(("linear", nn.Linear(96 * 3 * 3, 128)), ("relu", nn.ReLU())),
            classifier=nn.Linear(128, 10),
        )
    )


class BasicBlock(nn.Module):
    """Two convolutions beside a shortcut: the identity, or a 1x1 convolution where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = _block(*_conv_bn(inputs, outputs, stride=stride), ("relu", nn.ReLU()))
        self.second = _block(*_conv_bn(outputs, outputs))
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else _block(*_conv_bn(inputs, outputs, kernel=1, stride=stride))
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.relu(self.second(self.first(x)) + self.shortcut(x))
        return out


def resnet() -> nn.Sequential:
    """A stem and six basic blocks, with identity and projection shortcuts, and global average pooling."""
    return nn.Sequential(
        OrderedDict(
            stem=_block(*_conv_bn(1, 16), ("relu", nn.ReLU())),
            block1=BasicBlock(16, 16, stride=1),
            block2=BasicBlock(16, 32, stride=2),
            block3=BasicBlock(32, 32, stride=1),
            block4=BasicBlock(32, 64, stride=2),
            block5=BasicBlock(64, 64, stride=1),
            block6=BasicBlock(64, 128, stride=2),
            pool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            classifier=nn.Linear(128, 10),
        )
    )


NETWORKS = {"vgg": vgg, "resnet": resnet}
