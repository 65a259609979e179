"""Submits flowers of a CSV file as one task, and prints the answer when a worker has it.

python submit.py ../flowers.csv
"""

import csv
import sys
from pathlib import Path

from tasks import predict

with Path(sys.argv[1]).open(newline="") as file:
    flowers = list(csv.DictReader(file))

rows = [{name: float(value) for name, value in flower.items() if name != "id"} for flower in flowers]
result = predict.delay(rows)  # Returns at once; the id can be kept to fetch the answer later.
for flower, species in zip(flowers, result.get(timeout=60), strict=True):
    print(flower["id"], species)
