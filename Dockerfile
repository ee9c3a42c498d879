# The search API, the app and the batch jobs in one image; `docker compose up` starts them beside a Redis.
FROM python:3.11-slim
WORKDIR /srv/binsight
COPY pyproject.toml constraints.txt README.md CHANGELOG.md LICENSE ./
COPY src src
RUN pip install --no-cache-dir -c constraints.txt '.[cpu,redis,s3,api,app]'
COPY models models
# With its export beside it a model is served without torch.
RUN binsight export --model models/bins-mobilenetv2 --format openvino
RUN useradd --create-home --uid 10001 binsight && mkdir /var/cache/binsight && chown binsight /var/cache/binsight
USER binsight
ENV BINSIGHT_CACHE=/var/cache/binsight OMP_WAIT_POLICY=PASSIVE
EXPOSE 8000 7860
ENTRYPOINT ["binsight"]
CMD ["--help"]
