"""Service-account tokens as a cluster signs them, with keys that tests have made."""

from __future__ import annotations

import json
import time
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from hack.secrecy import secret
from supernode.node_tokens import AUDIENCE

RSA = rsa.generate_private_key(65537, 2048)
OTHER = rsa.generate_private_key(65537, 2048)
CURVE = ec.generate_private_key(ec.SECP256R1())


def jwks(**keys: Any) -> str:
    entries = []
    for name, key in keys.items():
        algorithm = jwt.algorithms.RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else jwt.algorithms.ECAlgorithm
        alg = "RS256" if isinstance(key, rsa.RSAPrivateKey) else "ES256"
        entries.append({**algorithm.to_jwk(key.public_key(), as_dict=True), "kid": name, "use": "sig", "alg": alg})
    return json.dumps({"keys": entries})


def token(key: Any = RSA, kid: str = "one", algorithm: str = "RS256", **changed: Any) -> str:
    named = {
        "namespace": "darner-system",
        "node": {"name": "n1", "uid": "u1"},
        "pod": {"name": "darner-agent-x", "uid": "p1"},
        "serviceaccount": {"name": "darner-agent", "uid": "s1"},
    }
    now = int(time.time())
    times = {"exp": now + 7200, "iat": now, "nbf": now}
    claims = {"aud": [AUDIENCE], "iss": "https://any", **times, "kubernetes.io": named, **changed}
    return secret(jwt.encode(claims, key, algorithm, headers={"kid": kid}), "a node token")


def named(**changed: Any) -> dict[str, Any]:
    claims: dict[str, Any] = jwt.decode(token(), options={"verify_signature": False})["kubernetes.io"]
    return claims | changed
