"""A run as one page to read, print and pass on: ``report.html``."""

from wsi_pipeline.report.card import CardFacts, card_facts
from wsi_pipeline.report.page import REPORT_FILE, write_report
from wsi_pipeline.report.record import read_run

__all__ = ["REPORT_FILE", "CardFacts", "card_facts", "read_run", "write_report"]
