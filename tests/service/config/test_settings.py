"""Settings: sources, precedence, limits."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr, TypeAdapter

from ras_triage.service.config.authority import is_loopback
from ras_triage.service.config.loading import HIDDEN, load_settings
from ras_triage.service.config.settings import InvalidSetting, Settings, all_settings
from ras_triage.service.config.store_address import default_store, sqlite_path
from tests.service.support.application import run


@pytest.fixture(autouse=True)
def nothing_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for setting in all_settings().values():
        monkeypatch.delenv(setting.variable, raising=False)
    monkeypatch.delenv("RAS_TRIAGE_CONFIG", raising=False)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "config.toml"


def test_settings_that_code_makes_read_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAS_TRIAGE_PORT", "9")
    monkeypatch.setenv("RAS_TRIAGE_STORE", "sqlite:///x")

    assert (Settings().port, Settings().store) == (8080, "memory:")


def test_flags_come_before_environment_before_file_before_defaults(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    file.write_text('host = "127.0.0.2"\nport = 1\nqueue_entries = 1\n')
    monkeypatch.setenv("RAS_TRIAGE_PORT", "2")
    monkeypatch.setenv("RAS_TRIAGE_QUEUE_ENTRIES", "2")

    found = load_settings({"port": 3, "host": None}, file)

    settings = found.settings
    assert (settings.port, settings.queue_entries, settings.host, settings.max_in_flight) == (3, 2, "127.0.0.2", 1024)
    origins = {name: entry["from"] for name, entry in found.listed().items()}
    assert [origins[name] for name in ("port", "queue_entries", "host", "max_in_flight")] == ["flag", "environment", "file", "default"]


def test_a_file_may_be_named_by_the_environment(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    file.write_text("port = 5\n")
    monkeypatch.setenv("RAS_TRIAGE_CONFIG", str(file))

    assert load_settings({}).settings.port == 5


def test_every_setting_can_be_set_and_is_listed() -> None:
    assert {setting.field for setting in all_settings().values()} == set(Settings.__dataclass_fields__)
    assert list(load_settings({}).listed()) == list(all_settings())


def test_the_settings_of_an_issuer_and_of_files_have_names_of_their_own() -> None:
    other = {setting.name for setting in all_settings().values() if setting.name != setting.field}

    assert other == {*("policy_files", "vmm_files", "oidc_issuer", "oidc_audience", "oidc_jwks_url", "oidc_scope_claim", "oidc_algorithms")}


def test_every_option_of_the_service_is_that_of_a_setting() -> None:
    shown = run("serve", "--help").stdout.decode()
    options = {setting.declaration.option for setting in all_settings().values()} - {None}

    assert set(re.findall(r"^  (--[a-z-]+)", shown, re.MULTILINE)) == {*options, "--config"}


def test_every_default_is_one_that_may_be_written() -> None:
    for setting in all_settings().values():
        if setting.default is not None:
            assert TypeAdapter(setting.type).validate_python(setting.default) == setting.default, setting.name


def test_what_is_not_set_is_as_it_is_in_code() -> None:
    assert load_settings({"store": "memory:", "batch_workers": 0}).settings == Settings()


def test_a_service_has_a_worker_for_each_of_a_few_processors_and_none_where_there_is_only_one() -> None:
    processors = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(processors)})
        assert load_settings({}).settings.batch_workers == 0
    finally:
        os.sched_setaffinity(0, processors)
    assert load_settings({}).settings.batch_workers == (min(len(processors), 4) if len(processors) > 1 else 0)


def test_sizes_have_units_and_lists_have_commas(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    file.write_text('max_body_bytes = "1 MiB"\ntrusted_proxies = ["10.0.0.1"]\n')
    monkeypatch.setenv("RAS_TRIAGE_QUEUE_BYTES", "2KiB")
    monkeypatch.setenv("RAS_TRIAGE_TRUSTED_HOSTS", "triage.example, other.example")
    settings = load_settings({}, file).settings

    assert (settings.max_body_bytes, settings.queue_bytes) == (1 << 20, 2048)
    assert settings.trusted_hosts == ("triage.example", "other.example")
    assert settings.trusted_proxies == ("10.0.0.1",)


def test_origins_are_kept_as_browsers_send_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAS_TRIAGE_CORS_ORIGINS", "HTTPS://Dashboard.Example:443, http://localhost:3000, *")

    assert load_settings({}).settings.cors_origins == ("https://dashboard.example", "http://localhost:3000", "*")


def test_an_empty_variable_sets_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAS_TRIAGE_RETENTION_DAYS", "")

    assert load_settings({}).settings.retention_days is None


def test_policies_of_ones_own_are_loaded(file: Path, tmp_path: Path) -> None:
    (tmp_path / "ours.toml").write_text('name = "ours"\nbase = "uniform"\n')
    file.write_text(f'policy_files = ["{tmp_path}/ours.toml"]\ndefault_policy = "ours"\n')
    found = load_settings({}, file)

    assert found.settings.default_policy.name == "ours"
    assert found.listed()["default_policy"] == {"value": "ours", "from": "file"}


def test_an_issuer_is_one_setting_of_several(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAS_TRIAGE_OIDC_ISSUER", "https://id.example")
    monkeypatch.setenv("RAS_TRIAGE_OIDC_AUDIENCE", "ras-triage")
    monkeypatch.setenv("RAS_TRIAGE_OIDC_ALGORITHMS", "ES384")
    oidc = load_settings({}).settings.oidc

    assert oidc is not None
    assert (oidc.issuer, oidc.audience, oidc.algorithms, oidc.scope_claim) == ("https://id.example", "ras-triage", ("ES384",), "scope")


@pytest.mark.parametrize(
    ("variable", "value", "complaint"),
    [
        ("PORT", "70000", "`RAS_TRIAGE_PORT`: should be less than or equal to 65535"),
        ("PORT", "tcp://10.0.0.1:8080", "`RAS_TRIAGE_PORT`: Kubernetes sets this"),
        ("PORT", "70000", "less than or equal to 65535; got `70000`"),
        ("LOG_FORMAT", "xml", "`RAS_TRIAGE_LOG_FORMAT`: should be `json` or `text`"),
        ("OTEL", "perhaps", "`RAS_TRIAGE_OTEL`: should be a valid boolean"),
        ("STORE", "postgres://x", "`RAS_TRIAGE_STORE`: unknown store `postgres://x`"),
        ("STORE", "sqlite:///", "unknown store"),
        ("RETENTION_DAYS", "inf", "`RAS_TRIAGE_RETENTION_DAYS`: should be a finite number"),
        ("RATE_LIMIT", "0", "`RAS_TRIAGE_RATE_LIMIT`: should be greater than 0"),
        ("RATE_BURST", "5", "`rate_burst` requires `rate_limit`"),
        ("MAX_IN_FLIGHT_BYTES", "1MiB", "`max_in_flight_bytes` is less than `max_body_bytes`"),
        ("TLS_KEY", "key.pem", "`tls_key` requires `tls_certificate`"),
        ("MAX_BODY_BYTES", "many", "`RAS_TRIAGE_MAX_BODY_BYTES`: could not"),
        ("OIDC_ISSUER", "http://id.example", "`RAS_TRIAGE_OIDC_ISSUER`: should be an https URL"),
        ("OIDC_ISSUER", "https://u:p@id.example", "without a password"),
        ("OIDC_ISSUER", "http://[::1]id.example", "should be an https URL"),
        ("OIDC_ISSUER", "https://[::1]id.example", "should be an https URL"),
        ("OIDC_ISSUER", "https://id.example:443:443", "should be an https URL"),
        ("OIDC_ISSUER", "https://id.\nexample", "should be an https URL"),
        ("OIDC_JWKS_URL", "http://localhost.id.example", "should be an https URL"),
        ("TRUSTED_HOSTS", "triage.example, other.example:8080", "`RAS_TRIAGE_TRUSTED_HOSTS`: `other.example:8080` is not a host name"),
        ("TRUSTED_HOSTS", "https://triage.example", "is not a host name or address without a port"),
        (
            "CORS_ORIGINS",
            "https://a.example/",
            "`RAS_TRIAGE_CORS_ORIGINS`: `https://a.example/` is not an origin; expected scheme",
        ),
        ("CORS_ORIGINS", "https://a.example, null", "`null` is not an origin"),
        ("CORS_ORIGINS", "a.example", "`a.example` is not an origin"),
        ("CORS_ORIGINS", "https://*.example:x", "is not an origin"),
        ("UDS_MODE", "999", "`RAS_TRIAGE_UDS_MODE`: `999` is not three octal digits, such as `660`"),
        ("OIDC_ISSUER", "https://id.example", "`oidc_audience` is required"),
        ("OIDC_ALGORITHMS", "HS256", "`RAS_TRIAGE_OIDC_ALGORITHMS`: expected one or more of RS256"),
        ("OIDC_ALGORITHMS", "RS256,none", "expected one or more of"),
        ("DEFAULT_POLICY", "nonsense", "nonsense"),
        ("CONFIG", "/nonexistent", "`/nonexistent`: no such file"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_by_its_name(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, complaint: str
) -> None:
    monkeypatch.setenv(f"RAS_TRIAGE_{variable}", value)

    with pytest.raises(InvalidSetting) as refused:
        load_settings({})
    assert complaint in str(refused.value)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("prot = 1", "`prot` in `{file}`: unknown setting; did you mean `port`?"),
        ("[oidc]\nissuer = 1", "`oidc` in `{file}`: unknown setting"),
        ("port = -1", "`port` in `{file}`: should be greater than or equal to 0"),
        ("port = ", "`{file}`: invalid value"),
        ('keys_file = "a\\u0000b"', "`keys_file` in `{file}`: should not contain a NUL character"),
        ('trusted_hosts = ["a\\u0000b"]', "`trusted_hosts` in `{file}`: should not contain a NUL character"),
    ],
)
def test_a_file_that_is_not_right_is_refused_with_the_place(file: Path, text: str, complaint: str) -> None:
    file.write_text(text)

    with pytest.raises(InvalidSetting) as refused:
        load_settings({}, file)
    assert complaint.format(file=file) in str(refused.value)


def test_a_flag_is_named_as_it_is_typed() -> None:
    with pytest.raises(InvalidSetting, match=r"^`--store`: "):
        load_settings({"store": "x"})


def test_the_command_shows_the_same_and_no_secret(tmp_path: Path) -> None:
    environment = {"RAS_TRIAGE_TLS_KEY_PASSWORD": "swordfish", "RAS_TRIAGE_TLS_CERTIFICATE": "c.pem", "XDG_STATE_HOME": str(tmp_path)}
    shown: dict[str, Any] = json.loads(run("config", "--json", "--port", "7", **environment).stdout)
    plain = run("config", **environment)

    assert shown["port"] == {"value": 7, "from": "flag"}
    assert shown["tls_key_password"] == {"value": HIDDEN, "from": "environment"}
    assert shown["store"]["value"] == f"sqlite:///{tmp_path}/ras-triage/store.db"
    assert plain.returncode == 0
    assert b"swordfish" not in plain.stdout + plain.stderr
    assert not (tmp_path / "ras-triage").exists()


def test_a_bad_setting_is_exit_2(tmp_path: Path) -> None:
    done = run("config", "--config", str(tmp_path / "none.toml"))

    assert (done.returncode, done.stdout) == (2, b"")
    assert b"no such file" in done.stderr


def test_secrets_do_not_show_where_settings_are_printed() -> None:
    assert "swordfish" not in repr(Settings(tls_key_password=SecretStr("swordfish")))


def test_a_store_is_a_path_as_it_stands() -> None:
    assert sqlite_path("sqlite:///a.db") == Path("a.db")
    assert sqlite_path("sqlite:////srv/a.db") == Path("/srv/a.db")
    assert sqlite_path("memory:") is None


def test_the_store_lies_in_the_state_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))

    assert default_store() == f"sqlite:///{tmp_path}/.local/state/ras-triage/store.db"


@pytest.mark.parametrize(
    ("host", "own"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("[::1]", True), ("LOCALHOST", True), ("0.0.0.0", False), ("::", False),
     ("localhost.example", False), ("10.0.0.1", False), ("", False)],
)  # fmt: skip
def test_loopback_is_what_other_machines_cannot_reach(host: str, own: bool) -> None:
    assert is_loopback(host) is own
