"""Train one of the example networks with QCFS activations and export it to ONNX.

    python train.py vgg --out vgg.onnx
    python train.py resnet --out resnet.onnx

An interrupted run goes on from its --checkpoint when the same command is given again.
"""

from __future__ import annotations

import time
from pathlib import Path

import click
import onnxruntime
import torch
from data import DEBIAN_FOLDER, load
from networks import NETWORKS
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import OneCycleLR

from pascalc.train import export, replace_relu

PEAK_RATE = 0.1
WEIGHT_DECAY = 5e-4
#: Training images whose levels are counted, as many as in PASCAL.
CALIBRATION = 3000
LABEL_SMOOTHING = 0.1
INITIAL_THETA = 4.0
SHIFT = 2
"""Augmentation: images are shifted by up to this many pixels each way, and mirrored every second time."""


def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """A batch ``[N, 1, H, W]``, each image shifted and mirrored at random; the same shape."""
    n, _, height, width = images.shape
    background = images.min()
    padded = F.pad(images - background, (SHIFT,) * 4) + background
    rows = torch.randint(2 * SHIFT + 1, (n, 1), generator=generator) + torch.arange(height)
    columns = torch.randint(2 * SHIFT + 1, (n, 1), generator=generator) + torch.arange(width)
    mirrored = torch.rand(n, 1, generator=generator) < 0.5
    columns = torch.where(mirrored, columns.flip(1), columns)
    return padded[torch.arange(n)[:, None, None], 0, rows[:, :, None], columns[:, None, :]][:, None]


def parameter_groups(model: nn.Module) -> list[dict[str, object]]:
    """Weight decay for convolution and linear weights only: it would draw theta, BN and biases to zero."""
    weights = [p for p in model.parameters() if p.dim() > 1]
    others = [p for p in model.parameters() if p.dim() <= 1]
    return [{"params": weights, "weight_decay": WEIGHT_DECAY}, {"params": others, "weight_decay": 0.0}]


@torch.no_grad()
def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Share of the images that the model classifies right, 0 to 1."""
    model.eval()
    batches = zip(images.split(500), labels.split(500), strict=True)
    return sum(int((model(x).argmax(1) == y).sum()) for x, y in batches) / len(labels)


def onnx_accuracy(file: Path, images: Tensor, labels: Tensor) -> float:
    """The same of an ONNX file, run by onnxruntime."""
    session = onnxruntime.InferenceSession(file)
    batches = zip(images.numpy().reshape(-1, 500, *images.shape[1:]), labels.numpy().reshape(-1, 500), strict=True)
    return sum(int((session.run(None, {"input": x})[0].argmax(1) == y).sum()) for x, y in batches) / len(labels)


class Training:
    """A model in training, with all that a checkpoint has to hold.

    Args:
        model: the model; it is trained in place.
        steps: the number of optimizer steps of the whole training, which shapes the learning rate.
        seed: of the order of the images and of their augmentation.
        fast: compile the model and compute it in bfloat16 where that is safe.
        peak_rate: the highest learning rate.
    """

    def __init__(self, model: nn.Module, steps: int, seed: int, fast: bool, peak_rate: float = PEAK_RATE) -> None:
        self.model = model
        self.fast = fast
        self.step_model = torch.compile(model) if fast else model
        self.optimizer = torch.optim.SGD(parameter_groups(model), lr=peak_rate, momentum=0.9, nesterov=True)
        self.schedule = OneCycleLR(self.optimizer, peak_rate, total_steps=steps, pct_start=0.2)
        self.generator = torch.Generator().manual_seed(seed)
        self.epochs_done = 0

    def epoch(self, images: Tensor, labels: Tensor, batch: int) -> float:
        """One pass over all images, in a random order, in whole batches; gives the mean loss."""
        self.model.train()
        steps = len(images) // batch
        order = torch.randperm(len(images), generator=self.generator)[: steps * batch]
        total = 0.0
        for chosen in order.split(batch):
            x = augment(images[chosen], self.generator).contiguous(memory_format=torch.channels_last)
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.fast):
                logits = self.step_model(x)
            loss = F.cross_entropy(logits.float(), labels[chosen], label_smoothing=LABEL_SMOOTHING)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self.schedule.step()
            total += loss.item()
        self.epochs_done += 1
        return total / steps

    def save(self, file: Path) -> None:
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "generator": self.generator.get_state(),
            "epochs": self.epochs_done,
        }
        partial = file.with_name(file.name + ".partial")
        torch.save(state, partial)
        partial.replace(file)

    def load(self, file: Path) -> None:
        state = torch.load(file, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.generator.set_state(state["generator"])
        self.epochs_done = state["epochs"]


@click.command(help="Train a NETWORK with QCFS activations on Fashion-MNIST and write it as ONNX.")
@click.argument("network", type=click.Choice(list(NETWORKS)))
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), required=True, help="The ONNX file to write.")
@click.option("--levels", type=click.IntRange(1, 255), default=4, show_default=True, help="L of every QCFS.")
@click.option("--epochs", type=click.IntRange(min=1), default=20, show_default=True)
@click.option("--batch", type=click.IntRange(min=1), default=128, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option(
    "--data",
    type=click.Path(exists=True, path_type=Path),
    default=DEBIAN_FOLDER,
    show_default=True,
    help="Folder with the four *-ubyte.gz files.",
)
@click.option(
    "--checkpoint", type=click.Path(dir_okay=False, path_type=Path), help="Written every epoch; resumed from."
)
@click.option("--fast", is_flag=True, help="Use torch.compile (needs a C++ compiler) and bfloat16 in training.")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads; default: torch's own choice.")
def main(
    network: str,
    out: Path,
    levels: int,
    epochs: int,
    batch: int,
    seed: int,
    data: Path,
    checkpoint: Path | None,
    fast: bool,
    threads: int | None,
) -> None:
    if threads is not None:
        torch.set_num_threads(threads)
    torch.manual_seed(seed)
    images, labels = (torch.from_numpy(array) for array in load(data, "train"))
    test_images, test_labels = (torch.from_numpy(array) for array in load(data, "t10k"))

    model = NETWORKS[network]()
    replace_relu(model, levels=levels, theta=INITIAL_THETA)
    model.to(memory_format=torch.channels_last)
    training = Training(model, epochs * (len(images) // batch), seed, fast)
    if checkpoint is not None and checkpoint.exists():
        training.load(checkpoint)
    while training.epochs_done < epochs:
        start = time.monotonic()
        loss = training.epoch(images, labels, batch)
        if checkpoint is not None:
            training.save(checkpoint)
        click.echo(
            f"epoch {training.epochs_done}/{epochs}: loss {loss:.4f}, "
            f"test accuracy {accuracy(model, test_images, test_labels):.2%}, {time.monotonic() - start:.0f} s"
        )

    # The VGG's file has its BatchNormalizations folded and level histograms recorded, the ResNet's keeps its
    # BatchNormalizations: a compiler meets both, and can plan levels from either file alone.
    fold = network == "vgg"
    calibration = images[:CALIBRATION].split(batch) if fold else None
    export(model, test_images[:1], out, fold_bn=fold, calibration=calibration)
    click.echo(
        f"{out}: {out.stat().st_size / 1e6:.2f} MB, "
        f"test accuracy in onnxruntime {onnx_accuracy(out, test_images, test_labels):.2%}"
    )


if __name__ == "__main__":
    main()
