"""verify: is this spiking network the source network? Answered from the two files, with data or without.

Two questions are asked, of every neuron model:

- *Translation*: does the file compute what it says? Between two neurons it must be the source's function of the counts
  that go in; every neuron must fire, for the current that it really gets, what its model's kernel fires; what is
  computed must be the source's operator; the outputs of the file as it is must follow from its counts.
- *Losslessness*: is every count the source's level? In floating point a sum taken in another order can cross a half
  point, and one crossing changes what every later layer sees. So a count that differs although all that it depends on
  agrees is a *root mismatch*, with a margin, which must lie within what rounding can do.

The file is asked in two ways. It runs on data, as it is, with its currents and trains as further outputs; the source is
then given the very counts that were seen, stretch by stretch (on_data.py). And it is cut behind every neuron and fed
with *random levels*, at several batch sizes, which shows what the data does not exercise (on_random_levels.py).

What is wrong in the spiking network, shapes that do not fit included, makes it "not equivalent" and never an error.
Nothing in the verdict comes from the absence of something: what could not be measured is a problem.
"""

from __future__ import annotations

from pascalc.verifier.checking import verify

__all__ = ["verify"]
