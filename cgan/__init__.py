"""Class-conditional DCGAN on labelled image CSVs."""

__version__ = "0.1.0"
