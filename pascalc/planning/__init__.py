"""Planning the levels of a network: from data, from its own statistics, or by measuring what each layer can spare.

``plan`` is what a user calls; ``planner`` has its parts. Histograms come from ``calibrate`` (data) or ``bn_statistics``
(none); ``sensitivity`` searches; ``correction`` recovers what requantising costs; ``steps`` says what a plan saves.
"""
