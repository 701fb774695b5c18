# The page of `ttd app` on port 7860, for everybody who can reach it; put a proxy with TLS in front (docs/app.md).
#   docker build -t ttd . && docker run --rm -p 7860:7860 --stop-timeout 30 ttd
#   docker run --rm -p 7860:7860 -e TTD_APP_PASSWORD=... ttd app --host 0.0.0.0 --user anna
FROM python:3.11-slim

ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 HOME=/home/ttd
RUN useradd --create-home --uid 1000 ttd
WORKDIR /srv/ttd

# torch for processors; for NVIDIA cards build with --build-arg TORCH_INDEX=https://pypi.org/simple
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
COPY pyproject.toml constraints.txt README.md LICENSE NOTICE ./
COPY src src
RUN pip install --index-url "$TORCH_INDEX" --constraint constraints.txt torch \
    && pip install --constraint constraints.txt '.[app]'

# A number, so that the host can see that it is not root.
USER 1000
EXPOSE 7860
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:7860/healthz', timeout=4)"]
ENTRYPOINT ["ttd"]
CMD ["app", "--host", "0.0.0.0", "--public"]
