"""The CRDs say the same as the types: every field, its type, whether it is required, its default, its words."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from msgspec import inspect

from lethe.model import resources
from lethe.model.names import GROUP, VERSION

CRDS = Path(__file__).parents[3] / "crds"

# The types read the part of ObjectMeta that Lethe needs; the API server validates all of it.
METADATA = {"apiVersion", "kind", "metadata"}

# Filled in by Kubernetes only in specs: a status is written whole, and an absent field there means the type's default.
# These three are the exception, since printer columns would stay empty.
STATUS_DEFAULTS = {"status.phase", "status.epoch", "status.gpuCount"}


def _load(path: Path) -> dict[str, Any]:
    crd: dict[str, Any] = yaml.safe_load(path.read_text())
    return crd


CRD_FILES = sorted(CRDS.glob("*.yaml"))
CRD_BY_KIND = {crd["spec"]["names"]["kind"]: crd for crd in map(_load, CRD_FILES)}


def _schema(kind: str) -> dict[str, Any]:
    schema: dict[str, Any] = CRD_BY_KIND[kind]["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return schema


def _plain(field: inspect.Type) -> inspect.Type:
    """Return the type without the None that makes it optional."""
    if isinstance(field, inspect.UnionType):
        others = [part for part in field.types if not isinstance(part, inspect.NoneType)]
        assert len(others) == 1, f"a field has one type, found {others}"
        return others[0]
    return field


def differences(path: str, field: inspect.Type, schema: dict[str, Any]) -> Iterator[str]:
    """Yield one sentence for each way in which a schema is not what a type says."""
    field = _plain(field)
    kind = schema.get("type")
    match field:
        case inspect.StructType():
            yield from _struct_differences(path, field, schema)
        case inspect.DictType() if isinstance(field.value_type, inspect.AnyType):
            if not schema.get("x-kubernetes-preserve-unknown-fields"):
                yield f"{path}: any content is allowed by the type, not by the schema"
        case inspect.DictType():
            if kind != "object" or "additionalProperties" not in schema:
                yield f"{path}: the type is a map, the schema {kind}"
            else:
                yield from differences(f"{path}{{}}", field.value_type, schema["additionalProperties"])
        case inspect.ListType():
            if kind != "array":
                yield f"{path}: the type is a list, the schema {kind}"
            else:
                yield from differences(f"{path}[]", field.item_type, schema["items"])
        case inspect.LiteralType():
            if set(schema.get("enum", ())) != set(field.values):
                yield f"{path}: the type allows {sorted(field.values)}, the schema {schema.get('enum')}"
        case inspect.EnumType():
            values = {member.value for member in field.cls}
            if set(schema.get("enum", ())) != values:
                yield f"{path}: the type allows {sorted(values)}, the schema {schema.get('enum')}"
        case inspect.BoolType() | inspect.IntType() | inspect.FloatType() | inspect.StrType():
            expected = {
                inspect.BoolType: "boolean",
                inspect.IntType: "integer",
                inspect.FloatType: "number",
                inspect.StrType: "string",
            }[type(field)]
            if kind != expected:
                yield f"{path}: the type is {expected}, the schema {kind}"
        case _:
            yield f"{path}: the comparison knows no {field}"


def _struct_differences(path: str, struct: inspect.StructType, schema: dict[str, Any]) -> Iterator[str]:
    if schema.get("type") != "object":
        yield f"{path}: the type is an object, the schema {schema.get('type')}"
        return
    properties = schema.get("properties", {})
    top = path == ""
    fields = {field.encode_name: field for field in struct.fields if not (top and field.encode_name in METADATA)}
    found = set(properties) - (METADATA if top else set())
    yield from (f"{path}.{name}: only the type has it" for name in sorted(set(fields) - found))
    yield from (f"{path}.{name}: only the schema has it" for name in sorted(found - set(fields)))
    required = {name for name, field in fields.items() if field.required}
    if required != set(schema.get("required", ())):
        yield f"{path}: required are {sorted(required)} by the type, {sorted(schema.get('required', ()))} by the schema"
    for name in sorted(set(fields) & found):
        here = name if top else f"{path}.{name}"
        yield from _default_differences(here, fields[name], properties[name])
        yield from differences(here, fields[name].type, properties[name])


def _default_differences(path: str, field: inspect.Field, schema: dict[str, Any]) -> Iterator[str]:
    if field.default is not msgspec.NODEFAULT:
        default = field.default
    elif field.default_factory is not msgspec.NODEFAULT:
        default = field.default_factory()
    else:
        default = None
    default = msgspec.to_builtins(default)
    if "default" in schema:
        if schema["default"] != default:
            yield f"{path}: the default is {default!r} by the type, {schema['default']!r} by the schema"
    elif path in STATUS_DEFAULTS:
        yield f"{path}: needs the default {default!r}, or its printer column stays empty"
    elif path.startswith("spec.") and default not in (None, [], {}):
        yield f"{path}: the type's default {default!r} is not in the schema, so `kubectl explain` does not show it"


def _nodes(path: str, schema: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, schema
    for name, inner in schema.get("properties", {}).items():
        yield from _nodes(f"{path}.{name}", inner)
    if "items" in schema:
        yield from _nodes(f"{path}[]", schema["items"])


def _is_field(path: str) -> bool:
    return path not in ("", ".metadata") and not path.endswith("[]")


@pytest.mark.parametrize("kind", sorted(CRD_BY_KIND))
def test_schema_equals_type(kind: str) -> None:
    assert list(differences("", inspect.type_info(getattr(resources, kind)), _schema(kind))) == []


def test_every_resource_has_a_crd() -> None:
    top = {
        name
        for name, value in vars(resources).items()
        if isinstance(value, type)
        and issubclass(value, resources.Resource)
        and {"metadata", "spec"} <= {field.name for field in msgspec.structs.fields(value)}
    }
    assert set(CRD_BY_KIND) == top


@pytest.mark.parametrize("kind", sorted(CRD_BY_KIND))
def test_every_field_is_described(kind: str) -> None:
    silent = [path for path, node in _nodes("", _schema(kind)) if _is_field(path) and not node.get("description")]
    assert silent == []


def _nulls(path: str, node: Any) -> Iterator[str]:
    if node is None:
        yield path
    for name, inner in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
        yield from _nulls(f"{path}.{name}", inner)


@pytest.mark.parametrize("kind", sorted(CRD_BY_KIND))
def test_no_comma_splits_a_sentence(kind: str) -> None:
    """An unquoted comma in a flow mapping turns the rest of a description into a key without value."""
    assert list(_nulls("", CRD_BY_KIND[kind])) == []


@pytest.mark.parametrize("kind", sorted(CRD_BY_KIND))
def test_every_rule_has_a_message(kind: str) -> None:
    rules = [rule for _, node in _nodes("", _schema(kind)) for rule in node.get("x-kubernetes-validations", ())]
    assert [rule["rule"] for rule in rules if not rule.get("message")] == []


@pytest.mark.parametrize(
    ("kind", "short", "scope", "status"),
    [
        ("SecureTrainingJob", ["stj"], "Namespaced", True),
        ("EncryptedDataset", ["eds"], "Namespaced", False),
        ("TenantKey", ["tk"], "Namespaced", True),
        ("Tenant", [], "Cluster", True),
        ("GPUNode", ["gn"], "Cluster", True),
        ("ScrubReceipt", ["sr"], "Cluster", False),
    ],
)
def test_names(kind: str, short: list[str], scope: str, status: bool) -> None:
    crd = CRD_BY_KIND[kind]
    version = crd["spec"]["versions"][0]
    assert crd["metadata"]["name"] == f"{crd['spec']['names']['plural']}.{GROUP}"
    assert crd["spec"]["group"] == GROUP
    assert version["name"] == VERSION
    assert crd["spec"]["names"].get("shortNames", []) == short
    assert crd["spec"]["names"]["categories"] == ["lethe"]
    assert crd["spec"]["scope"] == scope
    assert ("status" in version.get("subresources", {})) is status


def test_storage_is_the_same_everywhere() -> None:
    """Two kinds have a storage; YAML cannot share text between files, so this test does."""
    job = _schema("SecureTrainingJob")["properties"]["spec"]["properties"]["outputs"]["properties"]["storage"]
    assert job == _schema("EncryptedDataset")["properties"]["spec"]["properties"]["storage"]


def test_conditions_are_the_same_everywhere() -> None:
    found = [
        _schema(kind)["properties"]["status"]["properties"]["conditions"]
        for kind in ("SecureTrainingJob", "TenantKey", "Tenant", "GPUNode")
    ]
    assert all(one == found[0] for one in found)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda schema: schema["properties"]["spec"]["properties"].pop("suspend"), "suspend: only the type has it"),
        (
            lambda schema: schema["properties"]["spec"]["properties"].update(extra={"type": "string"}),
            "extra: only the schema has it",
        ),
        (
            lambda schema: schema["properties"]["spec"]["properties"]["priority"].update(type="string"),
            "spec.priority: the type is integer, the schema string",
        ),
        (lambda schema: schema["properties"]["spec"]["required"].clear(), "spec: required are ['template']"),
        (
            lambda schema: schema["properties"]["spec"]["properties"]["replicas"].update(default=2),
            "spec.replicas: the default is 1 by the type, 2",
        ),
    ],
    ids=["field missing", "field too many", "other type", "not required", "other default"],
)
def test_comparison_finds(change: Any, sentence: str) -> None:
    """The comparison itself can fail."""
    schema = _load(CRDS / "securetrainingjobs.yaml")["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    change(schema)
    found = list(differences("", inspect.type_info(resources.SecureTrainingJob), schema))
    assert any(sentence in line for line in found), found
