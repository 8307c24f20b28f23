"""Trials of other values for `train`: spark-submit jobs/tune.py conf/flights.yaml"""

import sys

from lakefit.cli import job

if __name__ == "__main__":
    sys.exit(job("tune"))
