"""What `protect` writes, computed and undone. `pip install cryptography`.

A value is first brought to bytes: a string's UTF-8, the bytes of binary and fixed, and of any other type the text that a cast to
string gives (`-5`, `12.30`, `2026-01-31`, `2026-01-31T12:00:00Z`, a uuid with hyphens). The key is the one of
`protection`: the UTF-8 bytes of `key`, or the bytes that the key service opened. Each use has a key of its own:

    HMAC-SHA256(key, "siltstone hash 1")        for hash
    HMAC-SHA256(key, "siltstone tokenize 1")    for tokenize
    HMAC-SHA256(key, "siltstone encrypt 1")     for encrypt

An encrypted value is the text `aes1:` and, in base64, 12 random bytes (the nonce), the AES-256-GCM ciphertext and its tag of
16 bytes. Nonces are random, so one key is for at most 2^32 values (NIST SP 800-38D, 8.3), all encrypted columns and rows of
its tables counted together; hashes and tokens have no such bound. There is no associated data, so that engines which know AES-GCM can read it. In Spark, with the derived key in hex:

    select cast(aes_decrypt(unbase64(substr(ssn, 6)), unhex('<key_for(key, "encrypt").hex()>'), 'GCM') as string)

Run: PII_KEY=... python3 examples/protected_columns.py aes1:...
"""

import base64
import hashlib
import hmac
import os
import sys


def key_for(key: bytes, use: str) -> bytes:
    """The key of one use: `hash`, `tokenize` or `encrypt`."""
    return hmac.new(key, f"siltstone {use} 1".encode(), hashlib.sha256).digest()


def hash_of(key: bytes, value: bytes) -> str:
    return hmac.new(key_for(key, "hash"), value, hashlib.sha256).hexdigest()


def token_of(key: bytes, value: bytes) -> str:
    digest = hmac.new(key_for(key, "tokenize"), value, hashlib.sha256).digest()
    return base64.b32encode(digest[:16]).decode().rstrip("=").lower()


def mask_of(text: str) -> str:
    hidden = sum(c.isalnum() for c in text)
    hidden -= 4 if hidden >= 8 else 0
    out = []
    for c in text:
        is_hidden = c.isalnum() and hidden > 0
        hidden -= c.isalnum()
        out.append("*" if is_hidden else c)
    return "".join(out)


def decrypt(key: bytes, text: str) -> bytes:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    assert text.startswith("aes1:"), "not an encrypted value"
    sealed = base64.b64decode(text.removeprefix("aes1:"))
    return AESGCM(key_for(key, "encrypt")).decrypt(sealed[:12], sealed[12:], None)


if __name__ == "__main__":
    for value in sys.argv[1:]:
        print(decrypt(os.environ["PII_KEY"].encode(), value).decode())
