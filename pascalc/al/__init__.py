"""AL: a number of levels for every layer, from histograms of its spike counts. Mathematics and files, no graphs.

Histograms give a metric (``metrics``), metrics fall into clusters and these get levels (``clusters``); ``plan`` holds
the result, ``histograms`` the files of counts.
"""

from pascalc.al.clusters import assign_levels, cluster
from pascalc.al.metrics import Histogram, agreement, kurtosis, metric, skewness
from pascalc.al.plan import LayerPlan, Plan, make_plan

__all__ = [
    "Histogram",
    "LayerPlan",
    "Plan",
    "agreement",
    "assign_levels",
    "cluster",
    "kurtosis",
    "make_plan",
    "metric",
    "skewness",
]
