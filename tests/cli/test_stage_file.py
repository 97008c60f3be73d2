"""models/MODEL/stages.yaml: what can stand there, and what a promotion makes of it."""

from __future__ import annotations

import pytest

from cli.errors import LabError
from cli.stage_file import Stages, model_of, of_models, parse, path_of
from cli.stage_text import headline

TEXT = "staging: {version: 5}\ncanary: {version: 5, share: 10}\nproduction: {version: 3}\n"


def test_what_is_written_is_read() -> None:
    stages = parse(TEXT, "here")
    assert (stages.versions, stages.share) == ({"staging": 5, "canary": 5, "production": 3}, 10)
    assert stages.text("digits").endswith(TEXT)
    assert parse(stages.text("digits"), "here") == stages
    nothing = Stages().text("digits")
    assert parse(nothing, "here") == parse("", "here") == Stages()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("production: 3", "production: Input should be a valid dictionary"),
        ("production: {version: '3'}", "production.version: Input should be a valid integer"),
        ("production: {version: true}", "production.version: Input should be a valid integer"),
        ("production: {version: 0}", "production.version: Input should be greater than or equal to 1"),
        ("production: {version: 3, share: 10}", "production.share: Extra inputs are not permitted"),
        ("canary: {version: 3, share: 101}", "canary.share: Input should be less than or equal to 100"),
        ("prodction: {version: 3}", "prodction: Extra inputs are not permitted"),
        ("[production", "is not YAML"),
        ("3", "is not valid"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(text: str, reason: str) -> None:
    with pytest.raises(LabError) as refused:
        parse(text, "models/digits/stages.yaml")
    assert reason in str(refused.value)
    assert str(refused.value).startswith("models/digits/stages.yaml ")


def test_a_promotion_changes_its_stage_and_ends_the_share_where_it_is_to_production() -> None:
    stages = parse(TEXT, "here")
    assert stages.changed("staging", 6).versions == {"staging": 6, "canary": 5, "production": 3}
    assert stages.changed("canary", 5, 50).share == 50
    made = stages.changed("production", 5)
    assert (made.versions["production"], made.share) == (5, 0)
    assert headline("digits", stages, made) == ("digits: production serves version 5, the canary gets 0 % of requests")
    assert headline("digits", stages, Stages()).startswith("digits: staging serves nothing, canary serves nothing")


def test_files_are_those_of_models() -> None:
    assert model_of(path_of("digits")) == "digits"
    assert model_of("models/digits/model.yaml") is None
    assert model_of("models/digits/more/stages.yaml") is None
    assert of_models({path_of("digits"): TEXT, "models/digits/model.yaml": "x"}).keys() == {"digits"}
