"""Names of images, case by case: what the distribution reference grammar accepts, refuses and normalises."""

import pytest

from agent.values.errors import DarnerError
from agent.values.reference import (
    InvalidDigest,
    InvalidReference,
    Reference,
    UnsupportedDigest,
    component_of,
    from_local,
    is_local,
    origin_of,
    parse_digest,
    parse_registry,
    parse_tag,
    registry_of,
    to_local,
)

SHA = "sha256:" + "0123456789abcdef" * 4
SHA512 = "sha512:" + "0123456789abcdef" * 8


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("nginx", "docker.io/library/nginx"),
        ("nginx:1.27", "docker.io/library/nginx:1.27"),
        ("a/b", "docker.io/a/b"),
        ("a/b/c", "docker.io/a/b/c"),
        ("docker.io/nginx", "docker.io/library/nginx"),
        ("Docker.IO/nginx", "docker.io/library/nginx"),
        ("index.docker.io/nginx", "docker.io/library/nginx"),
        ("index.docker.io/a/b", "docker.io/a/b"),
        ("host:5000/a", "host:5000/a"),
        ("HOST:5000/a", "host:5000/a"),
        ("Reg.Example.COM/a:Tag", "reg.example.com/a:Tag"),
        (f"reg.example.com/a@{SHA}", f"reg.example.com/a@{SHA}"),
        (f"reg.example.com/a:1.2@{SHA}", f"reg.example.com/a:1.2@{SHA}"),
        (f"nginx@{SHA}", f"docker.io/library/nginx@{SHA}"),
        ("localhost/a", "localhost/a"),
        ("localhost:5000/a", "localhost:5000/a"),
        ("10.0.0.1:5000/a", "10.0.0.1:5000/a"),
        ("[FD00::1]:5000/a", "[fd00::1]:5000/a"),
        ("a__b/c--d.e_f", "docker.io/a__b/c--d.e_f"),
        ("xn--n3h.com/a", "xn--n3h.com/a"),
        ("nginx:_a.b-c", "docker.io/library/nginx:_a.b-c"),
        ("0/1", "docker.io/0/1"),
    ],
)
def test_a_name_is_normalised_as_the_distribution_grammar_says(text: str, canonical: str) -> None:
    assert str(Reference.parse(text)) == canonical
    assert Reference.parse(canonical) == Reference.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "nginx ", " nginx", "nginx\n", "nginx:", "nginx@", ":1", "@", "/", "/a", "a/", "a//b", "http://a/b", "a b"),
        *("..", "a/..", "a/./b", "host.com/a/../b", "a%2fb", "a\\b", "a\x00b"),
        *("Nginx", "host.com/A", ".a", "a.", "-a", "a-", "_a", "a_", "a___b", "a..b", "a._b"),
        *(
            "host.com/",
            "host.com:/a",
            "host:port/a",
            "-host.com/a",
            "host-.com/a",
            "host..com/a",
            "ho_st.com/a",
            "user@host.com/a",
        ),
        *("[::1/a", "::1/a", "a:b:c", "a:.b", "a:-b", "a:" + "t" * 129),
        *("a:ü", "a:１", "nginх", "host.com/ünicode", "höst.com/a", "İ.com/a"),
        *("a@sha256", "a@sha256:abc", f"a@{SHA[:-1]}", f"a@{SHA.upper()}", f"a@{SHA}\n", f"a@{SHA}:tag", f"a@{SHA}@{SHA}"),
        *(f"a@{SHA512}", "a@md5:" + "0" * 32, SHA[7:], SHA, "a" * 300, "host.com/" + "a" * 300),
    ],
)
def test_what_names_no_image_is_refused_with_an_error_of_our_own(text: str) -> None:
    with pytest.raises(InvalidReference) as refused:
        Reference.parse(text)
    assert isinstance(refused.value, ValueError)
    assert isinstance(refused.value, DarnerError)
    assert refused.value.status == 400
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 300


@pytest.mark.parametrize(
    ("text", "local"),
    [
        ("nginx", "127.0.0.1:65001/docker.io/library/nginx"),
        ("nginx:1.27", "127.0.0.1:65001/docker.io/library/nginx:1.27"),
        (f"reg.example.com:5000/a/b:1@{SHA}", f"127.0.0.1:65001/reg.example.com_5000/a/b:1@{SHA}"),
        ("REG.example.com/a", "127.0.0.1:65001/reg.example.com/a"),
        ("HOST/a", "127.0.0.1:65001/host/a"),
        ("localhost/a", "127.0.0.1:65001/localhost/a"),
        ("127.0.0.1:5000/a", "127.0.0.1:65001/127.0.0.1_5000/a"),
    ],
)
def test_the_local_name_is_the_origin_behind_this_nodes_agent(text: str, local: str) -> None:
    assert to_local(text) == local
    assert Reference.parse(from_local(local)) == Reference.parse(text)


def test_a_bare_host_keeps_the_upper_case_that_makes_it_a_host() -> None:
    assert Reference.parse("HOST/a").registry == "host"
    assert from_local("127.0.0.1:65001/host/a") == "HOST/a"


@pytest.mark.parametrize(
    "text", ["[::1]/a", "[fd00::1]:5000/a", "host:0/a", "host:65536/a", "host:99999999/a", "h.io/" + "a" * 240]
)
def test_what_a_local_name_cannot_express_is_refused(text: str) -> None:
    assert Reference.parse(text)
    with pytest.raises(InvalidReference):
        to_local(text)


def test_the_longest_local_name_has_255_characters() -> None:
    longest = "h.io/" + "a" * (255 - len("127.0.0.1:65001/h.io/"))
    assert len(to_local(longest)) == 255
    assert from_local(to_local(longest)) == longest
    with pytest.raises(InvalidReference, match="255"):
        to_local(longest + "a")


@pytest.mark.parametrize("registry", ["h.io", f"{'h' * 60}.example.com:5000", "[fd00::1]:5000"])
def test_the_repository_may_have_255_characters_apart_from_registry_tag_and_digest(registry: str) -> None:
    longest = f"{registry}/{'a/' * 127}a"
    assert Reference.parse(f"{longest}:{'t' * 128}@{SHA}").tag == "t" * 128
    with pytest.raises(InvalidReference, match="too long: a repository has at most 255 characters"):
        Reference.parse(longest + "a")


def test_what_docker_io_puts_before_a_repository_counts_as_its_part() -> None:
    assert Reference.parse("a" * 247).repository == "library/" + "a" * 247
    with pytest.raises(InvalidReference, match="too long"):
        Reference.parse("a" * 248)


def test_a_repository_at_the_agent_has_255_characters_with_its_registry() -> None:
    longest = "h.io/" + "a" * 250
    assert origin_of(longest) == ("h.io", "a" * 250)
    with pytest.raises(InvalidReference, match="too long"):
        origin_of(longest + "a")


def test_a_name_as_long_as_a_repository_may_be_has_no_local_one() -> None:
    text = "h.io/" + "a" * 255
    assert str(Reference.parse(text)) == text
    with pytest.raises(InvalidReference, match="no local name"):
        to_local(text)


def test_a_local_name_is_recognised_and_stays_as_it_is() -> None:
    local = "127.0.0.1:65001/docker.io/library/nginx:1.27"
    assert is_local(local)
    assert to_local(local) == local
    assert is_local("127.0.0.1:65001/nonsense")
    for other in ("", "nginx", "127.0.0.1:6500/a", "127.0.0.1:650010/a", "localhost:65001/a", "reg.example.com/127.0.0.1:65001"):
        assert not is_local(other)


@pytest.mark.parametrize(
    "text",
    [
        "nginx",
        "127.0.0.1:65001/nginx",
        "127.0.0.1:65001/123/a",
        "127.0.0.1:65001/a_b/c",
        "127.0.0.1:65001/host_0/a",
        "127.0.0.1:65001/h__5000/a",
    ],
)
def test_a_name_without_an_origin_is_not_local(text: str) -> None:
    with pytest.raises(InvalidReference):
        from_local(text)


def test_the_agents_repository_names_its_origin() -> None:
    assert origin_of("docker.io/library/nginx") == ("docker.io", "library/nginx")
    assert origin_of("docker.io/nginx") == ("docker.io", "library/nginx")
    assert origin_of("reg.example.com_5000/a/b") == ("reg.example.com:5000", "a/b")
    assert origin_of("localhost_5000/a") == ("localhost:5000", "a")


@pytest.mark.parametrize(
    "path",
    [
        *("", "/", "a", "a/", "/a", "docker.io//a", "docker.io/" + "a/" * 4096),
        *("../etc/passwd", "docker.io/../a", "docker.io/a/..", "docker.io/%2e%2e/a", "docker.io/a%2fb"),
        *("docker.io/a%00", "docker.io/a\x00", "docker.io\\a", "http://docker.io/a"),
        *("Docker.io/a", "docker.io/A", "[::1]/a", "host:5000/a", "host_99999/a"),
    ],
)
def test_a_path_that_is_not_a_repository_is_refused(path: str) -> None:
    with pytest.raises(InvalidReference):
        origin_of(path)


@pytest.mark.parametrize("registry", ["docker.io", "host", "localhost:5000", "10.1.2.3", "10.1.2.3:80", "a.b-c.d:65535"])
def test_registry_and_path_component_are_inverse(registry: str) -> None:
    assert registry_of(component_of(registry)) == registry


def test_a_registry_is_read_as_a_whole() -> None:
    assert parse_registry("Index.Docker.io") == "docker.io"
    assert parse_registry("Reg.Example.com:5000") == "reg.example.com:5000"
    for text in ("", "a/b", "a:", "user@a", "a\n", "http://a", "a_5000"):
        with pytest.raises(InvalidReference):
            parse_registry(text)


def test_a_digest_is_sha256_by_full_match() -> None:
    assert parse_digest(SHA) == SHA
    spoiled = (SHA[:-1], SHA + "0", SHA.upper(), SHA + "\n", " " + SHA, SHA[7:], SHA.replace("0", "g"), SHA.replace("0", "０"))
    for text in ("", "sha256:", "md5:" + "0" * 32, *spoiled):
        with pytest.raises(InvalidDigest) as refused:
            parse_digest(text)
        assert refused.value.code == "DIGEST_INVALID"


def test_a_sha512_digest_is_recognised_and_reported_as_unsupported() -> None:
    with pytest.raises(UnsupportedDigest) as refused:
        parse_digest(SHA512)
    assert refused.value.code == "UNSUPPORTED"
    with pytest.raises(InvalidDigest) as short:
        parse_digest(SHA512[:-1])
    assert short.value.code == "DIGEST_INVALID"


def test_a_tag_is_read_as_a_whole() -> None:
    assert parse_tag("v1.2_3-RC") == "v1.2_3-RC"
    for text in ("", ".a", "-a", "a\n", "a/b", "..", "a:b", "t" * 129, "%2e"):
        with pytest.raises(InvalidReference):
            parse_tag(text)


def test_a_message_carries_no_control_characters_of_its_caller() -> None:
    with pytest.raises(InvalidReference) as refused:
        Reference.parse("a\r\nSet-Cookie\x1b[31m")
    assert str(refused.value).isprintable()
    assert "Set-Cookie" in str(refused.value)
