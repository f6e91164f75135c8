"""Where a registry's credentials may be sent besides the registry itself: token services of the same domain. Pure.

It is the second guard. The first is that only the registry's own host is believed when it names a token service.
"""

from __future__ import annotations

import re

_FOR_EVERYBODY = re.compile(
    r"(?:ac|co|com|edu|gob|gouv|gov|go|govt|ind|info|ltd|me|mil|ne|net|nhs|nom|or|org|plc|police|sch)\.[a-z]{2}"
)
"""Second levels that countries give to all comers: `co.uk`, `com.au`, `ne.jp`."""

# fmt: off
_SHARED = frozenset({
    "amazonaws.com", "appspot.com", "azurecr.io", "azurewebsites.net", "cloudfront.net", "codeberg.page", "duckdns.org",
    "dyndns.org", "firebaseapp.com", "fly.dev", "github.io", "gitlab.io", "herokuapp.com", "jfrog.io", "netlify.app",
    "ngrok.app", "ngrok.io", "nip.io", "no-ip.org", "onrender.com", "pages.dev", "r2.dev", "run.app", "sslip.io", "surge.sh",
    "vercel.app", "web.app", "windows.net", "workers.dev",
})
# fmt: on
"""Where whoever likes gets a name. The list of all such places (publicsuffix.org) is long and changes every week; these are the
ones where registries are seen."""


def realm_belongs(realm_host: str, registry_host: str) -> bool:
    """Whether credentials for a registry may be sent to a token service. Both are names in lower case, or addresses.

    They may to the registry's own host, to the domain that it is in, and to all that is below either of them:
    `auth.docker.io` for `registry-1.docker.io`, `gitlab.example.com` for `registry.example.com`. They may not where the names of
    a domain are in different hands: next to `example.com`, `example.co.uk` or `somebody.github.io`.
    """
    if realm_host == registry_host:
        return bool(realm_host)
    if _is_address(registry_host):
        return False
    domains = (registry_host, registry_host.partition(".")[2])
    return any(_is_in_one_hand(domain) and (realm_host == domain or realm_host.endswith("." + domain)) for domain in domains)


def _is_in_one_hand(domain: str) -> bool:
    """Whether all names below a domain are its owner's, as far as one can tell by looking at it."""
    labels = domain.split(".")
    return len(labels) > 1 and all(labels) and domain not in _SHARED and not _FOR_EVERYBODY.fullmatch(domain)


def _is_address(host: str) -> bool:
    """Whether this is an address, in whatever way it is spelled: it has no domain. No top level begins with a digit."""
    return ":" in host or host.rpartition(".")[2][:1].isdigit()
