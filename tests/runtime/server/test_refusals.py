"""What clients send wrong: each its status and one sentence, and the server goes on."""

import io
import re
import socket
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

BOUNDARY = "x-boundary"


def part(name, content, extra=""):
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{extra}\r\n\r\n'
    return head.encode("utf-8", "surrogateescape") + content + b"\r\n"


def form(*parts, end=f"--{BOUNDARY}--\r\n"):
    return b"".join(parts) + end.encode()


def png_header(width, height):
    """Return a PNG that says it has a size, and holds nothing of it."""
    content = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + content + struct.pack(">I", zlib.crc32(b"IHDR" + content))
    return b"\x89PNG\r\n\x1a\n" + chunk


def picture(shape=(64, 64, 3), kind="PNG", **options):
    buffer = io.BytesIO()
    values = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    Image.fromarray(values).save(buffer, kind, **options)
    return buffer.getvalue()


def bomb():
    """Return a small file of 120 megapixels."""
    buffer = io.BytesIO()
    Image.new("1", (12_000, 10_000)).save(buffer, "PNG")
    return buffer.getvalue()


def frames():
    buffer = io.BytesIO()
    first, second = Image.new("RGB", (64, 64)), Image.new("RGB", (64, 64), "red")
    first.save(buffer, "TIFF", save_all=True, append_images=[second])
    return buffer.getvalue()


def stripes():
    """Return a mask of black and white stripes."""
    buffer = io.BytesIO()
    Image.fromarray(np.repeat(np.uint8([[0, 255] * 8]), 64, axis=0).repeat(4, axis=1)).save(buffer, "PNG")
    return buffer.getvalue()


GOOD, MASK = picture(), stripes()
IMAGE, HOLE = part("image", GOOD, '; filename="a.png"'), part("mask", MASK, '; filename="m.png"')

MALFORMED = {
    "no body": (b"", "cut off"),
    "not a form": (b"hello", "no well-formed"),
    "another boundary": (form(IMAGE, HOLE).replace(b"x-boundary", b"y-boundary"), "no well-formed"),
    "cut off": (form(IMAGE, HOLE)[:-40], "cut off"),
    "no end": (form(IMAGE, HOLE, end=""), "cut off"),
    "no fields": (form(), "no well-formed|no field 'image'|cut off"),
    "no image": (form(HOLE), "no field 'image'"),
    "no mask": (form(IMAGE), "neither 'mask' nor 'mask_from'"),
    "two sources": (form(IMAGE, HOLE, part("mask_from", b"alpha")), "both 'mask' and 'mask_from'"),
    "two images": (form(IMAGE, IMAGE, HOLE), "two fields 'image'"),
    "unknown field": (form(IMAGE, HOLE, part("image2", b"x")), "field 'image2'"),
    "nameless field": (form(IMAGE, HOLE, part("", b"x")), "a field ''"),
    "markup in a name": (form(IMAGE, HOLE, part("<script>", b"x")), "a field '<script>'"),
    "control characters in a name": (form(IMAGE, HOLE, part("\x1b[31m", b"x")), r"a field '\\x1b\[31m'"),
    "bytes in a name": (form(IMAGE, part("\udcff", b"x")), "a field"),
    "long text": (form(IMAGE, part("mask_from", b"c" * 600)), "longer than 500 bytes"),
    "long headers": (form(part("image", GOOD, "; x=" + "y" * 3000), HOLE), "longer than 2048 bytes"),
    "unknown source": (form(IMAGE, part("mask_from", b"moon")), "'mask_from' is 'moon'; send alpha"),
    "no occluder": (form(IMAGE, part("mask_from", b"occlusion")), "this server's bundle has no occluder"),
    "file as source": (form(IMAGE, part("mask_from", b"file")), "'mask_from' is 'file'"),
    "unknown category": (form(IMAGE, part("mask_from", b"class:moustache")), "names out of background, skin"),
    "half a colour": (form(IMAGE, part("mask_from", b"color:#12")), "color:#RRGGBB"),
    "no alpha": (form(IMAGE, part("mask_from", b"alpha")), "image: has no alpha channel"),
    "unknown format": (form(IMAGE, HOLE, part("format", b"gif")), "'format' is 'gif'; send same, jpeg"),
    "alpha as JPEG": (
        form(part("image", picture((64, 64, 4))), HOLE, part("format", b"jpeg")), "cannot hold an alpha channel"
    ),
    "empty image": (form(part("image", b""), HOLE), "image: the file is empty"),
    "text for an image": (form(part("image", b"hello"), HOLE), "image: not an image that showface reads"),
    "cut off image": (form(part("image", GOOD[:900]), HOLE), "image: "),
    "damaged image": (form(part("image", GOOD[:80] + b"????" + GOOD[84:]), HOLE), "image: "),
    "bomb": (form(part("image", bomb()), HOLE), "image: .*larger than 100 megapixels"),
    "no pixels": (form(part("image", png_header(0, 0)), HOLE), "image: "),
    "several frames": (form(part("image", frames()), HOLE), "image: holds 2 frames"),
    "not square": (form(part("image", picture((64, 80, 3))), HOLE), r"image: 80×64 is not square; .* face$"),
    "text for a mask": (form(IMAGE, part("mask", b"hello")), "mask: not an image"),
    "mask of another shape": (form(IMAGE, part("mask", picture((64, 80)))), "mask of 80×64 does not fit"),
}  # fmt: skip


@pytest.mark.parametrize("path", ["/inpaint", "/stages", "/mask"])
def test_malformed_requests_get_400_and_a_sentence(server, path):
    assert len(MALFORMED) >= 30
    headers = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}
    for name, (body, expected) in MALFORMED.items():
        if path != "/inpaint" and name == "alpha as JPEG":
            continue  # the others answer in a form of their own
        reply = server.client.post(path, content=body, headers=headers)
        sentence = reply.json()["error"]
        assert reply.status_code == 400, (name, sentence)
        assert re.search(expected, sentence), (name, sentence)
        assert "\n" not in sentence, name
        assert "\x1b" not in sentence, name
        assert not re.search(r"(^|[ :])/\w|0x[0-9a-f]{6}|Traceback|site-packages", sentence), (name, sentence)
    good = server.client.post(path, content=form(IMAGE, HOLE), headers=headers)
    assert good.status_code == 200
    assert server.said == [line for line in server.said if "Traceback" not in line]


@pytest.mark.parametrize("kind", [None, "application/json", "multipart/form-data", "multipart/form-data; boundary="])
def test_a_body_of_another_type_gets_400(server, kind):
    headers = {} if kind is None else {"content-type": kind}
    reply = server.client.post("/inpaint", content=form(IMAGE, HOLE), headers=headers)
    assert reply.status_code == 400
    assert "send multipart/form-data" in reply.json()["error"]


def test_unknown_pages_and_methods_get_a_sentence(server):
    missing = server.client.get("/../../etc/passwd")
    assert (missing.status_code, missing.json()["error"][:21]) == (404, "there is no such page")
    wrong = server.client.get("/inpaint")
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "POST")
    assert "use POST" in wrong.json()["error"]


def test_a_body_above_the_limit_gets_413_however_it_is_sent(start):
    headers = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}
    body = form(part("image", bytes(3 * 2**20)), HOLE)
    with start("--max-upload", "1") as server:
        declared = server.client.post("/inpaint", content=body, headers=headers)
        pieces = (body[i : i + 65536] for i in range(0, len(body), 65536))
        chunked = server.client.post("/inpaint", content=pieces, headers=headers)
        assert server.client.post("/inpaint", content=form(IMAGE, HOLE), headers=headers).status_code == 200
    for reply in (declared, chunked):
        assert reply.status_code == 413
        assert "larger than 1 MiB" in reply.json()["error"]


def test_what_is_no_http_does_not_end_the_server(server):
    host, port = server.url.removeprefix("http://").split(":")
    for junk in (b"\0" * 100, b"GET / HTTP/9.9\r\n\r\n", b"POST /inpaint HTTP/1.1\r\nContent-Length: -1\r\n\r\n"):
        with socket.create_connection((host, int(port)), 10) as connection:
            connection.sendall(junk)
            connection.recv(4096)
    assert server.client.get("/health").json()["status"] == "ok"
