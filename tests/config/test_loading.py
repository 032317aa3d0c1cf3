"""A policy that is read again and again: the same mistakes as `check`, and only what has changed is read."""

import os
from pathlib import Path
from typing import Any

import pytest
import ryaml

from switchboard.config import loading, reading
from switchboard.config.loading import Loaded, Mistaken, Source
from switchboard.config.reading import read
from switchboard.config.schema import Config
from switchboard.config.secrets import SecretMissing, Secrets
from tests.config.test_check import TEN
from tests.support.leaks import LEAKS
from tests.support.world import EXAMPLE, TODAY, example

MCP_SECRET = LEAKS.plant("MCP secret", "mcp-secret-that-is-in-a-file-0815")
OTHER_SECRET = LEAKS.plant("MCP secret", "mcp-secret-that-came-later-4711")
MCP = {"type": "mcp", "server_label": "shop", "server_url": "https://shop.example/mcp"}


def source_of(path: Path) -> Source:
    return Source(path, Secrets({}))


def write(folder: Path, **files: Any) -> None:
    """Files of these names, without `.yaml`; a text as it is."""
    for name, content in files.items():
        text = content if isinstance(content, str) else ryaml.dumps(content)
        (folder / f"{name}.yaml").write_text(text)


def split(folder: Path) -> dict[str, Any]:
    """The example as a folder: what all share, and a file for each tenant."""
    tree = example()
    shared = {name: tree[name] for name in ("providers", "issuers")}
    write(folder, shared=shared, **{name: {"tenants": {name: tenant}} for name, tenant in tree["tenants"].items()})
    return tree


def mistakes_of(path: Path) -> list[str]:
    with pytest.raises(Mistaken) as caught:
        source_of(path).load()
    return sorted(map(str, caught.value.mistakes))


def test_a_file_means_what_it_means_to_everybody_else():
    config = Config.model_validate(example())
    loaded = source_of(EXAMPLE).load()
    expected = Loaded.of(config, Secrets({}))
    assert (loaded.providers, loaded.issuers) == (expected.providers, expected.issuers)
    assert (loaded.tenants, loaded.origins) == (expected.tenants, expected.origins)
    assert loaded.read == ["switchboard.example.yaml"]


def test_a_folder_is_one_policy(tmp_path):
    split(tmp_path)
    loaded, whole = source_of(tmp_path).load(), source_of(EXAMPLE).load()
    assert loaded.tenants == whole.tenants
    assert sorted(loaded.read) == ["acme.yaml", "shared.yaml", "widgets.yaml"]


def _tenant(**changes: Any) -> dict[str, Any]:
    return {"tenants": {"acme": {**example()["tenants"]["acme"], **changes}}}


HIDING = {"talk": {"delivery": "relay", "hide_instructions": True, "session": {"type": "realtime"}}}
SHARED = {"issuers": example()["issuers"]}
NAMELESS = {"openai": {"kind": "openai", "keys": ["env:OPENAI_API_KEY"], "call_ids": False}}
BROKEN: dict[str, dict[str, Any]] = {
    "everything at once": {"all": TEN},
    "no YAML": {"all": "tenants: [\n"},
    "no mapping": {"all": "- 1\n"},
    "nothing": {"all": ""},
    "an empty mapping": {"all": "{}"},
    "empty sections": {"all": {"providers": {}, "issuers": [], "tenants": {}}},
    "sections of another kind": {"all": {"providers": [], "issuers": {}, "tenants": None}},
    "a section nobody knows": {"all": {**example(), "tenant": {}}},
    "a provider that is in no file": {"acme": _tenant(provider="opnai")},
    "a name in two files": {"acme": _tenant(), "other": _tenant()},
    "an issuer for nobody": {"widgets": {"issuers": [], "tenants": {}}},
    "an issuer in two files": {"more": {"issuers": [example()["issuers"][0]]}},
    "the second issuer of another file": {"z": {"issuers": [{**example()["issuers"][0], "algorithms": ["none"]}]}},
    "a preset that is none": {"acme": _tenant(default_preset="suport")},
    "what the provider of another file cannot hide": {"acme": _tenant(presets=HIDING, default_preset="talk")},
    "calls that the provider of another file does not name": {"shared": {**SHARED, "providers": NAMELESS}},
}


@pytest.mark.parametrize("name", BROKEN)
def test_mistakes_are_those_of_check(name, tmp_path):
    files = BROKEN[name]
    if "all" not in files:
        split(tmp_path)
    write(tmp_path, **files)
    told = sorted(map(str, read(tmp_path, today=TODAY).mistakes))
    assert mistakes_of(tmp_path) == told
    assert told


def test_an_empty_folder_and_none_at_all(tmp_path):
    (told,) = mistakes_of(tmp_path)
    assert "a folder without YAML files" in told
    (told,) = mistakes_of(tmp_path / "none.yaml")
    assert "No such file" in told
    assert source_of(tmp_path / "none.yaml").look() == source_of(tmp_path / "none.yaml").look()


def test_what_is_broken_is_told_file_by_file(tmp_path):
    split(tmp_path)
    write(tmp_path, acme="tenants: [\n", widgets=_tenant(default_preset="suport"))
    told = mistakes_of(tmp_path)
    assert len([one for one in told if "acme.yaml" in one]) == 1
    assert any(one.startswith("tenants.acme.default_preset: found 'suport'") for one in told)


# Only what has changed


def test_only_a_changed_file_is_read(tmp_path):
    tree = split(tmp_path)
    source = source_of(tmp_path)
    first = source.load()
    write(tmp_path, acme=_tenant(suspended=True))
    assert source.look() != source.seen
    second = source.load()
    assert second.read == ["acme.yaml"]
    assert second.tenants["acme"].suspended
    assert second.tenants["widgets"] is first.tenants["widgets"]
    assert source.look() == source.seen
    (tmp_path / "acme.yaml").unlink()
    with pytest.raises(Mistaken):  # an issuer speaks for it
        source.load()
    write(tmp_path, acme={"tenants": {"acme": tree["tenants"]["acme"]}})
    assert source.load().tenants == first.tenants


def test_a_file_that_was_only_touched_is_not_made_anew(tmp_path):
    split(tmp_path)
    source = source_of(tmp_path)
    first = source.load()
    for file in tmp_path.iterdir():
        os.utime(file, (1, 1))
    assert source.look() != source.seen
    second = source.load()
    assert second.read == []
    assert second.tenants["acme"] is first.tenants["acme"]


def test_a_change_that_keeps_size_and_time_is_seen(tmp_path):
    split(tmp_path)
    source = source_of(tmp_path)
    source.load()
    file = tmp_path / "acme.yaml"
    before, text = file.stat(), file.read_text()
    file.write_text(text.replace("You help", "Who help"))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert source.look() != source.seen
    assert source.load().read == ["acme.yaml"]


def mount(folder: Path, name: str, files: dict[str, Any]) -> None:
    """Files as the kubelet mounts a ConfigMap: links through `..data`, which is exchanged in one step."""
    (folder / name).mkdir()
    write(folder / name, **files)
    (folder / "..data_tmp").symlink_to(name)
    (folder / "..data_tmp").rename(folder / "..data")
    for file in files:
        if not (folder / f"{file}.yaml").is_symlink():
            (folder / f"{file}.yaml").symlink_to(f"..data/{file}.yaml")


def test_an_exchanged_configmap_is_seen_and_what_is_the_same_in_it_is_kept(tmp_path):
    tree = example()
    files = {"shared": {name: tree[name] for name in ("providers", "issuers")}}
    files |= {name: {"tenants": {name: tenant}} for name, tenant in tree["tenants"].items()}
    mount(tmp_path, "..2026_01", files)
    source = source_of(tmp_path)
    first = source.load()
    assert sorted(first.read) == ["acme.yaml", "shared.yaml", "widgets.yaml"]
    mount(tmp_path, "..2026_02", files | {"acme": _tenant(suspended=True)})
    assert source.look() != source.seen
    second = source.load()
    assert second.read == ["acme.yaml"]
    assert second.tenants["acme"].suspended
    assert second.tenants["widgets"] is first.tenants["widgets"]


def test_a_folder_that_changes_while_it_is_read_is_read_again(tmp_path, monkeypatch):
    split(tmp_path)
    source = source_of(tmp_path)
    changes = iter([_tenant(suspended=True)])
    bytes_of = reading.bytes_of

    def late(file: Path) -> bytes:
        content = bytes_of(file)
        if file.name == "widgets.yaml":  # after acme's was read
            for change in changes:
                write(tmp_path, acme=change)
        return content

    monkeypatch.setattr(loading, "bytes_of", late)
    assert source.load().tenants["acme"].suspended
    assert source.look() == source.seen


# Secrets in it


def _with_secret(reference: str) -> dict[str, Any]:
    tenant = example()["tenants"]["acme"]
    support = tenant["presets"]["support"]
    support["session"] = {**support["session"], "tools": [{**MCP, "authorization": reference}]}
    return {
        "tenants": {
            "acme": {**tenant, "presets": {**tenant["presets"], "support": {**support, "expose_mcp_secrets": True}}}
        }
    }


def test_a_secret_that_has_changed_makes_its_tenants_anew(tmp_path):
    folder, secret = tmp_path / "policy", tmp_path / "secret"
    folder.mkdir()
    split(folder)
    secret.write_text(MCP_SECRET)
    write(folder, acme=_with_secret(f"file:{secret}"))
    source = source_of(folder)
    first = source.load()
    secret.write_text(OTHER_SECRET)
    assert source.look() != source.seen
    second = source.load()
    assert second.read == ["acme.yaml"]
    tools = [loaded.tenants["acme"].presets["support"].session["tools"] for loaded in (first, second)]
    assert [one[0]["authorization"] for one in tools] == [MCP_SECRET, OTHER_SECRET]
    secret.unlink()
    with pytest.raises(SecretMissing):
        source.load()
    assert source.look() == source.seen
    secret.write_text(MCP_SECRET)
    assert source.look() != source.seen
    assert source.load().tenants["acme"] == first.tenants["acme"]


def test_a_secret_that_was_never_there_is_seen_when_it_comes(tmp_path):
    folder, secret = tmp_path / "policy", tmp_path / "secret"
    folder.mkdir()
    split(folder)
    source = source_of(folder)
    source.load()
    write(folder, acme=_with_secret(f"file:{secret}"))
    with pytest.raises(SecretMissing, match="cannot be read"):
        source.load()
    seen = source.seen
    assert source.look() == seen
    secret.write_text(MCP_SECRET)
    assert source.look() != seen


def test_the_files_of_issuers_are_looked_at(tmp_path):
    folder, secret = tmp_path / "policy", tmp_path / "secret"
    folder.mkdir()
    tree = split(folder)
    issuers = [{**one, "secret": f"file:{secret}"} if "secret" in one else one for one in tree["issuers"]]
    write(folder, shared={"providers": tree["providers"], "issuers": issuers})
    source = source_of(folder)
    source.load()
    secret.write_text("a-shared-secret-that-is-long-enough")
    assert source.look() != source.seen
