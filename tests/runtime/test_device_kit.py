"""The edge kit holds what a device needs, checked, and equal contents make equal files."""

import hashlib
import zipfile

import pytest

from showface.cli import main
from showface.runtime.backends.tensorrt.sidecar import SIDECAR_SCHEMA, EngineFolder, Sidecar, read_engine, read_sidecar
from showface.runtime.bundle import default_bundle, open_bundle
from showface.runtime.device_kit import write_kit
from showface.runtime.errors import UsageError

NAMES = [name.removesuffix(".onnx") for name in open_bundle().manifest.sha256 if name.endswith(".onnx")]


ALWAYS = {"manifest.json", "golden.npz", "MODEL_CARD.md", "LICENSE-weights"}


@pytest.fixture
def bundle(tmp_path):
    """A copy of the default bundle with stand-ins for engines of two targets: packing does not deserialise them."""
    return bundle_with_engines(tmp_path / "bundle")


def bundle_with_engines(folder):
    folder.mkdir()
    for path in default_bundle().iterdir():
        if path.is_file():
            (folder / path.name).write_bytes(path.read_bytes())
    opened = open_bundle(folder)
    for target in ("sm_86", "sm_120"):
        engines = EngineFolder(opened, "tensorrt-rtx", target)
        engines.path.mkdir(parents=True)
        (engines.path / "timing-1.cache").write_bytes(b"not needed on a device")
        for name in NAMES:
            data = f"{name} for {target}".encode()
            engines.engine(name).write_bytes(data)
            sidecar = Sidecar(
                SIDECAR_SCHEMA, name, "tensorrt-rtx", "1.7.1", target, "", False, (1, 1, 8), 1, {}, "float32", {},
                False, 3, None, True, "linux-x86_64", opened.manifest.sha256[f"{name}.onnx"],
                hashlib.sha256(data).hexdigest(), len(data), 0.1,
            )  # fmt: skip
            engines.sidecar(name).write_text(sidecar.to_json())
    return opened


def names_in(path):
    with zipfile.ZipFile(path) as archive:
        return set(archive.namelist())


def engine_names(target):
    return {f"engines/tensorrt-rtx-{target}/{name}.{suffix}" for name in NAMES for suffix in ("engine", "json")}


def test_a_kit_for_one_target_is_a_bundle_without_graphs(bundle, tmp_path):
    kit = write_kit(bundle, tmp_path / "kit.zip", "tensorrt-rtx", ["sm_86"])
    assert names_in(tmp_path / "kit.zip") == ALWAYS | engine_names("sm_86")
    assert kit.size == (tmp_path / "kit.zip").stat().st_size
    with zipfile.ZipFile(tmp_path / "kit.zip") as archive:
        archive.extractall(tmp_path / "device")
    device = open_bundle(tmp_path / "device")
    assert device.digest == bundle.digest
    folder = EngineFolder(device, "tensorrt-rtx", "sm_86")
    for name in NAMES:
        assert read_engine(folder, read_sidecar(folder, name)) == f"{name} for sm_86".encode()


def test_what_goes_along(bundle, tmp_path):
    graphs = {f"{name}.onnx" for name in NAMES}
    write_kit(bundle, tmp_path / "all.zip")
    assert names_in(tmp_path / "all.zip") >= engine_names("sm_86") | engine_names("sm_120")
    assert not names_in(tmp_path / "all.zip") & graphs
    write_kit(bundle, tmp_path / "with.zip", targets=["sm_120"], graphs=True)
    assert names_in(tmp_path / "with.zip") == ALWAYS | graphs | engine_names("sm_120")
    write_kit(open_bundle(), tmp_path / "plain.zip")
    assert names_in(tmp_path / "plain.zip") == ALWAYS | graphs


def test_equal_contents_make_equal_files(bundle, tmp_path):
    for name in ("a.zip", "b.zip"):
        write_kit(bundle, tmp_path / name)
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_nothing_is_overwritten_and_no_broken_file_is_packed(bundle, tmp_path):
    output = tmp_path / "kit.zip"
    output.write_bytes(b"mine")
    with pytest.raises(UsageError, match=r"kit\.zip: exists already; pass overwrite=True"):
        write_kit(bundle, output)
    engine = EngineFolder(bundle, "tensorrt-rtx", "sm_86").engine("mrem")
    engine.write_bytes(b"tampered")
    with pytest.raises(UsageError, match=r"mrem\.engine: its hash differs"):
        write_kit(bundle, output, overwrite=True)
    assert output.read_bytes() == b"mine"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bundle", "kit.zip"]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ((None, ["sm_89"]), "no engines for sm_89; build them with: showface build .* --target sm_89"),
        (("tensorrt", []), "no engines of tensorrt; build them with: showface build .* --backend tensorrt"),
        (("openvino", []), "openvino builds no engines; use tensorrt or tensorrt-rtx"),
    ],
)
def test_what_is_not_there_is_answered(bundle, tmp_path, arguments, named):
    with pytest.raises(UsageError, match=named):
        write_kit(bundle, tmp_path / "kit.zip", *arguments)
    with pytest.raises(UsageError, match=r"give it the suffix \.zip"):
        write_kit(bundle, tmp_path / "kit.tar")


def test_the_command_line_and_info_of_an_unpacked_kit(bundle, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["pack", str(bundle.folder), str(tmp_path / "kit.zip"), "--target", "sm_86"])
    assert ended.value.code == 0
    assert "engines of tensorrt-rtx for sm_86; " in capsys.readouterr().err
    with zipfile.ZipFile(tmp_path / "kit.zip") as archive:
        archive.extractall(tmp_path / "device")
    with pytest.raises(SystemExit) as ended:
        main(["info", str(tmp_path / "device")])
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert "its graph is not here" in printed
    assert "tensorrt-rtx 1.7.1 for sm_86, batches 1/1/8" in printed


def test_a_kit_without_graphs_says_what_it_is(bundle, tmp_path):
    write_kit(bundle, tmp_path / "kit.zip", "tensorrt-rtx", ["sm_86"])
    with zipfile.ZipFile(tmp_path / "kit.zip") as archive:
        archive.extractall(tmp_path / "kit")
    kit = open_bundle(tmp_path / "kit")
    said = r"kit: is a kit: engines \(tensorrt-rtx-sm_86\) for a GPU .*: showface pack BUNDLE KIT --graphs$"
    with pytest.raises(UsageError, match=said):
        kit.model(kit.manifest.stages[0])


HASHED = [name for name in sorted(ALWAYS | engine_names("sm_86")) if name.endswith((".npz", ".engine"))]


def unpacked(path, folder, changes):
    """Unpack a kit as another tool would, with the contents of some entries changed; None leaves one out."""
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            data = changes.get(name, archive.read(name))
            if data is not None:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes(data)
    return folder


def read_all(folder):
    """Read what a device reads of a kit."""
    device = open_bundle(folder)
    device.golden()
    engines = EngineFolder(device, "tensorrt-rtx", "sm_86")
    for stage in device.manifest.graphs:
        read_engine(engines, read_sidecar(engines, stage.name))


@pytest.fixture(scope="module")
def kit(tmp_path_factory):
    """Return a kit that can be read as a whole."""
    root = tmp_path_factory.mktemp("kit")
    write_kit(bundle_with_engines(root / "bundle"), root / "kit.zip", "tensorrt-rtx", ["sm_86"])
    read_all(unpacked(root / "kit.zip", root / "device", {}))
    return root / "kit.zip"


@pytest.mark.parametrize("name", HASHED)
@pytest.mark.parametrize("kind", ["a flipped bit", "cut off", "longer", "empty", "of another stage", "missing"])
def test_a_kit_that_was_tampered_with_is_refused_on_the_device(kit, tmp_path, name, kind):
    with zipfile.ZipFile(kit) as archive:
        data = archive.read(name)
        other = archive.read(next(entry for entry in HASHED if entry != name))
    middle = len(data) // 2
    changed = {
        "a flipped bit": data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :], "cut off": data[:-1],
        "longer": data + b"x", "empty": b"", "of another stage": other, "missing": None,
    }[kind]  # fmt: skip
    with pytest.raises(UsageError, match=name.rpartition("/")[2].replace(".", r"\.")):
        read_all(unpacked(kit, tmp_path / "device", {name: changed}))


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"{" * 100_000, b"\xff\xfe", None], ids=str)
@pytest.mark.parametrize("name", ["manifest.json", "engines/tensorrt-rtx-sm_86/coarse.json"])
def test_a_kit_whose_descriptions_are_not_what_they_were_is_refused(kit, tmp_path, name, content):
    with pytest.raises(UsageError, match=name.rpartition("/")[2]):
        read_all(unpacked(kit, tmp_path / "device", {name: content}))


def test_a_zip_that_is_damaged_on_its_way_does_not_unpack(kit, tmp_path):
    data = bytearray(kit.read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "kit.zip").write_bytes(data)
    damaged = pytest.raises(Exception, match=r"CRC|zlib|invalid|decompress")
    with damaged, zipfile.ZipFile(tmp_path / "kit.zip") as archive:
        archive.extractall(tmp_path / "device")


def test_no_entry_of_a_kit_leads_out_of_its_folder(kit):
    with zipfile.ZipFile(kit) as archive:
        for entry in archive.infolist():
            assert not entry.filename.startswith("/")
            assert ".." not in entry.filename.split("/")
            assert entry.external_attr >> 16 == 0o644  # no link, and no program
