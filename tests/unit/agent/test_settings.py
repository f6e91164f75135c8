"""Settings: what an operator may write, where it may be written, and the one line that says what is wrong with it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import MISSING, Field, dataclass, fields
from typing import Any

import pytest

from agent.config import (
    address,
    between,
    duration,
    flag,
    listed,
    load,
    one_of,
    rate,
    reachable,
    setting,
    size,
    space,
    text,
    variable,
    whole,
)
from agent.settings import AgentSettings
from agent.values.address import Address
from agent.values.errors import UsageError
from agent.values.space import Percent
from supernode.settings import SupernodeSettings
from webhook.settings import WebhookSettings

PROCESSES = {"agent": AgentSettings, "supernode": SupernodeSettings, "webhook": WebhookSettings}
EVERY_SETTING = [(process, item) for process, cls in PROCESSES.items() for item in fields(cls)]
KEY = ["--swarm-key-file", "/key"]
REQUIRED = {
    "agent": ["--node-name", "n", "--store", "/s", "--piece-address", "10.0.0.7:65002", *KEY],
    "supernode": ["--node-name", "n", "--store", "/s", "--piece-address", "10.0.0.7:65002", *KEY],
    "webhook": [],
}
VALUES = [
    "10.0.0.7:1",
    "7Gi",
    "77s",
    "7",
    "debug",
    "json",
    "true",
    "false",
    "a/b",
    "a=https://b/c",
    "a=/b/c",
    "a.example.com",
    "Kind.group",
    "always",
    "value",
    "a=b",
    "any",
    "10.0.0.0/8",
    "refuse",
    "deny",
    ":latest",
    "_channel._tcp.a.b.svc",
    "0666",
]
"""Whatever a setting is, one of these is a value of it."""


def a_value_of(item: Field[Any]) -> str:
    """Another one than the default."""
    for value in VALUES:
        try:
            if item.metadata["parse"](value) != item.default:
                return value
        except ValueError:
            continue
    raise AssertionError(f"no value for {item.name}")


def said(process: str, argv: list[str], environment: dict[str, str] | None = None) -> str:
    """The one line with which a process that was started like that ends."""
    with pytest.raises(UsageError) as refused:
        load(PROCESSES[process], f"darner {process}", argv, environment or {})
    line = str(refused.value)
    assert line.isprintable()
    assert line.startswith(f"darner {process}: ")
    return line


# Every setting of the three processes.


@pytest.mark.parametrize(("process", "item"), EVERY_SETTING, ids=lambda value: getattr(value, "name", value))
def test_every_setting_is_a_flag_and_an_environment_variable_and_the_flag_wins(process: str, item: Field[Any]) -> None:
    required = REQUIRED[process]
    if item.name == "piece_address":
        required = [*required[:4], "--piece-listen", "10.0.0.8:65002", *KEY]
    if item.name == "mirror_of":
        required = [*required, "--containerd-hosts", "/etc/containerd/certs.d"]
    if item.name == "swarm_key_file" and process != "webhook":  # which has no swarm that could be insecure
        required = [*required[:-2], "--insecure-swarm", "true"]

    def loaded(argv: list[str], environment: dict[str, str]) -> Any:
        return getattr(load(PROCESSES[process], "p", [*required, *argv], environment), item.name)

    value = a_value_of(item)
    parsed = item.metadata["parse"](value)
    assert loaded([flag(item.name), value], {}) == parsed
    assert loaded([f"{flag(item.name)}={value}"], {}) == parsed
    assert loaded([flag(item.name), value], {variable(item.name): "!"}) == parsed
    if item.default is not MISSING:
        assert loaded([], {variable(item.name): value}) == parsed
        assert loaded([], {}) == item.default == item.metadata["parse"](item.metadata["default"])


@pytest.mark.parametrize("process", PROCESSES)
def test_a_process_can_be_started_by_its_environment_alone(process: str) -> None:
    argv = REQUIRED[process]
    environment = {variable(name[2:].replace("-", "_")): value for name, value in zip(argv[::2], argv[1::2], strict=True)}
    assert load(PROCESSES[process], "p", [], environment) == load(PROCESSES[process], "p", argv, {})


@pytest.mark.parametrize("process", ["agent", "supernode"])
@pytest.mark.parametrize("name", ["node_name", "store"])
def test_a_required_setting_that_is_missing_or_empty_is_named_in_one_line(process: str, name: str) -> None:
    place = REQUIRED[process].index(flag(name))
    others = REQUIRED[process][:place] + REQUIRED[process][place + 2 :]
    for line in (said(process, others), said(process, [*others, flag(name), ""]), said(process, others, {variable(name): ""})):
        assert line.startswith(f"darner {process}: {flag(name)} (or {variable(name)}) is missing: ")


@pytest.mark.parametrize("process", ["agent", "supernode"])
@pytest.mark.parametrize(
    "listen", [[], *(["--piece-listen", f"{host}:0"] for host in ("0.0.0.0", "0", "[::]", "[0:0::0]", "[::ffff:0.0.0.0]"))]
)
@pytest.mark.parametrize("given", [[], ["--piece-address", ""]])
def test_the_address_for_pieces_is_asked_for_where_all_of_the_nodes_addresses_are_listened_to(
    process: str, listen: list[str], given: list[str]
) -> None:
    line = said(process, ["--node-name", "n", "--store", "/s", *listen, *given])
    assert line.startswith(f"darner {process}: --piece-address (or DARNER_PIECE_ADDRESS) is missing: --piece-listen is ")
    assert "10.0.0.7:65002" in line


@pytest.mark.parametrize("process", ["agent", "supernode"])
@pytest.mark.parametrize("listen", ["10.0.0.7:65002", "[fd00::7]:65002", "127.0.0.1:0", "node-7:1"])
def test_the_address_for_pieces_may_be_left_out_where_one_is_listened_to(process: str, listen: str) -> None:
    settings = load(PROCESSES[process], "p", ["--node-name", "n", "--store", "/s", "--piece-listen", listen, *KEY], {})
    assert (getattr(settings, "piece_listen"), getattr(settings, "piece_address")) == (address(listen), None)  # noqa: B009


@pytest.mark.parametrize("value", ["\x00\n\x1b[31m", "", "-1", "9" * 100])
@pytest.mark.parametrize(("process", "item"), EVERY_SETTING, ids=lambda value: getattr(value, "name", value))
def test_a_value_is_taken_or_refused_in_one_line_that_names_the_setting(process: str, item: Field[Any], value: str) -> None:
    for argv, environment in (([f"{flag(item.name)}={value}"], {}), ([], {variable(item.name): value})):
        try:
            load(PROCESSES[process], "p", [*REQUIRED[process], *argv], environment)
        except UsageError as error:
            line = str(error)
        else:
            line = flag(item.name)
        assert flag(item.name) in line
        assert line.isprintable()


@pytest.mark.parametrize("process", PROCESSES)
def test_help_tells_each_flag_its_variable_its_meaning_and_its_default(process: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        load(PROCESSES[process], f"darner {process}", ["--help"], {})
    assert ended.value.code == 0
    page = "".join(capsys.readouterr().out.split())  # lines are broken behind hyphens too
    for item in fields(PROCESSES[process]):
        default = item.metadata["default"]
        shown = "required" if default is None else f"default: {default or 'none'}"
        told = f"{flag(item.name)} VALUE {item.metadata['help']} ({variable(item.name)}; {shown})"
        assert "".join(told.split()) in page


@pytest.mark.parametrize(("process", "item"), EVERY_SETTING, ids=lambda value: getattr(value, "name", value))
def test_no_variable_is_one_that_kubernetes_makes_of_a_service(process: str, item: Field[Any]) -> None:
    # A Service `darner-x` gives every pod beside it DARNER_X_SERVICE_HOST, DARNER_X_PORT, DARNER_X_PORT_80_TCP_ADDR and more.
    assert not re.search(r"_SERVICE_HOST$|_SERVICE_PORT|_PORT$|_PORT_", variable(item.name))


def test_help_may_speak_of_percent(capsys: pytest.CaptureFixture[str]) -> None:
    @dataclass(frozen=True)
    class Settings:
        share: int = setting(whole, "100% of s and of %(prog)s", "50")

    with pytest.raises(SystemExit):
        load(Settings, "p", ["--help"], {})
    assert "100% of s and of %(prog)s" in capsys.readouterr().out


def test_what_processes_share_has_the_same_form_everywhere() -> None:
    shared: dict[str, set[object]] = {}
    for _, item in EVERY_SETTING:
        if item.name not in ("piece_address", "http_listen", "piece_listen", "store", "node_name"):
            shared.setdefault(item.name, set()).add(item.metadata["default"])
    assert all(len(defaults) == 1 for defaults in shared.values())


# The command line.


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--nonsense", "1"], "unrecognized arguments: --nonsense 1"),
        (["--piece-listen"], "expected one argument"),
        (["--piece", "1"], "unrecognized arguments"),
        (["stray"], "unrecognized arguments: stray"),
        (["a\nb"], "unrecognized arguments: a b"),
        (["--piece-listen", "--http-listen", "1:1"], "expected one argument"),
    ],
)
def test_a_command_line_that_is_none_is_told_in_one_line(argv: list[str], words: str) -> None:
    line = said("agent", [*REQUIRED["agent"], *argv])
    assert words in line
    assert line.endswith("see darner agent --help")


def test_a_bad_value_is_named_by_its_flag_and_by_its_variable_when_it_came_from_there() -> None:
    size = "'x' is not a size; write bytes or a number with Ki, Mi, Gi or Ti, such as 50Gi"
    assert said("agent", [*REQUIRED["agent"], "--upload-rate", "x"]) == f"darner agent: --upload-rate: {size}"
    expected = f"{size}, or a percentage of the disk, such as 20%"
    assert said("agent", [*REQUIRED["agent"], "--store-quota", "x"]) == f"darner agent: --store-quota: {expected}"
    line = said("agent", REQUIRED["agent"], {"DARNER_STORE_QUOTA": "x"})
    assert line == f"darner agent: --store-quota (DARNER_STORE_QUOTA): {expected}"


@pytest.mark.parametrize(
    ("written", "read"), [("20%", Percent(20)), ("0%", Percent(0)), ("100%", Percent(100)), ("50Gi", 50 << 30), ("0", 0)]
)
def test_disk_is_bytes_or_a_percentage(written: str, read: int | Percent) -> None:
    assert space(written) == read


@pytest.mark.parametrize("written", ["101%", "%", "-1%", "5.5%", "20 %", "20%%"])
def test_a_percentage_is_a_whole_number_up_to_a_hundred(written: str) -> None:
    with pytest.raises(ValueError, match="or a percentage of the disk, such as 20%"):
        space(written)


def test_the_last_of_a_repeated_flag_counts() -> None:
    assert load(AgentSettings, "p", [*REQUIRED["agent"], "--zone", "a", "--zone", "b"], {}).zone == "b"


def test_an_empty_value_is_a_value_where_a_setting_may_be_empty() -> None:
    assert load(AgentSettings, "p", [*REQUIRED["agent"], "--supernodes", ""], {"DARNER_SUPERNODES": "a:1"}).supernodes == ()


def test_settings_cannot_be_changed() -> None:
    settings = load(AgentSettings, "p", REQUIRED["agent"], {})
    with pytest.raises(AttributeError):
        settings.zone = "b"  # type: ignore[misc]


# Values.


@pytest.mark.parametrize(
    ("value", "parsed"),
    [("0", 0), ("1048576", 1 << 20), ("1Ki", 1024), ("512Mi", 512 << 20), ("50Gi", 50 << 30), ("2Ti", 2 << 40)],
)
def test_a_size_is_a_number_of_bytes_with_a_binary_unit(value: str, parsed: int) -> None:
    assert size(value) == parsed


@pytest.mark.parametrize(
    ("value", "parsed"), [("250ms", 0.25), ("30s", 30), ("5m", 300), ("24h", 86400), ("30d", 2592000), ("1.5h", 5400), ("0s", 0)]
)
def test_a_duration_is_a_number_with_a_unit_of_time(value: str, parsed: float) -> None:
    assert duration(value) == parsed


@pytest.mark.parametrize(
    ("value", "host", "port", "shown"),
    [
        ("127.0.0.1:65001", "127.0.0.1", 65001, "127.0.0.1:65001"),
        ("supernode-0.supernode:65004", "supernode-0.supernode", 65004, "supernode-0.supernode:65004"),
        ("[::1]:65001", "::1", 65001, "[::1]:65001"),
        ("[::ffff:10.0.0.7]:1", "::ffff:10.0.0.7", 1, "[::ffff:10.0.0.7]:1"),
        ("0.0.0.0:0", "0.0.0.0", 0, "0.0.0.0:0"),
    ],
)
def test_an_address_is_a_host_and_a_port_and_is_shown_as_it_is_written(value: str, host: str, port: int, shown: str) -> None:
    assert address(value) == Address(host, port)
    assert str(address(value)) == shown


def test_a_list_is_separated_by_commas_and_empty_items_are_dropped() -> None:
    assert listed(whole)("1, 2,,3 ,") == (1, 2, 3)
    assert listed(text)("") == ()


@pytest.mark.parametrize(
    ("parse", "values"),
    [
        (size, ["", "x", "-1", "1.5Gi", "1G", "1GB", "1 Gi", "1gi", "Gi", "1Gi\n", "9" * 16, "١"]),
        (duration, ["", "30", "s", "-1s", "1 s", "1S", "1w", "1.2345s", ".5s", "1s\n", "1e3s", "infs", "nan", "9" * 10 + "s"]),
        (
            address,
            [
                "",
                "host",
                ":1",
                "host:",
                "host:65536",
                "host:-1",
                "host:1:2",
                "::1:65001",
                "[::1]",
                "[host]:1",
                "ho st:1",
                "a/b:1",
            ],
        ),
        (address, ["host:٣", "host:1\n", "http://host:1", "[]:1", "host:123456"]),
        (reachable, ["host:0", "0.0.0.0:65002", "[::]:65002", "[0::0]:65002", "0:65002", "host"]),
        (whole, ["", "-1", "1.0", "x", "1\n", "9" * 10, "٣"]),
        (one_of("a", "b"), ["", "A", "c", "a "]),
        (between(duration, "1s", "5m"), ["0s", "999ms", "301s", "1h", "x"]),
        (between(whole, "1", "10"), ["0", "11", ""]),
        (listed(size), ["1,x", "1;2"]),
        (rate("1Mi"), ["1", "1023Ki", "1048575", "x", "1.5Mi", "10Mbit"]),
    ],
)
def test_what_is_none_is_refused_with_a_word_on_what_to_write(parse: Callable[[str], object], values: list[str]) -> None:
    for value in values:
        with pytest.raises(ValueError, match=r"is (not|no|outside) ") as refused:
            parse(value)
        assert str(refused.value).isprintable()


def test_a_rate_is_a_size_each_second_or_no_limit() -> None:
    assert [rate("4Mi")(value) for value in ("", "0", "4Mi", "1Gi")] == [0, 0, 4 << 20, 1 << 30]


def test_a_value_within_limits_is_taken_with_the_limits_themselves() -> None:
    assert [between(whole, "1", "10")(value) for value in ("1", "5", "10")] == [1, 5, 10]


def test_a_default_is_written_as_an_operator_would_write_it() -> None:
    assert setting(size, "bytes", "1Gi").default == 1 << 30
    assert setting(size, "bytes").default is MISSING


@pytest.mark.parametrize(("process", "what"), [("agent", "piece"), ("supernode", "piece"), ("supernode", "channel")])
def test_without_a_swarm_key_a_process_is_open_to_its_own_machine_alone_or_says_that_it_is_insecure(
    process: str, what: str
) -> None:
    here = [f"--{which}-listen=127.0.0.1:1" for which in ("piece", "channel")[: 1 + (process == "supernode")]]
    base = [*REQUIRED[process][:-2], *here]
    cls = PROCESSES[process]
    load(cls, "p", base, {})
    with pytest.raises(
        UsageError, match=r"^p: --swarm-key-file \(or DARNER_SWARM_KEY_FILE\) is missing: 10\.0\.0\.7:1 is open to everybody"
    ):
        load(cls, "p", [*base, f"--{what}-listen=10.0.0.7:1"], {})
    load(cls, "p", [*base, f"--{what}-listen=10.0.0.7:1", "--insecure-swarm=true"], {})


def test_mirror_mode_without_a_runtime_to_tell_is_refused() -> None:
    words = "--mirror-of (or DARNER_MIRROR_OF): no runtime hears of it without --containerd-hosts or --containers-config"
    assert said("agent", [*REQUIRED["agent"], "--mirror-of", "docker.io"]) == f"darner agent: {words}"
    load(AgentSettings, "p", [*REQUIRED["agent"], "--mirror-of", "docker.io", "--containers-config", "/etc/containers"], {})
