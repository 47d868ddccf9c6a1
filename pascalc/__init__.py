"""pascalc: compile a trained QCFS network into the mathematically identical spiking network."""
