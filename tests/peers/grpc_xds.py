"""gRPC programs of a mesh that have no proxy beside them.

grpc_xds.py server PORT NAME
grpc_xds.py watch TARGET

The server answers every call with its name. `watch` calls TARGET (such as xds:///orders.shop:8080) over and over, with the
xDS client that grpcio has built in, and prints OK and the answer, or the status and what is said of it, a line per call.
"""

import sys
import time
from concurrent import futures

import grpc

WAIT = 20


class Named(grpc.GenericRpcHandler):
    """Every method of every service."""

    def __init__(self, name):
        self.name = name

    def service(self, details):
        return grpc.unary_unary_rpc_method_handler(self.answer)

    def answer(self, request, context):
        return self.name.encode()


def serve(port, name):
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=8))
    server.add_generic_rpc_handlers((Named(name),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    server.wait_for_termination()


def watch(target):
    # Where the mesh says nothing about TLS, there is none.
    credentials = grpc.xds_channel_credentials(grpc.experimental.insecure_channel_credentials())
    channel = grpc.secure_channel(target, credentials)
    call = channel.unary_unary("/test.Echo/Unary")
    while True:
        try:
            print("OK", call(b"", timeout=WAIT).decode(), flush=True)
        except grpc.RpcError as error:
            print(error.code().name, error.details(), flush=True)
        time.sleep(0.02)


if __name__ == "__main__":
    import grpc.experimental

    if sys.argv[1] == "server":
        serve(sys.argv[2], sys.argv[3])
    else:
        watch(sys.argv[2])
