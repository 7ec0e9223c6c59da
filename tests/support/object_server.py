"""An S3 server for tests: moto's, over HTTP on this machine, like MinIO or Amazon's."""

import contextlib
import logging
import os
from collections.abc import Iterator
from unittest import mock

import boto3
import s3fs
from moto.server import ThreadedMotoServer

SECRETS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")


@contextlib.contextmanager
def serving(bucket: str) -> Iterator[str]:
    """A bucket of one server; within, `s3://` means it, in this process and in those that it starts."""
    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # it has a line for each request
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    settings = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        **dict.fromkeys(SECRETS, "tests"),
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    try:
        with mock.patch.dict(os.environ, settings):
            s3fs.S3FileSystem.clear_instance_cache()  # those know another server
            boto3.client("s3").create_bucket(Bucket=bucket)
            yield f"s3://{bucket}"
    finally:
        s3fs.S3FileSystem.clear_instance_cache()
        server.stop()
