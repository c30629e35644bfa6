"""A run's record, read from its folder, and the page that shows it.

>>> from phi_train.report import read_run, write_page
>>> write_page([read_run("runs/gpt-1m")], "report.html")  # doctest: +SKIP
"""

from phi_train.report.page import page, write_page
from phi_train.report.read import read_run
from phi_train.report.record import RunRecord
from phi_train.report.summary import summary

__all__ = ["RunRecord", "page", "read_run", "summary", "write_page"]
