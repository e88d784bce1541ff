from lethe.specs import fence


def test_a_grant_names_one_node_and_the_pods_virtual_accounts() -> None:
    role = fence.build_grant_role("gpu-1", "acme")
    binding = fence.build_grant_binding("gpu-1", "acme", ["u1"])

    assert role["rules"] == [
        {"apiGroups": ["lethe.dev"], "resources": ["gpunodes"], "resourceNames": ["gpu-1"], "verbs": ["occupy"]}
    ]
    assert role["metadata"]["name"] == binding["metadata"]["name"] == binding["roleRef"]["name"] == "lethe-gpu-1"
    assert binding["subjects"] == [{"kind": "ServiceAccount", "namespace": "acme", "name": "lethe-pod-u1"}]
    assert fence.parse_pod_uids(binding) == ("u1",)


def test_the_open_list() -> None:
    role = fence.build_open_role(["cpu-1", "cpu-2"])

    assert (role["metadata"]["namespace"], role["metadata"]["name"]) == ("lethe-open", "open-nodes")
    assert role["rules"][0]["verbs"] == ["host"]
    assert fence.parse_names(role) == {"cpu-1", "cpu-2"}
    assert fence.build_open_binding()["subjects"][0]["namespace"] == "lethe-system"


def test_an_empty_open_list_opens_nothing() -> None:
    """A rule without resourceNames would cover every node."""
    assert fence.build_open_role([])["rules"] == []


def test_a_foreign_subject_is_no_pod() -> None:
    assert fence.parse_pod_uids({"subjects": [{"kind": "User", "name": "eve"}]}) == ()
