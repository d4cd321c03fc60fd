# showface on a CPU. Unverified: not built yet.
#   docker build -f docker/cpu.Dockerfile -t showface . && docker run -p 127.0.0.1:8080:8080 showface
FROM python:3.12-slim

WORKDIR /src
COPY . .
# onnxruntime-gpu runs on a CPU too, but is ten times as large. The headless OpenCV needs no libraries of a desktop.
RUN pip install --no-cache-dir --no-deps . \
 && pip install --no-cache-dir -c constraints.txt numpy pillow typer rich onnxruntime==1.31.1 opencv-python-headless \
    starlette uvicorn python-multipart \
 && rm -rf /src

RUN useradd --create-home --uid 10001 showface
USER showface
WORKDIR /home/showface
ENV ORT_DISABLE_TELEMETRY=1
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --start-period=30s CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8080/health', timeout=5)"]
ENTRYPOINT ["showface"]
CMD ["serve", "--host", "0.0.0.0"]
