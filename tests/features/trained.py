"""Run in the image `features`: the model's columns of the orders in a file, of the offline store as it was kept."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pandas as pd

from services.features import columns
from services.features.settings import Told
from services.features.store import PLACED, Store
from services.features.tables import TABLES, UTC_TIME
from services.features.update import Objects

told = Told()
store, objects = Store(told), Objects(told.data_url)
for table in TABLES:
    objects.get(store.path(table))
asked = pd.DataFrame(json.loads(Path(sys.argv[1]).read_text()))
placed = pd.to_datetime(asked[PLACED], utc=True).astype(UTC_TIME)
# The features are those of the moment of the request; the order's own time is told beside.
newest = pd.Series(placed.max(), index=asked.index)
found = store.historical(asked.assign(**{PLACED: newest})).assign(**{PLACED: placed})
print(json.dumps({"rows": columns.of(found).to_numpy().tolist()}))
