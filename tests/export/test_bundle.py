"""Archives: the same bytes for the same files, and nothing hostile gets out of one."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pytest

from ftkit.errors import MissingPartError, OutputError, UsageError, VerificationError
from ftkit.export import signing
from ftkit.export.archive import write_archive
from ftkit.export.licensing import DataSource, Terms, describe_source, terms_files
from ftkit.export.manifest import ExportManifest
from ftkit.export.run_guide import run_guide
from ftkit.export.sbom import installed_closure, loading_packages, make_sbom
from ftkit.pipeline.bundling import unbundle

LONG = "model/" + "long" * 40 + ".json"
CONTENT: dict[str, Any] = {
    "run.md": b"three commands",
    "model/weights": bytes(range(256)) * 5,
    "base/empty": b"",
    "model/\u00fc.json": b"{}",
    LONG: b"[]",
}


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz", ".tgz", ".tar.zst"])
def test_the_same_files_give_the_same_bytes_in_any_order_and_at_any_time(tmp_path, suffix):
    weights = tmp_path / "weights"
    weights.write_bytes(CONTENT["model/weights"])
    first = write_archive({**CONTENT, "model/weights": weights}, {"kind": "x"}, tmp_path / f"one{suffix}")
    os.utime(weights, (5, 5))
    weights.chmod(0o600)
    backwards = dict(reversed({**CONTENT, "model/weights": weights}.items()))
    second = write_archive(backwards, {"kind": "x"}, tmp_path / "elsewhere" / f"two{suffix}")

    raw = first.path.read_bytes()
    assert raw == second.path.read_bytes()
    assert (first.size, first.sha256) == (len(raw), hashlib.sha256(raw).hexdigest())


def test_any_tar_program_reads_it_and_finds_sorted_names_without_owner_or_time(tmp_path):
    archive = write_archive(CONTENT, {}, tmp_path / "b.tar").path
    with tarfile.open(archive) as read:
        members = read.getmembers()
        assert {member.name: read.extractfile(member).read() for member in members[1:]} == CONTENT

    names = [member.name for member in members]
    assert names == ["BUNDLE.json", *sorted(CONTENT)] == sorted(names)
    assert {(one.mtime, one.uid, one.gid, one.uname, one.gname, one.mode) for one in members} == {
        (0, 0, 0, "", "", 0o644)
    }
    assert archive.stat().st_size % tarfile.RECORDSIZE == 0
    listed = subprocess.run(["tar", "-tf", archive], capture_output=True, text=True, check=True).stdout.split()
    assert listed[:2] == ["BUNDLE.json", "base/empty"]


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz", ".tar.zst"])
def test_what_was_packed_is_unpacked_whatever_the_file_is_called(tmp_path, suffix):
    archive = write_archive(CONTENT, {"kind": "x"}, tmp_path / f"b{suffix}").path.rename(tmp_path / "renamed")

    index = unbundle(archive, tmp_path / "out")

    assert index["kind"] == "x"
    assert index["files"]["run.md"] == {"size": 14, "sha256": hashlib.sha256(b"three commands").hexdigest()}
    found = {
        path.relative_to(tmp_path / "out").as_posix(): path.read_bytes()
        for path in (tmp_path / "out").rglob("*")
        if path.is_file()
    }
    assert json.loads(found.pop("BUNDLE.json")) == index
    assert found == CONTENT


def test_an_archive_that_is_there_already_is_left_alone(tmp_path):
    (tmp_path / "b.tar").write_bytes(b"mine")

    with pytest.raises(OutputError, match="exists already"):
        write_archive(CONTENT, {}, tmp_path / "b.tar")
    assert (tmp_path / "b.tar").read_bytes() == b"mine"


def test_a_file_that_changes_while_it_is_packed_leaves_no_archive(tmp_path, monkeypatch):
    weights = tmp_path / "in" / "weights"
    weights.parent.mkdir()
    weights.write_bytes(b"old")
    monkeypatch.setattr("ftkit.export.archive.require_space", lambda *_: weights.write_bytes(b"new"))

    with pytest.raises(OutputError, match="changed while it was packed"):
        write_archive({"w": weights}, {}, tmp_path / "b.tar")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


@pytest.mark.parametrize("name", ["b.zip", "tar", "b.tar.xz"])
def test_a_name_that_is_no_archives_is_refused(tmp_path, name):
    with pytest.raises(UsageError, match=r"Let it end in \.tar"):
        write_archive(CONTENT, {}, tmp_path / name)


# Hostile archives. Each is a good one with one thing changed.


def _index(listed: dict[str, bytes], **changed: Any) -> bytes:
    facts = {name: {"size": len(text), "sha256": hashlib.sha256(text).hexdigest()} for name, text in listed.items()}
    return json.dumps({"format_version": 1, "files": facts, **changed}).encode()


def _member(name: str, text: bytes = b"", **changed: Any) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(text)
    for key, value in changed.items():
        setattr(info, key, value)
    return info, text


def _tar(*members: tuple[tarfile.TarInfo, bytes], form: int = tarfile.GNU_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for info, text in members:
            archive.addfile(info, io.BytesIO(text))
    return out.getvalue()


def _listing(listed: dict[str, bytes], *members: tuple[tarfile.TarInfo, bytes], **changed: Any) -> bytes:
    return _tar(_member("BUNDLE.json", _index(listed, **changed)), *members)


def _named(name: str) -> bytes:
    return _listing({name: b"x"}, _member(name, b"x"))


def _kind(kind: bytes, **changed: Any) -> bytes:
    return _listing({"a": b""}, _member("a", type=kind, **changed))


GOOD = _listing({"a": b"x"}, _member("a", b"x"))
ZEROS = b"\0" * (40 << 20)
HUGE_HEADER = _member("a", b"x", pax_headers={"comment": "0" * (8 << 20)})
HOSTILE: dict[str, tuple[bytes | Callable[[], bytes], str]] = {
    "an absolute name": (_named("/tmp/ftkit-evil"), "stays below"),
    "a name that climbs": (_named("../evil"), "stays below"),
    "a name that climbs from within": (_named("model/../../evil"), "stays below"),
    "a name with a dot": (_named("./a"), "stays below"),
    "a name with two slashes": (_named("model//a"), "stays below"),
    "a name with a backslash": (_named("..\\evil"), "stays below"),
    "a name with a line break": (_named("a\nb"), "stays below"),
    "a climbing member beside a good index": (_listing({"a": b"x"}, _member("../evil", b"x")), "stays below"),
    "a symbolic link": (_kind(tarfile.SYMTYPE, linkname="/etc/passwd"), "not a plain file"),
    "a hard link": (_kind(tarfile.LNKTYPE, linkname="BUNDLE.json"), "not a plain file"),
    "a character device": (_kind(tarfile.CHRTYPE, devmajor=1, devminor=3), "not a plain file"),
    "a block device": (_kind(tarfile.BLKTYPE), "not a plain file"),
    "a pipe": (_kind(tarfile.FIFOTYPE), "not a plain file"),
    "a folder": (_kind(tarfile.DIRTYPE), "not a plain file"),
    "an unknown kind of member": (_kind(b"Z"), "not a plain file"),
    "an extended header": (
        _tar(_member("BUNDLE.json", _index({"a": b"x"})), HUGE_HEADER, form=tarfile.PAX_FORMAT), "not a plain file"
    ),
    "an endless name": (_listing({"a": b"x"}, _member("n" * 5000, b"x")), "a name of"),
    "a name twice": (_listing({"a": b"x"}, _member("a", b"x"), _member("a", b"x")), "comes twice"),
    "the index twice": (_listing({"a": b"x"}, _member("BUNDLE.json", b"{}")), "is not listed"),
    "the index lists itself": (_listing({"BUNDLE.json": b"x"}), "of BUNDLE.json itself"),
    "a file that is not listed": (_listing({"a": b"x"}, _member("a", b"x"), _member("b", b"x")), "is not listed"),
    "a file that is missing": (_listing({"a": b"x", "b": b"y"}, _member("a", b"x")), "'b' is missing"),
    "a file and a folder of one name": (
        _listing({"a": b"x", "a/b": b"y"}, _member("a", b"x"), _member("a/b", b"y")), "of a file and of a folder"
    ),
    "another size than listed": (_listing({"a": b"x"}, _member("a", b"xx")), "has 2 bytes"),
    "other bytes than listed": (_listing({"a": b"x"}, _member("a", b"y")), "has other bytes"),
    "an index that is no JSON": (_tar(_member("BUNDLE.json", b"{")), "cannot be read"),
    "an index nested without end": (_tar(_member("BUNDLE.json", b"[" * 100_000)), "cannot be read"),
    "an index of another format": (_listing({"a": b"x"}, format_version=2), "another format"),
    "an index without files": (_listing({}), "does not list its files"),
    "a size that is no number": (
        _listing({}, files={"a": {"size": True, "sha256": "0" * 64}}), "does not list its files"
    ),
    "a digest that is none": (_listing({}, files={"a": {"size": 1, "sha256": "x"}}), "does not list its files"),
    "a size below zero": (_listing({}, files={"a": {"size": -1, "sha256": "0" * 64}}), "does not list its files"),
    "no index": (_tar(_member("a", b"x")), "does not begin with BUNDLE.json"),
    "an index at the end": (
        _tar(_member("a", b"x"), _member("BUNDLE.json", _index({"a": b"x"}))), "does not begin with BUNDLE.json"
    ),
    "no archive": (b"hello" * 1000, "not a tar archive"),
    "nothing": (b"", "cut off"),
    "half of it": (GOOD[:1200], "cut off"),
    "no end": (GOOD[: 4 * 512], "cut off"),
    "a second archive behind it": (GOOD + GOOD, "goes on after its end"),
    "a damaged header": (GOOD[:1024] + b"\xff" + GOOD[1025:], "or damaged"),
    "a damaged gzip": (lambda: gzip.compress(GOOD)[:-9], "damaged|cut off"),
    "a damaged zstd": (lambda: pyarrow.compress(GOOD, "zstd", asbytes=True)[:-9], "damaged|cut off"),
    "more than a plain file holds": (
        _listing({}, files={"a": {"size": 1 << 40, "sha256": "0" * 64}}), "unpacks to 1.0 TiB"
    ),
    "a bomb": (lambda: gzip.compress(_listing({"a": ZEROS}, _member("a", ZEROS))), "unpacks to 40.0 MiB"),
    "a bomb in zstd": (
        lambda: pyarrow.compress(_listing({"a": ZEROS}, _member("a", ZEROS)), "zstd", asbytes=True), "unpacks to"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_archive_is_refused_and_leaves_nothing(tmp_path, name):
    raw, because = HOSTILE[name]
    archive = tmp_path / "in" / "b.tar"
    archive.parent.mkdir()
    archive.write_bytes(raw() if callable(raw) else raw)

    with pytest.raises(VerificationError, match=because):
        unbundle(archive, tmp_path / "below" / "out")

    assert sorted(path.name for path in tmp_path.rglob("*")) == ["b.tar", "below", "in"]
    assert not Path("/tmp/ftkit-evil").exists()


def test_the_archive_that_the_hostile_ones_were_made_from_is_unpacked(tmp_path):
    (tmp_path / "b.tar").write_bytes(GOOD)

    unbundle(tmp_path / "b.tar", tmp_path / "out")

    assert (tmp_path / "out" / "a").read_bytes() == b"x"


def test_a_folder_in_use_is_not_unpacked_into(tmp_path):
    archive = write_archive(CONTENT, {}, tmp_path / "b.tar").path
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("")

    with pytest.raises(OutputError, match="not empty"):
        unbundle(archive, tmp_path / "out")
    with pytest.raises(UsageError, match="no such file"):
        unbundle(tmp_path / "none.tar", tmp_path / "new")


# What is told of the content.


def _manifest(**changed: Any) -> ExportManifest:
    values: dict[str, Any] = {
        "kind": "adapter", "recipe": "lora", "method": {},
        "base": {"name": "smollm2-135m", "revision": "r1", "sha256": "a" * 64, "licence": "Apache-2.0"},
        "recipe_digest": "b" * 64, "data_digest": "c" * 64, "tokenizer_digest": "", "chat_template_digest": None,
        "dtype": "float32", "quantization": None, "stop_tokens": [2], "versions": {"torch": "2.0"},
    }  # fmt: skip
    return ExportManifest(**{**values, **changed})


TERMS = Terms(base="Apache-2.0", data="see the contract", sources=(DataSource(name="tickets.jsonl"),))


@pytest.mark.parametrize(
    ("manifest", "terms"),
    [
        (_manifest(), TERMS),
        (_manifest(kind="merged", data_digest="d"), Terms()),
        (_manifest(base={"name": "mine", "revision": None, "sha256": "a" * 64}), Terms(base="Our own terms")),
    ],
)
def test_the_sbom_is_valid_cyclonedx_1_6(manifest, terms):
    validation = pytest.importorskip("cyclonedx.validation.json", reason="cyclonedx-python-lib has the schema")
    from cyclonedx.schema import SchemaVersion

    schema = validation.JsonStrictValidator(SchemaVersion.V1_6)

    assert schema.validate_str(json.dumps(make_sbom(manifest, terms))) is None
    wrong = {**make_sbom(manifest, terms), "components": [{"name": "without a type"}]}
    assert schema.validate_str(json.dumps(wrong)) is not None


def test_the_sbom_lists_base_and_data_with_hashes_and_terms_and_every_package_that_is_needed():
    sbom = make_sbom(_manifest(), TERMS)

    base, data, *packages = sbom["components"]
    assert base["hashes"] == [{"alg": "SHA-256", "content": "a" * 64}]
    assert base["licenses"] == [{"license": {"id": "Apache-2.0"}}]
    assert data["hashes"] == [{"alg": "SHA-256", "content": "c" * 64}]
    assert data["licenses"] == [{"license": {"name": "see the contract"}}]
    assert [part["name"] for part in data["components"]] == ["tickets.jsonl"]
    # tokenizers is needed by transformers alone, so it stands for what is needed in turn.
    assert {"peft", "torch", "transformers", "safetensors", "tokenizers"} <= {one["name"] for one in packages}
    assert not {"pytest", "ruff", "ftkit"} & {one["name"] for one in packages}
    peft = next(one for one in packages if one["name"] == "peft")
    assert peft["purl"] == f"pkg:pypi/peft@{peft['version']}"
    known = {"model", *(one["bom-ref"] for one in sbom["components"])}
    assert {ref for one in sbom["dependencies"] for ref in (one["ref"], *one.get("dependsOn", ()))} == known


def test_the_sbom_of_one_export_is_the_same_in_every_process():
    code = (
        "import json\nfrom tests.export.test_bundle import _manifest, TERMS, make_sbom\n"
        "print(json.dumps(make_sbom(_manifest(), TERMS)))"
    )
    again = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
    )  # fmt: skip

    assert json.loads(again.stdout) == make_sbom(_manifest(), TERMS)


def test_packages_follow_from_the_kind_of_export():
    assert loading_packages(_manifest()) == ["peft", "transformers", "torch", "safetensors"]
    assert loading_packages(_manifest(kind="merged")) == ["transformers", "torch", "safetensors"]
    assert loading_packages(_manifest(recipe="adapter"))[0] == "ftkit"
    assert loading_packages(_manifest(quantization={"load_in_4bit": True}))[-1] == "bitsandbytes"
    assert installed_closure(["no-such-package-anywhere"]) == {}


def test_terms_beside_the_data_are_found_and_nothing_is_claimed_without(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    for name in ("tickets.jsonl", "LICENSE.txt", "SOURCE.md", "notes.md"):
        (data / name).write_text(name)

    found = describe_source(str(data / "tickets.jsonl"))
    files = terms_files(_manifest(), Terms(base="Apache-2.0", sources=(found, describe_source("owner/set"))))

    assert found.name == "tickets.jsonl"
    assert [path.name for path in describe_source(str(data)).terms] == ["LICENSE.txt", "SOURCE.md"]
    assert set(files) == {"licences/README.md", "licences/data/1/LICENSE.txt", "licences/data/1/SOURCE.md"}
    overview = files["licences/README.md"].decode()
    assert "`smollm2-135m`: Apache-2.0 (it came with no licence file)" in overview
    assert "## Data\n\nnot stated.\n" in overview
    assert "- `tickets.jsonl`: beside it stood data/1/LICENSE.txt, data/1/SOURCE.md" in overview
    assert "- `owner/set`: no licence file beside it" in overview
    assert str(tmp_path) not in overview


def test_run_md_asks_for_the_base_where_the_archive_has_none():
    without = run_guide(_manifest(), needs_base=True, has_base=False)

    assert "ftkit verify tuned/model --base FOLDER\n" in without
    assert "PeftModel" not in without
    assert "--base" not in run_guide(_manifest(), needs_base=True, has_base=True)
    # On a quantised base PEFT must be told how; the card tells it, and three lines would be wrong.
    quantised = _manifest(quantization={"load_in_4bit": True})
    assert "PeftModel" not in run_guide(quantised, needs_base=True, has_base=True)


# Signatures.


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    """Private and public keys of two signers, by name."""
    pytest.importorskip("model_signing", reason="pip install 'ftkit[signing]'")
    serialization = pytest.importorskip("cryptography.hazmat.primitives.serialization")
    from cryptography.hazmat.primitives.asymmetric import ec

    folder = tmp_path_factory.mktemp("keys")
    for name in ("ours", "theirs"):
        key = ec.generate_private_key(ec.SECP256R1())
        (folder / f"{name}.pem").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        (folder / f"{name}.pub").write_bytes(
            key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        )
    return folder


@pytest.fixture
def signed(tmp_path, keys):
    archive = write_archive(CONTENT, {}, tmp_path / "b.tar").path
    assert signing.sign(archive, keys / "ours.pem") == tmp_path / "b.tar.sig"
    return archive


def test_a_signed_archive_is_accepted_with_its_signers_key_also_renamed(signed, keys, tmp_path):
    signing.require_signed(signed, keys / "ours.pub")
    signed.rename(tmp_path / "other.tar")
    (tmp_path / "b.tar.sig").rename(tmp_path / "other.tar.sig")

    assert unbundle(tmp_path / "other.tar", tmp_path / "out", public_key=keys / "ours.pub")["files"]


def _flip(path: Path, place: int) -> None:
    raw = bytearray(path.read_bytes())
    raw[place] ^= 1
    path.write_bytes(raw)


@pytest.mark.parametrize(
    "fault", ["another key", "a changed byte", "no signature", "a broken signature", "a forged one"]
)
def test_an_archive_that_is_not_signed_so_is_not_unpacked(signed, keys, tmp_path, fault):
    key, signature = keys / "ours.pub", tmp_path / "b.tar.sig"
    if fault == "another key":
        key = keys / "theirs.pub"
    elif fault == "a changed byte":
        _flip(signed, -1)  # of the padding, which nothing else would notice
    elif fault == "no signature":
        signature.unlink()
    elif fault == "a broken signature":
        signature.write_text('{"mediaType": 5}')
    else:
        forged = json.loads(signature.read_text())
        payload = forged["dsseEnvelope"]["payload"]
        forged["dsseEnvelope"]["payload"] = payload[:-8] + payload[-4:] + payload[-8:-4]
        signature.write_text(json.dumps(forged))

    with pytest.raises(VerificationError, match=r"not signed|not its signature"):
        unbundle(signed, tmp_path / "out", public_key=key)
    assert not (tmp_path / "out").exists()


def test_what_is_no_key_is_refused_with_the_command_that_makes_one(signed, keys, tmp_path):
    (tmp_path / "text").write_text("hello")

    for key in (tmp_path / "text", tmp_path / "absent", keys / "ours.pub"):
        with pytest.raises(UsageError, match="openssl ecparam"):
            signing.sign(signed, key)
    with pytest.raises(UsageError, match="openssl ecparam"):
        signing.require_signed(signed, tmp_path / "text")


def test_without_the_package_the_command_that_installs_it_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)

    with pytest.raises(MissingPartError, match=r"pip install 'ftkit\[signing\]'"):
        signing.sign(tmp_path / "b.tar", tmp_path / "key.pem")
