"""Reports on spiking networks: operations, spikes, effective time steps and energy, as text, JSON and HTML."""

from pascalc.reporter.analysis import LayerReport, Report, report
from pascalc.reporter.page import html
from pascalc.reporter.plain import text

__all__ = ["LayerReport", "Report", "html", "report", "text"]
