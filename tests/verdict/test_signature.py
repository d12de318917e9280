"""Signed verdicts: what the gate says of each kind, and that others can read the envelope."""

from __future__ import annotations

import base64
import datetime
import json
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import SSlibKey

from conformance.cli import main
from conformance.verdict.gate import Policy, rule
from conformance.verdict.signature import (
    PAYLOAD,
    Signer,
    SigningError,
    Verifier,
    envelope_of,
    make_pair,
    public_of,
    source_digests,
    statement,
    write_signed,
)
from conformance.verdict.verdict import digest, in_file, read_verdict, write_verdict

Json = dict[str, Any]
NOW = datetime.datetime(2030, 1, 31, tzinfo=datetime.UTC)
ROW = {"id": "value.mean", "level": "must", "status": "pass", "dtype": "float32", "examples": 9}


class Place:
    """A folder with two pairs of keys, and a verdict that one of them has signed."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.verdict = folder, folder / "verdict.json"
        self.own, self.others = folder / "own.key", folder / "others.key"
        for path in (self.own, self.others):
            make_pair(path)
        self.edit(lambda verdict: None)
        self.sign(self.own)

    def edit(self, change: Callable[[Json], None]) -> None:
        """As somebody edits it who knows how its digest is made."""
        verdict: Json = {
            "schema": 1, "spec": "mse 1.0", "suite": "0", "target": "mine", "fingerprint": "0" * 64,
            "device": "cpu", "profile": "default", "seed": 0, "selected": "*", "complete": True,
            "conforms": True, "created": "2030-01-30T12:00:00+00:00", "clauses": [dict(ROW)],
        }  # fmt: skip
        change(verdict)
        write_verdict(self.verdict, verdict | {"digest": digest(verdict)})

    def sign(self, key: Path) -> None:
        verdict = read_verdict(self.verdict)
        write_signed(self.verdict, verdict, Signer.read(key), {"mine.py": "1" * 64})

    def envelope(self, **changes: Any) -> None:
        path = envelope_of(self.verdict)
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    def reasons(self, *keys: Path, policy: Policy | None = None) -> str:
        trusted = [Verifier.read(public_of(key)) for key in keys or (self.own,)]
        (ruling,) = rule([self.verdict], policy or Policy(), NOW, trusted)
        return "; ".join(ruling.reasons)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_a_signed_verdict_is_accepted(place: Place) -> None:
    assert place.reasons() == ""
    assert place.reasons(place.others, place.own) == ""


def test_an_edited_verdict_is_refused(place: Place) -> None:
    place.edit(lambda verdict: verdict.update(seed=1))
    assert place.reasons() == (
        "its signature is of another verdict: it was edited, or is not this one"
    )


def test_a_verdict_in_another_form_is_not_the_one_that_was_signed(place: Place) -> None:
    place.verdict.write_text(json.dumps(json.loads(place.verdict.read_text())))
    assert "of another verdict" in place.reasons()


def test_an_edited_statement_is_refused(place: Place) -> None:
    verdict = read_verdict(place.verdict)
    edited = statement(verdict | {"target": "yours"}, "verdict.json", in_file(verdict), {})
    place.envelope(payload=base64.b64encode(json.dumps(edited).encode()).decode())
    assert place.reasons() == (
        "its signature is wrong: what was signed, or the signature itself, was edited"
    )


def test_an_unsigned_verdict_is_refused(place: Place) -> None:
    envelope_of(place.verdict).unlink()
    assert place.reasons() == "it is not signed: there is no verdict.dsse.json beside it"


def test_a_verdict_signed_by_another_key_is_refused(place: Place) -> None:
    place.sign(place.others)
    name = Signer.read(place.others).name[:16]
    assert place.reasons() == f"it is signed by another key: {name}"
    assert place.reasons(place.others) == ""


def test_a_signature_under_a_trusted_name_by_another_key_is_refused(place: Place) -> None:
    place.sign(place.others)
    (made,) = json.loads(envelope_of(place.verdict).read_text())["signatures"]
    place.envelope(signatures=[made | {"keyid": Signer.read(place.own).name}])
    assert "its signature is wrong" in place.reasons()


def test_a_signed_verdict_expires(place: Place) -> None:
    assert place.reasons(policy=Policy(max_age_days=1)) == ""
    assert place.reasons(policy=Policy(max_age_days=0.25)) == "it is 0 days old, more than 0.25"


def test_a_signature_of_a_broken_verdict_proves_that_it_is_broken(place: Place) -> None:
    place.edit(lambda verdict: verdict["clauses"][0].update(status="fail"))
    place.sign(place.own)
    assert place.reasons() == "the target does not conform: value.mean"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"payloadType": "text/plain"}, "verdict.dsse.json is about something else: text/plain"),
        ({"payload": "?"}, "verdict.dsse.json is no DSSE envelope"),
        ({"signatures": [{"sig": 3}]}, "verdict.dsse.json is no DSSE envelope"),
        ({"signatures": None}, "verdict.dsse.json is no DSSE envelope"),
        ({"signatures": []}, "it is signed by another key: none"),
    ],
)
def test_what_is_no_envelope_is_refused(place: Place, changes: Json, reason: str) -> None:
    place.envelope(**changes)
    assert place.reasons() == reason


def test_a_statement_about_something_else_is_refused(place: Place) -> None:
    signer = Signer.read(place.own)
    for body in ({"_type": "x"}, {"subject": []}, {"predicateType": "x"}, {"predicate": {}}):
        verdict = read_verdict(place.verdict)
        told = statement(verdict, "verdict.json", in_file(verdict), {}) | body
        envelope_of(place.verdict).write_text(json.dumps(signer.sign(told)))
        assert place.reasons().startswith(
            ("verdict.dsse.json holds no statement", "its signature is about another target")
        ), body


def independent(key: Path) -> SSlibKey:
    """The public key, as securesystemslib reads it."""
    public = load_pem_public_key(public_of(key).read_bytes())
    return SSlibKey.from_crypto(public, keyid=Verifier.read(public_of(key)).name)


def test_securesystemslib_verifies_the_envelope(place: Place) -> None:
    """So it is one for everybody, and not for this project alone."""
    read = json.loads(envelope_of(place.verdict).read_text())
    envelope = Envelope.from_dict(json.loads(json.dumps(read)))
    envelope.verify([independent(place.own)], threshold=1)
    assert envelope.payload_type == PAYLOAD
    about = json.loads(envelope.payload)
    assert about["_type"] == "https://in-toto.io/Statement/v1"
    assert about["subject"] == [
        {"name": "mine", "digest": {"sha256": "0" * 64}},
        {"name": "mine.py", "digest": {"sha256": "1" * 64}},
    ]
    assert about["predicate"]["conforms"] is True
    with pytest.raises(VerificationError):
        envelope.verify([independent(place.others)], threshold=1)
    read["payload"] = base64.b64encode(envelope.payload.replace(b"mine", b"your")).decode()
    with pytest.raises(VerificationError):
        Envelope.from_dict(read).verify([independent(place.own)], threshold=1)


# -- keys --------------------------------------------------------------------------------------


def test_a_private_key_is_its_owners_alone(place: Place) -> None:
    assert stat.S_IMODE(place.own.stat().st_mode) == 0o600
    with pytest.raises(SigningError, match="File exists"):
        make_pair(place.own)


def test_what_is_no_key_is_explained(place: Place, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text("nothing")
    for read in (Signer.read, Verifier.read):
        with pytest.raises(SigningError, match=r"not a (private|public) key in PEM"):
            read(wrong)
        with pytest.raises(SigningError, match="No such file"):
            read(tmp_path / "missing")
    with pytest.raises(SigningError, match="not a private key"):
        Signer.read(public_of(place.own))


def test_a_key_of_another_kind_is_refused(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization as forms
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key

    private = generate_private_key(SECP256R1())
    path = tmp_path / "ec"
    path.write_bytes(
        private.private_bytes(forms.Encoding.PEM, forms.PrivateFormat.PKCS8, forms.NoEncryption())
    )
    with pytest.raises(SigningError, match="not an Ed25519 key"):
        Signer.read(path)


def test_without_the_library_it_is_named(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.serialization", None)
    assert main(["gate", str(place.verdict), "--trust", str(public_of(place.own))]) == 2
    assert "pip install 'loss-conformance[sign]'" in capsys.readouterr().err


def test_the_file_of_a_target_is_a_subject(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text("x = 1\n")
    (named,) = source_digests(f"{path}:loss").items()
    assert source_digests(str(path)) == dict([named])
    assert source_digests("builtin") == source_digests("package.module:loss") == {}
    path.write_text("x = 2\n")
    assert source_digests(str(path)) != dict([named])


# -- the command -------------------------------------------------------------------------------

MINE = """
import os
import torch.nn.functional as F

def loss(x, y, reduction="mean"):
    {body}
    return F.mse_loss(x, y, reduction=reduction)
"""
CHECK = ("check", "mine.py:loss", "--profile", "quick", "--clause", "value.mean", "--jobs", "1")


def test_from_a_key_to_an_accepted_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(MINE.format(body="pass"))
    assert main(["key"]) == 0
    assert main([*CHECK, "--sign", "signing.key"]) == 2
    assert "name its folder with --report DIR" in capsys.readouterr().err
    assert main([*CHECK, "--sign", "signing.key", "--report", "out"]) == 0
    told = json.loads((tmp_path / "out/loss/verdict.dsse.json").read_text())
    about = json.loads(base64.b64decode(told["payload"]))
    assert [subject["name"] for subject in about["subject"]] == ["loss", "mine.py"]
    assert len({subject["digest"]["sha256"] for subject in about["subject"]}) == 1
    gate = ["gate", "out/loss/verdict.json", "--trust", "signing.key.pub"]
    capsys.readouterr()
    assert main(gate) == 1
    assert capsys.readouterr().out == (
        "out/loss/verdict.json: REFUSED: it is of profile quick, less than default; "
        "it covers the clauses value.mean only\n"
    )
    assert main([*CHECK, "--report", "out"]) == 0  # unsigned: the earlier envelope has gone
    assert main(gate) == 1
    assert "it is not signed" in capsys.readouterr().out
    (tmp_path / "conformance.toml").write_text("[gate]\ntrust = ['signing.key.pub']\n")
    assert main(gate[:2]) == 1
    assert "it is not signed" in capsys.readouterr().out


def test_a_target_that_rewrites_its_file_is_not_signed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    make_pair(tmp_path / "own.key")
    (tmp_path / "mine.py").write_text(MINE.format(body="open(__file__, 'a').write('# honest\\n')"))
    assert main([*CHECK, "--sign", "own.key", "--report", "out"]) == 3
    assert "its file changed while it was judged: not signed" in capsys.readouterr().err
    assert not (tmp_path / "out/loss/verdict.dsse.json").exists()
