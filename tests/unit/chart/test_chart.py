"""The chart as Helm renders it: processes get what they read and hold what they need; wrong values are named."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from lethe.controller.setup.policies import read_policies
from lethe.model import names
from lethe.model.config import KeyserviceConfig, OperatorConfig
from lethe.model.posture import POSTURE_CHECKS
from tests.cluster import tools

Object = dict[str, Any]
CHART = Path(__file__).parents[3] / "charts" / "lethe"
IMAGE = "registry.example/lethe"


def _helm() -> str:
    built = tools.bin_folder() / "helm"
    found = str(built) if built.exists() else shutil.which("helm")
    if found is None:
        pytest.skip("helm is neither built (`make cluster` builds it) nor on the PATH")
    return found


def _template(*arguments: str, values: Object | None = None) -> subprocess.CompletedProcess[str]:
    given = {"image": {"repository": IMAGE, "tag": "1"}} if values is None else values
    namespace = () if any(word.startswith("--namespace") for word in arguments) else ("--namespace=lethe-system",)
    return subprocess.run(
        [_helm(), "template", "lethe", str(CHART), *namespace, "--values=-", *arguments],
        input=json.dumps(given),
        capture_output=True,
        text=True,
    )


def render(**values: Any) -> list[Object]:
    """Return the objects of the chart."""
    done = _template(values={"image": {"repository": IMAGE, "tag": "1"}, **values})
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document is not None]


def one(objects: list[Object], kind: str, name: str) -> Object:
    """Return the object of this kind and name."""
    found = [item for item in objects if item["kind"] == kind and item["metadata"]["name"] == name]
    assert len(found) == 1, f"{len(found)} {kind} {name}"
    return found[0]


@pytest.fixture(scope="module")
def objects() -> list[Object]:
    return render()


def config(objects: list[Object], name: str) -> Object:
    """Return the parsed configuration file of a process."""
    parsed: Object = yaml.safe_load(one(objects, "ConfigMap", name)["data"]["config.yaml"])
    return parsed


def test_helm_lints() -> None:
    done = subprocess.run(
        [_helm(), "lint", str(CHART), "--strict", f"--set=image.repository={IMAGE}", "--namespace=lethe-system"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("name", "type_"), [("lethe-operator", OperatorConfig), ("lethe-keyservice", KeyserviceConfig)]
)
def test_configuration_is_what_the_process_reads(objects: list[Object], name: str, type_: type) -> None:
    written = config(objects, name)
    msgspec.convert(written, type_)
    known = {field.encode_name for field in msgspec.structs.fields(type_)}
    assert set(written) <= known, "the chart writes fields that the process does not read"


def test_values_reach_the_operator() -> None:
    objects = render(
        image={"repository": IMAGE, "digest": "sha256:" + "a" * 64, "pullPolicy": "Always"},
        imagePullSecrets=["pull"],
        systemNamespaces=["kube-system", "monitoring"],
        gpuNodes={
            "selector": "gpu=yes",
            "enrolment": "automatic",
            "tolerations": [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}],
            "proofTimeoutSeconds": 30,
        },
        runtimeClassName="nvidia",
        imagePolicy={"requireDigest": True},
        scrub={"coverageFloor": 0.5, "timeoutSeconds": 20},
        receipts={"keepDays": 400},
    )
    read = msgspec.convert(config(objects, "lethe-operator"), OperatorConfig)
    assert read.image == f"{IMAGE}@sha256:{'a' * 64}"
    assert read.image_pull_policy == "Always"
    assert read.image_pull_secrets == ["pull"]
    assert read.system_namespaces == ("kube-system", "monitoring", "lethe-system")
    assert read.gpu_node_label == "gpu=yes"
    assert read.enrolment == "automatic"
    assert read.tolerations == [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}]
    assert read.runtime_class_name == "nvidia"
    assert read.image_policy.require_digest
    assert (read.coverage_floor, read.scrub_timeout_seconds) == (0.5, 20)
    assert read.proof_timeout_seconds == 30
    assert read.receipt_keep_days == 400
    assert read.criticalities["critical"].fresh_scrub
    policies = one(objects, "ConfigMap", "lethe-policies")["data"]
    assert "['kube-system','monitoring','lethe-system']" in policies["bind.yaml"]
    assert "@sha256:[0-9a-f]{64}" in policies["jobs.yaml"]


def test_levels_demand_more_of_a_node_from_one_to_the_next(objects: list[Object]) -> None:
    for name, type_ in (("lethe-operator", OperatorConfig), ("lethe-keyservice", KeyserviceConfig)):
        levels = msgspec.convert(config(objects, name), type_).criticalities
        standard, sensitive, critical = (set(levels[each].posture) for each in ("standard", "sensitive", "critical"))
        assert standard < sensitive < critical
        assert not standard and "swapOff" in sensitive


def test_the_schema_knows_every_posture_check() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    rule = schema["definitions"]["criticalityRule"]["properties"]
    assert tuple(rule["posture"]["items"]["enum"]) == POSTURE_CHECKS
    assert all(check in (CHART / "values.yaml").read_text() for check in POSTURE_CHECKS)


@pytest.mark.parametrize("days", [0, 400])
def test_the_operator_may_delete_receipts_only_where_it_is_told_to(days: int) -> None:
    role = one(render(receipts={"keepDays": days}), "ClusterRole", "lethe-operator")
    (verbs,) = [rule["verbs"] for rule in role["rules"] if rule["resources"] == ["scrubreceipts"]]
    assert ("delete" in verbs) == (days > 0)


@pytest.mark.parametrize("kind", ["Job", "CronJob"])
def test_the_version_of_the_receipt_key_reaches_both_that_make_keys(kind: str) -> None:
    objects = render(receipts={"keyVersion": 7})
    job = one(objects, kind, {"Job": "lethe-setup-keys", "CronJob": "lethe-renewal"}[kind])
    template = job["spec"]["jobTemplate"] if kind == "CronJob" else job
    (container,) = template["spec"]["template"]["spec"]["containers"]
    assert container["command"][2:] == ["lethe.setup_main", "keys", "--receipt-key-version", "7"]


def test_crds_are_kept_and_are_the_projects_own(objects: list[Object]) -> None:
    crds = {item["metadata"]["name"]: item for item in objects if item["kind"] == "CustomResourceDefinition"}
    source = {
        crd["metadata"]["name"]: crd
        for crd in map(yaml.safe_load, (p.read_text() for p in CHART.glob("files/crds/*.yaml")))
    }
    assert len(source) == 6
    assert set(crds) == set(source)
    for name, crd in crds.items():
        assert crd["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
        assert crd["spec"] == source[name]["spec"]


def test_the_operator_knows_whether_the_fence_refuses() -> None:
    told = msgspec.convert(config(render(fence={"mode": "audit"}), "lethe-operator"), OperatorConfig)
    assert told.fence == "audit"


@pytest.mark.parametrize("mode", ["enforce", "audit"])
def test_every_policy_is_bound_and_fails_closed(mode: str, tmp_path: Path) -> None:
    objects = render(fence={"mode": mode})
    for name, text in one(objects, "ConfigMap", "lethe-policies")["data"].items():
        (tmp_path / name).write_text(text)
    found = read_policies(tmp_path)
    policies = {item["metadata"]["name"]: item for item in found if item["kind"] == "ValidatingAdmissionPolicy"}
    bindings = {
        item["spec"]["policyName"]: item for item in found if item["kind"] == "ValidatingAdmissionPolicyBinding"
    }
    assert set(policies) == set(bindings)
    assert all(policy["spec"]["failurePolicy"] == "Fail" for policy in policies.values())
    expected = ["Deny"] if mode == "enforce" else ["Warn", "Audit"]
    assert all(binding["spec"]["validationActions"] == expected for binding in bindings.values())


def test_policies_ask_for_a_namespace_only_where_they_can_see_it(objects: list[Object]) -> None:
    """A matchCondition sees no namespaceObject: one that asks for it would never match, and the policy never refuse."""
    text = one(objects, "ConfigMap", "lethe-policies")["data"]
    for name, content in text.items():
        for policy in yaml.safe_load_all(content):
            for condition in policy["spec"].get("matchConditions", ()):
                assert "namespaceObject" not in condition["expression"], (name, condition["name"])


def test_policies_know_the_names_of_the_code(objects: list[Object]) -> None:
    text = "\n".join(one(objects, "ConfigMap", "lethe-policies")["data"].values())
    for account in (names.OPERATOR_ACCOUNT, names.KEYSERVICE_ACCOUNT):
        assert f"system:serviceaccount:{names.SYSTEM_NAMESPACE}:{account}" in text
    for name in (
        names.OPEN_NAMESPACE,
        names.OPEN_NODES_ACCOUNT,
        names.virtual_pod_account(names.PodUid("")),
        names.POD_FINALIZER,
        names.JOB_FINALIZER,
        names.TAINT,
        names.NODE_LABEL,
        names.LABEL_TENANT,
        names.SCRUB_POD_PREFIX,
        names.JOB_ACCOUNT,
        names.release_audience("x", names.JobUid("y")).split("/")[0] + "/",
    ):
        assert name in text, name


@pytest.mark.parametrize(
    ("kind", "name", "container"),
    [("Deployment", "lethe-operator", "operator"), ("Deployment", "lethe-keyservice", "keyservice")],
)
def test_processes_run_without_privileges(objects: list[Object], kind: str, name: str, container: str) -> None:
    deployment = one(objects, kind, name)
    pod = deployment["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    (found,) = pod["containers"]
    assert found["name"] == container
    assert found["image"] == f"{IMAGE}:1"
    assert found["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_two_operators_and_one_key_service(objects: list[Object]) -> None:
    operator, keyservice = (one(objects, "Deployment", f"lethe-{name}")["spec"] for name in ("operator", "keyservice"))
    assert operator["replicas"] == 2
    assert "strategy" not in operator
    assert (keyservice["replicas"], keyservice["strategy"]) == (1, {"type": "Recreate"})
    assert one(objects, "PodDisruptionBudget", "lethe-operator")["spec"]["maxUnavailable"] == 1


def test_no_pod_of_the_chart_looks_like_a_pod_of_a_job(objects: list[Object]) -> None:
    """Labels of lethe.dev would be refused on them by the fence itself."""
    for item in objects:
        template = item.get("spec", {}).get("template") or item.get("spec", {}).get("jobTemplate", {}).get(
            "spec", {}
        ).get("template", {})
        labels = {**item["metadata"].get("labels", {}), **template.get("metadata", {}).get("labels", {})}
        assert not [key for key in labels if key.startswith("lethe.dev/")], item["metadata"]["name"]
        assert not item["metadata"]["name"].startswith(names.SCRUB_POD_PREFIX)


def rules(objects: list[Object], kind: str, name: str) -> list[Object]:
    """Return the rules of a role."""
    found: list[Object] = one(objects, kind, name)["rules"]
    return found


@pytest.mark.parametrize("kind", ["Role", "ClusterRole"])
def test_nobody_gets_everything(objects: list[Object], kind: str) -> None:
    for item in objects:
        for rule in item["rules"] if item["kind"] == kind else ():
            assert "*" not in [*rule["apiGroups"], *rule["resources"], *rule["verbs"]], item["metadata"]["name"]
            assert not {"escalate", "impersonate", "bind"} & set(rule["verbs"]), item["metadata"]["name"]


def test_the_operator_cannot_list_or_write_secrets(objects: list[Object]) -> None:
    verbs = [
        verb
        for rule in rules(objects, "ClusterRole", "lethe-operator")
        for verb in rule["verbs"]
        if "secrets" in rule["resources"]
    ]
    assert verbs == ["get"]
    assert not [rule for rule in rules(objects, "Role", "lethe-operator") if "secrets" in rule["resources"]]


def test_the_key_service_writes_only_the_status_of_keys(objects: list[Object]) -> None:
    writes = {
        (resource, verb)
        for rule in rules(objects, "ClusterRole", "lethe-keyservice")
        for resource in rule["resources"]
        for verb in set(rule["verbs"]) - {"get", "list", "watch"}
    }
    assert writes == {("tenantkeys/status", "patch"), ("tokenreviews", "create")}


def test_scrub_pods_have_no_rights_and_no_token(objects: list[Object]) -> None:
    assert one(objects, "ServiceAccount", "lethe-scrub")["automountServiceAccountToken"] is False
    bound = [
        subject["name"]
        for item in objects
        if item["kind"] in ("RoleBinding", "ClusterRoleBinding")
        for subject in item["subjects"]
    ]
    assert "lethe-scrub" not in bound
    policy = one(objects, "NetworkPolicy", "lethe-scrub")["spec"]
    assert policy == {
        "podSelector": {"matchLabels": {names.LABEL_ROLE: names.ROLE_SCRUB}},
        "policyTypes": ["Ingress", "Egress"],
    }


def test_rights_of_the_hooks_end_with_the_hook(objects: list[Object]) -> None:
    hooked = [item for item in objects if item["metadata"]["name"].startswith("lethe-setup")]
    assert {item["kind"] for item in hooked} >= {"ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "Job"}
    for item in hooked:
        annotations = item["metadata"]["annotations"]
        assert annotations["helm.sh/hook-delete-policy"] == "before-hook-creation,hook-succeeded"
    account = one(objects, "ServiceAccount", "lethe-setup")["metadata"]["annotations"]["helm.sh/hook"].split(",")
    events = {event for item in hooked for event in item["metadata"]["annotations"]["helm.sh/hook"].split(",")}
    assert set(account) == events


def test_tenants_rights_come_with_kubernetes_own_roles(objects: list[Object]) -> None:
    aggregated = {
        item["metadata"]["name"]: {
            key.rsplit("-", 1)[-1] for key in item["metadata"]["labels"] if key.startswith("rbac.authorization.k8s.io/")
        }
        for item in objects
        if item["kind"] == "ClusterRole"
    }
    assert aggregated["lethe-view"] == {"view", "edit", "admin"}
    assert aggregated["lethe-edit"] == {"edit", "admin"}
    assert aggregated["lethe-admin"] == {"admin"}
    for name in ("lethe-view", "lethe-edit", "lethe-admin"):
        for rule in rules(objects, "ClusterRole", name):
            assert not {"gpunodes", "tenants", "scrubreceipts"} & set(rule["resources"])


@pytest.mark.parametrize(
    ("persistence", "volume", "claims"),
    [
        ({}, {"persistentVolumeClaim": {"claimName": "lethe-keyservice"}}, 1),
        (
            {"persistence": {"existingClaim": "mine"}},
            {"persistentVolumeClaim": {"claimName": "mine"}},
            0,
        ),
        ({"development": True}, {"emptyDir": {}}, 0),
    ],
    ids=["own claim", "existing claim", "development"],
)
def test_the_key_services_volume(persistence: Object, volume: Object, claims: int) -> None:
    objects = render(keyservice=persistence)
    volumes = one(objects, "Deployment", "lethe-keyservice")["spec"]["template"]["spec"]["volumes"]
    assert {"name": "data", **volume} in volumes
    found = [item for item in objects if item["kind"] == "PersistentVolumeClaim"]
    assert len(found) == claims
    assert all(item["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep" for item in found)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({}, "image.repository"),
        ({"image": {"repository": "UPPER"}}, "/image/repository"),
        ({"image": {"repository": IMAGE, "digest": "md5:1"}}, "/image/digest"),
        ({"imag": {}}, "imag"),
        ({"fence": {"mode": "off"}}, "/fence/mode"),
        ({"podAnnotations": {"lethe.dev/image": "x"}}, "lethe.dev/image"),
        ({"systemNamespaces": ["gpu-operator"]}, "/systemNamespaces"),
        ({"gpuNodes": {"enrolment": "maybe"}}, "/gpuNodes/enrolment"),
        ({"gpuNodes": {"selector": "gpu"}}, "/gpuNodes/selector"),
        ({"gpuNodes": {"tolerations": [{"operator": "Exists"}]}}, "/gpuNodes/tolerations/0"),
        ({"scrub": {"coverageFloor": 98}}, "/scrub/coverageFloor"),
        ({"scrub": {"timeoutSeconds": "long"}}, "/scrub/timeoutSeconds"),
        ({"criticality": {"standard": {"schemes": ["none"], "maxReleases": 1, "freshScrub": False}}}, "/criticality"),
        ({"criticality": {"secret": {}}}, "/criticality"),
        ({"criticality": {"critical": {"posture": ["swapoff"]}}}, "/criticality/critical/posture/0"),
        ({"keyservice": {"persistence": {"size": "big"}}}, "/keyservice/persistence/size"),
        (
            {
                "image": {"repository": IMAGE},
                "keyservice": {"development": True, "persistence": {"existingClaim": "x"}},
            },
            "keyservice.development",
        ),
    ],
)
def test_wrong_values_are_named(values: Object, sentence: str) -> None:
    done = _template(values=values)
    assert done.returncode != 0
    assert sentence in done.stderr, done.stderr


def test_the_namespace_is_fixed() -> None:
    done = _template("--namespace=elsewhere")
    assert done.returncode != 0
    assert "lethe-system" in done.stderr and "elsewhere" in done.stderr


def test_every_value_is_in_the_schema() -> None:
    """A default that the schema does not know would be refused as soon as somebody wrote it down."""
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert set(values) == set(schema["properties"]) - {"global"}
    for name, value in values.items():
        inner = schema["properties"][name].get("properties")
        if isinstance(value, dict) and inner is not None:
            assert set(value) == set(inner), name


def test_every_value_is_explained() -> None:
    text = (CHART / "values.yaml").read_text()
    assert len(re.findall(r"^ *#", text, re.MULTILINE)) > 25
