"""The stage score of a pipeline: spark-submit jobs/score.py conf/flights.yaml --input PATH --output PATH"""

import sys

from lakefit.cli import job

if __name__ == "__main__":
    sys.exit(job("score"))
