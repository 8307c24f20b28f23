#!/bin/sh
# Tells Spark which GPUs a machine has: spark.worker.resource.gpu.discoveryScript, spark.executor.resource.gpu.discoveryScript.
nvidia-smi --query-gpu=index --format=csv,noheader | awk '
  { printf "%s\"%s\"", (NR == 1 ? "{\"name\": \"gpu\", \"addresses\": [" : ", "), $1 }
  END { print (NR ? "]}" : "{\"name\": \"gpu\", \"addresses\": []}") }'
