"""Where a registry's credentials may be sent besides the registry itself: token services of the same domain.

It is the second guard. The first is that only the registry's own host is believed when it names a token service. Which names
belong to one owner is told by the public suffix list (publicsuffix.org), both its sections, as shipped with `publicsuffixlist`
(docs/decisions/0022): nothing is fetched.
"""

from __future__ import annotations

from functools import cache

from publicsuffixlist import PublicSuffixList

_SHARED = frozenset({"amazonaws.com", "azurecr.io", "jfrog.io", "nip.io", "sslip.io", "windows.net"})
"""Domains that hand out names to registries of many owners, or to whoever likes, and that the public suffix list does not have:
it takes only those whose owners ask for it."""


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
    # The domain whose owner decides on the token service's name. A public suffix has none, and neither has what is no name.
    registered = _public_suffixes().privatesuffix(realm_host)
    if registered is None:
        return False
    domains = (registry_host, registry_host.partition(".")[2])
    return any(domain not in _SHARED and _is_in(realm_host, domain) and _is_in(domain, registered) for domain in domains)


def _is_in(host: str, domain: str) -> bool:
    return host == domain or (bool(domain) and host.endswith("." + domain))


@cache
def _public_suffixes() -> PublicSuffixList:
    """Read when a token service is elsewhere for the first time: it takes 2.5 MiB, and a moment."""
    return PublicSuffixList()


def _is_address(host: str) -> bool:
    """Whether this is an address, in whatever way it is spelled: it has no domain. No top level begins with a digit."""
    return ":" in host or host.rpartition(".")[2][:1].isdigit()
