"""Many clients at once: batches, a bounded queue, clients that go, and an end that loses nothing."""

import asyncio
import re
import signal
import socket
import time
from contextlib import ExitStack

import httpx
import pytest


def metric(server, name):
    found = re.search(rf"^{re.escape(name)} (\S+)$", server.client.get("/metrics").text, re.MULTILINE)
    return float(found[1]) if found else 0.0


def send_together(server, count, files, seconds=120):
    """Return the replies to ``count`` requests that are sent at once."""

    async def run():
        limits = httpx.Limits(max_connections=count)
        async with httpx.AsyncClient(base_url=server.url, timeout=seconds, limits=limits) as client:
            return await asyncio.gather(*(client.post("/inpaint", files=files) for _ in range(count)))

    return asyncio.run(run())


@pytest.fixture
def files(faces, encode):
    face, hole = faces[0]
    return {"image": ("a.png", encode(face)), "mask": ("m.png", encode(hole))}


def test_requests_that_come_together_go_through_the_networks_together(start, files):
    with start("--batch-size", "4", "--batch-wait", "500") as server:
        replies = send_together(server, 4, files)
        alone = server.client.post("/inpaint", files=files)
        batches = metric(server, "showface_batch_faces_count")
        faces = metric(server, "showface_batch_faces_sum")
    assert {reply.content for reply in replies} == {alone.content}
    assert faces == 1 + 4 + 1  # the warm-up's, those together, the one alone
    assert batches < faces


def test_above_the_queue_the_answer_is_503_with_a_time_to_come_back(start, files):
    with start("--queue", "2") as server:
        replies = send_together(server, 40, files)
        statuses = [reply.status_code for reply in replies]
        assert set(statuses) == {200, 503}
        for reply in replies:
            if reply.status_code == 503:
                assert 1 <= int(reply.headers["retry-after"]) <= 120
                assert "busy with 2 requests; send it again in" in reply.json()["error"]
        assert metric(server, "showface_requests_in_flight") == 0
        assert metric(server, 'showface_requests_total{path="/inpaint",status="503"}') == statuses.count(503)
        assert server.client.post("/inpaint", files=files).status_code == 200


def test_a_client_that_goes_costs_nothing(start, files):
    request = httpx.Request("POST", "http://server/inpaint", files=files)
    body = request.read()
    head = f"POST /inpaint HTTP/1.1\r\nHost: x\r\nContent-Type: {request.headers['content-type']}\r\n"
    with start("--queue", "4", "--batch-size", "8", "--batch-wait", "1000") as server:
        host, port = server.url.removeprefix("http://").split(":")
        before = metric(server, "showface_batch_faces_sum")
        gone = 0
        for cut in (len(body), len(body) // 2, 0):  # while it waits for its batch, in its body, before it
            with ExitStack() as connections:
                for _ in range(3):
                    connection = connections.enter_context(socket.create_connection((host, int(port)), 10))
                    connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body[:cut])
                time.sleep(0.3)
            gone += 3
            deadline = time.monotonic() + 300
            while metric(server, "showface_requests_abandoned_total") < gone and time.monotonic() < deadline:
                time.sleep(0.02)
        assert metric(server, "showface_requests_abandoned_total") == 9
        assert metric(server, "showface_requests_in_flight") == 0
        assert server.client.post("/inpaint", files=files).status_code == 200
        assert metric(server, "showface_batch_faces_sum") == before + 1  # nobody else's face was completed


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_the_server_once_everything_in_flight_is_answered(start, files, number, code):
    async def run(server):
        async with httpx.AsyncClient(base_url=server.url, timeout=300) as client:
            requests = [asyncio.create_task(client.post("/inpaint", files=files)) for _ in range(5)]
            while (await client.get("/health")).json()["in_flight"] < 5:
                await asyncio.sleep(0.02)
            server.process.send_signal(number)
            return await asyncio.gather(*requests)

    with start("--batch-size", "8", "--batch-wait", "1000") as server:
        replies = asyncio.run(run(server))
        assert [reply.status_code for reply in replies] == [200] * 5
        assert server.stop(number) == code
        assert "Traceback" not in server.text
        with pytest.raises(httpx.ConnectError):
            httpx.get(server.url)


def test_a_second_signal_ends_it_at_once(start, files):
    with start("--queue", "4") as server:
        host, port = server.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), 10) as connection:  # a body that never comes
            head = "POST /inpaint HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n"
            connection.sendall(f"{head}Content-Type: multipart/form-data; boundary=x\r\n\r\n".encode())
            while server.client.get("/health").json()["in_flight"] < 1:
                time.sleep(0.02)
            server.process.send_signal(signal.SIGTERM)
            time.sleep(1)
            assert server.process.poll() is None
            started = time.monotonic()
            assert server.stop(signal.SIGTERM) == 143
            assert time.monotonic() - started < 10
