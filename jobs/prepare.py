"""The stage prepare of a pipeline: spark-submit jobs/prepare.py conf/flights.yaml"""

import sys

from lakefit.cli import job

if __name__ == "__main__":
    sys.exit(job("prepare"))
