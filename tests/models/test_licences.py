"""What a model's folder says about its terms."""

from __future__ import annotations

import pytest

from ftkit.models.find import BaseModel
from ftkit.models.licences import licence_files, stated_licence


def _base(folder, name="mine"):
    return BaseModel(name=name, revision=None, folder=folder, sha256="", config={})


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        ("---\nlicense: apache-2.0\n---\n# A model\n", "apache-2.0"),
        ("---\nlicense: other\nlicense_name: llama3.2\n---\n", "llama3.2"),
        ("---\nlicense: other\n---\n", None),
        ("---\nlicense: [mit, gpl]\n---\n", None),
        ("---\ntags: [x]\n---\nlicense: mit\n", None),
        ("# No header\n\nlicense: mit\n", None),
        ("---\nlicense: mit\n", None),
        ("---\n{{{\n---\n", None),
        ("---\n- a list\n---\n", None),
        ("\udcff", None),
    ],
)
def test_a_cards_header_states_the_licence_or_nothing_does(tmp_path, card, licence):
    (tmp_path / "README.md").write_bytes(card.encode("utf-8", "surrogateescape"))

    assert stated_licence(_base(tmp_path)) == licence


def test_a_known_model_has_the_licence_of_the_table_and_a_folder_without_a_card_none(tmp_path):
    assert stated_licence(_base(tmp_path, "smollm2-135m")) == "Apache-2.0"
    assert stated_licence(_base(tmp_path)) is None


def test_the_licence_itself_comes_before_notices(tmp_path):
    for name in ("NOTICE", "LICENSE.txt", "license-extra", "USE_POLICY.md", "config.json"):
        (tmp_path / name).write_text("")
    (tmp_path / "licenses").mkdir()

    assert [path.name for path in licence_files(tmp_path)] == [
        "LICENSE.txt", "license-extra", "NOTICE", "USE_POLICY.md"
    ]  # fmt: skip
    assert licence_files(tmp_path / "absent") == []
