"""Image archives, and names of built things by what goes into them."""

import hashlib
import json
import tarfile
from pathlib import Path

import pytest

from tests.cluster import archive, images
from tests.cluster.errors import ClusterError
from tests.cluster.hashing import content_files, content_hash

NAME = "localhost/lethe-pause:dev"


class Containerd:
    """Answers like a node's `ctr images`, from a table of names and digests."""

    def __init__(self) -> None:
        self.images: dict[str, str] = {}
        self.imports = 0

    def __call__(self, *words: str) -> str:
        if words[1] == "list":
            name = words[2].removeprefix("name==")
            rows = [f"{name} application/x {self.images[name]} 1 MiB linux/amd64 -"] if name in self.images else []
            return "\n".join(["REF TYPE DIGEST SIZE PLATFORMS LABELS", *rows])
        if words[1] == "import":
            self.imports += 1
            self.images |= archive.manifests(Path(words[2]))
        elif words[1] == "tag":
            self.images[words[4]] = self.images[words[3]]
        return ""


@pytest.fixture
def made(tmp_path: Path) -> Path:
    return write(tmp_path / "pause.tar", tmp_path, b"#!program")


def write(target: Path, folder: Path, content: bytes) -> Path:
    program = folder / "program"
    program.write_bytes(content)
    archive.write(target, reference=NAME, files={"/pause": program}, config={"Entrypoint": ["/pause"]})
    return target


def test_the_same_files_give_the_same_bytes(made: Path, tmp_path: Path) -> None:
    again = write(tmp_path / "again.tar", tmp_path, b"#!program")
    assert again.read_bytes() == made.read_bytes()


def test_every_blob_is_named_by_its_digest_and_every_reference_leads_to_one(made: Path) -> None:
    with tarfile.open(made) as tar:
        content = {member.name: tar.extractfile(member).read() for member in tar.getmembers()}  # type: ignore[union-attr]
    blobs = {name.rpartition("/")[2]: blob for name, blob in content.items() if name.startswith("blobs/")}
    assert all(hashlib.sha256(blob).hexdigest() == name for name, blob in blobs.items())
    [entry] = json.loads(content["index.json"])["manifests"]
    manifest = json.loads(blobs[entry["digest"].removeprefix("sha256:")])
    for descriptor in (manifest["config"], *manifest["layers"]):
        assert len(blobs[descriptor["digest"].removeprefix("sha256:")]) == descriptor["size"]
    image = json.loads(blobs[manifest["config"]["digest"].removeprefix("sha256:")])
    assert image["rootfs"]["diff_ids"] == [layer["digest"] for layer in manifest["layers"]]
    assert image["config"] == {"Entrypoint": ["/pause"]}


def test_an_archive_tells_its_images_names(made: Path) -> None:
    assert archive.references(made) == [NAME]


def test_a_file_that_is_no_archive_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "other.tar"
    other.write_text("no archive")
    with pytest.raises(ClusterError, match="is no OCI image archive"):
        archive.references(other)


def test_an_imported_image_has_a_name_by_digest_too(made: Path) -> None:
    node = Containerd()
    archive.import_into_node(made, node)
    digest = archive.manifests(made)[NAME]
    assert node.images == {NAME: digest, f"localhost/lethe-pause@{digest}": digest}


def test_an_image_is_imported_again_only_when_it_has_changed(made: Path, tmp_path: Path) -> None:
    node = Containerd()
    archive.import_into_node(made, node)
    archive.import_into_node(made, node)
    assert node.imports == 1
    archive.import_into_node(write(tmp_path / "changed.tar", tmp_path, b"#!another"), node)
    assert node.imports == 2


def test_an_import_without_effect_is_an_error(made: Path) -> None:
    with pytest.raises(ClusterError, match=f"no image {NAME}"):
        archive.name_by_digest(made, Containerd())


def test_a_hash_depends_on_names_and_bytes_and_not_on_the_place(tmp_path: Path) -> None:
    for place in ("a", "b"):
        (tmp_path / place / "inner").mkdir(parents=True)
        (tmp_path / place / "inner" / "file.py").write_text("x = 1\n")
    assert content_hash(paths=[tmp_path / "a"]) == content_hash(paths=[tmp_path / "b"])
    (tmp_path / "b" / "inner" / "file.py").write_text("x = 2\n")
    assert content_hash(paths=[tmp_path / "a"]) != content_hash(paths=[tmp_path / "b"])


def test_a_hash_tells_lists_of_words_apart() -> None:
    assert len({content_hash("ab", "c"), content_hash("a", "bc"), content_hash("abc")}) == 3


def test_caches_and_build_results_are_no_sources(tmp_path: Path) -> None:
    for name in ("lethe/main.py", "lethe/__pycache__/main.pyc", "build/lib/main.py", "lethe.egg-info/PKG-INFO"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert [path.relative_to(tmp_path).as_posix() for path in content_files(tmp_path)] == ["lethe/main.py"]


def test_recipes_are_found_by_both_names() -> None:
    assert images.recipe("lethe-simgpu") is images.recipe("localhost/lethe-simgpu:dev")


def test_an_unknown_recipe_is_refused() -> None:
    with pytest.raises(ClusterError, match="no image 'other'"):
        images.recipe("other")


def test_every_recipe_has_its_containerfile() -> None:
    assert [made.containerfile for made in images.RECIPES if not made.containerfile.is_file()] == []
