# showface on TensorRT, to build engines and to run them. Unverified: neither built nor run on a GPU yet.
#   docker build -f docker/tensorrt.Dockerfile -t showface:tensorrt .
#   docker run --gpus all -v "$PWD/bundle:/bundle" showface:tensorrt build /bundle --backend tensorrt
#   docker run --gpus all -v "$PWD/bundle:/bundle" -p 127.0.0.1:8080:8080 showface:tensorrt
# Engines run in the version that built them: for Triton start from the image that Triton's release names.
FROM python:3.12-slim

RUN apt-get update && apt-get install -y --no-install-recommends libgl1 libglib2.0-0 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
# TensorRT's libraries lie on NVIDIA's own index.
RUN pip install --no-cache-dir -c constraints.txt --extra-index-url https://pypi.nvidia.com '.[tensorrt,serve]' \
 && rm -rf /src

RUN useradd --create-home --uid 10001 showface
USER showface
WORKDIR /home/showface
ENV ORT_DISABLE_TELEMETRY=1 NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --start-period=60s CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8080/health', timeout=5)"]
ENTRYPOINT ["showface"]
CMD ["serve", "--host", "0.0.0.0", "--bundle", "/bundle", "--backend", "tensorrt"]
