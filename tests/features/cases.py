"""Run in the image `features`: what Feast alone and what the service's store answer to each case of a file.

Prints JSON: for each case, by `alone` and `ours`, the values that are trained with and the values that are served.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pandas as pd

from services.features.errors import FeaturesError
from services.features.settings import Told
from services.features.store import PLACED, Store
from services.features.tables import AT, CREATED, UTC_TIME, Table


def main() -> None:
    """Answer all cases in two passes, each case with keys of its own."""
    given = json.loads(Path(sys.argv[1]).read_text())
    now, lasts = datetime.fromisoformat(given["now"]), timedelta(seconds=given["lasts"])
    table = Table("cases", "key", lasts, {"value": "int64"}, lambda day: day)
    found: dict[str, dict[str, list[list[float | None]] | str]] = {name: {} for name in given["cases"]}
    zones: dict[str, list[float | str | None]] = {}
    for by in ("alone", "ours"):
        told = replace(Told(), folder=Told().folder / by)
        store, kept = Store(told, [table], by), []
        for number, (name, case) in enumerate(given["cases"].items()):
            rows = pd.DataFrame(case["rows"], columns=["at", "created", "value"])
            keys = [number * 1000 + one for one in range(case["keys"])]
            each = pd.concat([rows.assign(key=key) for key in keys], ignore_index=True)
            for column, name_of in (("at", AT), ("created", CREATED)):
                each[name_of] = pd.to_datetime(now.timestamp() + each[column], unit="s", utc=True).astype(UTC_TIME)
            each = each[["key", "value", AT, CREATED]].astype({"value": "int64"})
            if by == "ours":
                try:
                    store.write(table, each)
                except FeaturesError as error:
                    found[name][by] = str(error)
                    continue
            kept.append(each)
        everything = pd.concat(kept, ignore_index=True)
        if by == "alone":
            store.path(table).parent.mkdir(parents=True, exist_ok=True)
            everything.to_parquet(store.path(table))
        else:
            store.write(table, everything)
        store.apply()
        # What was served an hour ago is still there.
        for moment in (now - timedelta(hours=1), now):
            store.materialize(moment)
        asked = pd.DataFrame(
            [
                {"case": name, "key": number * 1000 + one, "label": label}
                for number, (name, case) in enumerate(given["cases"].items())
                for one in range(case["keys"])
                for label in range(case["requests"])
            ]
        )
        asked[PLACED] = pd.Series([pd.Timestamp(now)] * len(asked)).astype(UTC_TIME)
        trained, served = _alone(store, asked) if by == "alone" else (store.historical(asked), None)
        served = store.online(asked, now) if served is None else served
        for name in given["cases"]:
            found[name].setdefault(
                by, [[_number(one) for one in frame.loc[frame["case"] == name, "value"]] for frame in (trained, served)]
            )
        zones[by] = [_in_zone(store, by, *one) for one in given["zones"]]
    print(json.dumps({"cases": found, "zones": zones}))


def _alone(store: Store, asked: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """As Feast's documentation calls it."""
    entities = asked.rename(columns={PLACED: AT})
    trained = store.feast.get_historical_features(entity_df=entities, features=["cases:value"]).to_df()
    rows = [{"key": int(key)} for key in asked["key"]]
    served = store.feast.get_online_features(features=["cases:value"], entity_rows=rows).to_dict()
    return trained, asked.assign(value=pd.Series(served["value"], dtype="float64"))


def _in_zone(store: Store, by: str, key: int, moment: str, zone: str) -> float | str | None:
    """The value that a key is trained with at a moment in UTC, as clocks of a zone tell it; `naive` tells none."""
    placed = pd.Series([pd.Timestamp(moment)])
    placed = placed.dt.tz_localize(None) if zone == "naive" else placed.dt.tz_convert(zone)
    asked = pd.DataFrame({"key": [key], PLACED: placed})
    try:
        if by == "ours":
            return _number(store.historical(asked)["value"].item())
        entities = asked.rename(columns={PLACED: AT})
        answer = store.feast.get_historical_features(entity_df=entities, features=["cases:value"]).to_df()
        return _number(answer["value"].item()) if len(answer) else "gone"
    except FeaturesError as error:
        return str(error)


def _number(value: float) -> float | None:
    return None if pd.isna(value) else float(value)


if __name__ == "__main__":
    main()
