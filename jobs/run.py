"""Every stage that is not current of a pipeline: spark-submit jobs/run.py conf/flights.yaml"""

import sys

from lakefit.cli import job

if __name__ == "__main__":
    sys.exit(job(None))
