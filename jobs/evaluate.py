"""The stage evaluate of a pipeline: spark-submit jobs/evaluate.py conf/flights.yaml"""

import sys

from lakefit.cli import job

if __name__ == "__main__":
    sys.exit(job("evaluate"))
