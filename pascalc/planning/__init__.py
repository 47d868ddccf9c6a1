"""Planning the levels of a network: from data, from its own statistics, or by measuring what each layer can spare.

``planner`` is what the command line calls. Histograms come from ``calibrate`` (data) or ``bn_statistics`` (none);
``sensitivity`` searches; ``correction`` recovers what requantising costs; ``steps`` says what a plan saves.
"""
