"""The routes in this process: what a fault of the server looks like from outside, its counters, and its page."""

import asyncio
import re
from contextlib import nullcontext
from types import SimpleNamespace

import httpx
import pytest

from showface.runtime.server.app import PAGE, make_app
from showface.runtime.server.metrics import Metrics
from showface.runtime.server.service import Limits

FILES = {"image": ("a", b"x"), "mask": ("b", b"y")}


@pytest.fixture
def service():
    """Return what stands in for a service: it fails with an error that names a path."""

    async def fail(form):
        raise RuntimeError("/secret/place/model.onnx is gone")

    return SimpleNamespace(
        complete=fail,
        stages=fail,
        mask=fail,
        admitted=nullcontext,
        metrics=Metrics(),
        limits=Limits(),
        in_flight=0,
        finds_occlusions=False,
    )


def ask(service, method, path, **options):
    async def run():
        transport = httpx.ASGITransport(make_app(service), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
            return await client.request(method, path, **options)

    return asyncio.run(run())


@pytest.mark.parametrize("path", ["/inpaint", "/stages", "/mask"])
def test_a_fault_of_the_server_is_told_in_its_log_alone(service, caplog, path):
    reply = ask(service, "POST", path, files=FILES)
    assert reply.status_code == 500
    assert reply.json() == {"error": "the server failed on this request; its own log tells why"}
    assert "/secret/place/model.onnx is gone" in caplog.text
    assert f'showface_requests_total{{path="{path}",status="500"}} 1' in service.metrics.text(0, 1)


@pytest.mark.parametrize(("lost", "status", "text"), [(False, 200, "ok"), (True, 503, "device lost")])
def test_the_health_tells_a_lost_device(service, lost, status, text):
    service.device_lost = lost
    service.inpainter = SimpleNamespace(chain=SimpleNamespace(device="cuda"), bundle_digest="0", image_size=256)
    reply = ask(service, "GET", "/health")
    assert (reply.status_code, reply.json()["status"]) == (status, text)


def test_every_file_of_the_page_is_served_and_loads_only_its_own(service):
    for path in PAGE:
        reply = ask(service, "GET", path)
        assert reply.status_code == 200
        assert "default-src 'none'" in reply.headers["content-security-policy"]
        if "image" not in reply.headers["content-type"]:
            assert not re.search(r"(https?:)?//[a-z]+\.", reply.text.replace("http://www.w3.org", ""))
    html = ask(service, "GET", "/").text
    for name in re.findall(r'(?:src|href)="(/[^"]*)"', html):
        assert name in PAGE


def test_the_counters_are_cumulative_and_complete():
    metrics = Metrics()
    for status, seconds in ((200, 0.03), (200, 0.3), (200, 70.0), (400, 1.0)):
        metrics.request("/inpaint", status, seconds)
    metrics.batch(3)
    metrics.abandoned()
    text = metrics.text(2, 32)
    buckets = [int(n) for n in re.findall(r'showface_request_seconds_bucket\{le="[^"]+"\} (\d+)', text)]
    assert buckets == sorted(buckets)
    assert (buckets[0], buckets[1], buckets[-1]) == (0, 1, 3)
    assert "showface_request_seconds_count 3" in text
    assert "showface_request_seconds_sum 70.33" in text
    assert 'showface_batch_faces_bucket{le="2"} 0' in text
    assert 'showface_batch_faces_bucket{le="4"} 1' in text
    assert "showface_requests_abandoned_total 1" in text
    assert metrics.mean_seconds == pytest.approx(70.33 / 3)
    for line in text.splitlines():
        assert re.fullmatch(r'# (HELP|TYPE) \w+ .+|\w+(\{\w+="[^"]*"(,\w+="[^"]*")*\})? [0-9.]+', line), line
