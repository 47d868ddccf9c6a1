"""Effective time steps and energy of a PASC network, from numbers of its layers.

Two estimators, each with its own functions and its own label in the results. Their figures answer different questions
and must not share a column.

"paper" is PASCAL (Ramesh & Srinivasan 2025), section 4.2 and appendix A.4. A PASC neuron of L levels makes 5L - 2
operations (3L - 1 resets and 2L - 1 counter updates) where an integrate-and-fire neuron makes L, and a
synapse one accumulate a spike. With SpikeRate the spikes that an input of the layer emits over all steps together:

    r'    = 1 / (C_in K_h K_w SpikeRate)                neurons an accumulate; 1 / (C_in SpikeRate) for a linear layer
    r_E   = (1 + (5L - 2) r') / (1 + L r')              the cost of a PASC layer over that of an IF layer
    T_eff = mean over the layers of r_E L               T_norm: the same with one L for all layers
    E_ANN / E_SNN = E_mac / (c E_mac + (1 - c) b E_add) b the mean SpikeRate (`pascalc.rates.mean_input_rate`), c the
                                                        share of MACs with analog input

It assumes SpikeRate = 0.75 in T_eff, and leaves the neurons' own operations and the scaling of spikes by their
threshold out of the energy.

"full" is ours. It counts operations for the steps that actually arrive, which is what layerwise L needs, takes each
layer's measured SpikeRate, and adds to the energy what the paper leaves out. Neither estimator knows of memory traffic.

The paper's formula has no term for a layer that reads sums or averages of spikes ("currents"). Their entries are no
single spikes of one height, so nothing but a multiply-accumulate does at a synapse, in each step in which the entry is
not zero. Both estimators count these, `Energy.currents`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from pascalc.errors import CompileError
from pascalc.ops import NeuronModel, Pasc
from pascalc.rates import mean_input_rate

Estimator = Literal["paper", "full"]

ASSUMED_SPIKE_RATE = 0.75
"""Spikes a neuron emits over all steps, as PASCAL assumes it for every layer in T_eff (appendix A.4)."""


@dataclass(frozen=True)
class OperationEnergy:
    """The energy of arithmetic in one number format, in pJ an operation."""

    name: str
    multiply: float
    add: float

    @property
    def mac(self) -> float:
        """One multiplication and one addition, in pJ."""
        return self.multiply + self.add


FP32 = OperationEnergy("FP32", multiply=3.7, add=0.9)
"""float32 in 45 nm at 0.9 V: M. Horowitz, "Computing's energy problem", ISSCC 2014. A MAC is 4.6 pJ."""
INT8 = OperationEnergy("INT8", multiply=0.2, add=0.03)
"""8-bit integers in 45 nm at 0.9 V: the same source. A MAC is 0.23 pJ."""


@dataclass(frozen=True)
class Layer:
    """One linear layer (Conv, Gemm, ...) and the neurons that it feeds; all numbers are for one sample.

    Attributes:
        name: the layer's name.
        fan_in: inputs of one output: C_in * K_h * K_w of a convolution (C_in of a group), C_in of a linear layer.
        macs: multiply-accumulates of the layer in the source ANN; 0 for neurons that no layer is left for.
        neurons: neurons that the layer feeds; 0 where it feeds none, as the classifier.
        levels: L of these neurons; of other models than PASC the count that stands for theta (`NeuronModel.most`).
        steps_in: time steps of the current that they receive; 1 where it is analog.
        spike_rate: spikes that an input of the layer emits over all steps together, on average, in 0..steps_in. It
            may exceed 1. None where the layer's input is analog, which makes its operations MACs.
        folded: whether the threshold of the incoming spikes is folded into the weights, so that a spike is 1.
        graded: whether what arrives are not spikes but sums or averages of them; ``spike_rate`` is then how many
            entries of an input's train are not zero, and each makes a MAC.
        steps_read: the steps of the train that the layer itself reads, where these are not ``steps_in``: its neurons
            may get a longer train, to which it was aligned, or one sum of all steps.
        neuron: the model of these neurons.

    Raises:
        CompileError: a number outside its range.
    """

    name: str
    fan_in: int
    macs: int
    neurons: int
    levels: int
    steps_in: int
    spike_rate: float | None
    folded: bool = False
    graded: bool = False
    steps_read: int | None = None
    neuron: type[NeuronModel] = Pasc

    def __post_init__(self) -> None:
        if min(self.fan_in, self.levels, self.steps_in) < 1 or min(self.macs, self.neurons) < 0:
            raise CompileError(
                "fan-in, levels and steps of a layer must be at least 1, MACs and neurons at least 0", node=self.name
            )
        if self.spike_rate is not None and not 0 <= self.spike_rate <= self.train_steps:
            raise CompileError(
                f"A train of {self.train_steps} steps cannot have {self.spike_rate} spikes a neuron", node=self.name
            )

    @property
    def train_steps(self) -> int:
        """The steps of the train that the layer reads."""
        return self.steps_in if self.steps_read is None else self.steps_read

    def operations(self, steps_in: int | None = None) -> int:
        """Operations of one of the neurons for a train of so many steps, by default those that arrive."""
        return sum(self.neuron.operations(self.levels, steps_in or self.steps_in))


def neurons_per_accumulate(fan_in: int, spike_rate: float) -> float:
    """r' = 1 / (fan_in * SpikeRate) (PASCAL, section 4.2); infinity where nothing spikes.

    Args:
        fan_in: as in `Layer`.
        spike_rate: spikes that an input emits over all steps together.
    """
    return math.inf if spike_rate == 0 else 1 / (fan_in * spike_rate)


def relative_cost(fan_in: int, levels: int, spike_rate: float, operations: int) -> float:
    """r_E = (1 + operations r') / (1 + L r'): a PASC layer's cost over that of an IF layer (PASCAL, section 4.2).

    Computed as (1/r' + operations) / (1/r' + L), so that an input that never spikes is no special case.

    Args:
        fan_in: as in `Layer`.
        levels: L.
        spike_rate: spikes that an input emits over all steps together.
        operations: those of one PASC neuron; 5L - 2 in the paper.
    """
    accumulates = fan_in * spike_rate
    return (accumulates + operations) / (accumulates + levels)


@dataclass(frozen=True)
class EffectiveSteps:
    """Effective time steps by one estimator.

    Attributes:
        estimator: "paper" or "full".
        layers: r_E * L of each layer.
    """

    estimator: Estimator
    layers: tuple[float, ...]

    @property
    def mean(self) -> float:
        """T_eff: the mean over the layers."""
        return math.fsum(self.layers) / len(self.layers)


def effective_steps_paper(layers: Sequence[Layer], spike_rate: float = ASSUMED_SPIKE_RATE) -> EffectiveSteps:
    """T_eff of PASCAL, section 4.2: the mean of r_E * L, with 5L - 2 neuron operations and one SpikeRate for all.

    Args:
        layers: the layers to average over; `fan_in` and `levels` count. The paper's figure for VGG-16 on ImageNet
            includes the classifier.
        spike_rate: spikes that an input emits over all steps together; the paper assumes 0.75.

    Raises:
        CompileError: no layers, or a spike rate that is not positive.
    """
    _require(layers)
    if not spike_rate > 0:
        raise CompileError(f"The spike rate must be positive; got {spike_rate}")
    ratios = [relative_cost(x.fan_in, x.levels, spike_rate, x.operations(x.levels)) for x in layers]
    return EffectiveSteps("paper", tuple(r * x.levels for r, x in zip(ratios, layers, strict=True)))


def normalised_steps_paper(
    layers: Sequence[Layer], levels: int, spike_rate: float = ASSUMED_SPIKE_RATE
) -> EffectiveSteps:
    """T_norm of PASCAL, section 4.2: T_eff of the network with `levels` levels in every layer.

    Raises:
        CompileError: as `effective_steps_paper`; levels below 1.
    """
    return effective_steps_paper([replace(layer, levels=levels) for layer in layers], spike_rate)


def effective_steps_full(layers: Sequence[Layer]) -> EffectiveSteps:
    """T_eff with each layer's own steps in and measured spike rate (ours).

    An analog input counts as a rate of 1: each of the fan_in inputs is used once.

    Args:
        layers: the layers to average over, which are those with neurons.

    Raises:
        CompileError: no layers.
    """
    _require(layers)
    rates = [1.0 if x.spike_rate is None else x.spike_rate for x in layers]
    ratios = [relative_cost(x.fan_in, x.levels, rate, x.operations()) for x, rate in zip(layers, rates, strict=True)]
    return EffectiveSteps("full", tuple(r * x.levels for r, x in zip(ratios, layers, strict=True)))


@dataclass(frozen=True)
class Energy:
    """The energy of one inference by one estimator, in pJ.

    Attributes:
        estimator: "paper" or "full".
        operations: the name of the number format, such as "FP32".
        ann: the source ANN: a MAC for each synapse. Its activations are left out.
        analog: the SNN's layers with analog input: MACs.
        currents: the SNN's layers that read sums or averages of spikes: a MAC for each entry that is not zero, at each
            synapse.
        synapses: the SNN's layers that read spikes: an addition for each spike at each synapse.
        neurons: resets and counter updates, an addition each; 0 in the paper's estimator.
        scaling: multiplications of accumulated spikes by their threshold; 0 in the paper's estimator.
    """

    estimator: Estimator
    operations: str
    ann: float
    analog: float
    currents: float
    synapses: float
    neurons: float
    scaling: float

    @property
    def snn(self) -> float:
        """The whole spiking network, in pJ."""
        return self.analog + self.currents + self.synapses + self.neurons + self.scaling

    @property
    def ratio(self) -> float | None:
        """E_ANN / E_SNN: how many times less the SNN needs; None where nothing that is counted happens in it."""
        return self.ann / self.snn if self.snn else None


def mean_spike_rate(layers: Sequence[Layer]) -> float | None:
    """b of the energy formula, see `pascalc.rates.mean_input_rate`; None where no layer reads spikes."""
    return mean_input_rate([rate for layer, rate in _reading_spikes(layers) if layer.macs])


def energy_paper(layers: Sequence[Layer], cost: OperationEnergy, spike_rate: float | None = None) -> Energy:
    """The energy by PASCAL's formula, appendix A.4: E_mac / (c E_mac + (1 - c) b E_add), times E_mac and all MACs.

    What reads sums or averages of spikes is added to it (`Energy.currents`).

    Args:
        layers: all linear layers of the network; `macs` and what they read count.
        cost: the energy of an operation.
        spike_rate: b. Default: `mean_spike_rate`, which is not needed where no layer reads spikes.

    Raises:
        CompileError: no layers; a negative spike rate.
    """
    _require(layers)
    if spike_rate is None:
        spike_rate = mean_spike_rate(layers) or 0.0
    if not spike_rate >= 0:
        raise CompileError(f"The spike rate must not be negative; got {spike_rate}")
    return Energy(
        estimator="paper",
        operations=cost.name,
        ann=sum(layer.macs for layer in layers) * cost.mac,
        analog=sum(layer.macs for layer in layers if layer.spike_rate is None) * cost.mac,
        currents=_currents(layers, cost),
        synapses=sum(layer.macs for layer, _ in _reading_spikes(layers)) * spike_rate * cost.add,
        neurons=0.0,
        scaling=0.0,
    )


def energy_full(layers: Sequence[Layer], cost: OperationEnergy) -> Energy:
    """The energy with each layer's own spike rate, its neurons, and the scaling by thresholds (ours).

    A neuron makes as many additions as its model has operations. Where the threshold of incoming spikes is not folded
    into the weights, each of the layer's macs / fan_in outputs is multiplied by it once in each step that it reads.

    Args:
        layers: all linear layers of the network.
        cost: the energy of an operation.

    Raises:
        CompileError: no layers.
    """
    _require(layers)
    spiking = _reading_spikes(layers)
    return Energy(
        estimator="full",
        operations=cost.name,
        ann=sum(layer.macs for layer in layers) * cost.mac,
        analog=sum(layer.macs for layer in layers if layer.spike_rate is None) * cost.mac,
        currents=_currents(layers, cost),
        synapses=math.fsum(layer.macs * rate for layer, rate in spiking) * cost.add,
        neurons=sum(layer.neurons * layer.operations() for layer in layers) * cost.add,
        scaling=math.fsum(x.macs / x.fan_in * x.train_steps for x, _ in spiking if not x.folded) * cost.multiply,
    )


def _reading_spikes(layers: Sequence[Layer]) -> list[tuple[Layer, float]]:
    """The layers that read spikes, with their rates."""
    return [(layer, layer.spike_rate) for layer in layers if layer.spike_rate is not None and not layer.graded]


def _currents(layers: Sequence[Layer], cost: OperationEnergy) -> float:
    return math.fsum(layer.macs * (layer.spike_rate or 0.0) for layer in layers if layer.graded) * cost.mac


def _require(layers: Sequence[Layer]) -> None:
    if not layers:
        raise CompileError("The network has no layers to estimate")
