"""One contract for every store, then what is particular to folders and to S3."""

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest

from lethe.adapters import cloud, objectstore, s3
from lethe.adapters.cloud import CloudStore
from lethe.adapters.objectstore import open_store, read_credentials
from lethe.crypto.hpke import PrivateKey
from lethe.data.access import Access, Place
from lethe.data.seal import seal_folder
from lethe.data.unpack import unseal
from lethe.formats.keyring import KEYRING_NAME, open_keyring, parse_keyring
from lethe.model.errors import (
    ConflictError,
    CredentialsError,
    InputError,
    IntegrityError,
    LetheError,
    ObjectMissingError,
    StorageError,
    UnavailableError,
)
from lethe.model.ports import ObjectStore
from lethe.model.resources import Storage
from tests.common.certificates import Authority
from tests.common.cloud_servers import CloudServer, azurite, memory_google
from tests.common.datasets import OBJECT, RECORD, content, policy_for, read_tree, seal_files, write_tree
from tests.common.forks import holds_after_fork
from tests.common.memory_s3 import MemoryS3
from tests.common.s3 import ACCESS, BUCKET, CREDENTIALS, Answer, ScriptedServer, Server, unused_endpoint, versitygw


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(cloud, "FIRST_PAUSE", timedelta(milliseconds=1))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with versitygw(tmp_path_factory.mktemp("s3")) as running:
        yield running


@pytest.fixture(scope="module")
def azure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CloudServer]:
    with azurite(tmp_path_factory.mktemp("azure")) as running:
        yield running


@pytest.fixture(scope="module")
def google() -> Iterator[CloudServer]:
    with memory_google() as running:
        yield running


@pytest.fixture(params=["folder", "s3", "google", "azure"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    if request.param == "folder":
        return open_store(Storage(url=f"file://{tmp_path}/some%20where/below"), None)
    if request.param != "s3":
        cloud: CloudServer = request.getfixturevalue(request.param)
        return open_store(cloud.storage(f"{tmp_path.name}/ü +x/below"), cloud.credentials)
    running: Server = request.getfixturevalue("server")
    return open_store(running.storage(f"{tmp_path.name}/ü +x/below"), CREDENTIALS)


class TestContract:
    def test_what_was_put_is_there(self, store: ObjectStore) -> None:
        data = os.urandom(300_000)
        store.put("a", memoryview(bytearray(data)))
        store.put("empty", b"")
        assert store.get("a") == data
        assert store.get("a", limit=len(data)) == data
        assert store.get("empty") == b""
        assert store.get_range("a", 7, 100) == data[7:107]
        assert store.get_range("a", 299_000, 1000) == data[299_000:]
        assert sorted(store.list()) == [("a", 300_000), ("empty", 0)]

    def test_what_was_created_piece_by_piece_is_there(self, store: ObjectStore) -> None:
        data, piece = os.urandom(70_000), memoryview(bytearray(1000))
        store.put("a", b"before")
        with store.create("a", len(data)) as write:
            for start in range(0, len(data), 1000):
                piece[:] = data[start : start + 1000]
                write(piece)
            assert store.get("a") == b"before"
        assert store.get("a") == data
        with store.create("empty", 0):
            pass
        assert store.get("empty") == b""

    @pytest.mark.parametrize("size", [9, 11])
    def test_an_object_of_another_length_than_was_said_is_not_there(self, store: ObjectStore, size: int) -> None:
        with pytest.raises(StorageError, match="of 10 bytes"), store.create("a", 10) as write:
            write(memoryview(bytes(size)))
        with pytest.raises(ValueError, match="mine"), store.create("a", 10) as write:
            write(memoryview(bytes(10)))
            raise ValueError("mine")
        assert list(store.list()) == []

    def test_put_replaces_and_put_new_does_not(self, store: ObjectStore) -> None:
        store.put_new("a", b"1")
        with pytest.raises(StorageError, match="is there already"):
            store.put_new("a", b"2")
        assert store.get("a") == b"1"
        store.put("a", b"3")
        assert store.get("a") == b"3"

    def test_replace_takes_the_version_that_was_read_and_no_other(self, store: ObjectStore) -> None:
        store.put("a", b"1")
        data, tag = store.get_tagged("a", limit=1)
        store.replace("a", b"2", tag)
        assert data == b"1"
        with pytest.raises(ConflictError, match="was written by another meanwhile"):
            store.replace("a", b"3", tag)
        assert store.get("a") == b"2"
        store.replace("a", b"4", store.get_tagged("a")[1])
        assert store.get("a") == b"4"
        with pytest.raises((ObjectMissingError, ConflictError)):
            store.replace("nothing", b"", tag)

    def test_of_many_who_replace_at_once_each_loses_or_wins(self, store: ObjectStore) -> None:
        store.put("count", b"0")

        def count_up(_: int) -> int:
            data, tag = store.get_tagged("count")
            try:
                store.replace("count", b"%d" % (int(data) + 1), tag)
            except ConflictError:
                return 0
            return 1

        with ThreadPoolExecutor(8) as threads:
            won = sum(threads.map(count_up, range(40)))
        assert won > 0
        assert int(store.get("count")) == won

    def test_a_missing_object_is_named(self, store: ObjectStore) -> None:
        for read in (lambda: store.get("nothing"), lambda: store.get_range("nothing", 0, 5)):
            with pytest.raises(ObjectMissingError, match="nothing"):
                read()

    def test_an_empty_prefix_lists_nothing(self, store: ObjectStore) -> None:
        assert list(store.list()) == []

    def test_delete_removes_and_forgives(self, store: ObjectStore) -> None:
        store.put("a", b"1")
        store.delete("a")
        store.delete("a")
        with pytest.raises(ObjectMissingError):
            store.get("a")

    @pytest.mark.parametrize(("start", "length"), [(0, 11), (5, 6), (10, 1), (50, 5)])
    def test_a_range_beyond_the_end_is_an_error(self, store: ObjectStore, start: int, length: int) -> None:
        store.put("a", b"0123456789")
        with pytest.raises(IntegrityError, match="cut off"):
            store.get_range("a", start, length)

    def test_an_object_above_the_limit_is_refused(self, store: ObjectStore) -> None:
        store.put("a", bytes(1000))
        with pytest.raises(IntegrityError, match="expected at most 999"):
            store.get("a", limit=999)

    def test_many_objects_are_listed(self, store: ObjectStore) -> None:
        for number in range(20):
            store.put(f"{number:02d}", bytes(number))
        assert sorted(store.list()) == [(f"{number:02d}", number) for number in range(20)]

    def test_it_works_after_fork_or_says_what_to_do(self, store: ObjectStore) -> None:
        store.put("a", b"1")
        assert store.get("a") == b"1"
        assert holds_after_fork(lambda: _says_spawn(store) if isinstance(store, CloudStore) else store.get("a") == b"1")
        assert store.get("a") == b"1"


def _says_spawn(store: ObjectStore) -> bool:
    with pytest.raises(StorageError, match='multiprocessing_context="spawn" or "forkserver"'):
        store.get("a")
    return True


class TestFolder:
    def test_a_reader_never_sees_half_an_object(self, tmp_path: Path) -> None:
        store = open_store(Storage(url=f"file://{tmp_path}"), None)
        store.put("a", b"1")
        assert [path.name for path in tmp_path.iterdir()] == ["a"]

    @pytest.mark.parametrize("key", ["../x", "a/../../x", "/etc/passwd", ""])
    def test_a_key_outside_the_folder_is_refused(self, tmp_path: Path, key: str) -> None:
        with pytest.raises(InputError, match="is not a name below"):
            open_store(Storage(url=f"file://{tmp_path}"), None).put(key, b"")


@pytest.mark.parametrize(
    "url",
    [
        "az://bucket/x",
        "abfss://container/x",
        "abfss://c@account.example/x",
        "http://host/x",
        "https://u@host/x",
        "s3://",
        "s3:///prefix",
        "/a/path",
        "file://host/path",
        "file:relative",
        "s3://b/p?x=1",
        "",
    ],
)
def test_other_urls_are_refused(url: str) -> None:
    with pytest.raises(InputError, match=r"use s3://bucket/prefix, gs://.*file:///absolute/path"):
        open_store(Storage(url=url), None)


class TestCredentials:
    def test_they_come_from_a_mounted_secret(self, tmp_path: Path) -> None:
        write_tree(
            tmp_path, {"AWS_ACCESS_KEY_ID": b"id\n", "AWS_SECRET_ACCESS_KEY": b"secret", "AWS_SESSION_TOKEN": b"t"}
        )
        credentials = read_credentials(str(tmp_path))
        assert credentials == s3.Credentials("id", "secret", "t")
        assert "secret" not in repr(credentials)

    def test_none_are_none(self) -> None:
        assert read_credentials(None) is None
        assert read_credentials("") is None

    @pytest.mark.parametrize("missing", CREDENTIALS)
    def test_a_missing_key_is_named(self, tmp_path: Path, missing: str) -> None:
        kept = {key: value for key, value in CREDENTIALS.items() if key != missing}
        with pytest.raises(CredentialsError, match=f"has no {missing}"):
            read_credentials(kept)
        write_tree(tmp_path, {key: value.encode() for key, value in kept.items()})
        with pytest.raises(CredentialsError, match=f"folder {tmp_path} has no {missing}"):
            read_credentials(str(tmp_path))

    def test_the_environment_is_not_searched(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for key, value in CREDENTIALS.items():
            monkeypatch.setenv(key, value)
        with ScriptedServer([Answer(200, b"x")]) as server:
            open_store(server.storage(), None).get("a")
        assert "authorization" not in server.requests[0][2]


class TestRefusals:
    """Against the real server."""

    @pytest.mark.parametrize(
        ("credentials", "code"),
        [
            ({**CREDENTIALS, "AWS_SECRET_ACCESS_KEY": "other"}, "SignatureDoesNotMatch"),
            ({**CREDENTIALS, "AWS_ACCESS_KEY_ID": "nobody"}, "XAdminUserNotFound"),
            (None, "AccessDenied"),
        ],
        ids=["secret", "id", "none"],
    )
    def test_wrong_credentials_name_the_secrets_keys(
        self, server: Server, credentials: dict[str, str] | None, code: str
    ) -> None:
        store = open_store(server.storage("x"), credentials)
        calls: list[Callable[[], object]] = [
            lambda: store.get("a"),
            lambda: store.put("a", b""),
            lambda: list(store.list()),
        ]
        for call in calls:
            with pytest.raises(CredentialsError, match=f"{code}.*AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY") as caught:
                call()
            assert "other" not in str(caught.value) and CREDENTIALS["AWS_SECRET_ACCESS_KEY"] not in str(caught.value)

    def test_a_bucket_that_does_not_exist_is_named(self, server: Server) -> None:
        store = open_store(server.storage("x", bucket="nowhere"), CREDENTIALS)
        for call in (lambda: store.get("a"), lambda: list(store.list())):
            with pytest.raises(ObjectMissingError, match="bucket nowhere does not exist"):
                call()

    def test_a_server_that_the_ca_does_not_vouch_for_is_refused(self, server: Server) -> None:
        storage = Storage(url=f"s3://{BUCKET}/x", endpoint=server.endpoint)
        with pytest.raises(StorageError, match="set caBundle"):
            open_store(storage, CREDENTIALS).get("a")

    def test_a_dataset_goes_there_and_back(self, server: Server, tmp_path: Path) -> None:
        check_round_trip(server.storage("datasets/digits"), CREDENTIALS, tmp_path)


ERROR = b"<Error><Code>%b</Code><Message>m</Message></Error>"


class TestRequests:
    """Against a server whose answers are chosen."""

    @pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
    def test_what_may_pass_is_tried_again(self, status: int) -> None:
        with ScriptedServer([Answer(status), Answer(status), Answer(200, b"data")]) as server:
            assert open_store(server.storage(), CREDENTIALS).get("a") == b"data"
        assert len(server.requests) == 3

    def test_what_does_not_pass_ends_as_unavailable(self) -> None:
        answers = [Answer(503, ERROR % b"SlowDown")] * s3.ATTEMPTS
        with (
            ScriptedServer(answers) as server,
            pytest.raises(UnavailableError, match=f"503 SlowDown; {s3.ATTEMPTS} attempts for s3://acme/some/prefix/a"),
        ):
            open_store(server.storage(), CREDENTIALS).get("a")
        assert server.answers == []

    def test_nobody_there_is_unavailable(self) -> None:
        storage = Storage(url="s3://acme/x", endpoint=unused_endpoint())
        with pytest.raises(UnavailableError, match="no connection to"):
            open_store(storage, CREDENTIALS).get("a")

    @pytest.mark.parametrize(
        ("answer", "error", "message"),
        [
            (Answer(403, ERROR % b"AccessDenied"), CredentialsError, f"access key {ACCESS}.*403 AccessDenied"),
            (Answer(401), CredentialsError, "401"),
            (Answer(400, ERROR % b"ExpiredToken"), CredentialsError, "ExpiredToken"),
            (Answer(404, ERROR % b"NoSuchKey"), ObjectMissingError, "object s3://acme/some/prefix/a does not exist"),
            (Answer(404), ObjectMissingError, "object s3://acme/some/prefix/a does not exist"),
            (Answer(301, ERROR % b"PermanentRedirect"), StorageError, "check endpoint and region"),
            (Answer(400, ERROR % b"InvalidRequest"), StorageError, "400 InvalidRequest m"),
            (Answer(501, ERROR % b"NotImplemented"), StorageError, "501 NotImplemented m"),
            (Answer(400, b"not xml"), StorageError, "400"),
        ],
    )
    def test_refusals_are_not_tried_again(self, answer: Answer, error: type[LetheError], message: str) -> None:
        with ScriptedServer([answer]) as server, pytest.raises(error, match=message):
            open_store(server.storage(), CREDENTIALS).get("a")
        assert len(server.requests) == 1

    def test_a_server_that_ignores_ranges_is_an_error(self) -> None:
        with ScriptedServer([Answer(200, b"12345")]) as server, pytest.raises(IntegrityError, match="ignores ranges"):
            open_store(server.storage(), CREDENTIALS).get_range("a", 2, 5)

    def test_a_body_without_end_is_cut_at_the_limit(self) -> None:
        endless = Answer(200, bytes(100_000), {"Content-Length": ""})
        with ScriptedServer([endless]) as server, pytest.raises(IntegrityError, match="more than 10 bytes"):
            open_store(server.storage(), CREDENTIALS).get("a", limit=10)

    def test_a_session_token_is_signed_and_sent(self) -> None:
        with ScriptedServer([Answer(200)]) as server:
            open_store(server.storage(), {**CREDENTIALS, "AWS_SESSION_TOKEN": "token"}).put("a", b"body")
        method, path, headers, body = server.requests[0]
        assert (method, path, body) == ("PUT", "/acme/some/prefix/a", b"body")
        assert headers["x-amz-security-token"] == "token"
        assert "x-amz-security-token" in headers["authorization"]

    def test_pages_of_a_listing_are_followed(self) -> None:
        page = (
            b'<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><IsTruncated>%b</IsTruncated>'
            b"<NextContinuationToken>next/1</NextContinuationToken><Contents><Key>some/prefix/%b</Key><Size>%b</Size>"
            b"</Contents></ListBucketResult>"
        )
        answers = [Answer(200, page % (b"true", b"a", b"1")), Answer(200, page % (b"false", b"b", b"2"))]
        with ScriptedServer(answers) as server:
            assert list(open_store(server.storage(), CREDENTIALS).list()) == [("a", 1), ("b", 2)]
        assert server.requests[1][1].startswith("/acme?continuation-token=next%2F1&list-type=2&prefix=some%2Fprefix%2F")

    def test_a_listing_that_is_not_xml_is_an_error(self) -> None:
        with ScriptedServer([Answer(200, b"<html")]) as server, pytest.raises(StorageError, match="check endpoint"):
            list(open_store(server.storage(), CREDENTIALS).list())

    @pytest.mark.parametrize("endpoint", ["s3.example", "ftp://x", "https://", "https://host/path"])
    def test_other_endpoints_are_refused(self, endpoint: str) -> None:
        with pytest.raises(InputError, match="is not https://host"):
            open_store(Storage(url="s3://acme/x", endpoint=endpoint), None)

    def test_a_ca_bundle_that_is_none_is_refused(self) -> None:
        storage = Storage(url="s3://acme/x", endpoint=unused_endpoint(), ca_bundle="certificates")
        with pytest.raises(InputError, match="caBundle is not PEM"):
            open_store(storage, None).get("a")


class TestClouds:
    """Google's and Azure's storage: what is not in the contract."""

    SERVICE_ACCOUNT = json.dumps({"disable_oauth": True, "client_email": "", "private_key": "", "private_key_id": ""})

    @pytest.mark.parametrize("key", ["b3RoZXI=", "not base64"])
    def test_wrong_keys_are_named_without_them(self, azure: CloudServer, key: str) -> None:
        with pytest.raises((CredentialsError, InputError), match="Secret") as caught:
            open_store(azure.storage("x"), {"AZURE_STORAGE_KEY": key}).get("a")
        assert key not in str(caught.value)

    def test_a_signature_in_an_address_is_in_no_message(self, azure: CloudServer) -> None:
        credentials = {"AZURE_STORAGE_SAS_TOKEN": "sv=2021-08-06&sig=verysecret"}
        for endpoint in (azure.endpoint, f"http{unused_endpoint().removeprefix('https')}"):
            storage = Storage(url=f"{azure.root}/x", endpoint=endpoint)
            with pytest.raises(LetheError) as caught:
                open_store(storage, credentials).get("a")
            assert "verysecret" not in str(caught.value)

    def test_without_credentials_a_private_container_is_refused(self, azure: CloudServer) -> None:
        with pytest.raises(CredentialsError, match="403"):
            open_store(azure.storage("x"), None).get("a")

    def test_a_container_that_does_not_exist_is_named(self, azure: CloudServer) -> None:
        store = open_store(azure.storage("x", root=azure.root.replace("acme@", "nowhere@")), azure.credentials)
        for call in (lambda: store.get("a"), lambda: list(store.list())):
            with pytest.raises(ObjectMissingError, match="nowhere@"):
                call()

    @pytest.mark.parametrize("url", ["gs://acme/x", "abfss://c@acc.dfs.core.windows.net/x"])
    def test_nobody_there_is_unavailable(self, url: str) -> None:
        storage = Storage(url=url, endpoint=f"http{unused_endpoint().removeprefix('https')}")
        with pytest.raises(UnavailableError, match=f"storage is away.*{url}/a"):
            open_store(storage, None).get("a")

    def test_what_may_pass_is_tried_again(self) -> None:
        data = Answer(200, b"data", {"ETag": '"1"', "Last-Modified": "Wed, 21 Oct 2015 07:28:00 GMT"})
        with ScriptedServer([Answer(503), Answer(429), data]) as server:
            assert open_store(Storage(url="gs://acme/x", endpoint=server.endpoint), None).get("a") == b"data"
        assert len(server.requests) == 3

    def test_the_environment_is_not_searched(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        (tmp_path / "key.json").write_text(self.SERVICE_ACCOUNT)
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", f"{tmp_path}/key.json")
        monkeypatch.setenv("GOOGLE_BEARER_TOKEN", "token")
        monkeypatch.setenv("GOOGLE_BASE_URL", unused_endpoint())
        monkeypatch.setenv("AZURE_STORAGE_TOKEN", "token")
        monkeypatch.setenv("AZURE_STORAGE_ENDPOINT", unused_endpoint())
        data = Answer(200, b"data", {"ETag": '"1"', "Last-Modified": "Wed, 21 Oct 2015 07:28:00 GMT"})
        for url in ("gs://acme/x", "abfss://acme@account.dfs.core.windows.net/x"):
            with ScriptedServer([data]) as server:
                assert open_store(Storage(url=url, endpoint=server.endpoint), None).get("a") == b"data"
            assert "authorization" not in server.requests[0][2]
        assert os.environ["GOOGLE_BEARER_TOKEN"] == "token"

    def test_without_obstore_the_extra_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "obstore", None)
        with pytest.raises(InputError, match=r"gs://acme/x needs obstore: pip install 'lethe-operator\[clouds\]'"):
            open_store(Storage(url="gs://acme/x"), None).get("a")

    @pytest.mark.parametrize(
        ("url", "missing"),
        [
            ("gs://acme/x", "has no GOOGLE_APPLICATION_CREDENTIALS"),
            ("abfss://c@account.dfs.core.windows.net/x", "AZURE_STORAGE_KEY; or AZURE_STORAGE_SAS_TOKEN; or AZURE_TEN"),
        ],
    )
    def test_missing_credentials_are_named(self, tmp_path: Path, url: str, missing: str) -> None:
        for source in ({"AZURE_CLIENT_ID": "half"}, str(tmp_path)):
            with pytest.raises(CredentialsError, match=missing):
                open_store(Storage(url=url), source)

    def test_a_google_key_is_json_and_no_file_is_read_for_it(self, tmp_path: Path) -> None:
        write_tree(tmp_path, {"key.json": b"{1}", "secret/GOOGLE_APPLICATION_CREDENTIALS": b"{2}\n"})
        read = objectstore.read_service_account
        assert read(f"{tmp_path}/secret") == "{2}"
        with pytest.raises(CredentialsError, match="put the JSON itself there"):
            read({"GOOGLE_APPLICATION_CREDENTIALS": f"{tmp_path}/key.json"})

    def test_azure_takes_what_its_users_have(self) -> None:
        read = objectstore.read_azure_credentials
        assert read({"AZURE_STORAGE_SAS_TOKEN": "sv"}) == {"sas_key": "sv"}
        names = {"AZURE_TENANT_ID": "t", "AZURE_CLIENT_ID": "c", "AZURE_CLIENT_SECRET": "s"}
        assert read(names) == {"tenant_id": "t", "client_id": "c", "client_secret": "s"}

    @pytest.mark.parametrize("kind", ["google", "azure"])
    def test_a_dataset_goes_there_and_back(self, request: pytest.FixtureRequest, kind: str, tmp_path: Path) -> None:
        server: CloudServer = request.getfixturevalue(kind)
        check_round_trip(server.storage("datasets/digits"), server.credentials, tmp_path)


class TestWeb:
    """A folder of a web server."""

    @pytest.fixture
    def shown(self, tmp_path: Path) -> Iterator[tuple[MemoryS3, Storage]]:
        authority = Authority()
        authority.write_server(tmp_path / "tls")
        with MemoryS3(tls=tmp_path / "tls") as server:
            yield server, Storage(url=f"{server.endpoint}/acme/some%20folder/", ca_bundle=authority.pem)

    def test_objects_are_read_without_credentials(self, shown: tuple[MemoryS3, Storage]) -> None:
        server, storage = shown
        server.objects["some folder/a"] = b"0123456789"
        store = open_store(storage, {"AWS_ACCESS_KEY_ID": "unused"})
        assert (store.get("a"), store.get("a", limit=10), store.get_range("a", 2, 3)) == (
            b"0123456789", b"0123456789", b"234",
        )  # fmt: skip
        with pytest.raises(IntegrityError, match="expected at most 9"):
            store.get("a", limit=9)
        for start, length in ((5, 6), (50, 5)):
            with pytest.raises(IntegrityError, match="cut off"):
                store.get_range("a", start, length)
        with pytest.raises(ObjectMissingError, match=f"{server.endpoint}/acme/some folder/b does not"):
            store.get("b")
        assert holds_after_fork(lambda: store.get("a") == b"0123456789")

    def test_it_neither_lists_nor_writes(self, shown: tuple[MemoryS3, Storage]) -> None:
        server, storage = shown
        store = open_store(storage, None)
        calls: list[Callable[[], object]] = [
            lambda: store.put("a", b""),
            lambda: store.put_new("a", b""),
            lambda: store.replace("a", b"", ""),
            lambda: store.delete("a"),
        ]
        for call in calls:
            with pytest.raises(StorageError, match="https:// is for reading"):
                call()
        with pytest.raises(StorageError, match="cannot be listed"):
            list(store.list())
        assert server.objects == {}

    def test_a_server_that_nobody_vouches_for_is_refused(self, shown: tuple[MemoryS3, Storage]) -> None:
        with pytest.raises(StorageError, match="set caBundle"):
            open_store(Storage(url=shown[1].url), None).get("a")

    def test_a_dataset_is_read_from_there(self, shown: tuple[MemoryS3, Storage], tmp_path: Path) -> None:
        server, storage = shown
        dataset = seal_files(tmp_path, {"a": content(9 * RECORD), "b": b""})
        server.objects |= {f"some folder/{name}": data for name, data in read_tree(dataset.root).items()}
        access = Access(Place(storage, None), dataset.sealed.dataset_id, dataset.sealed.index, dataset.access.deks)
        unseal(access, tmp_path / "back", workers=1)
        assert read_tree(tmp_path / "back") == dataset.files


def check_round_trip(storage: Storage, credentials: Mapping[str, str] | None, folder: Path) -> None:
    files = {"a": b"1", "sub/huge": content(23 * RECORD + 1), "empty": b""}
    identity = PrivateKey.generate("X25519")
    sealed = seal_folder(
        write_tree(folder / "plain", files),
        storage,
        credentials,
        policy_for(identity),
        record_bits=12,
        object_bytes=OBJECT,
        workers=2,
    )
    place = Place(storage, credentials)
    deks = open_keyring(parse_keyring(place.store.get(KEYRING_NAME)), identity)
    unseal(Access(place, sealed.dataset_id, sealed.index, deks), folder / "back", workers=2)
    assert read_tree(folder / "back") == files
