"""The stage train of a pipeline: spark-submit jobs/train.py conf/flights.yaml"""

import sys

from lakefit.cli import job

if __name__ == "__main__":
    sys.exit(job("train"))
