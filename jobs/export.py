"""The stage export of a pipeline: spark-submit jobs/export.py conf/flights.yaml"""

import sys

from lakefit.cli import job

if __name__ == "__main__":
    sys.exit(job("export"))
