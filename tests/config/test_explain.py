"""What is said about a wrong command: the key, the options, what to do, and nothing about paths."""

from __future__ import annotations

import pytest

from sizewise.composition.compose import compose_run
from sizewise.errors import ConfigError


@pytest.mark.parametrize(
    ("override", "said"),
    [
        (
            "dataset=csv",
            "dataset.source.path has no value and needs one. Give dataset.source.path=",
        ),
        (
            "lora.rr=3",
            "lora.rr is no option. Did you mean lora.r=…? Known keys there: method, r, alpha",
        ),
        ("lora.r=abc", "lora.r: Value 'abc' of type 'str' could not be converted to Integer"),
        ("model=nope", "Available options in 'model': deberta_"),
        (
            "metric=[icd10,nope]",
            "Available options in 'metric': bert",
        ),
        ("model=[", "'model=[' cannot be read as KEY=VALUE: no viable alternative at input '['"),
    ],
)
def test_one_line_names_the_key_and_the_options(override: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compose_run([override])
    text = str(caught.value)
    assert said in text
    assert "\n" not in text
    assert "search path" not in text
