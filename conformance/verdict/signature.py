"""Signed verdicts: an in-toto Statement about a verdict, in a DSSE envelope, by an Ed25519 key.

The envelope lies beside the verdict: ``verdict.dsse.json``. What is signed names the sources that
were judged by their digests, its subjects, and the file of the verdict by its own, to the byte.
Cryptography is that of the library of this name: ``pip install loss-conformance[sign]``.
"""

from __future__ import annotations

import base64
import hashlib
import importlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conformance.verdict.verdict import in_file

Json = dict[str, Any]

PAYLOAD = "application/vnd.in-toto+json"
STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "urn:loss-conformance:verdict:1"  # the schema's
SUFFIX = ".dsse.json"
# What a reader of the statement wants to know without the verdict.
TOLD = (
    *("target", "conforms", "complete", "spec", "suite", "device", "profile", "selected"),
    *("domain", "isolation", "seed", "created"),
)


class SigningError(ValueError):
    """A key that cannot be had or used; the message is for users."""


class Unsigned(Exception):
    """A verdict without a signature that counts; the message says why."""


@dataclass(frozen=True)
class Signer:
    """A private key. ``name``: the id of its public key."""

    private: Any
    name: str

    @classmethod
    def read(cls, path: Path) -> Signer:
        """Of a PEM file. Raises SigningError."""
        serialization = _cryptography("hazmat.primitives.serialization")
        text = _bytes(path)
        try:
            private = serialization.load_pem_private_key(text, None)
        except (ValueError, TypeError, _cryptography("exceptions").UnsupportedAlgorithm):
            raise SigningError(f"{path}: not a private key in PEM without a password") from None
        if not isinstance(private, _ed25519().Ed25519PrivateKey):
            raise SigningError(f"{path}: not an Ed25519 key")
        return cls(private, _name(private.public_key()))

    def sign(self, statement: Json) -> Json:
        """The envelope."""
        payload = json.dumps(statement, sort_keys=True).encode()
        signature: bytes = self.private.sign(_encoded(payload))
        return {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": PAYLOAD,
            "signatures": [{"keyid": self.name, "sig": base64.b64encode(signature).decode()}],
        }


@dataclass(frozen=True)
class Verifier:
    """A public key. ``name``: its id, SHA-256 of it in DER."""

    public: Any
    name: str

    @classmethod
    def read(cls, path: Path) -> Verifier:
        """Of a PEM file. Raises SigningError."""
        serialization = _cryptography("hazmat.primitives.serialization")
        text = _bytes(path)
        try:
            public = serialization.load_pem_public_key(text)
        except (ValueError, _cryptography("exceptions").UnsupportedAlgorithm):
            raise SigningError(f"{path}: not a public key in PEM") from None
        if not isinstance(public, _ed25519().Ed25519PublicKey):
            raise SigningError(f"{path}: not an Ed25519 key")
        return cls(public, _name(public))

    def accepts(self, payload: bytes, signature: bytes) -> bool:
        try:
            self.public.verify(signature, _encoded(payload))
        except _cryptography("exceptions").InvalidSignature:
            return False
        return True


def make_pair(path: Path) -> str:
    """Write a private key to ``path``, and its public one beside it as ``.pub``; the id of both.

    Raises SigningError, also where there is such a file.
    """
    serialization = _cryptography("hazmat.primitives.serialization")
    private = _ed25519().Ed25519PrivateKey.generate()
    secret = private.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    public = private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    _write_new(path, secret, 0o600)
    _write_new(public_of(path), public, 0o644)
    return _name(private.public_key())


def public_of(path: Path) -> Path:
    """Where the public key of a private one lies."""
    return path.with_name(f"{path.name}.pub")


def envelope_of(verdict: Path) -> Path:
    """Where the envelope of a verdict lies."""
    return verdict.with_name(verdict.stem + SUFFIX)


def source_digests(spec: str) -> dict[str, str]:
    """Of a target that is named as a file: SHA-256 of that, by its name. Nobody imports it here.

    Raises SigningError where it cannot be read.
    """
    place = spec if spec.endswith(".py") else spec.rpartition(":")[0]
    if not place.endswith(".py"):
        return {}
    path = Path(place)
    return {path.name: hashlib.sha256(_bytes(path)).hexdigest()} if path.exists() else {}


def statement(verdict: Json, file: str, data: bytes, sources: Mapping[str, str]) -> Json:
    """About the verdict in ``file``, whose bytes are ``data``. ``sources``: their digests."""
    known = {verdict["target"]: verdict["fingerprint"], **sources}
    described = {"name": file, "mediaType": "application/json", "digest": _digest(data)}
    return {
        "_type": STATEMENT,
        "subject": [{"name": name, "digest": {"sha256": d}} for name, d in known.items()],
        "predicateType": PREDICATE,
        "predicate": {"verdict": described, **{k: verdict[k] for k in TOLD if k in verdict}},
    }


def write_signed(path: Path, verdict: Json, signer: Signer, sources: Mapping[str, str]) -> Path:
    """Sign the verdict that was written to ``path``; where the envelope lies. Raises OSError.

    What lies there now does not count: whoever was judged may have changed it since.
    """
    body = statement(verdict, path.name, in_file(verdict), sources)
    where = envelope_of(path)
    where.write_text(json.dumps(signer.sign(body), indent=1) + "\n", encoding="utf-8")
    return where


def check_signed(path: Path, data: bytes, verdict: Json, trusted: Sequence[Verifier]) -> None:
    """Whether one of these keys signed exactly the verdict at ``path``, whose bytes are ``data``.

    Raises Unsigned where none did.
    """
    where = envelope_of(path)
    try:
        text = where.read_bytes()
    except FileNotFoundError:
        raise Unsigned(f"it is not signed: there is no {where.name} beside it") from None
    except OSError as error:
        raise Unsigned(f"{where.name} cannot be read: {error.strerror}") from None
    payload, signatures = _opened(text, where.name)
    signed = [v for v in trusted if any(v.accepts(payload, one) for _, one in signatures)]
    if not signed:
        raise Unsigned(_why(signatures, trusted))
    about = _read(payload, where.name)
    if about["predicate"]["verdict"]["digest"] != _digest(data):
        raise Unsigned("its signature is of another verdict: it was edited, or is not this one")
    own = {"name": verdict["target"], "digest": {"sha256": verdict["fingerprint"]}}
    if own not in about["subject"]:
        raise Unsigned("its signature is about another target")


def _why(signatures: Iterable[tuple[str, bytes]], trusted: Iterable[Verifier]) -> str:
    """No signature counts: an envelope that was edited, or somebody else's key."""
    names = [name for name, _ in signatures]
    if any(verifier.name in names for verifier in trusted):
        return "its signature is wrong: what was signed, or the signature itself, was edited"
    return f"it is signed by another key: {', '.join(name[:16] for name in names) or 'none'}"


def _opened(text: bytes, file: str) -> tuple[bytes, list[tuple[str, bytes]]]:
    """Payload and signatures of an envelope. Raises Unsigned."""
    try:
        envelope = json.loads(text)
        if envelope["payloadType"] != PAYLOAD:
            raise Unsigned(f"{file} is about something else: {str(envelope['payloadType'])[:80]}")
        payload = base64.b64decode(envelope["payload"], validate=True)
        return payload, [*_signatures(envelope["signatures"])]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise Unsigned(f"{file} is no DSSE envelope") from None


def _signatures(listed: Iterable[Json]) -> Iterator[tuple[str, bytes]]:
    for one in listed:
        yield str(one.get("keyid", "")), base64.b64decode(one["sig"], validate=True)


def _read(payload: bytes, file: str) -> Json:
    """The statement. Raises Unsigned where it is none about a verdict."""
    try:
        found: Json = json.loads(payload)
        kinds = found["_type"], found["predicateType"]
        found["predicate"]["verdict"]["digest"], found["subject"]
    except (ValueError, KeyError, TypeError):
        kinds = None
    if kinds != (STATEMENT, PREDICATE):
        raise Unsigned(f"{file} holds no statement about a verdict")
    return found


def _encoded(payload: bytes) -> bytes:
    """What is signed: DSSE's pre-authentication encoding."""
    kind = PAYLOAD.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def _digest(data: bytes) -> dict[str, str]:
    return {"sha256": hashlib.sha256(data).hexdigest()}


def _name(public: Any) -> str:
    serialization = _cryptography("hazmat.primitives.serialization")
    der: bytes = public.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return hashlib.sha256(der).hexdigest()


def _write_new(path: Path, data: bytes, mode: int) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except OSError as error:
        raise SigningError(f"cannot write {path}: {error.strerror}") from None
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SigningError(f"{path}: {error.strerror}") from None


def _ed25519() -> Any:
    return _cryptography("hazmat.primitives.asymmetric.ed25519")


def _cryptography(module: str) -> Any:
    """Raises SigningError where it is not installed."""
    try:
        return importlib.import_module(f"cryptography.{module}")
    except ImportError:
        raise SigningError(
            "signatures take the package cryptography: pip install 'loss-conformance[sign]'"
        ) from None
